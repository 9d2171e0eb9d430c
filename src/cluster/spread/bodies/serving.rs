//! The side that is asked for bodies.
//!
//! A body is looked up anew for every piece, so a peer that asks and does not read keeps no batch in memory:
//! it costs one window of written bytes and a short list of names.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::wire::{BodyFrame, FRAME_BYTES_MAX, PIECE_BYTES_MAX};
use crate::cluster::frames::StreamFrameReader;
use crate::cluster::spread::batch::BatchId;
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};

/// Most bytes that are written on a stream until the driver says that it is drained.
pub(super) const WINDOW_BYTES: usize = 128 * 1024;
/// Most streams at a time. For one more, one on which nothing is asked for is closed.
pub(super) const SERVED_STREAMS_MAX: usize = 128;
/// Most bodies that a peer may have asked for and not got. A node asks for fewer.
pub(super) const SERVED_ASKS_MAX: usize = 64;
/// A stream on which bodies are asked for and nothing can be written for this long is closed, in
/// microseconds.
const SERVED_STUCK_US_MAX: u64 = 10_000_000;
/// A stream on which nothing is asked for is closed after this long, in microseconds. Its peer mostly closes
/// it sooner.
const SERVED_IDLE_US_MAX: u64 = 30_000_000;

/// A stream on which a peer pulls from this node.
#[derive(Debug)]
struct ServedStream {
    reader: StreamFrameReader,
    /// Batches that were asked for, in order.
    asks: VecDeque<BatchId>,
    /// Bytes of the first batch in `asks` that were written.
    sent: usize,
    /// Bytes that were written since the stream was last drained.
    in_flight_bytes: usize,
    /// Time at which bytes were last written or the stream was drained, in microseconds.
    moved_us: u64,
}

/// All streams on which peers pull from this node.
#[derive(Debug, Default)]
pub(super) struct Serving {
    streams: BTreeMap<StreamId, ServedStream>,
}

impl Serving {
    /// Returns whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Handles an event of a stream that a peer opened. `find` returns a batch as it was packed. Returns the
    /// number of bytes of bodies that were written.
    pub fn handle(
        &mut self,
        now_us: u64,
        stream: StreamId,
        event: StreamEvent,
        find: &dyn Fn(BatchId) -> Option<Bytes>,
        outputs: &mut VecDeque<StreamOutput>,
    ) -> usize {
        if let StreamEvent::Accepted { .. } = event {
            self.accept(now_us, stream, outputs);
            return 0;
        }
        let Some(server) = self.streams.get_mut(&stream) else { return 0 };
        let is_sound = match event {
            StreamEvent::Received(bytes) => server.take(&bytes),
            StreamEvent::Drained => {
                server.in_flight_bytes = 0;
                server.moved_us = now_us;
                true
            }
            StreamEvent::Closed => {
                self.streams.remove(&stream);
                return 0;
            }
            StreamEvent::Accepted { .. } | StreamEvent::Opened => true,
        };
        if !is_sound {
            self.streams.remove(&stream);
            outputs.push_back(StreamOutput::Close { stream });
            return 0;
        }
        server.pump(now_us, stream, find, outputs)
    }

    /// Takes a stream that a peer opened, or closes it if there are too many.
    fn accept(&mut self, now_us: u64, stream: StreamId, outputs: &mut VecDeque<StreamOutput>) {
        if self.streams.len() >= SERVED_STREAMS_MAX {
            let idle = self.streams.iter().filter(|(_, server)| server.is_idle());
            let Some(oldest) = idle.min_by_key(|(_, server)| server.moved_us).map(|(id, _)| *id) else {
                outputs.push_back(StreamOutput::Close { stream });
                return;
            };
            self.streams.remove(&oldest);
            outputs.push_back(StreamOutput::Close { stream: oldest });
        }
        let server = ServedStream {
            reader: StreamFrameReader::new(FRAME_BYTES_MAX),
            asks: VecDeque::new(),
            sent: 0,
            in_flight_bytes: 0,
            moved_us: now_us,
        };
        self.streams.insert(stream, server);
    }

    /// Closes streams whose peer does not read, and those on which nothing was asked for for long.
    pub fn sweep(&mut self, now_us: u64, outputs: &mut VecDeque<StreamOutput>) {
        let is_over = |server: &ServedStream| {
            let us_max = if server.is_idle() { SERVED_IDLE_US_MAX } else { SERVED_STUCK_US_MAX };
            now_us.saturating_sub(server.moved_us) > us_max
        };
        self.streams.retain(|&stream, server| {
            let is_over = is_over(server);
            if is_over {
                outputs.push_back(StreamOutput::Close { stream });
            }
            !is_over
        });
    }
}

impl ServedStream {
    /// Returns whether nothing is asked for, and everything that was written has left this process.
    fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.in_flight_bytes == 0
    }

    /// Reads the frames that came from the peer; `false`: no node would send them, or it asks for too much.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.reader.push(bytes);
        loop {
            match self.reader.next_frame() {
                Ok(None) => return true,
                Ok(Some(frame)) => match BodyFrame::decode(frame) {
                    Some(BodyFrame::Ask(id)) if self.asks.len() < SERVED_ASKS_MAX => self.asks.push_back(id),
                    _ => return false,
                },
                Err(_) => return false,
            }
        }
    }

    /// Writes pieces of the bodies that were asked for, up to the window; returns their bytes.
    fn pump(
        &mut self,
        now_us: u64,
        stream: StreamId,
        find: &dyn Fn(BatchId) -> Option<Bytes>,
        outputs: &mut VecDeque<StreamOutput>,
    ) -> usize {
        let mut served = 0;
        while self.in_flight_bytes < WINDOW_BYTES
            && let Some(id) = self.asks.front()
        {
            let body = find(*id);
            let len = body.as_ref().map_or(0, Bytes::len);
            let from = self.sent.min(len);
            let to = (from + PIECE_BYTES_MAX).min(len);
            let frame = match body {
                Some(body) if from < to => BodyFrame::Piece(body.slice(from..to)),
                _ => BodyFrame::Lack,
            };
            served += to - from;
            self.sent = to;
            if to >= len {
                self.asks.pop_front();
                self.sent = 0;
            }
            let bytes = frame.encode();
            self.in_flight_bytes += bytes.len();
            self.moved_us = now_us;
            outputs.push_back(StreamOutput::Write { stream, bytes });
        }
        served
    }
}
