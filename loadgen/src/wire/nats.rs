//! NATS: lines of text, and payloads with their length before them. The answer to a publish is the PONG to
//! a PING that was sent after it: by then the server has routed all that came before.

use memchr::memchr;

use super::anode_json::write_decimal;
use super::{Ack, Broken, Common, Message, Role, Sink, Wire};

/// Most bytes of a line that a server may send; INFO is the longest.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The wire of one connection.
pub struct Nats {
    common: Common,
    role: Role,
    is_ready: bool,
    /// For each PING without a PONG, in order: one more than the last id that it answers.
    pings: std::collections::VecDeque<u64>,
    /// One more than the last id that has no PING yet, if there is one.
    unpinged: Option<u64>,
    answered: u64,
}

impl Nats {
    /// Makes the wire of a connection.
    pub fn new(common: Common, role: Role) -> Nats {
        let pings = std::collections::VecDeque::new();
        Nats { common, role, is_ready: false, pings, unpinged: None, answered: 0 }
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        if let Some(next) = self.unpinged.take() {
            out.extend_from_slice(b"PING\r\n");
            self.pings.push_back(next);
        }
    }

    fn read_line(&mut self, line: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<(), Broken> {
        if line == b"PONG" && !self.is_ready {
            self.is_ready = true;
            sink.ready();
        } else if line == b"PONG" {
            let upto = self.pings.pop_front().unwrap_or(self.answered);
            (self.answered..upto).for_each(|id| sink.acked(id));
            self.answered = upto;
        } else if line == b"PING" {
            out.extend_from_slice(b"PONG\r\n");
        } else if line.starts_with(b"-ERR") {
            return Broken::because(String::from_utf8_lossy(line).into_owned());
        }
        Ok(())
    }
}

impl Wire for Nats {
    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"anode-loadgen\",\"version\":\"1\",\"protocol\":1}\r\n",
        );
        if let Role::Subscriber(patterns) = &self.role {
            for (n, pattern) in patterns.iter().enumerate() {
                out.extend_from_slice(b"SUB ");
                self.common.names.write_pattern(*pattern, ">", out);
                out.push(b' ');
                write_decimal(n as u64 + 1, out);
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"PING\r\n");
    }

    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PUB ");
        self.common.names.write(message.source, out);
        out.push(b' ');
        write_decimal(message.payload.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(message.payload);
        out.extend_from_slice(b"\r\n");
        if self.common.ack != Ack::None {
            self.unpinged = message.id.map(|id| id + 1).or(self.unpinged);
        }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        self.ping(out);
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let Some(end) = memchr(b'\n', rest) else {
                if rest.len() > LINE_BYTES_MAX {
                    return Broken::because("a line without an end");
                }
                return Ok(at);
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if line.starts_with(b"MSG ") {
                // The last word is the length of the payload.
                let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let Some(length) = parse_decimal(digits) else {
                    return Broken::because("a MSG without a length");
                };
                let Some(payload) = rest.get(end + 1..end + 1 + length) else { return Ok(at) };
                if rest.len() < end + 3 + length {
                    return Ok(at);
                }
                sink.delivered(payload);
                at += end + 3 + length;
            } else {
                self.read_line(line, out, sink)?;
                at += end + 1;
            }
        }
    }
}

/// Reads a length in decimal digits, at most 999,999,999.
pub(super) fn parse_decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + usize::from(byte - b'0')))
}
