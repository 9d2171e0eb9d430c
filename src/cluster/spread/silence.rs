//! Keeps when a peer was last heard, and whether it counts as silent.

/// Time for which a peer that did not answer counts as silent, in microseconds, unless it is heard sooner.
const SILENCE_US: u64 = 2_000_000;
/// A peer that was silent for longer than this, in microseconds, and for [`SILENT_TRIES_MAX`] tries, is given
/// up on: further parts are tried only once.
const PATIENCE_US: u64 = 100_000;
/// Most tries of one part on a peer of which nothing is heard.
pub(super) const SILENT_TRIES_MAX: u32 = 7;

/// The times at which a peer was last heard and from which on it has not answered, and whether it counts as
/// silent. Times are on the monotonic clock, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Time at which the peer was last heard; 0: never.
    heard_us: u64,
    /// Time until which the peer counts as silent.
    until_us: u64,
    /// Time since which timeouts have shown that nothing comes back; 0: the peer answers.
    since_us: u64,
    /// Number of successive timeouts in which nothing was heard of the peer.
    unheard: u32,
}

/// The conclusions from a timeout about the peer that did not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    /// The peer was heard since the part was first sent: the part was lost, but the peer is there.
    pub is_heard: bool,
    /// The peer counted as silent before this timeout.
    pub was_silent: bool,
    /// The peer counts as silent from this timeout on.
    pub falls_silent: bool,
    /// The peer has been silent for so long that one try of a part is enough.
    pub is_given_up_on: bool,
}

impl Silence {
    /// Notes that the peer was heard, so that it does not count as silent any longer.
    pub fn hear(&mut self, now_us: u64) {
        *self = Silence { heard_us: now_us.max(1), ..Silence::default() };
    }

    /// Returns whether the peer counts as silent.
    pub fn is_silent(&self, now_us: u64) -> bool {
        self.until_us > now_us
    }

    /// Returns whether the peer was heard in the last `us` microseconds.
    pub fn is_heard_within(&self, us: u64, now_us: u64) -> bool {
        self.heard_us > 0 && self.heard_us + us > now_us
    }

    /// Notes that a part that was first sent at `first_us` was not acknowledged in time, for the `tries`-th
    /// time.
    pub fn handle_timeout(&mut self, now_us: u64, first_us: u64, tries: u32) -> Timeout {
        let is_heard = self.heard_us > first_us;
        let was_silent = self.is_silent(now_us);
        let is_unanswered = !is_heard && tries >= 2;
        self.unheard = if is_heard { 0 } else { self.unheard + 1 };
        if is_unanswered {
            self.until_us = now_us + SILENCE_US;
            self.since_us = if self.since_us == 0 { now_us } else { self.since_us };
        }
        let is_given_up_on =
            self.unheard > SILENT_TRIES_MAX && self.since_us > 0 && now_us - self.since_us > PATIENCE_US;
        Timeout { is_heard, was_silent, falls_silent: is_unanswered && !was_silent, is_given_up_on }
    }

    /// Reads the memory of this value, so that it is in the processor's cache.
    pub fn warm(&self) -> u64 {
        self.heard_us ^ self.since_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_timeouts_make_a_silent_peer_and_one_word_an_audible_one() {
        let mut silence = Silence::default();
        silence.hear(1_000);
        assert!(silence.is_heard_within(10, 1_005) && !silence.is_heard_within(10, 1_010));
        let first = silence.handle_timeout(10_000, 5_000, 1);
        assert!(!first.is_heard && !first.falls_silent && !silence.is_silent(10_000));
        let second = silence.handle_timeout(20_000, 5_000, 2);
        assert!(second.falls_silent && !second.was_silent && silence.is_silent(20_000));
        assert!(silence.handle_timeout(30_000, 5_000, 3).was_silent);
        assert!(!silence.is_silent(30_000 + SILENCE_US));
        let mut timeouts = (4..).map(|tries| silence.handle_timeout(40_000 * u64::from(tries), 5_000, tries));
        let given_up = timeouts.position(|timeout| timeout.is_given_up_on);
        assert_eq!(given_up, Some(SILENT_TRIES_MAX as usize - 3));
        silence.hear(400_000);
        assert!(!silence.is_silent(400_000) && silence.handle_timeout(500_000, 300_000, 9).is_heard);
    }
}
