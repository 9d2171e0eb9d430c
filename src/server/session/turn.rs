//! What one call of a session works with: the time, the node, the connection's buffer, and what the
//! sessions of a worker share.

use super::checkpoint::Checkpoint;
use super::encode::{self, SentForm};
use super::events::write_notice_event;
use super::filters::FilterTable;
use super::host::Host;
use super::remains::Remains;
use super::scans::ScanBudget;
use crate::protocol::request::Notice;
use crate::protocol::{json, protobuf};
use crate::record::{Now, Record};
use crate::server::account::WorkerAccount;
use crate::server::framing::message::Codec;
use crate::server::framing::wrap::{self, Framing};
use crate::server::outbound::Outbound;
use crate::subscriptions::Index;

/// Memory for the message that is being framed which a worker keeps from one message to the next, in bytes.
/// The answer to a long batch may need more.
const KEPT_SCRATCH_BYTES_MAX: usize = 256 * 1024;

/// The state that the sessions of one worker share. Every worker has one.
#[derive(Debug)]
pub struct Workspace {
    /// The patterns of all connections.
    pub index: Index,
    /// The filters of all connections.
    pub filters: FilterTable,
    /// What the connections hold, and how much more they may.
    pub account: WorkerAccount,
    /// Number of records written to subscribers since the worker last took the count.
    pub deliveries: u64,
    /// Number of records that were replaced by newer ones before a slow subscriber got them, since the
    /// worker last took the count.
    pub conflated: u64,
    /// Heads that have been proved seen, shared by all sessions whose tokens are due.
    pub checkpoint: Checkpoint,
    /// What waited for connections that are gone.
    pub remains: Remains,
    /// How much of the map snapshots may look at.
    pub scans: ScanBudget,
    /// The message that is being framed. Its memory is kept.
    scratch: Vec<u8>,
}

impl Workspace {
    /// Makes the workspace of a worker without sessions. Clients must not be able to guess the seed.
    pub fn new(seed: u64, account: WorkerAccount) -> Workspace {
        Workspace {
            index: Index::seeded(seed),
            filters: FilterTable::default(),
            account,
            deliveries: 0,
            conflated: 0,
            checkpoint: Checkpoint::default(),
            remains: Remains::default(),
            scans: ScanBudget::default(),
            scratch: Vec::new(),
        }
    }
}

/// The environment of one call of a session. All effects of the call go through it.
pub struct Turn<'a> {
    /// The time of the call.
    pub now: Now,
    /// The node that the session belongs to.
    pub host: &'a dyn Host,
    /// The state that the sessions of the worker share.
    pub work: &'a mut Workspace,
    /// Number of this connection in the index.
    pub connection: usize,
    /// The buffer of what waits to be sent on this connection.
    pub out: &'a mut Outbound,
    /// Number of changes of the mailbox that were handed to the worker's sessions, including the change
    /// that is being handed out.
    pub mailbox_position: u64,
}

impl Turn<'_> {
    /// Appends a frame with the message that `write` writes.
    pub(super) fn frame(&mut self, codec: Codec, write: impl FnOnce(&mut Vec<u8>)) {
        wrap::make_room(&mut self.work.scratch);
        write(&mut self.work.scratch);
        self.out.append_message(codec, &mut self.work.scratch);
        if self.work.scratch.capacity() > KEPT_SCRATCH_BYTES_MAX {
            self.work.scratch = Vec::new();
        }
    }

    /// Appends a frame with a notice.
    pub(super) fn notice(&mut self, codec: Codec, notice: &Notice<'_>) {
        if self.out.framing() == Framing::EventStream {
            let mut event = Vec::new();
            write_notice_event(&mut event, notice);
            return self.out.append(&event);
        }
        self.frame(codec, |out| match codec {
            Codec::Json => json::write_notice(out, notice),
            Codec::Protobuf => protobuf::write_notice(out, notice),
        });
    }

    /// Appends a frame of one record.
    pub(super) fn record_frame(&mut self, codec: Codec, record: &Record, form: SentForm) {
        self.frame(codec, |out| encode::write_record(out, codec, record, form));
    }

    /// Appends one record to the batch that is open at the end of the buffer, or opens one.
    pub(super) fn record_in_batch(&mut self, codec: Codec, record: &Record, form: SentForm) {
        self.work.scratch.clear();
        encode::write_record(&mut self.work.scratch, codec, record, form);
        self.out.append_to_batch(codec, &self.work.scratch);
    }
}
