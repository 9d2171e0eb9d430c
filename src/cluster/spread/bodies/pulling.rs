//! The side that asks for bodies.
//!
//! There is one stream to a peer. It is opened when a body is to be pulled from that peer, and closed when
//! none was for a while. Several bodies are asked for at a time, up to a window of bytes. They come in the
//! order in which they were asked for, so their pieces need no names.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::BytesMut;

use super::waiting::{BodyWaiter, PulledBody};
use super::wire::{BodyFrame, FRAME_BYTES_MAX};
use crate::cluster::frames::StreamFrameReader;
use crate::cluster::purpose::{Purpose, StreamIds};
use crate::cluster::spread::batch::{Announced, BatchId};
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};
use crate::limits::RECORD_BYTES_CEILING;

/// Most bytes of a body: the largest record, and the encoding around it.
pub(super) const BODY_BYTES_MAX: usize = RECORD_BYTES_CEILING + 4096;
/// Most bodies that are being pulled or wait to be pulled, from all peers together.
pub(super) const PULLS_MAX: usize = 1_024;
/// Most bodies that are being pulled or wait to be pulled from one peer.
pub(super) const PULLS_PER_PEER_MAX: usize = 128;
/// Most streams at a time. For one more, one on which nothing is pulled is closed.
pub(super) const PULLED_STREAMS_MAX: usize = 128;
/// Most parts that wait for one body.
pub(super) const WAITERS_MAX: usize = 16;
/// Most bytes that were asked for on one stream and have not come.
const STREAM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes that were asked for on all streams together and have not come.
pub(super) const ASKED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bodies that were asked for and did not come on one stream: fewer than the other side allows.
const STREAM_ASKS_MAX: usize = super::serving::SERVED_ASKS_MAX / 2;
/// A stream on which bodies are awaited and nothing comes is closed after this long, in microseconds.
const PULLED_STUCK_US_MAX: u64 = 5_000_000;
/// A stream on which nothing comes is closed after this long if another peer offers one of the bodies that
/// are awaited on it, in microseconds.
const STALLED_US: u64 = 1_000_000;
/// A stream on which nothing is awaited is closed after this long, in microseconds.
const PULLED_IDLE_US_MAX: u64 = 10_000_000;

const _: () = assert!(BODY_BYTES_MAX <= STREAM_BYTES_MAX && STREAM_BYTES_MAX <= ASKED_BYTES_MAX);

/// A body that is being pulled.
#[derive(Debug)]
struct Pull {
    /// Address of the peer that the body is pulled from.
    from: SocketAddr,
    announced: Announced,
    /// The bytes of the body that have arrived.
    body: BytesMut,
    /// The parts that wait for the body.
    waiters: Vec<BodyWaiter>,
}

/// The stream to one peer.
#[derive(Debug)]
struct PullStream {
    id: StreamId,
    /// Whether bytes can be written on the stream.
    is_open: bool,
    reader: StreamFrameReader,
    /// Bodies that are still to be asked for.
    waiting: VecDeque<BatchId>,
    /// Bodies that were asked for, in order, each with the number of bytes that have not come.
    asked: VecDeque<(BatchId, usize)>,
    /// Bytes that were asked for and have not come.
    asked_bytes: usize,
    /// Time at which bytes last arrived on the stream, or at which it was opened, in microseconds.
    moved_us: u64,
}

impl PullStream {
    /// Returns whether bodies are awaited on the stream.
    fn owes(&self) -> bool {
        !self.asked.is_empty() || !self.waiting.is_empty()
    }
}

/// All bodies that this node pulls, and the streams for them.
#[derive(Debug)]
pub(super) struct Pulling {
    ids: StreamIds,
    pulls: BTreeMap<BatchId, Pull>,
    streams: BTreeMap<SocketAddr, PullStream>,
    /// Bytes that were asked for and have not come, on all streams.
    asked_bytes: usize,
}

impl Pulling {
    /// Begins without streams.
    pub fn new() -> Pulling {
        Pulling {
            ids: StreamIds::new(Purpose::Bodies),
            pulls: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked_bytes: 0,
        }
    }

    /// Returns whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns whether a batch from `first` to `last` is being pulled.
    pub fn has_between(&self, first: BatchId, last: BatchId) -> bool {
        first <= last && self.pulls.range(first..=last).next().is_some()
    }

    /// Pulls an announced body from the peer of `waiter`, unless it is being pulled from another. `waiter` is
    /// given back with the body. `false`: there is no room, or no body has that length.
    pub fn pull(
        &mut self,
        now_us: u64,
        announced: Announced,
        waiter: BodyWaiter,
        outputs: &mut VecDeque<StreamOutput>,
    ) -> bool {
        let from = waiter.from.address;
        let known = self.pulls.get(&announced.batch).map(|pull| pull.from);
        if let Some(holder) = known.filter(|holder| *holder != from)
            && self.streams.get(&holder).is_some_and(|stream| now_us > stream.moved_us + STALLED_US)
        {
            self.give_up(holder, outputs);
        }
        if let Some(pull) = self.pulls.get_mut(&announced.batch) {
            if pull.waiters.iter().all(|other| !other.is_same(&waiter)) && pull.waiters.len() < WAITERS_MAX {
                pull.waiters.push(waiter);
            }
            return true;
        }
        // A peer may announce smaller batches than this version does.
        let is_possible = (1..=BODY_BYTES_MAX).contains(&announced.bytes);
        let of_peer = self.streams.get(&from).map_or(0, |stream| stream.waiting.len() + stream.asked.len());
        if !is_possible || self.pulls.len() >= PULLS_MAX || of_peer >= PULLS_PER_PEER_MAX {
            return false;
        }
        let Some(stream) = self.open(now_us, from, outputs) else { return false };
        if !stream.owes() {
            stream.moved_us = now_us;
        }
        stream.waiting.push_back(announced.batch);
        let pull = Pull { from, announced, body: BytesMut::new(), waiters: vec![waiter] };
        self.pulls.insert(announced.batch, pull);
        self.ask(from, outputs);
        true
    }

    /// The stream to a peer, which is opened if there is none. `None`: too many other streams are in use.
    fn open(
        &mut self,
        now_us: u64,
        to: SocketAddr,
        outputs: &mut VecDeque<StreamOutput>,
    ) -> Option<&mut PullStream> {
        if !self.streams.contains_key(&to) {
            if self.streams.len() >= PULLED_STREAMS_MAX {
                let idle = self.streams.iter().filter(|(_, stream)| !stream.owes());
                let oldest = idle.min_by_key(|(_, stream)| stream.moved_us).map(|(peer, _)| *peer)?;
                self.give_up(oldest, outputs);
            }
            let id = self.ids.next_id();
            outputs.push_back(StreamOutput::Connect { stream: id, to });
            let stream = PullStream {
                id,
                is_open: false,
                reader: StreamFrameReader::new(FRAME_BYTES_MAX),
                waiting: VecDeque::new(),
                asked: VecDeque::new(),
                asked_bytes: 0,
                moved_us: now_us,
            };
            self.streams.insert(to, stream);
        }
        self.streams.get_mut(&to)
    }

    /// Handles an event of a stream. Bodies that are complete are added to `whole`.
    pub fn handle(
        &mut self,
        now_us: u64,
        id: StreamId,
        event: StreamEvent,
        whole: &mut Vec<PulledBody>,
        outputs: &mut VecDeque<StreamOutput>,
    ) {
        let Some((&peer, stream)) = self.streams.iter_mut().find(|(_, stream)| stream.id == id) else {
            return;
        };
        match event {
            StreamEvent::Opened => {
                stream.is_open = true;
                stream.moved_us = now_us;
            }
            StreamEvent::Received(bytes) => {
                stream.moved_us = now_us;
                stream.reader.push(&bytes);
                if self.read(peer, whole).is_none() {
                    self.give_up(peer, outputs);
                }
                // The window is shared by all streams: what came on this one may let others ask.
                let peers: Vec<SocketAddr> = self.streams.keys().copied().collect();
                peers.into_iter().for_each(|peer| self.ask(peer, outputs));
                return;
            }
            StreamEvent::Closed => {
                self.forget(peer);
                return;
            }
            StreamEvent::Drained | StreamEvent::Accepted { .. } => {}
        }
        self.ask(peer, outputs);
    }

    /// Closes streams on which nothing comes, and those that were not needed for long.
    pub fn sweep(&mut self, now_us: u64, outputs: &mut VecDeque<StreamOutput>) {
        let is_over = |stream: &PullStream| {
            let us_max = if stream.owes() { PULLED_STUCK_US_MAX } else { PULLED_IDLE_US_MAX };
            now_us.saturating_sub(stream.moved_us) > us_max
        };
        let over: Vec<SocketAddr> =
            self.streams.iter().filter(|(_, stream)| is_over(stream)).map(|(peer, _)| *peer).collect();
        over.into_iter().for_each(|peer| self.give_up(peer, outputs));
    }

    /// Asks a peer for the bodies that wait, up to the window.
    fn ask(&mut self, peer: SocketAddr, outputs: &mut VecDeque<StreamOutput>) {
        let Some(stream) = self.streams.get_mut(&peer).filter(|stream| stream.is_open) else { return };
        while let Some(id) = stream.waiting.front().copied() {
            let bytes = self.pulls.get(&id).map_or(0, |pull| pull.announced.bytes);
            let is_full = stream.asked.len() >= STREAM_ASKS_MAX
                || stream.asked_bytes + bytes > STREAM_BYTES_MAX
                || self.asked_bytes + bytes > ASKED_BYTES_MAX;
            if is_full {
                return;
            }
            stream.waiting.pop_front();
            stream.asked.push_back((id, bytes));
            stream.asked_bytes += bytes;
            self.asked_bytes += bytes;
            debug_assert!(self.asked_bytes <= ASKED_BYTES_MAX, "{} bytes", self.asked_bytes);
            outputs.push_back(StreamOutput::Write { stream: stream.id, bytes: BodyFrame::Ask(id).encode() });
        }
    }

    /// Reads the frames that came from a peer. `None`: no node would send them.
    fn read(&mut self, peer: SocketAddr, whole: &mut Vec<PulledBody>) -> Option<()> {
        let stream = self.streams.get_mut(&peer)?;
        while let Some(frame) = stream.reader.next_frame().ok()? {
            let (id, left) = stream.asked.front_mut()?;
            let id = *id;
            let (came, is_over) = match BodyFrame::decode(frame)? {
                BodyFrame::Piece(piece) => {
                    let rest = left.checked_sub(piece.len())?;
                    let came = std::mem::replace(left, rest) - rest;
                    let pull = self.pulls.get_mut(&id)?;
                    if pull.body.is_empty() {
                        // Memory is set aside only now that its bytes come: they are within the window, and
                        // an announcement alone must not cost memory.
                        pull.body.reserve(pull.announced.bytes);
                    }
                    pull.body.extend_from_slice(&piece);
                    (came, rest == 0)
                }
                BodyFrame::Lack => (*left, true),
                BodyFrame::Ask(_) => return None,
            };
            stream.asked_bytes -= came;
            self.asked_bytes -= came;
            if !is_over {
                continue;
            }
            stream.asked.pop_front();
            debug_assert!(
                !stream.asked.is_empty() || stream.asked_bytes == 0,
                "{} bytes",
                stream.asked_bytes
            );
            let pull = self.pulls.remove(&id)?;
            let Pull { announced, body, waiters, .. } = pull;
            if body.len() == announced.bytes {
                whole.push(PulledBody { announced, body: body.freeze(), waiters });
            }
        }
        Some(())
    }

    /// Closes the stream to a peer, and forgets the bodies that were to come on it.
    fn give_up(&mut self, peer: SocketAddr, outputs: &mut VecDeque<StreamOutput>) {
        if let Some(stream) = self.forget(peer) {
            outputs.push_back(StreamOutput::Close { stream });
        }
    }

    /// Forgets the stream to a peer and what was to come on it; returns its number. Peers that announced
    /// those bodies do so again.
    fn forget(&mut self, peer: SocketAddr) -> Option<StreamId> {
        let stream = self.streams.remove(&peer)?;
        self.asked_bytes -= stream.asked_bytes;
        debug_assert!(!self.streams.is_empty() || self.asked_bytes == 0, "{} bytes", self.asked_bytes);
        let asked = stream.asked.iter().map(|(id, _)| id);
        for id in asked.chain(&stream.waiting) {
            self.pulls.remove(id);
        }
        Some(stream.id)
    }

    /// Bytes that were asked for and have not come, and memory for bodies that are not complete.
    #[cfg(test)]
    pub fn bytes(&self) -> (usize, usize) {
        (self.asked_bytes, self.pulls.values().map(|pull| pull.body.capacity()).sum())
    }

    /// Number of bodies that are being pulled, and of streams.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.pulls.len(), self.streams.len())
    }
}
