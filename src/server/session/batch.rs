//! Records on their way into one frame, for connections that asked for `batch=true`.

use super::{Codec, Turn, encode};
use crate::record::client;

/// A frame is closed when it has so many bytes: large enough that headers do not count, small enough
/// that a client need not buffer much.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The records of the frame that is open. Has memory only while there are any.
#[derive(Debug)]
pub(super) struct Batch {
    codec: Codec,
    items: Vec<u8>,
    count: usize,
}

impl Batch {
    pub(super) fn new(codec: Codec) -> Batch {
        Batch { codec, items: Vec::new(), count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the message of one record.
    pub(super) fn push(&mut self, turn: &mut Turn<'_>, message: &[u8]) {
        match self.codec {
            Codec::Json => {
                if self.count > 0 {
                    self.items.push(b',');
                }
                self.items.extend_from_slice(message);
            }
            Codec::Protobuf => client::append_to_batch(&mut self.items, message),
        }
        self.count += 1;
        if self.items.len() >= BATCH_BYTES_MAX {
            self.flush(turn);
        }
    }

    /// Closes the frame, if one is open.
    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.is_empty() {
            return;
        }
        let items = std::mem::take(&mut self.items);
        let out = turn.out.tail();
        match self.codec {
            Codec::Json if self.count == 1 => encode::append_frame(out, self.codec, &items),
            Codec::Json => encode::append_frame_of(out, self.codec, &[b"[", &items, b"]"]),
            Codec::Protobuf => {
                let head = &mut turn.work.scratch;
                head.clear();
                client::write_batch_head(head, items.len());
                encode::append_frame_of(out, self.codec, &[head, &items]);
            }
        }
        self.count = 0;
    }
}
