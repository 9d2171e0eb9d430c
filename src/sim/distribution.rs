//! Counts how often each number occurred. Numbers are exact to 0.8 %, and a distribution takes a few
//! kilobytes.

/// Numbers below this are kept exactly; above, every power of two is divided into this many steps.
const STEPS: u64 = 128;
/// Binary logarithm of [`STEPS`].
const STEPS_LOG: u32 = 7;

/// Counts of how often each number occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Distribution {
    /// Counts one occurrence of a number.
    pub fn add(&mut self, number: u64) {
        let place = place_of(number);
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        self.total += 1;
        self.max = self.max.max(number);
    }

    /// Adds the counts of another distribution.
    pub fn merge(&mut self, other: &Distribution) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Returns how many numbers were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Returns the greatest number, exactly; 0 if none was counted.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Returns the number that a share of all numbers (0 to 1) do not exceed: at most 0.8 % too great, and 0
    /// if none was counted.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return greatest_of(place).min(self.max);
            }
        }
        self.max
    }
}

fn place_of(number: u64) -> usize {
    if number < STEPS {
        return number as usize;
    }
    let power = 63 - number.leading_zeros();
    let step = (number >> (power - STEPS_LOG)) - STEPS;
    (u64::from(power - STEPS_LOG + 1) * STEPS + step) as usize
}

fn greatest_of(place: usize) -> u64 {
    let (power, step) = (place as u64 / STEPS, place as u64 % STEPS);
    if power == 0 {
        return step;
    }
    let width = power - 1;
    ((STEPS + step) << width) + ((1u64 << width) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_and_never_too_small() {
        let mut histogram = Distribution::default();
        let numbers: Vec<u64> = (0..10_000u64).map(|n| n * n / 7 + n % 3).collect();
        numbers.iter().rev().for_each(|&number| histogram.add(number));
        for (share, rank) in [(0.0, 1), (0.5, 5_000), (0.99, 9_900), (0.999, 9_990), (1.0, 10_000)] {
            let (exact, near) = (numbers[rank - 1], histogram.quantile(share));
            assert!(near >= exact && near as f64 <= exact as f64 * 1.008, "{share}: {near} for {exact}");
        }
        assert_eq!((histogram.count(), histogram.max()), (10_000, numbers[9_999]));
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.count(), twice.quantile(0.5)), (20_000, histogram.quantile(0.5)));
    }

    #[test]
    fn every_number_has_its_place() {
        for number in (0..70_000).chain([u64::from(u32::MAX), u64::MAX / 2, u64::MAX]) {
            let place = place_of(number);
            assert!(greatest_of(place) >= number);
            assert!(place == 0 || greatest_of(place - 1) < number);
        }
    }
}
