//! What waits to be sent on one connection: one contiguous buffer of whole WebSocket frames.
//!
//! Ready-made data frames are appended as they are, control frames are written into it by
//! tungstenite; since both only ever append whole frames, they interleave at frame borders alone. The
//! buffer belongs to the connection only while something waits: an idle connection has none
//! ([`Outbound::lend`], [`Outbound::give_back`]). Rejected: a list of shared frames and `writev`; for
//! frames of some hundred bytes one copy is cheaper than a reference each.

use std::io::{self, Write};

use super::batch::Batch;
use super::frame::Head;
use super::session::Codec;

/// Buffers that no connection needs at the moment.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    bytes: usize,
    /// The fewest that were free since the last look: so many more than needed.
    spare: usize,
    turns: u32,
}

/// Bytes that a worker's pool may hold, and the largest buffer in it.
const POOL_BYTES_MAX: usize = 32 * 1024 * 1024;
const POOLED_BYTES_MAX: usize = 256 * 1024;
/// After so many turns, half of the buffers that nobody needed in the meantime are let go.
const TURNS_PER_LOOK: u32 = 256;

impl BufferPool {
    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.free.pop()?;
        self.bytes -= buffer.capacity();
        self.spare = self.spare.min(self.free.len());
        Some(buffer)
    }

    fn put(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= POOLED_BYTES_MAX && self.bytes + buffer.capacity() <= POOL_BYTES_MAX {
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }

    /// To be called once a turn, so that a pool is as large as it was needed lately.
    pub fn handle_turn(&mut self) {
        self.turns += 1;
        if self.turns >= TURNS_PER_LOOK {
            let unneeded = self.spare.div_ceil(2);
            self.bytes -= self.free.drain(..unneeded).map(|buffer| buffer.capacity()).sum::<usize>();
            (self.turns, self.spare) = (0, self.free.len());
        }
    }
}

/// Sent bytes at the front are cut off once they pass this, so that a connection that always has
/// something waiting does not grow.
const COMPACT_BYTES: usize = 64 * 1024;

/// The bytes that wait for one connection.
#[derive(Debug, Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    /// Up to here the socket has taken them.
    sent: usize,
    /// A frame begins here; all before it are sent, or partly. Moved on when needed, by reading the
    /// frames' headers.
    border: usize,
    /// The frame at the end that still grows. Closed before anything else happens to the buffer.
    open: Option<Batch>,
}

impl Outbound {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends whole frames, headers included; and, before the first frame, the HTTP response.
    pub fn append(&mut self, frames: &[u8]) {
        self.close_batch();
        self.bytes.extend_from_slice(frames);
    }

    /// The buffer itself, to append whole frames to. Nothing in it may be changed.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.close_batch();
        &mut self.bytes
    }

    /// Appends the message of a record to the frame at the end, which many of them share.
    pub fn append_to_batch(&mut self, codec: Codec, message: &[u8]) {
        let batch = self.open.get_or_insert_with(|| Batch::open(codec, &mut self.bytes));
        if batch.push(&mut self.bytes, message) {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        if let Some(batch) = self.open.take() {
            batch.close(&mut self.bytes);
        }
    }

    /// What was appended so far is no frames (the response to the handshake): frames begin here.
    pub fn start_frames(&mut self) {
        self.border = self.bytes.len();
    }

    /// Drops every frame of which no byte was sent: nobody is to wait for them before a close.
    pub fn drop_unsent_frames(&mut self) {
        self.close_batch();
        self.advance_border();
        self.bytes.truncate(self.border);
    }

    /// Hands the socket as much as it takes. `true`: all of it.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        self.close_batch();
        while self.sent < self.bytes.len() {
            let waiting = self.bytes.get(self.sent..).unwrap_or_default();
            match socket.write(waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.sent, self.border) = (0, 0);
        self.bytes.clear();
        Ok(true)
    }

    /// Takes a buffer from the pool, unless it has one.
    pub fn lend(&mut self, pool: &mut BufferPool) {
        if self.bytes.capacity() == 0
            && let Some(buffer) = pool.take()
        {
            self.bytes = buffer;
        }
    }

    /// Gives an empty buffer back.
    pub fn give_back(&mut self, pool: &mut BufferPool) {
        if !self.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        pool.put(std::mem::take(self).bytes);
    }

    fn compact(&mut self) {
        if self.sent < COMPACT_BYTES || self.sent < self.len() {
            return;
        }
        self.advance_border();
        self.bytes.drain(..self.sent);
        self.border -= self.sent;
        self.sent = 0;
    }

    /// Moves `border` to the first beginning of a frame at or after `sent`.
    fn advance_border(&mut self) {
        while self.border < self.sent {
            let frames = self.bytes.get(self.border..).unwrap_or_default();
            let bytes = Head::read(frames).map_or(u64::MAX, |head| head.frame());
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            self.border = self.border.saturating_add(bytes).min(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    /// A socket that takes so many bytes and then would block.
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

    fn frame(payload: usize) -> Vec<u8> {
        let (head, len) = frame::head(frame::TEXT, payload);
        [&head[..len], &vec![b'x'; payload]].concat()
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
        let (mut pool, mut out) = (BufferPool::default(), Outbound::default());
        out.append(&frame(100));
        out.give_back(&mut pool);
        assert_eq!(out.len(), 102, "what waits is kept");
        assert!(out.flush(&mut Takes(usize::MAX, Vec::new())).expect("flush"));
        out.give_back(&mut pool);
        assert_eq!(out.bytes.capacity(), 0);
        out.lend(&mut pool);
        assert!(out.bytes.capacity() > 0 && pool.free.is_empty());
    }
}
