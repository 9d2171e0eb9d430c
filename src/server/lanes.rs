//! The connections that are to be read, in lanes: those that bring something first, the others in bounded time.
//!
//! A turn reads the connections of [`Lane::Messages`] first. Those in the handshake of their layer, and those whose last
//! bytes were *petty*, have lanes of their own, on which a turn spends little time after all others were read. Petty
//! are bytes of which nothing came that anybody waits for: pings, and heads and frames that come a few bytes at a time.
//! So ten thousand clients that send them cost those who publish a fraction of a millisecond, and are served
//! themselves whenever there is nothing better to do.

use std::collections::VecDeque;

/// Number of bytes of a frame or head, in one read, from which on they are not petty: whoever sends a large frame fast
/// has brought a message as soon as it is whole.
const BULK_BYTES: usize = 1024;

/// Where a connection waits for being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// Nothing is known of the connection that speaks against it.
    #[default]
    Messages,
    /// The connection goes on with the handshake of its layer.
    Handshakes,
    /// The last bytes of the connection were petty.
    Petty,
}

/// The connections of one worker that are to be read, by lane, in the order in which they came.
#[derive(Debug, Default)]
pub struct Lanes {
    messages: VecDeque<usize>,
    handshakes: VecDeque<usize>,
    petty: VecDeque<usize>,
}

impl Lanes {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<usize> {
        match lane {
            Lane::Messages => &mut self.messages,
            Lane::Handshakes => &mut self.handshakes,
            Lane::Petty => &mut self.petty,
        }
    }

    /// Puts a connection at the end of a lane.
    pub fn push(&mut self, lane: Lane, key: usize) {
        self.of(lane).push_back(key);
    }

    /// Takes the connection that has waited longest in a lane.
    pub fn pop(&mut self, lane: Lane) -> Option<usize> {
        self.of(lane).pop_front()
    }

    /// Number of connections that wait in a lane.
    pub fn len(&mut self, lane: Lane) -> usize {
        self.of(lane).len()
    }

    /// Returns whether no connection is to be read.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.handshakes.is_empty() && self.petty.is_empty()
    }
}

/// Returns whether a read was petty that brought `bytes` bytes. `has_brought`: a whole message or request was in them.
/// `is_within`: a head, or a frame of a message, goes on behind them.
pub fn is_petty(bytes: usize, has_brought: bool, is_within: bool) -> bool {
    !(has_brought || is_within && bytes >= BULK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10,000 connections that sent ten pings a second each raised the 99th percentile of the latency of healthy
    /// clients from 0.26 to 1.24 ms, because each was read before the next publisher.
    #[test]
    fn pings_and_trickles_are_petty_and_messages_and_bulk_are_not() {
        assert!(is_petty(1_310, false, false), "ten of the longest pings");
        assert!(is_petty(1, false, true), "a byte of a frame or head");
        assert!(is_petty(BULK_BYTES - 1, false, true));
        assert!(!is_petty(BULK_BYTES, false, true), "a part of a large frame");
        assert!(!is_petty(30, true, false), "a short message");
        assert!(!is_petty(30, true, true), "a message, and the beginning of the next one");
    }

    #[test]
    fn lanes_keep_the_order_in_which_connections_came() {
        let mut lanes = Lanes::default();
        assert!(lanes.is_empty());
        for key in 0..3 {
            lanes.push(Lane::Petty, key);
            lanes.push(Lane::Messages, 10 + key);
        }
        assert_eq!((lanes.pop(Lane::Messages), lanes.pop(Lane::Petty)), (Some(10), Some(0)));
        assert_eq!(
            (lanes.len(Lane::Messages), lanes.len(Lane::Handshakes), lanes.len(Lane::Petty)),
            (2, 0, 2)
        );
        assert!(!lanes.is_empty() && lanes.pop(Lane::Handshakes).is_none());
    }
}
