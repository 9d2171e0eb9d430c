//! Zipf's law: rank `k` of `n` is drawn with a probability in proportion to `1 / k^s`.
//!
//! By rejection from the integral of `1 / x^s`, which can be inverted (W. Hörmann, G. Derflinger,
//! "Rejection-inversion to generate variates from monotone discrete distributions", 1996): constant
//! memory and time however many ranks there are.

use crate::random::Random;

/// Draws ranks by Zipf's law.
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: u64,
    exponent: f64,
    /// The integral at the left end of the range from which numbers are drawn.
    low: f64,
    /// The integral at the right end of the range from which numbers are drawn.
    high: f64,
}

impl Zipf {
    /// Makes a law over ranks 1 … `ranks` (at least one), with an exponent of at least 0.
    pub fn new(ranks: u64, exponent: f64) -> Zipf {
        let ranks = ranks.max(1);
        // Rank 1 has the area of height 1 and width 1 to the left of the curve, which begins at 1.5.
        let low = integral(1.5, exponent) - 1.0;
        Zipf { ranks, exponent, low, high: integral(ranks as f64 + 0.5, exponent) }
    }

    /// Draws a rank, counted from 0, which is the most frequent one.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let at = self.high + random.unit() * (self.low - self.high);
            let x = inverse(at, self.exponent);
            let rank = (x + 0.5).floor().clamp(1.0, self.ranks as f64);
            // Accept if the point lies in the bar of this rank, whose right end is on the integral.
            if at >= integral(rank + 0.5, self.exponent) - (-self.exponent * rank.ln()).exp() {
                return rank as u64 - 1;
            }
        }
    }
}

/// Returns the integral of `x^-s`, up to a constant.
fn integral(x: f64, s: f64) -> f64 {
    let log = x.ln();
    let power = (1.0 - s) * log;
    // (e^power - 1) / (1 - s) without losing digits near s = 1.
    if power.abs() < 1e-8 { log * (1.0 + power / 2.0) } else { power.exp_m1() / (1.0 - s) }
}

/// Returns the x whose [`integral`] is `y`.
fn inverse(y: f64, s: f64) -> f64 {
    let scaled = (y * (1.0 - s)).max(-1.0);
    if scaled.abs() < 1e-8 { (y * (1.0 - scaled / 2.0)).exp() } else { (scaled.ln_1p() / (1.0 - s)).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_law() {
        for exponent in [0.0, 0.5, 0.99, 1.0, 1.01, 1.5, 2.5] {
            let ranks = 50;
            let zipf = Zipf::new(ranks, exponent);
            let mut random = Random::new(7, 1);
            let draws = 20_000;
            let mut counts = vec![0u32; ranks as usize];
            for _ in 0..draws {
                counts[zipf.draw(&mut random) as usize] += 1;
            }
            let total: f64 = (1..=ranks).map(|k| (k as f64).powf(-exponent)).sum();
            for (at, &count) in counts.iter().enumerate() {
                let wanted = draws as f64 * (at as f64 + 1.0).powf(-exponent) / total;
                let off = (f64::from(count) - wanted).abs();
                assert!(
                    off < 6.0 * wanted.sqrt() + 1.0,
                    "s={exponent} rank={at}: {count}, wanted {wanted:.1}"
                );
            }
        }
    }

    #[test]
    fn a_single_rank_is_always_drawn() {
        let mut random = Random::new(1, 1);
        assert!((0..100).all(|_| Zipf::new(1, 1.2).draw(&mut random) == 0));
    }
}
