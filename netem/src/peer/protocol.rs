//! The protocol of nats-server for clients: lines of text, and payloads with their length before them.

use anode_loadgen::Outcome;

/// What a client says first, with the number that it wants to be answered with.
pub const HELLO: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"anode-netem\",\"version\":\"1\",\
                         \"protocol\":1,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";
/// Most bytes of a line; INFO is the longest.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a message.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A message of a server, or a sign of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The server describes itself.
    Info,
    /// The server wants to know whether the client is there.
    Ping,
    /// The server is there.
    Pong,
    /// The server refuses something, in its own words.
    Refused(String),
    /// A message for a subscription.
    Message(Message),
}

/// A message for a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Subject to which it was sent.
    pub subject: String,
    /// Number of the subscription.
    pub sid: u64,
    /// Subject to which an answer goes, if one is wanted.
    pub reply: Option<String>,
    /// The lines of the headers; empty without headers.
    pub headers: String,
    /// Bytes of the message itself.
    pub payload: Vec<u8>,
}

impl Message {
    /// Returns the status, if the message is one: 100 for signs of life, 503 where nobody answers.
    pub fn status(&self) -> Option<u16> {
        self.headers.strip_prefix("NATS/1.0 ")?.get(..3)?.parse().ok()
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns the place of a record in its stream and in its consumer, which a consumer puts into the subject of the answer.
    pub fn place(&self) -> Option<Place> {
        let tokens: Vec<&str> = self.reply.as_deref()?.split('.').collect();
        if tokens.get(..2)? != ["$JS", "ACK"] {
            return None;
        }
        // $JS.ACK.STREAM.CONSUMER.TIMES.SEQUENCE.NUMBER.TIME.PENDING, or with a domain and an account before the stream.
        let first = match tokens.len() {
            9 => 5,
            length if length >= 11 => 7,
            _ => return None,
        };
        let number = |at: usize| tokens.get(at)?.parse().ok();
        Some(Place { sequence: number(first)?, number: number(first + 1)?, pending: number(first + 3)? })
    }
}

/// The place of a record in its stream and in its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Sequence of the record in the stream, which is the revision of the key.
    pub sequence: u64,
    /// Number of the record among those that the consumer has delivered, from 1.
    pub number: u64,
    /// Number of records that the consumer has not delivered so far.
    pub pending: u64,
}

/// Cuts the bytes of a server into what they mean. Give it bytes with [`Parser::push`], then take with [`Parser::next_op`]
/// until there is nothing more.
#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    at: usize,
}

impl Parser {
    /// Takes bytes that have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what has come as a whole. Fails if it is not of the protocol; then the connection is of no more use.
    pub fn next_op(&mut self) -> Outcome<Option<Op>> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return if rest.len() > LINE_BYTES_MAX {
                    Err("a line without an end".into())
                } else {
                    Ok(None)
                };
            };
            let line = std::str::from_utf8(&rest[..end])?.trim_end_matches('\r');
            let (word, arguments) = line.split_once(' ').unwrap_or((line, ""));
            let op = match word {
                "MSG" | "HMSG" => {
                    let Some((message, length)) = message(word == "HMSG", arguments, &rest[end + 1..])?
                    else {
                        return Ok(None);
                    };
                    self.at += end + 1 + length;
                    return Ok(Some(Op::Message(message)));
                }
                "+OK" => None,
                "INFO" => Some(Op::Info),
                "PING" => Some(Op::Ping),
                "PONG" => Some(Op::Pong),
                "-ERR" => Some(Op::Refused(arguments.trim_matches('\'').to_owned())),
                _ => {
                    return Err(
                        format!("a server said {:?}", line.chars().take(80).collect::<String>()).into()
                    );
                }
            };
            self.at += end + 1;
            if op.is_some() {
                return Ok(op);
            }
        }
    }
}

/// Reads a message from the arguments of its line and the bytes after it. Returns it with the number of these bytes, or nothing
/// if it is not there as a whole.
fn message(has_headers: bool, arguments: &str, rest: &[u8]) -> Outcome<Option<(Message, usize)>> {
    let wrong = || format!("a message has the arguments {arguments:?}");
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let sizes = if has_headers { 2 } else { 1 };
    let (names, numbers) = words.split_at_checked(words.len().saturating_sub(sizes)).ok_or_else(wrong)?;
    let numbers: Option<Vec<usize>> = numbers.iter().map(|number| number.parse().ok()).collect();
    let numbers = numbers.ok_or_else(wrong)?;
    let (subject, sid, reply) = match names {
        [subject, sid] => (subject, sid, None),
        [subject, sid, reply] => (subject, sid, Some((*reply).to_owned())),
        _ => return Err(wrong().into()),
    };
    let (head, total) = match numbers[..] {
        [total] => (0, total),
        [head, total] if head <= total => (head, total),
        _ => return Err(wrong().into()),
    };
    if total > MESSAGE_BYTES_MAX {
        return Err(wrong().into());
    }
    if rest.len() < total + 2 {
        return Ok(None);
    }
    let message = Message {
        subject: (*subject).to_owned(),
        sid: sid.parse().map_err(|_| wrong())?,
        reply,
        headers: std::str::from_utf8(&rest[..head])?.to_owned(),
        payload: rest[head..total].to_vec(),
    };
    Ok(Some((message, total + 2)))
}

/// Writes a publish.
pub fn publish(out: &mut Vec<u8>, subject: &str, reply: Option<&str>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
    }
    out.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Writes a subscription with its number.
pub fn subscribe(out: &mut Vec<u8>, subject: &str, sid: u64) {
    out.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
}

/// Writes the end of a subscription.
pub fn unsubscribe(out: &mut Vec<u8>, sid: u64) {
    out.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
}
