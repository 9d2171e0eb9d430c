//! A server that sends every message of a WebSocket back, for a test suite of another author that wants an echo.
//!
//! A node's own paths answer requests and send nothing back, so `scripts/autobahn` starts this test instead. The
//! handshake, the frames in and the frames out are those of a node. Only the loop that moves bytes between them and
//! the socket differs: here each connection has a thread.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::framing::message::{Codec, IncomingMessage, Unwrapped};
use super::framing::read::FrameReader;
use super::framing::wrap::{Framing, ROOM_BYTES, make_room};
use super::head::{HeadBuffer, RequestHead};
use super::outbound::Outbound;

/// Largest message: the suite sends 16 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Reads the upgrade, and answers it. Returns the bytes behind its head.
fn shake_hands(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut head, mut piece) = (HeadBuffer::default(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        head.push(&piece[..count]);
        match head.read() {
            RequestHead::Partial => {}
            RequestHead::Upgrade(upgrade) => {
                stream.write_all(&upgrade.handshake.ok()?.response()).ok()?;
                return Some(head.take().split_off(upgrade.head_bytes));
            }
            _ => return None,
        }
    }
}

/// What is to be done after a piece of input.
enum Then {
    ReadOn,
    Close,
}

/// Sends the messages in `input` back.
fn send_back(reader: &mut FrameReader, mut input: &mut [u8], out: &mut Outbound) -> Then {
    loop {
        let mut frame = Vec::new();
        make_room(&mut frame);
        let codec = match reader.read(&mut input, out) {
            Unwrapped::Message(IncomingMessage::Text(text)) => {
                frame.extend_from_slice(text.as_bytes());
                Codec::Json
            }
            Unwrapped::Message(IncomingMessage::Binary(bytes)) => {
                frame.extend_from_slice(bytes);
                Codec::Protobuf
            }
            Unwrapped::Starved => return Then::ReadOn,
            Unwrapped::Ended => return Then::Close,
            Unwrapped::Broken(reason) => {
                reader.close(&reason, out);
                return Then::Close;
            }
        };
        let start = Framing::WebSocket.wrap(codec, &mut frame, ROOM_BYTES);
        out.append(&frame[start..]);
    }
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut input = shake_hands(&mut stream)?;
    let mut reader = FrameReader::new(Framing::WebSocket, MESSAGE_BYTES_MAX);
    let (mut out, mut piece) = (Outbound::default(), vec![0; 64 * 1024]);
    loop {
        let then = send_back(&mut reader, &mut input, &mut out);
        while !out.is_empty() {
            out.flush(&mut stream).ok()?;
        }
        if let Then::Close = then {
            return stream.shutdown(std::net::Shutdown::Write).ok();
        }
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        input.clear();
        input.extend_from_slice(&piece[..count]);
    }
}

#[test]
#[ignore = "a server, which scripts/autobahn starts and stops"]
fn echoes_every_message() {
    let address = std::env::var("ANODE_ECHO").expect("ANODE_ECHO is the address to listen at");
    let listener = TcpListener::bind(&address).expect("a free port");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}
