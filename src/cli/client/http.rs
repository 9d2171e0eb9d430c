//! Sends a GET request and reads the answer.

use std::io::{self, Read, Write};

use super::{NodeUrl, Refused};
use crate::cli::CliError;

/// Largest answer that is read, in bytes. Nodes send much smaller pages.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The answer of a node to an HTTP request.
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

/// Sends a GET request for `path` to `endpoint` and returns the answer.
pub fn fetch(endpoint: &NodeUrl, path: &str) -> Result<Answer, CliError> {
    exchange(endpoint, path).map_err(|error| {
        // The error becomes a text here. As an `io::Error`, a broken pipe would be taken for a closed stdout.
        CliError::Failed(format!("no answer from {endpoint}: {error}"))
    })
}

fn exchange(endpoint: &NodeUrl, path: &str) -> io::Result<Answer> {
    let mut stream = endpoint.connect()?;
    let path = endpoint.path(path);
    let token = endpoint
        .token()
        .map_or_else(String::new, |token| format!("Authorization: Bearer {}\r\n", token.as_str()));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nAccept: application/json\r\n{token}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parsed(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no whole HTTP answer"))
}

/// Parses an answer to a request with `Connection: close`.
fn parsed(bytes: Vec<u8>) -> Option<Answer> {
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = match header("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => unchunked(body)?,
        _ => match header("content-length") {
            Some(length) => body.get(..length.parse().ok()?)?.to_owned(),
            None => body.to_owned(),
        },
    };
    Some(Answer { status, body })
}

/// Decodes a chunked body. Nodes send the length of a body, but a proxy between may not.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (head, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(head.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(u16, String)> {
        parsed(text.into()).map(|answer| (answer.status, answer.body))
    }

    #[test]
    fn answers() {
        let of = |status, body: &str| Some((status, body.to_owned()));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x"), of(200, "{}"));
        assert_eq!(read("HTTP/1.0 404\r\n\r\nall"), of(404, "all"));
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        assert_eq!(read(chunks), of(200, "abc"));
        for bad in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "x\r\n\r\n"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn problems_become_messages() {
        let body = r#"{"status":404,"code":"not_found","detail":"no record"}"#.to_owned();
        assert_eq!(Answer { status: 404, body }.ok().expect_err("404").to_string(), "not_found: no record");
        let error = Answer { status: 502, body: "<html>".into() }.ok().expect_err("502");
        assert_eq!(error.to_string(), "the node answered with status 502");
    }
}
