//! What one call of a session works with: the time, the node, the connection's buffer, and what the
//! sessions of a worker share.

use super::Codec;
use super::checkpoint::Checkpoint;
use super::encode;
use super::host::Host;
use crate::limits::SCAN_RECORDS_PER_TURN;
use crate::protocol::request::Notice;
use crate::protocol::{json, protobuf};
use crate::record::{Now, Record};
use crate::server::outbound::Outbound;
use crate::subscriptions::Index;

/// What the sessions of one worker share. The worker keeps one.
#[derive(Debug)]
pub struct Workspace {
    /// Which connections want what.
    pub index: Index,
    /// Records written to subscribers since the worker last took the count.
    pub deliveries: u64,
    /// Records replaced by newer ones before a slow subscriber got them, likewise.
    pub conflated: u64,
    /// Heads that have been proved seen, shared by all sessions whose tokens are due.
    pub checkpoint: Checkpoint,
    /// Number of records that the snapshots of a session look at in one turn.
    pub(super) scan_budget: usize,
    /// A message on its way into a frame.
    scratch: Vec<u8>,
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace {
            index: Index::default(),
            deliveries: 0,
            conflated: 0,
            checkpoint: Checkpoint::default(),
            scan_budget: SCAN_RECORDS_PER_TURN,
            scratch: Vec::new(),
        }
    }
}

/// One call's view of the world, and the only door for its effects.
pub struct Turn<'a> {
    /// The time.
    pub now: Now,
    /// The node.
    pub host: &'a dyn Host,
    /// What the worker's sessions share.
    pub work: &'a mut Workspace,
    /// This connection's number in the index.
    pub connection: usize,
    /// What waits to be sent on this connection.
    pub out: &'a mut Outbound,
    /// How many changes of the mailbox were handed to the worker's sessions, the one that is being
    /// handed out included.
    pub mailbox_position: u64,
}

impl Turn<'_> {
    /// Appends a frame with the message that `write` writes.
    pub(super) fn frame(&mut self, codec: Codec, write: impl FnOnce(&mut Vec<u8>)) {
        self.work.scratch.clear();
        write(&mut self.work.scratch);
        encode::append_frame(self.out.tail(), codec, &self.work.scratch);
    }

    /// Appends a frame with a notice.
    pub(super) fn notice(&mut self, codec: Codec, notice: &Notice<'_>) {
        self.frame(codec, |out| match codec {
            Codec::Json => json::write_notice(out, notice),
            Codec::Protobuf => protobuf::write_notice(out, notice),
        });
    }

    /// Appends a frame of one record.
    pub(super) fn record_frame(&mut self, codec: Codec, record: &Record, as_deleted: bool) {
        self.frame(codec, |out| encode::write_record(out, codec, record, as_deleted));
    }

    /// Appends one record to the batch that is open at the end of the buffer, or opens one.
    pub(super) fn record_in_batch(&mut self, codec: Codec, record: &Record, as_deleted: bool) {
        self.work.scratch.clear();
        encode::write_record(&mut self.work.scratch, codec, record, as_deleted);
        self.out.append_to_batch(codec, &self.work.scratch);
    }
}
