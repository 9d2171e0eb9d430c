//! MQTT 3.1.1: QoS 0, or QoS 1 for publishes that want an answer. Subscriptions are QoS 0.

use std::collections::VecDeque;

use super::{Ack, Broken, Common, Message, Role, Sink, Wire};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// The wire of one connection.
pub struct Mqtt {
    common: Common,
    role: Role,
    client_id: String,
    /// Ids and packet identifiers of the messages without an answer, in order.
    open: VecDeque<(u16, u64)>,
    /// Memory for a topic, until its length is known.
    topic: Vec<u8>,
}

impl Mqtt {
    /// Makes the wire of a connection. The client id must be unique at the broker.
    pub fn new(common: Common, role: Role, client_id: String) -> Mqtt {
        Mqtt { common, role, client_id, open: VecDeque::new(), topic: Vec::new() }
    }

    fn subscribe(&self, out: &mut Vec<u8>) -> bool {
        let Role::Subscriber(patterns) = &self.role else { return false };
        let mut body = vec![0, 1];
        for pattern in patterns {
            let mut name = Vec::new();
            self.common.names.write_pattern(*pattern, "#", &mut name);
            write_text(&name, &mut body);
            body.push(0);
        }
        out.push(SUBSCRIBE);
        write_length(body.len(), out);
        out.extend_from_slice(&body);
        true
    }

    fn read_packet(
        &mut self,
        kind: u8,
        body: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn Sink,
    ) -> Result<(), Broken> {
        match kind & 0xf0 {
            PUBLISH => sink.delivered(body),
            CONNACK if body.get(1) != Some(&0) => {
                return Broken::because(format!("connection refused, {body:?}"));
            }
            CONNACK if self.subscribe(out) => {}
            CONNACK => sink.ready(),
            SUBACK if body.iter().skip(2).any(|code| *code == 0x80) => {
                return Broken::because("subscription refused");
            }
            SUBACK => sink.ready(),
            PUBACK => {
                let packet = body.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
                // Brokers answer in order, so the first message is the one that is answered.
                let place = self.open.iter().position(|(open, _)| Some(*open) == packet);
                if let Some((_, id)) = place.and_then(|place| self.open.remove(place)) {
                    sink.acked(id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Wire for Mqtt {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        write_text(b"MQTT", &mut body);
        // Protocol level 4, a clean session, no keep-alive.
        body.extend_from_slice(&[4, 2, 0, 0]);
        write_text(self.client_id.as_bytes(), &mut body);
        out.push(CONNECT);
        write_length(body.len(), out);
        out.extend_from_slice(&body);
    }

    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        self.topic.clear();
        self.common.names.write(message.source, &mut self.topic);
        let id = message.id.filter(|_| self.common.ack != Ack::None);
        out.push(if id.is_some() { PUBLISH_QOS_1 } else { PUBLISH });
        write_length(2 + self.topic.len() + message.payload.len() + if id.is_some() { 2 } else { 0 }, out);
        write_text(&self.topic, out);
        if let Some(id) = id {
            // Identifiers are 1 … 65,535. A window is smaller, so no identifier is open twice.
            let packet = (id % 65_535) as u16 + 1;
            out.extend_from_slice(&packet.to_be_bytes());
            self.open.push_back((packet, id));
        }
        out.extend_from_slice(message.payload);
    }

    fn seal(&mut self, _: &mut Vec<u8>) {}

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some((kind, rest)) = bytes[at..].split_first() {
            let Some((length, head)) = read_length(rest)? else { break };
            let Some(body) = rest.get(head..head + length) else { break };
            self.read_packet(*kind, body, out, sink)?;
            at += 1 + head + length;
        }
        Ok(at)
    }
}

/// Reads the remaining length of a packet, and how many bytes encode it.
#[inline]
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut length = 0;
    for at in 0..4 {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    Broken::because("a packet's length of more than four bytes")
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}
