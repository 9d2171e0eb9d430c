//! The bytes that wait to be sent on one connection: one contiguous buffer of whole frames.
//!
//! Frames of messages are appended as they are, and what a framing says by itself (answers to pings,
//! closes) is written in between; since both only ever append whole frames, they meet at the borders of
//! frames alone. The buffer belongs to the connection only while something waits: an idle connection has
//! none ([`Outbound::lend`], [`Outbound::give_back`]). Rejected: a list of shared frames and `writev`;
//! for frames of some hundred bytes one copy is cheaper than a reference each.

use std::io::{self, Write};

use super::batch::RecordBatch;
use super::framing::message::Codec;
use super::framing::wrap::{Framing, ROOM_BYTES};

/// Buffers that no connection needs at the moment.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    /// Most bytes that the free buffers may hold together.
    bytes_max: usize,
    /// Capacity of the free buffers together, in bytes.
    bytes: usize,
    /// The smallest number of free buffers since the pool was last trimmed: this many were not needed.
    spare: usize,
    /// Number of turns since the pool was last trimmed.
    turns: u32,
}

/// Most bytes that the buffers of a worker's pool may hold together, however much memory there is.
const POOL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Capacity of the largest buffer that is kept in the pool, in bytes.
const POOLED_BYTES_MAX: usize = 256 * 1024;
/// After this number of turns, half of the buffers that were not needed in the meantime are freed.
const TURNS_PER_LOOK: u32 = 256;

impl BufferPool {
    /// Makes an empty pool whose buffers may hold `bytes_max` bytes together.
    pub fn new(bytes_max: usize) -> BufferPool {
        let bytes_max = bytes_max.min(POOL_BYTES_MAX);
        BufferPool { free: Vec::new(), bytes_max, bytes: 0, spare: 0, turns: 0 }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.free.pop()?;
        self.bytes -= buffer.capacity();
        self.spare = self.spare.min(self.free.len());
        Some(buffer)
    }

    fn put(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= POOLED_BYTES_MAX && self.bytes + buffer.capacity() <= self.bytes_max {
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }

    /// Trims the pool to the size that was needed lately. To be called once in every turn of the worker.
    pub fn handle_turn(&mut self) {
        self.turns += 1;
        if self.turns >= TURNS_PER_LOOK {
            debug_assert!(self.spare <= self.free.len());
            debug_assert_eq!(self.bytes, self.free.iter().map(Vec::capacity).sum::<usize>());
            let unneeded = self.spare.div_ceil(2);
            self.bytes -= self.free.drain(..unneeded).map(|buffer| buffer.capacity()).sum::<usize>();
            (self.turns, self.spare) = (0, self.free.len());
        }
    }
}

/// Sent bytes at the front are cut off once they pass this number, so that a connection that always has
/// something waiting does not grow.
const COMPACT_BYTES: usize = 64 * 1024;

/// The bytes that wait for one connection.
#[derive(Debug, Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    /// The framing of the messages on this connection.
    framing: Framing,
    /// The socket has taken the bytes up to here.
    sent: usize,
    /// A frame begins here, and every frame before it is sent, at least in part. Moved on only when it is
    /// asked for, by reading the heads of the frames in between.
    border: usize,
    /// The frame at the end that still grows. It is closed before anything else happens to the buffer.
    open: Option<RecordBatch>,
}

impl Outbound {
    /// Number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Returns how many bytes of memory the connection's buffer has.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back the memory in which nothing waits.
    pub fn trim(&mut self) {
        self.close_batch();
        self.cut_sent();
        self.bytes.shrink_to_fit();
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The framing of the messages on this connection. A message that many connections want is wrapped once
    /// and then appended to each.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Appends whole frames; before the first frame, the HTTP response.
    pub fn append(&mut self, frames: &[u8]) {
        self.close_batch();
        self.bytes.extend_from_slice(frames);
    }

    /// Appends a message for this connection alone. In `bytes` it stands behind the room that
    /// [`make_room`](super::framing::wrap::make_room) left.
    pub fn append_message(&mut self, codec: Codec, bytes: &mut Vec<u8>) {
        let frame_at = self.framing.wrap(codec, bytes, ROOM_BYTES);
        self.append(bytes.get(frame_at..).unwrap_or_default());
    }

    /// Appends the message of a record to the frame at the end, which many of them share.
    pub fn append_to_batch(&mut self, codec: Codec, message: &[u8]) {
        let batch = self.open.get_or_insert_with(|| RecordBatch::open(codec, &mut self.bytes));
        if batch.push(&mut self.bytes, message) {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        if let Some(batch) = self.open.take() {
            batch.close(self.framing, &mut self.bytes);
        }
    }

    /// Notes that frames of `framing` begin here: what was appended so far is the response to the handshake.
    pub fn start_frames(&mut self, framing: Framing) {
        self.framing = framing;
        self.border = self.bytes.len();
    }

    /// Takes everything back that was appended after `len` bytes waited. None of it may have been sent.
    pub fn take_back(&mut self, len: usize) {
        debug_assert!(len <= self.len(), "more is to stay than there is");
        self.close_batch();
        self.bytes.truncate(self.sent + len);
        self.border = self.border.min(self.bytes.len());
    }

    /// Drops every frame of which no byte was sent, so that a close need not wait for them.
    pub fn drop_unsent_frames(&mut self) {
        self.close_batch();
        self.advance_border();
        self.bytes.truncate(self.border);
    }

    /// Hands the transport as much as it takes, and has it sent. Returns `true` when nothing waits any
    /// longer, here or in the transport. To be called again once the transport can be written to,
    /// otherwise.
    pub fn flush(&mut self, transport: &mut impl Write) -> io::Result<bool> {
        self.close_batch();
        let flushed = self.write_to(transport).and_then(|()| transport.flush());
        match flushed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.compact();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn write_to(&mut self, transport: &mut impl Write) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let waiting = self.bytes.get(self.sent..).unwrap_or_default();
            match transport.write(waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            debug_assert!(self.sent <= self.bytes.len(), "more was taken than waited");
        }
        (self.sent, self.border) = (0, 0);
        self.bytes.clear();
        Ok(())
    }

    /// Takes a buffer from the pool, unless the connection has one.
    pub fn lend(&mut self, pool: &mut BufferPool) {
        if self.bytes.capacity() == 0
            && let Some(buffer) = pool.take()
        {
            self.bytes = buffer;
        }
    }

    /// Gives the buffer back to the pool, if nothing waits in it.
    pub fn give_back(&mut self, pool: &mut BufferPool) {
        if !self.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        debug_assert!(self.open.is_none(), "an empty buffer has no frame that grows");
        let empty = Outbound { framing: self.framing, ..Outbound::default() };
        pool.put(std::mem::replace(self, empty).bytes);
    }

    fn compact(&mut self) {
        if self.sent < COMPACT_BYTES || self.sent < self.len() {
            return;
        }
        self.cut_sent();
        // A long answer may have made the buffer much larger than what usually waits.
        if self.bytes.capacity() > POOLED_BYTES_MAX.max(4 * self.bytes.len()) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Cuts off what was sent.
    fn cut_sent(&mut self) {
        self.advance_border();
        self.bytes.drain(..self.sent);
        self.border -= self.sent;
        self.sent = 0;
    }

    /// Moves `border` to the first beginning of a frame at or after `sent`.
    fn advance_border(&mut self) {
        while self.border < self.sent {
            let frames = self.bytes.get(self.border..).unwrap_or_default();
            let bytes = self.framing.frame_bytes(frames).unwrap_or(usize::MAX);
            self.border = self.border.saturating_add(bytes).min(self.bytes.len());
        }
        debug_assert!((self.sent..=self.bytes.len()).contains(&self.border));
    }

    /// Everything that was appended and not yet sent as a whole, for tests that look at it.
    #[cfg(any(test, fuzzing))]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.close_batch();
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing::wrap::make_room;
    use super::*;

    /// A socket that takes a number of bytes and then would block.
    struct Takes(usize, Vec<u8>);

    impl Write for Takes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.0.min(bytes.len());
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0 -= taken;
            self.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frame(message_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        make_room(&mut bytes);
        bytes.extend(std::iter::repeat_n(b'x', message_bytes));
        let mut out = Outbound::default();
        out.append_message(Codec::Json, &mut bytes);
        out.bytes
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_and_the_rest_dropped() {
        for payloads in [[3, 200, 70_000], [200, 70_000, 3], [70_000, 3, 200]] {
            let frames: Vec<_> = payloads.into_iter().map(frame).collect();
            let all = frames.concat();
            for cut in [0, 1, 2, 5, 206, 70_005, 70_100, all.len() - 1] {
                let (mut out, mut socket) = (Outbound::default(), Takes(cut, Vec::new()));
                out.append(&all);
                assert!(!out.flush(&mut socket).expect("flush"));
                out.drop_unsent_frames();
                out.append(b"END");
                socket.0 = usize::MAX;
                assert!(out.flush(&mut socket).expect("flush"));
                let mut whole = Vec::new();
                for frame in &frames {
                    if whole.len() < cut {
                        whole.extend_from_slice(frame);
                    }
                }
                whole.extend_from_slice(b"END");
                assert!(socket.1 == whole, "{payloads:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let (mut pool, mut out) = (BufferPool::new(usize::MAX), Outbound::default());
        out.append(&frame(100));
        out.give_back(&mut pool);
        assert_eq!(out.len(), 102, "what waits is kept");
        assert!(out.flush(&mut Takes(usize::MAX, Vec::new())).expect("flush"));
        out.give_back(&mut pool);
        assert_eq!(out.bytes.capacity(), 0);
        out.lend(&mut pool);
        assert!(out.bytes.capacity() > 0 && pool.free.is_empty());
    }

    #[test]
    fn a_buffer_is_as_large_as_what_waits_once_it_is_trimmed() {
        let frames = [frame(70_000), frame(900_000), frame(200)].concat();
        for cut in [0, 3, 69_000, 80_000, 970_100] {
            let (mut out, mut socket) = (Outbound::default(), Takes(cut, Vec::new()));
            out.append(&frames);
            assert!(!out.flush(&mut socket).expect("flush"));
            assert!(out.held_bytes() >= out.len());
            out.trim();
            assert_eq!(out.held_bytes(), frames.len() - cut);
            out.drop_unsent_frames();
            out.append(b"END");
            socket.0 = usize::MAX;
            assert!(out.flush(&mut socket).expect("flush"));
            assert!(socket.1.ends_with(b"END") && frames.starts_with(&socket.1[..socket.1.len() - 3]));
        }
    }

    /// A layer above the socket may hold bytes that the buffer has given away already.
    #[test]
    fn what_the_transport_still_holds_has_not_been_sent() {
        struct Holds(bool);
        impl Write for Holds {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                if self.0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            }
        }
        let (mut out, mut transport) = (Outbound::default(), Holds(true));
        out.append(&frame(3));
        assert!(!out.flush(&mut transport).expect("flush"));
        assert!(out.is_empty() && !out.flush(&mut transport).expect("flush"));
        transport.0 = false;
        assert!(out.flush(&mut transport).expect("flush"));
    }
}
