//! A bare relay, as the limit of what a server over WebSocket can reach: it sends whatever a publisher
//! sends, unchanged, to all subscribers.
//!
//! It has no sources, no patterns, no state, and no bound on what waits. A frame is unmasked once and copied
//! into the contiguous buffer of each subscriber, and all frames of a turn leave in one write to each; with
//! `--singly` every frame is a write of its own. It greets as aNode does, so that the same load can be put
//! on it.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anode_loadgen::Outcome;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;

struct Connection {
    socket: TcpStream,
    /// Received bytes that are no whole frame yet.
    input: Vec<u8>,
    /// Bytes for the socket, of which the first `sent` are written already.
    out: Vec<u8>,
    sent: usize,
    is_open: bool,
    is_subscriber: bool,
}

/// Serves until the process is killed.
pub fn run(listen: SocketAddr, is_singly: bool) -> Outcome<()> {
    anode_loadgen::raise_open_files();
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay { connections: Vec::new(), subscribers: Vec::new(), is_singly };
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; READ_BYTES]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                relay.accept(&listener, &poll)?;
            } else {
                relay.read(event.token().0, &mut buffer);
            }
        }
        relay.flush_all();
    }
}

struct Relay {
    connections: Vec<Option<Connection>>,
    subscribers: Vec<usize>,
    is_singly: bool,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> Outcome<()> {
        loop {
            let mut socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nodelay(true)?;
            let token = Token(self.connections.len());
            poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            self.connections.push(Some(Connection {
                socket,
                input: Vec::new(),
                out: Vec::new(),
                sent: 0,
                is_open: false,
                is_subscriber: false,
            }));
        }
    }

    /// Reads until the socket is empty.
    fn read(&mut self, key: usize, buffer: &mut [u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(key).and_then(Option::as_mut) else { return };
            match connection.socket.read(buffer) {
                Ok(0) => return self.drop(key),
                Ok(read) => {
                    connection.input.extend_from_slice(&buffer[..read]);
                    self.take(key);
                    // Polling is edge-triggered: only a read that fills less than the buffer has emptied the
                    // socket.
                    if read < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.drop(key),
            }
        }
    }

    fn drop(&mut self, key: usize) {
        self.connections[key] = None;
        self.subscribers.retain(|subscriber| *subscriber != key);
    }

    /// Handles all whole frames that were received.
    fn take(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key).and_then(Option::as_mut) else { return };
        let mut input = std::mem::take(&mut connection.input);
        let mut at = 0;
        if !connection.is_open {
            match greet(&input, &mut connection.out) {
                Some(head) => (connection.is_open, at) = (true, head),
                None if input.len() > HEAD_BYTES_MAX => return self.drop(key),
                None => {}
            }
            if !connection.is_open {
                connection.input = input;
                return;
            }
        }
        while let Some((head, bytes)) = unmask(&mut input[at..]) {
            let opcode = input[at] & 15;
            let payload = at + head..at + bytes;
            at += bytes;
            match opcode {
                1 | 2 => self.relay(key, &input[payload]),
                8 => return self.drop(key),
                _ => {}
            }
        }
        input.drain(..at);
        if let Some(connection) = self.connections.get_mut(key).and_then(Option::as_mut) {
            connection.input = input;
        }
    }

    fn relay(&mut self, key: usize, payload: &[u8]) {
        if payload.starts_with(b"{\"id\":0,\"subscribe\"") {
            if let Some(connection) = &mut self.connections[key] {
                append(&mut connection.out, b"{\"eos\":{}}");
                connection.is_subscriber = true;
                self.subscribers.push(key);
            }
            return;
        }
        for &subscriber in &self.subscribers {
            let Some(connection) = &mut self.connections[subscriber] else { continue };
            append(&mut connection.out, payload);
            if self.is_singly {
                // A connection that fails here fails at its next read, too, and is dropped there.
                let _ = connection.flush();
            }
        }
    }

    fn flush_all(&mut self) {
        for key in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[key] else { continue };
            if connection.sent < connection.out.len() && connection.flush().is_err() {
                self.drop(key);
            }
        }
    }
}

impl Connection {
    /// Writes as much as the socket takes.
    fn flush(&mut self) -> std::io::Result<()> {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Answers a whole request for a WebSocket. Returns the length of the request.
fn greet(input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&input[..end]);
    let is_key = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
    let key = head.lines().find(is_key)?.split_once(':')?.1.trim();
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    let rest = format!(
        "Sec-WebSocket-Protocol: anode.v1.json\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    out.extend_from_slice(rest.as_bytes());
    append(out, b"{\"connected\":{}}");
    Some(end)
}

/// Unmasks the frame at the beginning of `bytes`. Returns the length of its head and of the whole frame;
/// `None` until all of it has arrived.
fn unmask(bytes: &mut [u8]) -> Option<(usize, usize)> {
    let (plain, length) = match *bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let key: [u8; 4] = bytes.get(plain..plain + 4)?.try_into().ok()?;
    let head = plain + 4;
    let payload = bytes.get_mut(head..head.checked_add(length)?)?;
    anode_loadgen::mask(payload, key);
    Some((head, head + length))
}

/// Appends a text frame with this payload.
fn append(out: &mut Vec<u8>, payload: &[u8]) {
    match payload.len() {
        length @ 0..126 => out.extend_from_slice(&[0x81, length as u8]),
        length @ 126..0x1_0000 => out.extend_from_slice(&[0x81, 126, (length >> 8) as u8, length as u8]),
        length => {
            out.extend_from_slice(&[0x81, 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_or_not_at_all() {
        for length in [0usize, 1, 9, 125, 126, 300, 70_000] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut frame = Vec::new();
            append(&mut frame, &payload);
            let head = frame.len() - length;
            frame[1] |= 0x80;
            let key = [7u8, 1, 200, 3];
            for (byte, key) in frame[head..].iter_mut().zip(key.into_iter().cycle()) {
                *byte ^= key;
            }
            frame.splice(head..head, key);
            assert_eq!(unmask(&mut frame.clone()[..head + 3]), None);
            assert_eq!(unmask(&mut frame), Some((head + 4, head + 4 + length)));
            assert_eq!(&frame[head + 4..], payload);
        }
    }
}
