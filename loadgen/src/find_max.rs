//! The highest rate at which a bound holds: doubled until it does not, then halved in between. Pure.

/// A search that is asked for the next rate and told whether it held.
#[derive(Clone, Debug)]
pub struct Search {
    /// The highest rate that held; 0: none yet.
    held: f64,
    /// The lowest that did not.
    failed: Option<f64>,
    next: f64,
    /// It ends when the two are closer than this share.
    precision: f64,
    /// It goes no higher.
    most: f64,
}

/// Below this nothing is searched.
const RATE_PER_S_MIN: f64 = 1.0;

impl Search {
    /// Begins at `from`; ends when the answer is known to `precision` (0.05: five per cent).
    pub fn new(from: f64, most: f64, precision: f64) -> Search {
        let next = from.clamp(RATE_PER_S_MIN, most);
        Search { held: 0.0, failed: None, next, precision, most }
    }

    /// The rate to try; `None` at the end.
    pub fn next(&self) -> Option<f64> {
        let is_known = match self.failed {
            Some(failed) => failed <= RATE_PER_S_MIN || failed - self.held <= self.precision * failed,
            None => self.held >= self.most,
        };
        (!is_known).then_some(self.next)
    }

    /// Whether the bound held at the rate that was tried.
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

    /// The highest rate that held, if one did.
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
