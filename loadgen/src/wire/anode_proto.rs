//! aNode over WebSocket, in protobuf. The few fields that a load needs are written and read by hand,
//! without copies; the schema is `proto/anode/v1/client.proto`.

use super::anode_json::path;
use super::websocket::{self, Frame, Opening};
use super::{Broken, Common, Message, Role, Sink, Wire};
use crate::random::Random;

/// Field numbers of `ServerMessage`.
const CONNECTED: u64 = 1;
const ANSWER: u64 = 2;
const ANSWERS: u64 = 3;
const RECORD: u64 = 4;
const RECORDS: u64 = 5;
const EOS: u64 = 6;

/// The wire of one connection.
pub struct AnodeProto {
    common: Common,
    role: Role,
    host: String,
    random: Random,
    opening: Opening,
    /// The unfinished batch: items that are `Publish` messages.
    batch: Vec<u8>,
    records: usize,
    /// Memory for one message, until its length is known.
    scratch: Vec<u8>,
}

impl AnodeProto {
    /// Makes the wire of a connection to `host`.
    pub fn new(common: Common, role: Role, host: &str, random: Random) -> AnodeProto {
        let (batch, scratch) = (Vec::new(), Vec::new());
        AnodeProto {
            common,
            role,
            host: host.to_owned(),
            random,
            opening: Opening::default(),
            batch,
            records: 0,
            scratch,
        }
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        let Role::Subscriber(patterns) = &self.role else { return };
        let mut request = Vec::new();
        let mut id = Vec::new();
        write_tag(2, 0, &mut id);
        write_varint(0, &mut id);
        write_bytes(1, &id, &mut request);
        for pattern in patterns {
            let mut name = Vec::new();
            self.common.names.write_pattern(*pattern, "**", &mut name);
            write_bytes(2, &name, &mut request);
        }
        write_tag(3, 0, &mut request);
        write_varint(u64::from(self.common.snapshot), &mut request);
        write_bytes(4, if self.common.is_latest { b"latest" } else { b"all" }, &mut request);
        let mut message = Vec::new();
        write_bytes(3, &request, &mut message);
        websocket::write_frame(websocket::BINARY, &message, &mut self.random, out);
    }

    fn read_message(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let mut fields = Fields { rest: bytes };
        let Some((field, Value::Bytes(body))) = fields.next()? else {
            return Broken::because("a protobuf message without a field");
        };
        match field {
            RECORD | RECORDS => sink.delivered(body),
            CONNECTED if matches!(self.role, Role::Publisher) => sink.ready(),
            CONNECTED => self.subscribe(out),
            EOS => sink.ready(),
            ANSWER => read_answer(body, sink)?,
            ANSWERS => {
                let mut items = Fields { rest: body };
                while let Some((_, value)) = items.next()? {
                    if let Value::Bytes(item) = value {
                        read_answer(item, sink)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Wire for AnodeProto {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let path = path(&self.common, &self.role);
        let target = (self.host.as_str(), path.as_str(), self.common.token.as_ref().map(|token| &*token.0));
        websocket::write_request(target, Some("anode.v1.protobuf"), &mut self.random, out);
    }

    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        self.scratch.clear();
        if let Some(id) = message.id {
            // Id { number: sint64 } takes at most 1 + 10 bytes.
            let mut number = [0; 11];
            let length = 1 + encode_varint(id << 1, &mut number[1..]);
            number[0] = 2 << 3;
            write_bytes(1, &number[..length], &mut self.scratch);
        }
        write_tag(2, 2, &mut self.scratch);
        // Names have at most 255 bytes. There is room for a length of one byte, which is widened if it needs two.
        let at = self.scratch.len();
        self.scratch.push(0);
        self.common.names.write(message.source, &mut self.scratch);
        let length = self.scratch.len() - at - 1;
        if length < 128 {
            self.scratch[at] = length as u8;
        } else {
            self.scratch[at] = length as u8 | 0x80;
            self.scratch.insert(at + 1, (length >> 7) as u8);
        }
        write_bytes(4, message.payload, &mut self.scratch);
        write_bytes(1, &self.scratch, &mut self.batch);
        self.records += 1;
        if self.records >= self.common.publish_batch {
            self.seal(out);
        }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        if self.records == 0 {
            return;
        }
        let start = websocket::begin_frame(out);
        if self.common.publish_batch > 1 {
            write_bytes(2, &self.batch, out);
        } else {
            // An item of a batch has the same field number as a single publish.
            out.extend_from_slice(&self.batch);
        }
        websocket::end_frame(out, start, websocket::BINARY, &mut self.random);
        self.batch.clear();
        self.records = 0;
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let Some(mut at) = self.opening.read(bytes)? else { return Ok(0) };
        while let Some(frame) = Frame::read(&bytes[at..])? {
            match frame.opcode {
                websocket::BINARY if frame.is_last => self.read_message(frame.payload, out, sink)?,
                0..8 => return Broken::because("a frame that is not one whole message"),
                _ => frame.control(&mut self.random, out)?,
            }
            at += frame.bytes;
        }
        Ok(at)
    }
}

/// Reads an answer: `Answer { id = 1, result = 3, error = 4 }`.
fn read_answer(bytes: &[u8], sink: &mut dyn Sink) -> Result<(), Broken> {
    let mut fields = Fields { rest: bytes };
    let mut id = None;
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(body)) => {
                if let Some((2, Value::Number(number))) = (Fields { rest: body }).next()? {
                    id = Some(number >> 1);
                }
            }
            (3, _) => {
                if let Some(id) = id {
                    sink.acked(id);
                }
            }
            (4, Value::Bytes(error)) => {
                let code = match (Fields { rest: error }).next()? {
                    Some((1, Value::Bytes(code))) => std::str::from_utf8(code).unwrap_or("unknown"),
                    _ => "unknown",
                };
                sink.refused(id, code);
            }
            _ => {}
        }
    }
    Ok(())
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let Some((body, rest)) = self.rest.split_at_checked(length) else {
                    return Broken::because("a protobuf field longer than its message");
                };
                self.rest = rest;
                Value::Bytes(body)
            }
            _ => return Broken::because("a protobuf field of a kind that the schema has not"),
        };
        Ok(Some((tag >> 3, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.rest.split_first() else { break };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Broken::because("a protobuf number without an end")
    }
}

fn write_tag(field: u64, kind: u64, out: &mut Vec<u8>) {
    write_varint((field << 3) | kind, out);
}

fn write_bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    write_tag(field, 2, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_varint(value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let length = encode_varint(value, &mut bytes);
    out.extend_from_slice(&bytes[..length]);
}

/// Writes a number into `out`, which has at least ten bytes. Returns how many it took.
fn encode_varint(mut value: u64, out: &mut [u8]) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}
