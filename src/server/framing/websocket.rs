//! WebSocket framing without a socket: bytes come in, messages go out, and control frames are answered.
//!
//! Nearly every frame is a whole message, masked, and lies whole in what the worker has just read (there is
//! one read buffer for each worker, not for each connection). Such a frame is unmasked where it lies and
//! lent to the session: nothing is copied or allocated. If a frame is cut off by the end of the buffer, its
//! beginning is kept until the rest has come; an idle connection keeps nothing.
//!
//! Every other frame (control frames, fragments, whatever breaks the rules) goes to tungstenite, byte for
//! byte and never beyond its end. So tungstenite alone decides what it means, and the frames before and
//! after it can still be read here. It wants a stream that it can read from and write to, and gets a
//! [`Pipe`] that exists for one call: reading takes from the input, writing appends to the connection's
//! [`Outbound`]. So nothing here ever blocks.
//!
//! Text that comes in several pieces is checked piece by piece: a message that is no UTF-8 is refused when
//! that is seen, and not when its end has come.
//!
//! Rejected: tungstenite for all frames, since it copies each into a buffer of the connection and allocates
//! for it, which was half of what a small publish cost; and no tungstenite at all, since what is rare and
//! subtle is best left to those who have got it right.

use std::io::{self, Read, Write};

use tungstenite::Message as Lent;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode as WireCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::frame_head::{self, BINARY, FrameHead, TEXT};
use super::message::{IncomingMessage, Unwrapped};
use super::text_check::{NotUtf8, TextCheck};
use crate::server::close::{CloseCode, CloseReason};
use crate::server::outbound::Outbound;

/// Read buffer of a connection, in bytes. Small, since tungstenite allocates it at once.
const READ_BUFFER_BYTES: usize = 64;
/// Memory for frames that a connection may keep between messages, in bytes.
const KEPT_FRAME_BYTES_MAX: usize = 4096;
/// First byte of the first fragment of a message of text.
const TEXT_FRAGMENT: u8 = 0x01;
/// First byte of a fragment that is neither the first nor the last.
const CONTINUATION: u8 = 0x00;
/// First byte of the last fragment of a message.
const LAST_CONTINUATION: u8 = 0x80;
/// Longest reason of a close frame, in bytes.
const REASON_BYTES_MAX: usize = 120;
/// The reason that is sent when text is refused.
const NOT_UTF8: &str = "text that is not UTF-8";

/// The framing state of one connection.
#[derive(Debug)]
pub struct WebSocket {
    context: WebSocketContext,
    /// The beginning of a frame whose end has not come, or a whole frame whose message was lent out.
    partial: Vec<u8>,
    /// Whether the message in `partial` was lent out: `partial` is to be emptied before anything else.
    is_spent: bool,
    /// The check of the text in `partial`, and the number of bytes of `partial` that it has seen.
    partial_check: (TextCheck, usize),
    /// Number of bytes still to come of the frame that tungstenite is reading.
    passing: u64,
    /// The fragment of text that tungstenite is reading.
    fragment: Option<FrameHead>,
    /// The check of the text in the fragments of the message that was begun, if it is text.
    text: Option<TextCheck>,
    /// Bytes of that frame that tungstenite has read.
    passed: usize,
    /// Whether that frame is a part of a message, and no control frame.
    is_passing_data: bool,
    /// Bytes that tungstenite has read of a message whose last fragment has not come.
    fragment_bytes: usize,
    /// The most bytes of one frame that tungstenite has read, and has a buffer for.
    buffered: usize,
    /// Whether a message was begun whose last fragment has not come.
    is_fragmented: bool,
    /// The largest frame that tungstenite has read, in bytes.
    largest: u64,
    /// The message that tungstenite read last, while it is lent out.
    lent: Option<Lent>,
    /// Largest frame, and largest message of several fragments, in bytes.
    frame_bytes_max: usize,
}

/// The stream that tungstenite is given for one call: it reads `input`, and writes to `out`.
struct Pipe<'a> {
    input: &'a [u8],
    out: &'a mut Outbound,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocket {
    /// The server's side of a connection whose handshake is done.
    pub fn new(frame_bytes_max: usize) -> WebSocket {
        WebSocket {
            context: context(frame_bytes_max),
            partial: Vec::new(),
            is_spent: false,
            partial_check: Default::default(),
            passing: 0,
            fragment: None,
            text: None,
            passed: 0,
            is_passing_data: false,
            fragment_bytes: 0,
            buffered: 0,
            is_fragmented: false,
            largest: 0,
            lent: None,
            frame_bytes_max,
        }
    }

    /// Returns the next message in `input`. To be called until the input is used up
    /// ([`Unwrapped::Starved`]). Pongs and the answer to a close go to `out`.
    pub fn read<'a, 'b: 'a>(&'a mut self, input: &mut &'b mut [u8], out: &mut Outbound) -> Unwrapped<'a> {
        self.lent = None;
        if std::mem::take(&mut self.is_spent) {
            self.partial.clear();
            self.partial.shrink_to(KEPT_FRAME_BYTES_MAX);
            self.partial_check = Default::default();
        }
        loop {
            if self.passing > 0 {
                if self.check_fragment(input).is_err() {
                    return broken(CloseCode::InvalidText, NOT_UTF8);
                }
                match self.pass(input, out) {
                    Ok(true) => return self.lend(),
                    Ok(false) if self.passing > 0 && input.is_empty() => return Unwrapped::Starved,
                    Ok(false) => continue,
                    Err(error) => return end(error),
                }
            }
            if !self.partial.is_empty() {
                match self.complete(input) {
                    Some(head) if self.is_plain(head) => return self.take_partial(head),
                    Some(head) => self.begin_passing(head),
                    None => return self.wait_for_rest(),
                }
                continue;
            }
            let Ok(head) = FrameHead::read(input) else {
                self.keep(input, usize::MAX, 0);
                return self.starve();
            };
            if !self.is_plain(head) {
                self.begin_passing(head);
            } else if head.frame() <= input.len() as u64 {
                let (frame, rest) = std::mem::take(input).split_at_mut(head.len + head.payload as usize);
                *input = rest;
                return message(head, frame.get_mut(head.len..).unwrap_or_default());
            } else {
                self.keep(input, usize::MAX, head.frame());
                return self.wait_for_rest();
            }
        }
    }

    /// The input has ended within a frame: checks the text of it that has come.
    fn wait_for_rest(&mut self) -> Unwrapped<'_> {
        if let Ok(head) = FrameHead::read(&self.partial)
            && head.first == TEXT
        {
            let (check, seen) = &mut self.partial_check;
            let from = (*seen).max(head.len);
            let payload = self.partial.get(from..).unwrap_or_default();
            *seen = self.partial.len();
            if check.feed_masked(payload, (from - head.len) as u64, head.mask.unwrap_or_default()).is_err() {
                return broken(CloseCode::InvalidText, NOT_UTF8);
            }
        }
        self.starve()
    }

    /// Returns how many bytes are held of frames that have not come in full. The buffers of tungstenite cannot
    /// be asked for their size: it has one as large as the largest frame, and one in which fragments are put
    /// together, which doubles when it is full.
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity() + self.buffered + 2 * self.fragment_bytes
    }

    /// Returns whether the input has ended within a frame that is a message or a part of one. Pings and other control
    /// frames are not.
    pub fn is_within_message(&self) -> bool {
        let is_kept = || FrameHead::read(&self.partial).is_ok_and(|head| head.first & 0x08 == 0);
        self.passing > 0 && self.is_passing_data || is_kept()
    }

    /// Returns whether a frame is a whole message that can be read without knowing what came before it.
    fn is_plain(&self, head: FrameHead) -> bool {
        matches!(head.first, TEXT | BINARY)
            && head.mask.is_some()
            && head.payload <= self.frame_bytes_max as u64
            && !self.is_fragmented
            && self.context.can_write()
    }

    /// Moves up to `count` bytes from the input behind those that are kept. The memory for them doubles when it
    /// is full, but not beyond the `frame` bytes of the whole frame.
    fn keep(&mut self, input: &mut &mut [u8], count: usize, frame: u64) {
        let count = count.min(input.len());
        let (kept, rest) = std::mem::take(input).split_at_mut(count);
        let (needed, capacity) = (self.partial.len() + count, self.partial.capacity());
        if needed > capacity {
            let frame = usize::try_from(frame).unwrap_or(usize::MAX);
            self.partial.reserve_exact(needed.max(frame.min(2 * capacity)) - self.partial.len());
        }
        self.partial.extend_from_slice(kept);
        *input = rest;
    }

    /// Completes what is kept from the input: all of a plain frame, the head alone of any other. `None` means
    /// that the input was not enough.
    fn complete(&mut self, input: &mut &mut [u8]) -> Option<FrameHead> {
        loop {
            let needed = match FrameHead::read(&self.partial) {
                Ok(head) if !self.is_plain(head) => return Some(head),
                Ok(head) if head.frame() <= self.partial.len() as u64 => return Some(head),
                Ok(head) => usize::try_from(head.frame()).unwrap_or(usize::MAX),
                Err(needed) => needed,
            };
            if input.is_empty() {
                return None;
            }
            self.keep(input, needed - self.partial.len(), needed as u64);
        }
    }

    /// Lends the message of the frame that was kept.
    fn take_partial(&mut self, head: FrameHead) -> Unwrapped<'_> {
        self.is_spent = true;
        message(head, self.partial.get_mut(head.len..).unwrap_or_default())
    }

    /// Notes that a frame begins which tungstenite is to read.
    fn begin_passing(&mut self, head: FrameHead) {
        (self.passing, self.passed) = (head.frame(), 0);
        self.partial_check = Default::default();
        self.begin_fragment(head);
        self.largest = self.largest.max(head.frame());
        // Only for data frames: a control frame may stand between fragments.
        self.is_passing_data = head.first & 0x08 == 0;
        if self.is_passing_data {
            self.is_fragmented = head.first & 0x80 == 0;
        }
    }

    /// Notes whether the frame that tungstenite is to read is a fragment of text. One that breaks any rule is
    /// left to tungstenite, which says which rule that is.
    fn begin_fragment(&mut self, head: FrameHead) {
        let is_proper =
            head.mask.is_some() && head.payload <= self.frame_bytes_max as u64 && self.context.can_write();
        match (head.first, self.is_fragmented) {
            (TEXT_FRAGMENT, false) => self.text = Some(TextCheck::default()),
            (CONTINUATION | LAST_CONTINUATION, true) => {}
            // Control frames stand between fragments.
            (first, _) if first & 0x08 != 0 => return self.fragment = None,
            _ => self.text = None,
        }
        self.fragment = Some(head).filter(|_| is_proper && self.text.is_some());
    }

    /// Checks what there is of a fragment of text, before tungstenite takes it.
    fn check_fragment(&mut self, input: &[u8]) -> Result<(), NotUtf8> {
        let (Some(head), Some(text)) = (self.fragment, &mut self.text) else { return Ok(()) };
        // What is kept comes first, and alone.
        let next = if self.partial.is_empty() { input } else { &self.partial };
        let passed = head.frame() - self.passing;
        let left = usize::try_from(self.passing).unwrap_or(usize::MAX);
        let next = next.get(..left.min(next.len())).unwrap_or_default();
        // The head is passed on together with the payload.
        let head_left = head.len.saturating_sub(usize::try_from(passed).unwrap_or(usize::MAX));
        let payload = next.get(head_left.min(next.len())..).unwrap_or_default();
        let at = (passed + head_left as u64).saturating_sub(head.len as u64);
        text.feed_masked(payload, at, head.mask.unwrap_or_default())
    }

    /// Hands tungstenite what there is of its frame. Returns whether that was the end of a message.
    fn pass(&mut self, input: &mut &mut [u8], out: &mut Outbound) -> Result<bool, Error> {
        let kept = std::mem::take(&mut self.partial);
        if !kept.is_empty() {
            return self.feed(&kept, out);
        }
        let count = usize::try_from(self.passing).unwrap_or(usize::MAX).min(input.len());
        let (fed, rest) = std::mem::take(input).split_at_mut(count);
        *input = rest;
        self.feed(fed, out)
    }

    /// Has tungstenite read these bytes. Returns whether they were the end of a message.
    fn feed(&mut self, bytes: &[u8], out: &mut Outbound) -> Result<bool, Error> {
        self.passing = self.passing.saturating_sub(bytes.len() as u64);
        self.passed += bytes.len();
        self.buffered = self.buffered.max(self.passed);
        self.fragment_bytes += if self.is_passing_data { bytes.len() } else { 0 };
        let mut pipe = Pipe { input: bytes, out };
        loop {
            match self.context.read(&mut pipe) {
                Ok(message @ (Lent::Text(_) | Lent::Binary(_))) => {
                    // A message ends with the last byte of its frame: there is nothing left in the pipe.
                    self.lent = Some(message);
                    self.fragment_bytes = 0;
                    return Ok(true);
                }
                Ok(Lent::Ping(_) | Lent::Pong(_) | Lent::Close(_) | Lent::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Lends the message that tungstenite read last.
    fn lend(&self) -> Unwrapped<'_> {
        match &self.lent {
            Some(Lent::Text(text)) => Unwrapped::Message(IncomingMessage::Text(text.as_str())),
            Some(Lent::Binary(data)) => Unwrapped::Message(IncomingMessage::Binary(data)),
            _ => Unwrapped::Starved,
        }
    }

    /// The input is used up: gives back memory that is not needed between messages.
    fn starve(&mut self) -> Unwrapped<'_> {
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        // After a large frame tungstenite keeps a buffer of that size. Between messages nothing is in it, and
        // a new context does as well.
        if self.largest > KEPT_FRAME_BYTES_MAX as u64 && !self.is_fragmented && self.context.can_write() {
            self.context = context(self.frame_bytes_max);
            (self.largest, self.buffered) = (0, 0);
        }
        Unwrapped::Starved
    }

    /// Begins the close handshake. Does nothing if a close frame was sent already.
    pub fn close(&mut self, close: &CloseReason, out: &mut Outbound) {
        let mut end = close.reason.len().min(REASON_BYTES_MAX);
        while !close.reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = close.reason.get(..end).unwrap_or_default();
        let frame = CloseFrame { code: WireCode::from(close.code.number()), reason: reason.into() };
        // An error says that the handshake is over already: there is nothing left to send.
        let mut pipe = Pipe { input: &[], out };
        let _ = self.context.close(&mut pipe, Some(frame));
    }
}

/// Takes the mask off the payload of a plain frame, and returns its message.
fn message(head: FrameHead, payload: &mut [u8]) -> Unwrapped<'_> {
    frame_head::mask(payload, head.mask.unwrap_or_default());
    match (head.first, str::from_utf8(payload)) {
        (BINARY, _) => Unwrapped::Message(IncomingMessage::Binary(payload)),
        (_, Ok(text)) => Unwrapped::Message(IncomingMessage::Text(text)),
        (_, Err(_)) => broken(CloseCode::InvalidText, NOT_UTF8),
    }
}

/// Returns what an error of tungstenite means for the connection.
fn end(error: Error) -> Unwrapped<'static> {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Unwrapped::Ended,
        Error::Utf8(_) => broken(CloseCode::InvalidText, NOT_UTF8),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            broken(CloseCode::TooLarge, &format!("a frame of {size} bytes; at most {max_size}"))
        }
        Error::Capacity(_) => broken(CloseCode::TooLarge, "a frame over the limit"),
        error => broken(CloseCode::ProtocolError, &error.to_string()),
    }
}

fn broken(code: CloseCode, reason: &str) -> Unwrapped<'static> {
    Unwrapped::Broken(CloseReason::new(code, reason))
}

/// Tungstenite's state of a connection on which nothing has come yet.
fn context(frame_bytes_max: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max));
    WebSocketContext::new(Role::Server, Some(config))
}

#[cfg(test)]
mod tests;
