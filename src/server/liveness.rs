//! Finds clients that are gone. Any byte that is received from a client counts as a sign of life.
//!
//! After [`PING_US`] without a byte a ping is sent, after [`PONG_US_MAX`] the connection is closed with code
//! 4201. Time during which the server itself does not read, because of back-pressure, does not count, since
//! then the silence is not the client's.
//!
//! The client of a stream of events never says anything. It is sent a comment every [`COMMENT_US`], so that programs in
//! between keep the connection; whether the client is there is known to the kernel, which waits for its receipts.

use crate::limits::{COMMENT_US, PING_US, PONG_US_MAX};

/// The time for which a client has been silent.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// Monotonic time of the last byte, later by the time for which reading was paused since.
    received_us: u64,
    /// Whether the client was pinged since the last byte.
    is_pinged: bool,
    /// Monotonic time since which reading is paused, if it is.
    paused_us: Option<u64>,
    /// Monotonic time of the next comment on a stream of events; `None` for a client that answers.
    comment_us: Option<u64>,
}

/// The action that a client's silence calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The client has not been silent for long: nothing is to be done.
    Short,
    /// The client is to be pinged. Returned once for each silence.
    Ping,
    /// The connection is to be closed.
    Dead,
}

impl Liveness {
    /// The state of a client that has just connected.
    pub fn new(now_us: u64) -> Liveness {
        Liveness { received_us: now_us, is_pinged: false, paused_us: None, comment_us: None }
    }

    /// The state of a client that has just been sent the head of a stream of events.
    pub fn of_stream(now_us: u64) -> Liveness {
        Liveness { comment_us: Some(now_us + COMMENT_US), ..Liveness::new(now_us) }
    }

    /// Notes that bytes were received.
    pub fn handle_received(&mut self, now_us: u64) {
        self.received_us = now_us;
        self.is_pinged = false;
    }

    /// Sets whether the server has paused reading the connection.
    pub fn set_paused(&mut self, now_us: u64, is_paused: bool) {
        match (self.paused_us, is_paused) {
            (None, true) => self.paused_us = Some(now_us),
            (Some(since_us), false) => {
                self.received_us += now_us.saturating_sub(since_us);
                self.paused_us = None;
            }
            _ => {}
        }
    }

    /// Monotonic time at which [`Liveness::check`] is to be called next; `None` while reading is paused.
    pub fn next_us(&self) -> Option<u64> {
        if self.comment_us.is_some() {
            return self.comment_us;
        }
        let after_us = if self.is_pinged { PONG_US_MAX } else { PING_US };
        self.paused_us.is_none().then_some(self.received_us + after_us)
    }

    /// Returns what is to be done about the silence at `now_us`.
    pub fn check(&mut self, now_us: u64) -> Silence {
        if let Some(comment_us) = &mut self.comment_us {
            if now_us < *comment_us {
                return Silence::Short;
            }
            *comment_us = now_us + COMMENT_US;
            return Silence::Ping;
        }
        let silent_us = now_us.saturating_sub(self.received_us);
        if self.paused_us.is_some() || silent_us < PING_US {
            return Silence::Short;
        }
        if silent_us >= PONG_US_MAX {
            return Silence::Dead;
        }
        if std::mem::replace(&mut self.is_pinged, true) { Silence::Short } else { Silence::Ping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_pinged_once_and_then_ends() {
        let mut liveness = Liveness::new(1000);
        assert_eq!(liveness.next_us(), Some(1000 + PING_US));
        assert_eq!(liveness.check(999 + PING_US), Silence::Short);
        assert_eq!(liveness.check(1000 + PING_US), Silence::Ping);
        assert_eq!(liveness.check(1001 + PING_US), Silence::Short);
        assert_eq!(liveness.next_us(), Some(1000 + PONG_US_MAX));
        assert_eq!(liveness.check(1000 + PONG_US_MAX), Silence::Dead);
        liveness.handle_received(5000 + PING_US);
        assert_eq!(liveness.check(1000 + PONG_US_MAX), Silence::Short);
    }

    #[test]
    fn a_stream_is_sent_a_comment_at_intervals_and_never_dies_of_silence() {
        let mut liveness = Liveness::of_stream(1000);
        for round in 1..10 {
            let due_us = 1000 + round * COMMENT_US;
            assert_eq!(liveness.next_us(), Some(due_us));
            assert_eq!(liveness.check(due_us - 1), Silence::Short);
            assert_eq!(liveness.check(due_us), Silence::Ping);
        }
    }

    #[test]
    fn the_timers_stand_while_the_server_does_not_read() {
        let mut liveness = Liveness::new(0);
        liveness.set_paused(PING_US - 10, true);
        assert_eq!(liveness.next_us(), None);
        assert_eq!(liveness.check(100 * PING_US), Silence::Short);
        liveness.set_paused(100 * PING_US, false);
        assert_eq!(liveness.next_us(), Some(100 * PING_US + 10));
    }
}
