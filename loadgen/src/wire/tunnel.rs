//! A protocol over a stream of bytes (NATS, MQTT), carried in WebSocket frames. The frames' bounds mean
//! nothing to it: a message may be split over several, and one may hold many.

use super::websocket::{self, Frame, Opening};
use super::{Broken, Message, Sink, Wire};
use crate::random::Random;

/// The inner protocol's bytes go out in binary frames, one for all messages of a turn.
pub struct Tunnel<W> {
    inner: W,
    host: String,
    path: &'static str,
    protocol: Option<&'static str>,
    random: Random,
    opening: Opening,
    /// What the inner protocol has to say, not yet framed.
    outgoing: Vec<u8>,
    /// What came, without frames; at most one message of it is unread.
    incoming: Vec<u8>,
}

impl<W: Wire> Tunnel<W> {
    /// Carries `inner` to `host`.
    pub fn new(
        inner: W,
        host: &str,
        path: &'static str,
        protocol: Option<&'static str>,
        random: Random,
    ) -> Self {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Tunnel {
            inner,
            host: host.to_owned(),
            path,
            protocol,
            random,
            opening: Opening::default(),
            outgoing,
            incoming,
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if self.opening.is_open() && !self.outgoing.is_empty() {
            websocket::write_frame(websocket::BINARY, &self.outgoing, &mut self.random, out);
            self.outgoing.clear();
        }
    }
}

impl<W: Wire> Wire for Tunnel<W> {
    fn hello(&mut self, out: &mut Vec<u8>) {
        websocket::write_request(&self.host, self.path, self.protocol, &mut self.random, out);
        self.inner.hello(&mut self.outgoing);
    }

    fn publish(&mut self, message: &Message<'_>, _: &mut Vec<u8>) {
        self.inner.publish(message, &mut self.outgoing);
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        self.inner.seal(&mut self.outgoing);
        self.flush(out);
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let Some(mut at) = self.opening.read(bytes)? else { return Ok(0) };
        while let Some(frame) = Frame::read(&bytes[at..])? {
            match frame.opcode {
                0..8 => self.incoming.extend_from_slice(frame.payload),
                _ => frame.control(&mut self.random, out)?,
            }
            at += frame.bytes;
        }
        let done = self.inner.read(&self.incoming, &mut self.outgoing, sink)?;
        self.incoming.drain(..done);
        self.flush(out);
        Ok(at)
    }
}
