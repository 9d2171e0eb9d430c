//! Whether the machine had so much to do that times say nothing about the nodes.
//!
//! The run tells how long the threads of nodes waited for a processor each time that they wanted to run. A bound on a time
//! that was passed while they waited long is not held against the nodes, and is told as not judged. Nothing else is
//! excused: a record that is lost stays lost however busy the machine was.

/// Mean wait for a processor over a whole time, in microseconds, above which that time says nothing. On a machine with two
/// processors that five nodes and their clients had for themselves, it was 1 ms.
const MEAN_US_MAX: u64 = 20_000;
/// Greatest wait within half a second, in microseconds, above which the whole time around it says nothing.
const LONGEST_US_MAX: u64 = 200_000;

/// A time of the run, and how long the thread that waited longest waited in it each time that it wanted to run.
#[derive(Clone, Copy, Debug)]
struct Wait {
    from_us: u64,
    until_us: u64,
    waited_us: u64,
}

/// Waits for a processor over the whole run.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    all: Vec<Wait>,
}

/// How long the threads of nodes waited for a processor each time that they wanted to run. Each half second counts with
/// the thread that waited longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Scarcity {
    /// Mean over the time, in microseconds.
    pub mean_us: u64,
    /// The worst half second, in microseconds.
    pub longest_us: u64,
}

impl Scarcity {
    /// Returns whether no time can be held against the nodes.
    pub fn is_too_great(&self) -> bool {
        self.mean_us > MEAN_US_MAX || self.longest_us > LONGEST_US_MAX
    }
}

impl Waits {
    /// Notes how long the thread waited that waited longest since the note before.
    pub(crate) fn handle_waited(&mut self, at_us: u64, waited_us: u64) {
        let from_us = self.all.last().map_or(at_us, |wait| wait.until_us);
        self.all.push(Wait { from_us, until_us: at_us, waited_us });
    }

    /// Returns whether the machine was so busy between two times that no time can be held against the nodes.
    pub(crate) fn is_scarce(&self, from_us: u64, until_us: u64) -> bool {
        self.within(from_us, until_us).is_too_great()
    }

    /// Returns how scarce the processor was between two times.
    pub(super) fn within(&self, from_us: u64, until_us: u64) -> Scarcity {
        let some = self.all.iter().filter(|wait| wait.until_us >= from_us && wait.from_us <= until_us);
        let mut scarcity = Scarcity::default();
        let (mut count, mut waited_us) = (0, 0);
        for wait in some {
            count += 1;
            waited_us += wait.waited_us;
            scarcity.longest_us = scarcity.longest_us.max(wait.waited_us);
        }
        scarcity.mean_us = waited_us / std::cmp::max(count, 1);
        scarcity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_excuse_the_time_around_them_and_no_other() {
        let mut waits = Waits::default();
        for second in 0..20_u64 {
            waits.handle_waited(second * 1_000_000, if second == 10 { 900_000 } else { 3_000 });
        }
        assert!(waits.is_scarce(8_500_000, 9_500_000));
        assert!(waits.is_scarce(0, 20_000_000), "a long wait in one piece");
        assert!(!waits.is_scarce(0, 8_500_000));
        assert!(!waits.is_scarce(10_500_000, 20_000_000));
    }

    #[test]
    fn many_short_waits_excuse_too() {
        let mut waits = Waits::default();
        (0..20_u64).for_each(|second| waits.handle_waited(second * 1_000_000, 30_000));
        assert!(waits.is_scarce(5_000_000, 9_000_000));
        assert_eq!(waits.within(5_000_000, 9_000_000).longest_us, 30_000);
    }

    #[test]
    fn nothing_is_excused_where_nothing_was_measured() {
        assert!(!Waits::default().is_scarce(0, u64::MAX));
    }
}
