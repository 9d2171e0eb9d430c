//! Timestamps of records that the user publishes without one.
//!
//! The client gives every record its timestamp before the record is sent. So a record whose answer was lost can be
//! sent again, to any node, and is the same record there. A timestamp is at least the wall clock, greater than all
//! earlier ones of this client, and greater than any of its source that this client knows of.

use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::AnodeError;

/// The greatest timestamp there is.
const TS_MAX: u64 = (1 << 53) - 1;
/// Sources whose timestamps are ahead of the clock and remembered; more are forgotten, the oldest first.
const AHEAD_MAX: usize = 65_536;

/// Returns the wall clock in microseconds since the Unix epoch.
pub(crate) fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(TS_MAX)
}

/// The clock of one client.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    last: u64,
    /// How far the nodes' clock is behind this machine's, in microseconds.
    behind_us: u64,
    ahead: HashMap<String, u64>,
    /// The sources in `ahead`, and some that are in it no more, in the order in which they came.
    order: VecDeque<String>,
}

impl Stamps {
    /// Returns a timestamp for a new record of the source.
    pub(crate) fn next(&mut self, source: &str, wall_us: u64) -> Result<u64, AnodeError> {
        let now = wall_us.saturating_sub(self.behind_us).max(self.last + 1);
        self.last = now;
        match self.ahead.get_mut(source) {
            None => Ok(now),
            Some(known) if *known < now => {
                self.ahead.remove(source);
                Ok(now)
            }
            Some(known) if *known >= TS_MAX => {
                let message = format!("the latest ts of {source:?} is the greatest there is");
                Err(AnodeError::new("future_timestamp", message))
            }
            Some(known) => {
                *known += 1;
                Ok(*known)
            }
        }
    }

    /// Notes that the source has a record with this timestamp.
    pub(crate) fn learn(&mut self, source: &str, ts: u64) {
        if ts <= self.last {
            return;
        }
        if let Some(known) = self.ahead.get_mut(source) {
            *known = ts.max(*known);
            return;
        }
        if self.order.len() >= AHEAD_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ahead.remove(&oldest);
        }
        self.order.push_back(source.to_owned());
        self.ahead.insert(source.to_owned(), ts);
    }

    /// Notes the time of a node, after it has refused a timestamp of this clock as too far ahead.
    pub(crate) fn handle_node_clock(&mut self, ts: u64, wall_us: u64) {
        self.behind_us = wall_us.saturating_sub(ts);
        // Earlier timestamps were refused, so none of them needs to be exceeded.
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        let mut stamps = Stamps::default();
        let walls = [100, 100, 90, 200, 150];
        let got: Vec<u64> = walls.iter().map(|wall| stamps.next("a", *wall).expect("ts")).collect();
        assert_eq!(got, [100, 101, 102, 200, 201]);
    }

    #[test]
    fn a_source_that_is_ahead_pushes_no_other() {
        let mut stamps = Stamps::default();
        stamps.learn("a", 500);
        assert_eq!(stamps.next("a", 100), Ok(501));
        assert_eq!(stamps.next("a", 100), Ok(502));
        assert_eq!(stamps.next("b", 100), Ok(102));
        assert_eq!(stamps.next("a", 600), Ok(600));
        stamps.learn("c", TS_MAX);
        assert_eq!(stamps.next("c", 601).expect_err("none is left").code, "future_timestamp");
    }

    #[test]
    fn a_clock_that_is_ahead_is_put_right() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.next("a", 50_000), Ok(50_000));
        stamps.handle_node_clock(20_000, 50_010);
        assert_eq!(stamps.next("a", 50_020), Ok(20_010));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut stamps = Stamps::default();
        for n in 0..AHEAD_MAX + 10 {
            stamps.learn(&format!("s/{n}"), 1_000);
        }
        assert!(stamps.ahead.len() <= AHEAD_MAX && stamps.order.len() <= AHEAD_MAX);
    }
}
