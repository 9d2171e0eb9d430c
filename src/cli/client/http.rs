//! HTTP requests to a node: one request a connection, whose answer is read as it comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use super::stream::NodeStream;
use super::{NodeUrl, Nodes, Refused};
use crate::cli::CliError;

/// Largest answer that is read as a whole, in bytes. Nodes send much smaller pages.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a node may work on what it was sent before it answers: a module of many megabytes is compiled first.
const WORK_MAX: Duration = Duration::from_secs(180);
/// Most bytes of the head of an answer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of the line that tells the length of a chunk.
const CHUNK_HEAD_BYTES_MAX: u64 = 1024;

/// The body of a request.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// The media type of the bytes.
    pub media_type: &'a str,
    /// The content of the body.
    pub bytes: &'a [u8],
}

/// The whole answer of a node to an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// Returns the body if the status is 200. Otherwise returns an error with the text that the node sent.
    pub fn ok(self) -> Result<String, CliError> {
        if self.status == 200 {
            return Ok(self.body);
        }
        match serde_json::from_str::<Refused>(&self.body) {
            Ok(refused) if !refused.code.is_empty() => Err(CliError::Failed(refused.to_string())),
            _ => Err(CliError::Failed(format!("the node answered with status {}", self.status))),
        }
    }
}

/// An answer whose body has not been read yet.
pub struct Incoming<R> {
    /// The HTTP status code.
    pub status: u16,
    /// The body. Reading it fails if the connection ends before the body does.
    pub body: IncomingBody<R>,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// This number of bytes, and then the end.
    Bytes(u64),
    /// This number of bytes of a chunk, and then other chunks.
    Chunk(u64),
    /// The line with the length of the next chunk.
    ChunkHead,
    /// Everything until the connection ends.
    UntilClosed,
}

/// The body of an answer, as it comes.
pub struct IncomingBody<R> {
    input: R,
    rest: Rest,
}

impl<R: BufRead> Incoming<R> {
    /// Reads the head of an answer to a request with `Connection: close`.
    fn read(mut input: R) -> io::Result<Incoming<R>> {
        let mut head = Vec::new();
        loop {
            let from = head.len();
            let read = (&mut input).take(HEAD_BYTES_MAX).read_until(b'\n', &mut head)?;
            if matches!(&head[from..], b"\r\n" | b"\n") && from > 0 {
                break;
            }
            if read == 0 || head.len() as u64 > HEAD_BYTES_MAX {
                return Err(no_answer());
            }
        }
        let (status, rest) = parse_head(&head).ok_or_else(no_answer)?;
        Ok(Incoming { status, body: IncomingBody { input, rest } })
    }

    /// Reads the whole body.
    pub fn whole(self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        self.body.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        let body = String::from_utf8(bytes).map_err(|_| no_answer())?;
        Ok(Answer { status: self.status, body })
    }
}

/// Returns the status in the head of an answer, and how its body ends.
fn parse_head(head: &[u8]) -> Option<(u16, Rest)> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    let header = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let rest = match header("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => Rest::ChunkHead,
        _ => match header("content-length") {
            Some(length) => Rest::Bytes(length.parse().ok()?),
            None => Rest::UntilClosed,
        },
    };
    Some((status, rest))
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no whole HTTP answer")
}

impl<R: BufRead> IncomingBody<R> {
    /// Reads the line with the length of the next chunk, and the end of the line before it.
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        while line.iter().all(u8::is_ascii_whitespace) {
            line.clear();
            if (&mut self.input).take(CHUNK_HEAD_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let text = std::str::from_utf8(&line).map_err(|_| no_answer())?;
        let digits = text.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| no_answer())?;
        self.rest = if length == 0 { Rest::Bytes(0) } else { Rest::Chunk(length) };
        Ok(())
    }
}

impl<R: BufRead> Read for IncomingBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest == Rest::ChunkHead {
            self.next_chunk()?;
        }
        let most = match self.rest {
            Rest::Bytes(left) | Rest::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Rest::ChunkHead => 0,
            Rest::UntilClosed => usize::MAX,
        };
        let room = buffer.len().min(most);
        let read = self.input.read(buffer.get_mut(..room).unwrap_or_default())?;
        let is_early = read == 0 && room > 0 && self.rest != Rest::UntilClosed;
        if is_early {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest = match self.rest {
            Rest::Bytes(left) => Rest::Bytes(left - read as u64),
            Rest::Chunk(left) if left == read as u64 => Rest::ChunkHead,
            Rest::Chunk(left) => Rest::Chunk(left - read as u64),
            rest => rest,
        };
        Ok(read)
    }
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {node}: {source}")]
pub struct NoAnswer {
    node: String,
    source: io::Error,
}

impl NoAnswer {
    fn new(node: &impl std::fmt::Display, source: io::Error) -> NoAnswer {
        // The system calls a read or write that took too long "temporarily unavailable".
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "the connection stood still for too long")
            }
            _ => source,
        };
        NoAnswer { node: node.to_string(), source }
    }
}

impl From<NoAnswer> for CliError {
    // The error becomes a text here. As an `io::Error`, a broken pipe would be taken for a closed stdout.
    fn from(error: NoAnswer) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// Sends a GET request for `path` to the first of the nodes that answers, and returns the answer.
pub fn fetch(nodes: &Nodes, path: &str) -> Result<Answer, CliError> {
    nodes.try_each(
        |node| fetch_from(node, path).map_err(CliError::from),
        |_| false,
        |one, next| CliError::Failed(format!("{one}; {next}")),
    )
}

/// Sends a GET request for `path` to one node, and returns the answer.
pub fn fetch_from(node: &NodeUrl, path: &str) -> Result<Answer, NoAnswer> {
    let failed = |source| NoAnswer::new(node, source);
    open(node, "GET", path)?.whole().map_err(failed)
}

/// Sends a request without a body to one node, and returns the answer before its body has come.
pub fn open(node: &NodeUrl, method: &str, path: &str) -> Result<Incoming<BufReader<NodeStream>>, NoAnswer> {
    send(node, method, path, None)
}

/// Sends a request with or without a body to the first of the nodes that answers, and returns the whole answer. A request
/// may reach two nodes if the first one does not answer.
pub fn request(nodes: &Nodes, method: &str, path: &str, body: Option<Body<'_>>) -> Result<Answer, CliError> {
    nodes.try_each(
        |node| {
            let failed = |source| NoAnswer::new(node, source);
            let answer = send(node, method, path, body).and_then(|answer| answer.whole().map_err(failed));
            answer.map_err(CliError::from)
        },
        |_| false,
        |one, next| CliError::Failed(format!("{one}; {next}")),
    )
}

/// Sends a request with a body of lines of JSON to one node, and returns the whole answer.
pub fn post_lines(node: &NodeUrl, path: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
    let failed = |source| NoAnswer::new(node, source);
    let body = Body { media_type: "application/x-ndjson", bytes: body };
    send(node, "POST", path, Some(body))?.whole().map_err(failed)
}

fn send(
    node: &NodeUrl,
    method: &str,
    path: &str,
    body: Option<Body<'_>>,
) -> Result<Incoming<BufReader<NodeStream>>, NoAnswer> {
    let exchange = || {
        let mut stream = node.connect()?;
        let token = node
            .token()
            .map_or_else(String::new, |token| format!("Authorization: Bearer {}\r\n", token.as_str()));
        let length = body.map_or_else(String::new, |body| {
            format!("Content-Type: {}\r\nContent-Length: {}\r\n", body.media_type, body.bytes.len())
        });
        let path = node.path(path);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {node}\r\nAccept: application/json, application/x-ndjson\r\n\
             {token}{length}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        // A node may refuse a request before it has read all of it, and its answer tells why.
        let sent = stream.write_all(body.map_or(&[], |body| body.bytes));
        if body.is_some() {
            stream.set_read_timeout(Some(WORK_MAX))?;
        }
        Incoming::read(BufReader::new(stream)).map_err(|error| sent.err().unwrap_or(error))
    };
    exchange().map_err(|source| NoAnswer::new(node, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(u16, String)> {
        let answer = Incoming::read(text.as_bytes()).and_then(Incoming::whole).ok()?;
        Some((answer.status, answer.body))
    }

    #[test]
    fn answers() {
        let of = |status, body: &str| Some((status, body.to_owned()));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x"), of(200, "{}"));
        assert_eq!(read("HTTP/1.0 404\r\n\r\nall"), of(404, "all"));
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        assert_eq!(read(chunks), of(200, "abc"));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "x\r\n\r\n",
            // A connection that ends between two chunks has not brought the whole body.
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    /// "Resource temporarily unavailable" said nothing of what had happened.
    #[test]
    fn a_node_that_does_not_answer_in_time_is_told_so() {
        let told = NoAnswer::new(&"127.0.0.1:1", io::ErrorKind::WouldBlock.into()).to_string();
        assert_eq!(told, "no answer from 127.0.0.1:1: the connection stood still for too long");
    }

    #[test]
    fn problems_become_messages() {
        let body = r#"{"status":404,"code":"not_found","detail":"no record"}"#.to_owned();
        assert_eq!(Answer { status: 404, body }.ok().expect_err("404").to_string(), "not_found: no record");
        let error = Answer { status: 502, body: "<html>".into() }.ok().expect_err("502");
        assert_eq!(error.to_string(), "the node answered with status 502");
    }
}
