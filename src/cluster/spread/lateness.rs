//! Whether what is not acknowledged in time is lost, or only late.
//!
//! A machine that is short of processor time gives its nodes their turn some tens of milliseconds
//! late, and their receipts are as late. To send again then would only add to what it cannot do. The
//! same silence on a network that drops datagrams must be answered at once. Timing alone cannot tell
//! the two apart, but questions can: "have you it?" is answered "here" by a node that is late, and
//! "send it" half the time where datagrams are lost, since data is lost as often as its receipt.
//! Rejected: to take a silent peer that is heard again for late, since bursts of losses look the same.

/// Shares are counted in parts of this.
const WHOLE: u32 = 1 << 20;
/// Weight of one answer.
const WEIGHT: u32 = 24;
/// Weight of a receipt that came in time: where fewer than about eight in a thousand are late, a kill
/// must be answered as fast as ever.
const WEIGHT_IN_TIME: i32 = 2048;
/// What is assumed at first: loss, and by so much that a few receipts lost in a row do not deceive.
const AT_FIRST: u32 = WHOLE / 3;
/// Below this share of "send it", answers are late.
const LATE: u32 = WHOLE / 5;

/// Share of the questions answered lately with "send it": of one link, or of all of them.
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
    /// Takes an answer: whether what was asked about had been lost.
    pub fn note(&mut self, was_lost: bool) {
        let answer = if was_lost { WHOLE } else { 0 };
        self.wanted = ((WEIGHT - 1) * self.wanted + answer) / WEIGHT;
    }

    /// Takes a receipt that came in time: what was learned from answers fades.
    pub fn fade(&mut self) {
        let step = (AT_FIRST as i32 - self.wanted as i32) / WEIGHT_IN_TIME;
        self.wanted = self.wanted.saturating_add_signed(step);
    }

    /// Whether receipts are late rather than lost: then ask before sending again, and be patient.
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
