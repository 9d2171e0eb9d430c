//! The stream of one end of a session: frames, records that wait to be sent, and
//! the merging of records that come.
//!
//! Memory is bounded in both directions. Sending stops at [`SESSION_WINDOW_BYTES`] until the driver says that
//! everything is out. Records that come are merged at once and not kept here.

use std::collections::VecDeque;

use bytes::Bytes;

use super::items::Filter;
use super::wire::{self, ReconcileFrame, VarintFrameReader};
use super::{HeadsNow, OwnNode, ReconcileOutput, ReconcileStats, SESSION_STALLED_US};
use crate::cluster::streams::{StreamId, StreamOutput};
use crate::cluster::{Arrival, Heads, Replica};
use crate::record::merge::order;
use crate::record::{NodeName, Now, SharedRecord};

/// Most bytes that are written on a stream before the driver says that it is drained, the last frame not
/// counted.
pub(super) const SESSION_WINDOW_BYTES: usize = 512 * 1024;
/// Most bytes of records in one frame. A larger record has a frame of its own.
const CHUNK_BYTES: usize = 32 * 1024;
/// Number of waiting records above which newer records are not sent back to a peer that sent an older one.
/// They are left to the next session.
const REPLIES_MAX: usize = 65_536;
/// Cost of encoding a record, in records looked at.
const RECORD_COST: usize = 4;

/// The state outside of a session that one of its ends works with, for the time of one call.
pub(super) struct SessionEnv<'a> {
    /// Time of the call.
    pub now: Now,
    /// Facts about this node.
    pub me: &'a OwnNode,
    /// Builds the heads of this node.
    pub heads: HeadsNow<'a>,
    /// The map of this node.
    pub replica: &'a mut dyn Replica,
    /// Counts of reconciliation.
    pub stats: &'a mut ReconcileStats,
    /// Instructions to the driver, in order.
    pub outputs: &'a mut VecDeque<ReconcileOutput>,
    /// Peer that this node has greeted in a session of its own that makes progress.
    pub greeted: Option<&'a NodeName>,
    /// Whether a peer that greets now is told to come back, because there are too many sessions.
    pub is_full: bool,
}

/// One end of the stream of a session.
#[derive(Debug)]
pub(super) struct SessionLink {
    /// Number of the stream.
    pub stream: StreamId,
    /// Whether the next turn of this end has something to do.
    pub is_runnable: bool,
    /// When bytes were last sent or received, on the monotonic clock in microseconds.
    pub progress_us: u64,
    /// Whether every record that came was sound, and every record that ought to be sent was sent.
    pub is_clean: bool,
    reader: VarintFrameReader,
    pending: Vec<u8>,
    in_flight_bytes: usize,
    outgoing: VecDeque<SharedRecord>,
}

impl SessionLink {
    /// One end of a stream on which nothing was sent or received.
    pub fn new(stream: StreamId, now: Now) -> SessionLink {
        SessionLink {
            stream,
            is_runnable: false,
            progress_us: now.mono_us,
            is_clean: true,
            reader: VarintFrameReader::default(),
            pending: Vec::new(),
            in_flight_bytes: 0,
            outgoing: VecDeque::new(),
        }
    }

    /// Sets the length up to which a frame of the peer is read, in bytes.
    pub fn set_frame_bytes_max(&mut self, bytes_max: usize) {
        self.reader.bytes_max = bytes_max;
    }

    /// Returns whether bytes were sent or received lately.
    pub fn is_moving(&self, now: Now) -> bool {
        self.progress_us + SESSION_STALLED_US > now.mono_us
    }

    /// Takes in bytes that were received.
    pub fn received(&mut self, bytes: &[u8], env: &mut SessionEnv<'_>) {
        self.progress_us = env.now.mono_us;
        self.reader.push(bytes);
    }

    /// Reads the next frame; `None` until all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<ReconcileFrame>, wire::FrameError> {
        let frame = self.reader.next_frame()?;
        frame.map(|bytes| ReconcileFrame::decode(&bytes)).transpose()
    }

    /// Notes that all bytes written so far have left this process.
    pub fn drained(&mut self, now: Now) {
        self.progress_us = now.mono_us;
        self.in_flight_bytes = 0;
    }

    /// Returns whether more may be written now.
    pub fn has_room(&self) -> bool {
        self.in_flight_bytes + self.pending.len() < SESSION_WINDOW_BYTES
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: ReconcileFrame) {
        frame.encode(&mut self.pending);
    }

    /// Queues records. [`SessionLink::pump`] sends them when there is room.
    pub fn send_records(&mut self, records: Vec<SharedRecord>) {
        self.outgoing.extend(records);
    }

    /// Returns whether no record waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Sends a chunk of the records that wait, and returns its cost in records looked at; `None` if no record
    /// waits.
    pub fn pump(&mut self, stats: &mut ReconcileStats) -> Option<usize> {
        let mut batch = Vec::new();
        let mut count = 0;
        while let Some(record) = self.outgoing.front() {
            let bytes = record.cost_bytes();
            if count > 0 && batch.len() + bytes > CHUNK_BYTES {
                break;
            }
            wire::push_record(&mut batch, record);
            self.outgoing.pop_front();
            count += 1;
        }
        if count == 0 {
            return None;
        }
        stats.records_sent += count as u64;
        self.send(ReconcileFrame::Records(batch.into()));
        Some(count * RECORD_COST)
    }

    /// Hands the queued frames to the driver.
    pub fn flush(&mut self, env: &mut SessionEnv<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        self.in_flight_bytes += bytes.len();
        env.outputs.push_back(ReconcileOutput::Stream(StreamOutput::Write { stream: self.stream, bytes }));
    }

    /// Merges the records of a batch. With a filter in `replies`, a record older than this node's is answered
    /// with this node's, if that takes part: of a source that differs on both sides only one side's record
    /// was sent, since items do not tell which is newer.
    pub fn merge(&mut self, batch: &[u8], replies: Option<&Filter>, env: &mut SessionEnv<'_>) {
        for record in wire::records(batch) {
            let Ok(record) = record else {
                env.stats.records_bad += 1;
                self.is_clean = false;
                continue;
            };
            if record.collect_us(env.me.tombstones_us).is_some_and(|at| at <= env.now.wall_us) {
                continue;
            }
            #[cfg(feature = "planted-bugs")]
            if crate::planted::drops_reconciled(record.source.as_str()) {
                continue;
            }
            let record = SharedRecord::new(record);
            if env.replica.apply(env.now, record.clone(), Arrival::Reconcile) {
                env.stats.records_applied += 1;
                continue;
            }
            let Some(filter) = replies else { continue };
            let Some(own) = env.replica.get(record.source.as_str()) else { continue };
            if order(&own, &record).is_le() || !filter.admits(&own) {
                continue;
            }
            if self.outgoing.len() < REPLIES_MAX {
                self.outgoing.push_back(own);
            } else {
                self.is_clean = false;
            }
        }
    }
}

/// The state of a session after a frame.
#[derive(Debug)]
pub(super) enum SessionStep {
    /// The session continues.
    Going,
    /// The initiator or the responder refused the session.
    Refused,
    /// The session is complete.
    Done(SessionReport),
}

/// The result of a complete session.
#[derive(Debug)]
pub(super) struct SessionReport {
    /// Name of the peer.
    pub peer: NodeName,
    /// Whether the peer says that it showed everything it held.
    pub peer_has_shown: bool,
    /// Whether the peer's first reconciliation was done.
    pub peer_is_reconciled: bool,
    /// Whether no record was left out for being young.
    pub is_whole: bool,
    /// Number of records that differed.
    pub found: u64,
    /// Shards whose fingerprints differed although the records that take part were equal.
    pub equal: wire::ShardSet,
    /// Whether the peer was shown everything held here.
    pub has_shown: bool,
    /// Whether the peer showed everything it held, and all of it was sound.
    pub has_seen: bool,
    /// Heads of the peer, if it showed everything; else empty.
    pub heads: Heads,
}
