//! A connection to a nats-server that never waits long.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::client::ServerStream;

use super::protocol::{HELLO, Message, Op, Parser};
use crate::target::{Connected, Target};

/// How long connecting and each step of the handshake may take.
const OPEN: Duration = Duration::from_secs(3);
/// How long a write waits for a server that does not read.
const WRITE: Duration = Duration::from_millis(200);
/// Time between two questions whether the server is there.
const PING: Duration = Duration::from_secs(2);

/// A connection of a client.
pub struct Socket {
    stream: ServerStream,
    parser: Parser,
    /// Bytes that are to be sent with the next flush.
    pub out: Vec<u8>,
    timeout: Duration,
    heard: Instant,
    pinged: Instant,
}

impl Socket {
    /// Connects to a server, and waits until it has answered.
    pub fn open(target: &Target) -> Outcome<Socket> {
        let Connected { stream, visit, .. } = target.connect(OPEN)?;
        stream.set_write_timeout(Some(WRITE))?;
        let now = Instant::now();
        let parser = Parser::default();
        let mut socket =
            Socket { stream, parser, out: HELLO.as_bytes().to_vec(), timeout: OPEN, heard: now, pinged: now };
        socket.flush()?;
        while socket.next_op(OPEN)?.ok_or("the server does not answer")? != Op::Pong {}
        target.confirm(visit)?;
        Ok(socket)
    }

    /// Sends what is to be sent. Returns false if the server does not read.
    pub fn flush(&mut self) -> Outcome<bool> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if is_late(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Asks from time to time whether the server is there.
    pub fn keep_alive(&mut self) {
        if self.pinged.elapsed() >= PING {
            self.pinged = Instant::now();
            self.out.extend_from_slice(b"PING\r\n");
        }
    }

    /// Reads a message, if one comes within `timeout`. Fails if the connection has ended.
    pub fn read(&mut self, timeout: Duration) -> Outcome<Option<Message>> {
        while let Some(op) = self.next_op(timeout)? {
            match op {
                Op::Message(message) => return Ok(Some(message)),
                Op::Ping => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    self.flush()?;
                }
                Op::Refused(why) => return Err(why.into()),
                Op::Info | Op::Pong => {}
            }
        }
        Ok(None)
    }

    /// Returns the time for which nothing has come from the server.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    fn next_op(&mut self, timeout: Duration) -> Outcome<Option<Op>> {
        let mut buffer = [0; 32 * 1024];
        loop {
            if let Some(op) = self.parser.next_op()? {
                return Ok(Some(op));
            }
            if timeout != self.timeout {
                self.stream.set_read_timeout(Some(timeout))?;
                self.timeout = timeout;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(read) => {
                    self.heard = Instant::now();
                    self.parser.push(&buffer[..read]);
                }
                Err(error) if is_late(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
