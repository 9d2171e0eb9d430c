//! aNode over WebSocket, in JSON. Frames are told apart by how they begin; only answers are read further.

use memchr::memmem;

use super::websocket::{self, Frame, Opening};
use super::{Ack, Broken, Common, Message, Role, Sink, Wire};
use crate::random::Random;

/// The wire of one connection.
pub struct AnodeJson {
    common: Common,
    role: Role,
    host: String,
    random: Random,
    opening: Opening,
    /// Place in the buffer at which the frame of the unfinished batch begins, and its number of records.
    batch: Option<(usize, usize)>,
}

impl AnodeJson {
    /// Makes the wire of a connection to `host`.
    pub fn new(common: Common, role: Role, host: &str, random: Random) -> AnodeJson {
        AnodeJson { common, role, host: host.to_owned(), random, opening: Opening::default(), batch: None }
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        let Role::Subscriber(patterns) = &self.role else { return };
        let start = websocket::begin_frame(out);
        out.extend_from_slice(br#"{"id":0,"subscribe":{"sources":["#);
        for (n, pattern) in patterns.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"\"" } else { b",\"" });
            // Names that come from a file may hold characters that JSON escapes.
            let mut name = Vec::new();
            self.common.names.write_pattern(*pattern, "**", &mut name);
            escape(&name, out);
            out.push(b'"');
        }
        let mode = if self.common.is_latest { "latest" } else { "all" };
        let end = format!(r#"],"snapshot":{},"mode":"{mode}"}}}}"#, self.common.snapshot);
        out.extend_from_slice(end.as_bytes());
        websocket::end_frame(out, start, websocket::TEXT, &mut self.random);
    }

    fn read_text(&mut self, text: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) {
        if text.starts_with(br#"{"source""#) || text.starts_with(br#"[{"source""#) {
            sink.delivered(text);
        } else if text.starts_with(br#"{"connected""#) {
            match self.role {
                Role::Publisher => sink.ready(),
                Role::Subscriber(_) => self.subscribe(out),
            }
        } else if text.starts_with(br#"{"eos""#) {
            sink.ready();
        } else if !text.starts_with(br#"{"resume""#) {
            read_answers(text, sink);
        }
    }
}

impl Wire for AnodeJson {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let path = path(&self.common, &self.role);
        let target = (self.host.as_str(), path.as_str(), self.common.token.as_ref().map(|token| &*token.0));
        websocket::write_request(target, Some("anode.v1.json"), &mut self.random, out);
    }

    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        let (start, records) = match self.batch.take() {
            Some(batch) => batch,
            None => (websocket::begin_frame(out), 0),
        };
        if self.common.publish_batch > 1 {
            out.push(if records == 0 { b'[' } else { b',' });
        }
        out.push(b'{');
        if let Some(id) = message.id {
            out.extend_from_slice(b"\"id\":");
            write_decimal(id, out);
            out.push(b',');
        }
        out.extend_from_slice(b"\"source\":\"");
        let name = out.len();
        self.common.names.write(message.source, out);
        if out[name..].iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..32)) {
            let plain = out.split_off(name);
            escape(&plain, out);
        }
        out.extend_from_slice(b"\",\"data\":");
        out.extend_from_slice(message.payload);
        out.push(b'}');
        self.batch = Some((start, records + 1));
        if records + 1 >= self.common.publish_batch {
            self.seal(out);
        }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        if let Some((start, _)) = self.batch.take() {
            if self.common.publish_batch > 1 {
                out.push(b']');
            }
            websocket::end_frame(out, start, websocket::TEXT, &mut self.random);
        }
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let Some(mut at) = self.opening.read(bytes)? else { return Ok(0) };
        while let Some(frame) = Frame::read(&bytes[at..])? {
            match frame.opcode {
                websocket::TEXT if frame.is_last => self.read_text(frame.payload, out, sink),
                0..8 => return Broken::because("a frame that is not one whole text"),
                _ => frame.control(&mut self.random, out)?,
            }
            at += frame.bytes;
        }
        Ok(at)
    }
}

/// Returns the path and query that open a connection of this role.
pub(super) fn path(common: &Common, role: &Role) -> String {
    match role {
        Role::Publisher if common.ack == Ack::None => "/publish".to_owned(),
        Role::Publisher => format!("/publish?ack={}", common.ack.name()),
        Role::Subscriber(_) if common.subscribe_batch => "/subscribe?batch=true".to_owned(),
        Role::Subscriber(_) => "/subscribe".to_owned(),
    }
}

/// Reads answers to publishes, one object or an array of them: `{"id":7,"index":0,"result":…}`. The id and
/// the index may be absent, and an error may be in the place of the result.
fn read_answers(text: &[u8], sink: &mut dyn Sink) {
    let mut at = 0;
    while let Some(found) = memmem::find(&text[at..], b"{\"") {
        at += found + 1;
        let (id, rest) = number(&text[at..], b"\"id\":");
        let (_, rest) = number(rest, b"\"index\":");
        match id {
            Some(id) if rest.starts_with(b"\"result\"") => sink.acked(id),
            id if rest.starts_with(b"\"error\"") => sink.refused(id, error_code(rest)),
            _ => {}
        }
    }
}

/// Reads the number after `name`. Returns it and what follows the comma behind it, or none and all of `text`.
fn number<'a>(text: &'a [u8], name: &[u8]) -> (Option<u64>, &'a [u8]) {
    let Some(digits) = text.strip_prefix(name) else { return (None, text) };
    let (digits, rest) = digits.split_at(digits.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    (number, rest.strip_prefix(b",").unwrap_or(rest))
}

/// Returns the code of the first error, from `…"code":"CODE"…`.
fn error_code(text: &[u8]) -> &str {
    let code = memmem::find(text, b"\"code\":\"").and_then(|at| text.get(at + 8..));
    let code = code.and_then(|rest| rest.split(|byte| *byte == b'"').next());
    code.and_then(|code| std::str::from_utf8(code).ok()).unwrap_or("unknown")
}

fn escape(name: &[u8], out: &mut Vec<u8>) {
    for byte in name {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..32 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// Appends a number without allocating.
pub(super) fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
