//! A small HTTP/1.1 client. It uses a new connection for each request and reads each answer to its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::wait::PATIENCE;

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Http {
    /// The status code.
    pub status: u16,
    /// Names (in lower case) and values of the headers.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Http {
    /// Sends `GET path`.
    pub fn get(addr: &str, path: &str) -> Http {
        Http::request(addr, "GET", path, &[], b"")
    }

    /// Sends `POST path` with a JSON body.
    pub fn post(addr: &str, path: &str, body: &str) -> Http {
        Http::request(addr, "POST", path, &[("Content-Type", "application/json")], body.as_bytes())
    }

    /// Sends a request without a body that brings a token.
    pub fn with_token(addr: &str, method: &str, path: &str, token: &str) -> Http {
        Http::request(addr, method, path, &[("Authorization", &format!("Bearer {token}"))], b"")
    }

    /// Sends any request. Fails if there is no answer.
    pub fn request(addr: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Http {
        match Http::attempt(addr, method, path, headers, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} http://{addr}{path}: {error}"),
        }
    }

    /// Sends any request. Returns an error if there is no answer.
    pub fn attempt(
        addr: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Http> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {addr}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        // A server may answer and close the connection before it has read a body that it refuses.
        let _ = stream.write_all(body);
        Http::read(&mut stream)
    }

    /// Reads one answer up to the end of the connection.
    pub fn read(stream: &mut impl Read) -> std::io::Result<Http> {
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes)
            && bytes.is_empty()
        {
            return Err(error);
        }
        Http::parse(&bytes).ok_or_else(|| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            std::io::Error::other(format!("no HTTP answer: {text:?}"))
        })
    }

    fn parse(bytes: &[u8]) -> Option<Http> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(header).collect();
        let is_chunked =
            headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if is_chunked { unchunked(&bytes[end + 4..])? } else { bytes[end + 4..].to_vec() };
        Some(Http { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Returns the value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON. Fails if it is not JSON.
    pub fn json(&self) -> Value {
        super::json(&self.body)
    }

    /// Fails unless the answer is a problem document (RFC 9457) with this status and code.
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "content type {kind:?}: {self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let start = line + 2;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(start..start + size)?);
        rest = rest.get(start + size + 2..)?;
    }
}

/// Returns the value of a metric in Prometheus' text format: the sum of all samples of `name` with these
/// labels.
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut sum = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
        let matches = labels.iter().all(|(key, want)| series_labels.contains(&format!("{key}=\"{want}\"")));
        if series_name == name && matches {
            *sum.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
        }
    }
    sum
}

/// Opens a connection on which a test can write any bytes.
pub fn connect(addr: &str) -> TcpStream {
    let stream = match TcpStream::connect(addr) {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect to {addr}: {error}"),
    };
    let timeouts = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
    assert!(timeouts.is_ok(), "timeouts cannot be set");
    let _ = stream.set_nodelay(true);
    stream
}

/// Reads until the other side closes or resets the connection, and returns what was read. Fails if that takes
/// longer than `within`.
pub fn read_all(stream: &mut TcpStream, within: Duration) -> Vec<u8> {
    let deadline = super::Deadline::after(within);
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Some(left) = deadline.left() {
        let _ = stream.set_read_timeout(Some(left));
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(read) => all.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    panic!("not closed within {within:?}; read so far: {:?}", String::from_utf8_lossy(&all));
}
