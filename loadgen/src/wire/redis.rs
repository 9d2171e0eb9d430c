//! Redis pub/sub over RESP. Every PUBLISH is answered, in order, with the number of subscribers that got it.

use memchr::memchr;

use super::anode_json::write_decimal;
use super::nats::parse_decimal;
use super::{Ack, Broken, Common, Message, Role, Sink, Wire};
use crate::names::Pattern;

/// Most bytes of a line of the protocol.
const RESP_LINE_BYTES_MAX: usize = 64 * 1024;

/// The wire of one connection.
pub struct Redis {
    common: Common,
    role: Role,
    /// Number of confirmations of subscriptions that have not arrived yet.
    unconfirmed: usize,
    answered: u64,
    scratch: Vec<u8>,
}

impl Redis {
    /// Makes the wire of a connection.
    pub fn new(common: Common, role: Role) -> Redis {
        let unconfirmed = match &role {
            Role::Publisher => 0,
            Role::Subscriber(patterns) => patterns.len(),
        };
        Redis { common, role, unconfirmed, answered: 0, scratch: Vec::new() }
    }

    fn read_array(&mut self, parts: &[&[u8]], sink: &mut dyn Sink) {
        match (parts.first().copied(), parts.last().copied()) {
            (Some(b"message" | b"pmessage"), Some(payload)) => sink.delivered(payload),
            (Some(b"subscribe" | b"psubscribe"), _) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                if self.unconfirmed == 0 {
                    sink.ready();
                }
            }
            _ => {}
        }
    }
}

impl Wire for Redis {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let Role::Subscriber(patterns) = &self.role else {
            out.extend_from_slice(b"PING\r\n");
            return;
        };
        for pattern in patterns {
            let is_exact = matches!(pattern, Pattern::One(_));
            let command: &[u8] =
                if is_exact { b"*2\r\n$9\r\nSUBSCRIBE\r\n" } else { b"*2\r\n$10\r\nPSUBSCRIBE\r\n" };
            out.extend_from_slice(command);
            self.scratch.clear();
            self.common.names.write_pattern(*pattern, "*", &mut self.scratch);
            write_bulk(&self.scratch, out);
        }
    }

    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*3\r\n$7\r\nPUBLISH\r\n");
        self.scratch.clear();
        self.common.names.write(message.source, &mut self.scratch);
        write_bulk(&self.scratch, out);
        write_bulk(message.payload, out);
    }

    fn seal(&mut self, _: &mut Vec<u8>) {}

    fn read(&mut self, bytes: &[u8], _: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some((line, body)) = read_line(&bytes[at..])? {
            let mut length = body;
            match line.split_first() {
                Some((b'+', _)) => sink.ready(),
                Some((b':', _)) => {
                    if self.common.ack != Ack::None {
                        sink.acked(self.answered);
                    }
                    self.answered += 1;
                }
                Some((b'*', count)) => {
                    let mut parts: [&[u8]; 4] = [b""; 4];
                    let count = parse_decimal(count).unwrap_or(usize::MAX);
                    let Some(parts) = parts.get_mut(..count) else {
                        return Broken::because("an array longer than any message");
                    };
                    for part in parts.iter_mut() {
                        let Some((value, bytes)) = read_value(&bytes[at + length..])? else {
                            return Ok(at);
                        };
                        *part = value;
                        length += bytes;
                    }
                    self.read_array(parts, sink);
                }
                _ => return Broken::because(String::from_utf8_lossy(line).into_owned()),
            }
            at += length;
        }
        Ok(at)
    }
}

/// Reads a line. Returns it without the line end, and the length with it.
fn read_line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Broken> {
    match memchr(b'\n', bytes) {
        Some(end) => Ok(Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1))),
        None if bytes.len() > RESP_LINE_BYTES_MAX => Broken::because("a line without an end"),
        None => Ok(None),
    }
}

/// Reads a value. Returns the bytes of a bulk string or the digits of a number, and the length of it all.
fn read_value(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Broken> {
    let Some((line, at)) = read_line(bytes)? else { return Ok(None) };
    match line.split_first() {
        Some((b'$', digits)) => {
            let Some(length) = parse_decimal(digits) else { return Broken::because("a bulk without length") };
            let end = at + length + 2;
            Ok((bytes.len() >= end).then(|| (&bytes[at..at + length], end)))
        }
        Some((b':', digits)) => Ok(Some((digits, at))),
        _ => Broken::because("an array of what no message holds"),
    }
}

fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    write_decimal(bytes.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
