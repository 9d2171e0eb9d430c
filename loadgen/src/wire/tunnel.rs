//! A protocol over a stream of bytes (NATS, MQTT), carried in WebSocket frames. The bounds of frames have
//! no meaning: a message may be split over several frames, and a frame may hold many messages.

use super::websocket::{self, Frame, Opening};
use super::{Broken, Message, Sink, Wire};
use crate::random::Random;

/// A wire inside WebSocket. The bytes of the inner wire are sent in binary frames, one frame per turn.
pub struct Tunnel<W> {
    inner: W,
    host: String,
    path: &'static str,
    protocol: Option<&'static str>,
    random: Random,
    opening: Opening,
    /// Bytes of the inner wire that are not framed yet.
    outgoing: Vec<u8>,
    /// Received bytes without their frames: at most one message of the inner wire that is not whole.
    incoming: Vec<u8>,
}

impl<W: Wire> Tunnel<W> {
    /// Makes a wire that carries `inner` to `host`.
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
        websocket::write_request((&self.host, self.path, None), self.protocol, &mut self.random, out);
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
