//! Searches the highest rate at which a bound holds: the rate is doubled until the bound does not hold, then
//! the interval is halved. Pure: the caller runs the load.

/// A search that is asked for the next rate, and told whether the bound held at it.
#[derive(Clone, Debug)]
pub struct Search {
    /// The highest rate at which the bound held; 0: none yet.
    held: f64,
    /// The lowest rate at which the bound did not hold; `None`: there is none yet.
    failed: Option<f64>,
    next: f64,
    /// The search ends when `held` and `failed` differ by less than this fraction.
    precision: f64,
    /// The highest rate that is tried.
    most: f64,
}

/// The lowest rate that is tried, in messages per second.
const RATE_PER_S_MIN: f64 = 1.0;

impl Search {
    /// Begins at the rate `from`; ends when the answer is known to `precision` (0.05: five per cent).
    pub fn new(from: f64, most: f64, precision: f64) -> Search {
        let next = from.clamp(RATE_PER_S_MIN, most);
        Search { held: 0.0, failed: None, next, precision, most }
    }

    /// Returns the rate to try next; `None`: the search has ended.
    pub fn next(&self) -> Option<f64> {
        let is_known = match self.failed {
            Some(failed) => failed <= RATE_PER_S_MIN || failed - self.held <= self.precision * failed,
            None => self.held >= self.most,
        };
        (!is_known).then_some(self.next)
    }

    /// Notes whether the bound held at a rate.
    pub fn note(&mut self, rate_per_s: f64, is_held: bool) {
        if is_held {
            self.held = self.held.max(rate_per_s);
        } else {
            self.failed = Some(self.failed.map_or(rate_per_s, |failed| failed.min(rate_per_s)));
        }
        self.next = match self.failed {
            None => (self.held * 2.0).min(self.most),
            Some(failed) if self.held == 0.0 => (failed / 2.0).max(RATE_PER_S_MIN),
            Some(failed) => f64::midpoint(self.held, failed),
        };
    }

    /// Returns the highest rate at which the bound held, if there is one.
    pub fn found(&self) -> Option<f64> {
        (self.held > 0.0).then_some(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_a_limit_to_its_precision(limit in 2.0f64..10_000_000.0, from in 1.0f64..1_000_000.0) {
            let mut search = Search::new(from, 1e9, 0.05);
            let mut runs = 0;
            while let Some(rate) = search.next() {
                search.note(rate, rate <= limit);
                runs += 1;
                prop_assert!(runs < 60);
            }
            let found = search.found().expect("a rate");
            prop_assert!(found <= limit && found > limit * 0.9, "{found} of {limit} in {runs}");
        }
    }

    #[test]
    fn ends_where_nothing_holds_and_where_all_does() {
        let mut search = Search::new(1_000.0, 1e6, 0.05);
        while let Some(rate) = search.next() {
            search.note(rate, false);
        }
        assert_eq!(search.found(), None);
        let mut search = Search::new(1_000.0, 50_000.0, 0.05);
        while let Some(rate) = search.next() {
            search.note(rate, true);
        }
        assert_eq!(search.found(), Some(50_000.0));
    }
}
