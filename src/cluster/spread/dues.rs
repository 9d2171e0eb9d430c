//! The times at which the parts of one link count as not acknowledged.
//!
//! A link's parts are due nearly in the order in which they are sent, so a queue holds their times in order
//! with one step a part. Among the timers of all links each link stands once, for the first of its times.
//! Rejected: a timer for every part in one heap, where each part costs some dozens of steps that depend on one
//! another, although nearly all parts are settled long before they are due.

use std::collections::VecDeque;

use super::unsettled::Unsettled;

/// Fewest times in the queue at which those of settled parts are looked for and dropped. There are at most
/// four times as many times as unsettled parts, or this many.
const TIMES_MIN: usize = 64;

/// The times of one link's parts, in microseconds on the monotonic clock. A time is never taken back: one that
/// is no longer that of an unsettled part is passed over.
#[derive(Debug, Default)]
pub(super) struct Dues {
    /// Times with the numbers of their parts, ascending.
    times: VecDeque<(u64, u64)>,
    /// Time for which a timer is set for this link; 0: none is set.
    armed_us: u64,
}

impl Dues {
    /// Adds the time of a part.
    pub fn push(&mut self, unsettled: &Unsettled, due_us: u64, number: u64) {
        if self.times.len() >= TIMES_MIN.max(4 * unsettled.len()) {
            self.times.retain(|time| is_current(unsettled, *time));
        }
        let time = (due_us, number);
        if self.times.back().is_none_or(|last| *last < time) {
            if self.times.capacity() == 0 {
                // Most links never have more than one.
                self.times.reserve_exact(1);
            }
            return self.times.push_back(time);
        }
        let at = self.times.partition_point(|other| *other < time);
        self.times.insert(at, time);
    }

    /// Returns for when a timer must be set, in microseconds; it counts as set from now on. `None`: no timer
    /// must be set.
    pub fn arm(&mut self, unsettled: &Unsettled) -> Option<u64> {
        let (due_us, _) = self.first(unsettled)?;
        let is_set = self.armed_us != 0 && self.armed_us <= due_us;
        (!is_set).then(|| {
            self.armed_us = due_us;
            due_us
        })
    }

    /// Notes that the timer that was set for `at_us` has passed, or was dropped.
    pub fn disarm(&mut self, at_us: u64) {
        if self.armed_us == at_us {
            self.armed_us = 0;
        }
    }

    /// Returns whether a part is due at `at_us` and none earlier, and a timer is set for that time.
    pub fn is_armed(&mut self, unsettled: &Unsettled, at_us: u64) -> bool {
        self.armed_us == at_us && self.first(unsettled).is_some_and(|first| first.0 == at_us)
    }

    /// Takes the first part that is due at `at_us`; returns its number, and its time in microseconds.
    pub fn pop_due(&mut self, unsettled: &Unsettled, at_us: u64) -> Option<(u64, u64)> {
        let (due_us, number) = self.first(unsettled).filter(|first| first.0 <= at_us)?;
        self.times.pop_front();
        Some((number, due_us))
    }

    /// Gives memory back, if no part is unsettled.
    pub fn tidy(&mut self, unsettled: &Unsettled) {
        if unsettled.is_empty() {
            self.times = VecDeque::new();
        }
    }

    /// The first time that is that of an unsettled part, with the number of the part. Those before it are
    /// dropped.
    fn first(&mut self, unsettled: &Unsettled) -> Option<(u64, u64)> {
        if unsettled.is_empty() {
            self.times.clear();
        }
        while let Some(first) = self.times.front().copied() {
            if is_current(unsettled, first) {
                return Some(first);
            }
            self.times.pop_front();
        }
        None
    }
}

/// Returns whether a part is unsettled and due at this time.
fn is_current(unsettled: &Unsettled, (due_us, number): (u64, u64)) -> bool {
    unsettled.get(number).is_some_and(|sent| sent.due_us == due_us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::spread::unsettled::UnsettledPart;

    /// Sends the next part, which is due at `due_us`.
    fn send(held: &mut Unsettled, dues: &mut Dues, number: u64, due_us: u64) {
        held.push(number, UnsettledPart { due_us, ..UnsettledPart::new(0, 0, 1, false) });
        dues.push(held, due_us, number);
    }

    proptest! {
        #[test]
        fn parts_are_due_in_the_order_of_a_sorted_list(
            steps in proptest::collection::vec((0u64..4, 1u64..50), 1..300),
        ) {
            let (mut held, mut dues, mut model, mut now_us) = (Unsettled::default(), Dues::default(), Vec::new(), 0);
            for (index, (what, us)) in steps.into_iter().enumerate() {
                let number = index as u64 + 1;
                match what {
                    0 => {
                        let settled = number.saturating_sub(us);
                        held.remove(settled);
                        model.retain(|(_, number)| *number != settled);
                    }
                    1 => {
                        now_us += us / 4;
                        while let Some((number, due_us)) = dues.pop_due(&held, now_us) {
                            prop_assert!(due_us <= now_us);
                            prop_assert_eq!((due_us, number), model.remove(0));
                            held.remove(number);
                        }
                        prop_assert!(model.first().is_none_or(|first: &(u64, u64)| first.0 > now_us));
                    }
                    _ => {
                        send(&mut held, &mut dues, number, now_us + us);
                        model.push((now_us + us, number));
                        model.sort_unstable();
                    }
                }
                prop_assert!(dues.times.len() <= TIMES_MIN.max(4 * held.len()) + 1);
            }
        }
    }

    #[test]
    fn a_timer_is_set_for_the_first_part_alone() {
        let (mut held, mut dues) = (Unsettled::default(), Dues::default());
        send(&mut held, &mut dues, 1, 100);
        assert_eq!((dues.arm(&held), dues.arm(&held)), (Some(100), None));
        send(&mut held, &mut dues, 2, 110);
        assert_eq!(dues.arm(&held), None, "a later one changes nothing");
        send(&mut held, &mut dues, 3, 90);
        assert_eq!(dues.arm(&held), Some(90));
        held.remove(3);
        assert!(!dues.is_armed(&held, 90), "what it was set for is settled");
        dues.disarm(90);
        assert_eq!(dues.arm(&held), Some(100));
        assert!(dues.is_armed(&held, 100) && !dues.is_armed(&held, 110));
        assert_eq!((dues.pop_due(&held, 99), dues.pop_due(&held, 100)), (None, Some((1, 100))));
    }
}
