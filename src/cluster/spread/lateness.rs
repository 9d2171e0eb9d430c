//! Estimates whether parts that are not acknowledged in time are lost, or only late.
//!
//! A machine that is short of processor time schedules its nodes some tens of milliseconds late, and their
//! receipts are as late. To send data again then only adds to a load that it cannot carry. The same silence
//! on a network that drops datagrams must be answered at once. Timing alone cannot tell the two apart, but
//! questions can: "have you got it?" is answered with yes by a node that is late, and with "send it" half
//! the time where datagrams are lost, since data is lost as often as its receipt. Rejected: to call a peer
//! late that was silent and is heard again, since bursts of losses look the same.

/// The number that stands for a share of 100 %.
const WHOLE: u32 = 1 << 20;
/// Divisor of the step by which one answer moves the share: 24 stands for 1/24 of the way.
const WEIGHT: u32 = 24;
/// Divisor of the step by which a receipt that came in time moves the share. Where fewer than about eight
/// receipts in a thousand are late, the death of a node must be answered as fast as if none were.
const WEIGHT_IN_TIME: i32 = 2048;
/// The share that is assumed at first. It stands for loss, and is high enough that a few receipts lost in a
/// row are not taken for lateness.
const AT_FIRST: u32 = WHOLE / 3;
/// Below this share of "send it", receipts are late rather than lost.
const LATE: u32 = WHOLE / 5;

/// The share of questions that were answered with "send it" lately, on one link or on all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    wanted: u32,
}

impl Default for Lateness {
    fn default() -> Lateness {
        Lateness { wanted: AT_FIRST }
    }
}

impl Lateness {
    /// Takes the answer to a question; `was_lost`: the part had been lost.
    pub fn note(&mut self, was_lost: bool) {
        let answer = if was_lost { WHOLE } else { 0 };
        self.wanted = ((WEIGHT - 1) * self.wanted + answer) / WEIGHT;
    }

    /// Takes a receipt that came in time: the share moves back to what was assumed at first.
    pub fn fade(&mut self) {
        let step = (AT_FIRST as i32 - self.wanted as i32) / WEIGHT_IN_TIME;
        self.wanted = self.wanted.saturating_add_signed(step);
    }

    /// Returns whether receipts are late rather than lost: then it is better to wait, and to ask before
    /// sending again.
    pub fn is_late(self) -> bool {
        self.wanted < LATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_late_from_lost() {
        let mut lateness = Lateness::default();
        for answer in 0..100 {
            lateness.note(answer % 2 == 0);
            assert!(!lateness.is_late(), "half of what was asked about was lost");
        }
        let late = (0..100).position(|_| {
            lateness.note(false);
            lateness.is_late()
        });
        assert!(late.is_some_and(|answers| (3..30).contains(&answers)), "{late:?}");
        let lost = (0..100).position(|_| {
            lateness.note(true);
            !lateness.is_late()
        });
        assert!(lost.is_some_and(|answers| answers < 8), "{lost:?}");
    }

    #[test]
    fn a_late_receipt_now_and_then_is_nothing() {
        let is_late_at = |in_time: u32| {
            let mut lateness = Lateness::default();
            for _ in 0..1_000 {
                lateness.note(false);
                (0..in_time).for_each(|_| lateness.fade());
            }
            lateness.is_late()
        };
        assert!(is_late_at(20) && is_late_at(100));
        assert!(!is_late_at(300) && !is_late_at(2_000));
    }
}
