//! The purposes of streams between nodes, and how streams are numbered.
//!
//! The side that connects opens with a preamble (the header of [`super::wire`], with the purpose in its kind
//! byte), and the other side hands all that follows to the part of the machine that serves this purpose.
//! These parts never see a preamble: the machine writes it before it tells them `Opened`, and takes it off
//! before it tells them `Accepted`.
//!
//! Each part numbers the streams it asks for by itself, in steps of [`STEP`] from a first number of its own;
//! so the number of such a stream gives its purpose without a table. Numbers of accepted streams are even and
//! given by the driver.

use super::StreamId;

/// The purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Exchanging member lists, and probing a member that does not answer over UDP.
    Members = 1,
    /// Making two maps equal.
    Reconcile = 2,
    /// Sending batches of records that are too large for datagrams.
    Bodies = 3,
}

impl Purpose {
    /// Returns the purpose of this kind byte of a header.
    pub fn from_kind(kind: u8) -> Option<Purpose> {
        match kind {
            1 => Some(Purpose::Members),
            2 => Some(Purpose::Reconcile),
            3 => Some(Purpose::Bodies),
            _ => None,
        }
    }

    /// Returns the purpose of a stream that this node asked for; `None` if a peer opened the stream.
    pub fn of_connected(stream: StreamId) -> Option<Purpose> {
        match stream.0 % STEP {
            1 => Some(Purpose::Members),
            3 => Some(Purpose::Reconcile),
            5 => Some(Purpose::Bodies),
            _ => None,
        }
    }
}

/// Distance between the numbers of two successive streams of one purpose.
const STEP: u64 = 8;

/// Gives out the numbers of the streams that one part of the machine asks for.
#[derive(Clone, Debug)]
pub struct StreamIds {
    next: u64,
}

impl StreamIds {
    /// Makes a source of numbers for streams of this purpose.
    pub fn new(purpose: Purpose) -> StreamIds {
        StreamIds { next: purpose as u64 * 2 - 1 }
    }

    /// Returns a stream number that was not given out before.
    pub fn next_id(&mut self) -> StreamId {
        let stream = StreamId(self.next);
        self.next += STEP;
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_their_room() {
        for purpose in [Purpose::Members, Purpose::Reconcile, Purpose::Bodies] {
            let mut ids = StreamIds::new(purpose);
            for _ in 0..5 {
                let stream = ids.next_id();
                assert_eq!(stream.0 % 2, 1);
                assert_eq!(Purpose::of_connected(stream), Some(purpose));
            }
            assert_eq!(Purpose::from_kind(purpose as u8), Some(purpose));
        }
        assert_eq!(Purpose::of_connected(StreamId(4)), None);
    }
}
