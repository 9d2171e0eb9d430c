//! The checks of the beginning of a connection, and of the frames on a WebSocket.

use tungstenite::Message as Lent;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::framing::message::{IncomingMessage, Unwrapped};
use super::framing::read::FrameReader;
use super::framing::wrap::Framing;
use super::head::{HeadBuffer, RequestHead, Upgrade};
use super::outbound::Outbound;
use crate::fuzzing::{Pieces, join};
use crate::limits::REQUEST_HEAD_BYTES_MAX;

/// The kind of a head, so that two readings can be compared.
#[derive(Debug, PartialEq)]
enum Seen {
    Partial,
    TooLarge,
    Foreign(&'static str),
    Http,
    Health(String),
    Upgrade(String),
    Stream(String),
}

/// The first byte tells how many bytes come at a time; the rest are the bytes of a connection.
pub(crate) fn http_head(input: &[u8]) {
    let Some((&step, bytes)) = input.split_first() else { return };
    // A worker reads no further than this before it looks at the head.
    let bytes = bytes.get(..REQUEST_HEAD_BYTES_MAX).unwrap_or(bytes);
    let at_once = heads(bytes, bytes.len().max(1));
    let in_steps = heads(bytes, usize::from(step) % 32 + 1);
    assert_eq!(at_once, in_steps, "cut differently, read differently: {:?}", String::from_utf8_lossy(bytes));
}

/// Reads heads one after the other, as a worker does, until one is not answered by it.
fn heads(bytes: &[u8], step: usize) -> Vec<Seen> {
    let (mut buffer, mut seen) = (HeadBuffer::default(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.push(piece);
        assert!(buffer.held_bytes() <= 2 * REQUEST_HEAD_BYTES_MAX, "{} bytes are held", buffer.held_bytes());
        loop {
            let last = match buffer.read() {
                RequestHead::Partial => break,
                RequestHead::Health(health) => {
                    assert!(health.head_bytes <= bytes.len(), "{health:?}");
                    seen.push(Seen::Health(format!("{health:?}")));
                    buffer.handle_answered(health.head_bytes);
                    continue;
                }
                RequestHead::TooLarge => Seen::TooLarge,
                RequestHead::Foreign(message) => Seen::Foreign(message),
                RequestHead::Http => Seen::Http,
                RequestHead::Stream(request) => Seen::Stream(format!("{request:?}")),
                RequestHead::Upgrade(upgrade) => {
                    upgrade_holds(&upgrade, bytes);
                    Seen::Upgrade(format!("{upgrade:?}"))
                }
            };
            seen.push(last);
            return seen;
        }
    }
    seen.push(Seen::Partial);
    seen
}

fn upgrade_holds(upgrade: &Upgrade, bytes: &[u8]) {
    assert!(upgrade.head_bytes <= bytes.len(), "{upgrade:?}");
    assert!(!upgrade.query.contains([' ', '\r', '\n']), "{upgrade:?}");
    match &upgrade.handshake {
        Ok(handshake) => {
            let response = String::from_utf8(handshake.response()).expect("text");
            let (head, rest) = response.split_once("\r\n\r\n").expect("a whole head");
            assert!(rest.is_empty() && head.starts_with("HTTP/1.1 101 "), "{response}");
            assert!(head.lines().skip(1).all(|line| line.contains(": ")), "{response}");
        }
        Err(reason) => assert!(reason.len() < 512 && !reason.contains(['\r', '\n']), "{reason:?}"),
    }
}

pub(crate) fn http_head_seeds() -> Vec<Vec<u8>> {
    let upgrade = "Host: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let seeds = [
        format!("GET /subscribe?source=a%2Fb&mode=all HTTP/1.1\r\n{upgrade}\r\n\u{1}\u{2}"),
        format!("GET /publish HTTP/1.1\r\n{upgrade}Sec-WebSocket-Protocol: x, anode.v1.protobuf\r\n\r\n"),
        format!("GET http://h/publish?ack=stored HTTP/1.1\n{}\n", upgrade.replace("\r\n", "\n")),
        format!("\r\n\r\nGET /publish HTTP/1.1\r\n{upgrade}Host: other\r\n\r\n"),
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\nHEAD /readyz HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
            .into(),
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\nContent-Length: 0\r\n\r\n".into(),
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n".into(),
        "GET /v1/stream?source=a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: b\r\nOrigin: c\r\n\r\n".into(),
    ];
    seeds.into_iter().enumerate().map(|(at, seed)| [&[at as u8], seed.as_bytes()].concat()).collect()
}

/// Largest message that the checked WebSocket takes, in bytes. Small, so that inputs reach it.
const MESSAGE_BYTES_MAX: usize = 600;
/// Memory that a WebSocket may hold: a frame that has not come in full, one that tungstenite has a buffer for,
/// and twice the fragments of a message.
const HELD_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX + 256;

/// The messages that were read, and how it ended: the close code if the framing was broken, 0 if both sides
/// have closed, `None` if more may come.
type Read = (Vec<Result<String, Vec<u8>>>, Option<u16>);

/// The input is the bytes of a connection, in the pieces in which they come.
pub(crate) fn websocket(input: &[u8]) {
    let pieces: Vec<&[u8]> = Pieces(input).collect();
    let bytes = pieces.concat();
    let (mut out, mut out_at_once, mut out_other) = Default::default();
    let in_pieces = read(&pieces, &mut out);
    let at_once = read(&[&bytes], &mut out_at_once);
    assert_eq!(in_pieces, at_once, "cut differently, read differently");
    let (messages, end) = read_by_tungstenite(&bytes, &mut out_other);
    match at_once {
        // Text that is no UTF-8 is refused before the end of its message has come, and what follows a breach
        // is not read.
        (ours, Some(code @ 1002..)) => {
            assert!(messages.starts_with(&ours), "{ours:?} and {messages:?}");
            assert!(end == Some(code) || (code == 1007 && end != Some(0)), "{code} and {end:?}");
        }
        ours => {
            assert_eq!(ours, (messages, end));
            assert_eq!(out.tail(), out_other.tail(), "other answers");
        }
    }
}

fn read(pieces: &[&[u8]], out: &mut Outbound) -> Read {
    let (mut websocket, mut messages) = (FrameReader::new(Framing::WebSocket, MESSAGE_BYTES_MAX), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            match websocket.read(&mut input, out) {
                Unwrapped::Message(IncomingMessage::Text(text)) => messages.push(Ok(text.to_owned())),
                Unwrapped::Message(IncomingMessage::Binary(data)) => messages.push(Err(data.to_vec())),
                Unwrapped::Starved => break,
                Unwrapped::Ended => return (messages, Some(0)),
                Unwrapped::Broken(close) => return (messages, Some(close.code.number())),
            }
        }
        assert!(websocket.held_bytes() <= HELD_BYTES_MAX, "{} bytes are held", websocket.held_bytes());
    }
    (messages, None)
}

/// Reads the bytes with tungstenite alone.
fn read_by_tungstenite(bytes: &[u8], out: &mut Outbound) -> Read {
    use tungstenite::error::{CapacityError, Error};
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let (mut messages, mut stream) = (Vec::new(), Stream { input: bytes, out });
    loop {
        match context.read(&mut stream) {
            Ok(Lent::Text(text)) => messages.push(Ok(text.to_string())),
            Ok(Lent::Binary(data)) => messages.push(Err(data.to_vec())),
            Ok(_) => {}
            Err(Error::Io(_)) => return (messages, None),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (messages, Some(0)),
            Err(Error::Utf8(_)) => return (messages, Some(1007)),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return (messages, Some(1009)),
            Err(_) => return (messages, Some(1002)),
        }
    }
}

struct Stream<'a> {
    input: &'a [u8],
    out: &'a mut Outbound,
}

impl std::io::Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl std::io::Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A frame of a client.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => frame.extend([0x80 | 126, (long >> 8) as u8, long as u8]),
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) fn websocket_seeds() -> Vec<Vec<u8>> {
    let long = [b'x'; 300];
    let seeds: Vec<Vec<Vec<u8>>> = vec![
        vec![masked(0x81, b"{\"source\":\"a\",\"data\":1}"), masked(0x82, b"\0\x01")],
        vec![masked(0x01, b"one "), masked(0x89, b"ping"), masked(0x00, b"two "), masked(0x80, b"three")],
        vec![masked(0x81, &long)],
        vec![masked(0x02, &long), masked(0x80, &long), masked(0x81, b"a")],
        vec![masked(0x81, "κόσμε".as_bytes()), masked(0x81, b"\xf4\x90\x80\x80")],
        vec![masked(0x88, b"\x03\xe8bye"), masked(0x81, b"late")],
        vec![masked(0x8a, b""), masked(0x89, b""), masked(0x88, b"")],
        vec![vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]],
        vec![vec![0x81, 1, b'x'], masked(0xf1, b"x")],
        vec![masked(0x01, b"\xf4"), masked(0x00, b"\x90"), masked(0x80, b"")],
    ];
    let mut inputs = Vec::new();
    for frames in seeds {
        inputs.push(join(frames.iter().map(Vec::as_slice)));
        let whole = frames.concat();
        inputs.push(join(whole.chunks(5)));
    }
    inputs
}
