//! Searches the highest rate at which a bound holds: the rate is doubled until the bound does not hold, then
//! the interval is halved. Pure: the caller runs the load.
//!
//! A single run is decided by chance where the bound nearly holds: by another program, or by a timer of the server. So
//! most of several runs decide about a rate ([`Trials`]), and the rate that was found is run more often at the end, to
//! say how sure it is.

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

/// The runs at one rate, and what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// Number of runs in which the bound held.
    pub held: u32,
    /// Number of all runs.
    pub runs: u32,
}

impl Trials {
    /// Notes a run.
    pub fn note(&mut self, is_held: bool) {
        self.held += u32::from(is_held);
        self.runs += 1;
    }

    /// Returns whether the bound holds at this rate, once most of `of` runs say the same; `None` before that.
    pub fn verdict(&self, of: u32) -> Option<bool> {
        let most = of / 2 + 1;
        let failed = self.runs - self.held;
        match (self.held >= most, failed >= most || (failed > 0 && self.runs >= of)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// The share of runs in which the bound holds at least, which is wrong with a probability of 5 % only: the lower
    /// bound of Clopper and Pearson, to a thousandth.
    pub fn share_min(&self) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        while high - low > 0.000_5 {
            let share = f64::midpoint(low, high);
            // If the bound held in this share of all runs, so many of these would rarely have held.
            match self.at_least(share) < 0.05 {
                true => low = share,
                false => high = share,
            }
        }
        low
    }

    /// Probability that at least as many runs hold as did, if each holds with the probability `share`.
    fn at_least(&self, share: f64) -> f64 {
        let mut sum = 0.0;
        let mut ways = 1.0;
        for held in 0..=self.runs {
            if held >= self.held {
                sum += ways * share.powi(held as i32) * (1.0 - share).powi((self.runs - held) as i32);
            }
            ways *= f64::from(self.runs - held) / f64::from(held + 1);
        }
        sum
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

    fn trials(held: u32, runs: u32) -> Trials {
        Trials { held, runs }
    }

    #[test]
    fn most_runs_decide_and_no_more_are_made_than_needed() {
        assert_eq!(trials(1, 1).verdict(1), Some(true));
        assert_eq!(trials(0, 1).verdict(1), Some(false));
        assert_eq!(trials(1, 1).verdict(3), None);
        assert_eq!(trials(2, 2).verdict(3), Some(true));
        assert_eq!(trials(0, 2).verdict(3), Some(false));
        assert_eq!(trials(1, 2).verdict(3), None);
        assert_eq!(trials(1, 3).verdict(3), Some(false));
        assert_eq!(trials(2, 3).verdict(3), Some(true));
        // Of an even number, half is not most.
        assert_eq!((trials(1, 2).verdict(2), trials(2, 4).verdict(4)), (Some(false), Some(false)));
        for of in 1..12 {
            for failed in 0..=of {
                assert!(trials(of - failed, of).verdict(of).is_some(), "{failed} of {of}");
            }
        }
    }

    #[test]
    fn the_more_runs_hold_the_surer_it_is() {
        let near = |trials: Trials, share: f64| (trials.share_min() - share).abs() < 0.001;
        // 0.05^(1/n) for n of n, and 0 for none.
        assert!(near(trials(1, 1), 0.05) && near(trials(5, 5), 0.549) && near(trials(10, 10), 0.741));
        assert!(near(trials(0, 5), 0.0) && near(trials(9, 10), 0.606) && near(trials(4, 5), 0.343));
    }
}
