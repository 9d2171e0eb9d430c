//! Requests of HTTP to nodes: one request a connection, with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use anode_loadgen::Outcome;

use crate::target::{Connected, Target};

/// Most bytes of an answer; a page of records has at most 8 MiB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Gets `path`, and returns the status and the body.
pub fn get(target: &Target, path: &str, timeout: Duration) -> Outcome<(u16, Vec<u8>)> {
    let Connected { mut stream, host, visit } = target.connect(timeout)?;
    let token =
        target.authorization().map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    // Where TLS ends without a word, the length of the answer says whether it is whole.
    if let Err(error) = read
        && error.kind() != ErrorKind::UnexpectedEof
    {
        return Err(error.into());
    }
    target.confirm(visit)?;
    parse(&bytes).ok_or_else(|| format!("{host}{path}: no whole answer").into())
}

/// Gets `path` and returns its body as text if the status is 200.
pub fn get_text(target: &Target, path: &str, timeout: Duration) -> Outcome<String> {
    let (status, body) = get(target, path, timeout)?;
    if status != 200 {
        return Err(format!("{target:?}{path}: status {status}").into());
    }
    Ok(String::from_utf8(body)?)
}

fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("transfer-encoding:").is_some_and(|value| value.contains("chunked")) {
        return Some((status, unchunk(body)?));
    }
    let length: Option<usize> = field("content-length:").and_then(|value| value.parse().ok());
    match length {
        Some(length) => Some((status, body.get(..length)?.to_vec())),
        None => Some((status, body.to_vec())),
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(end + 2..end + 2 + size)?);
        bytes = bytes.get(end + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(parse(plain), Some((200, b"abc".to_vec())));
        assert_eq!(parse(&plain[..plain.len() - 1]), None);
        let chunked =
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((404, b"abcde".to_vec())));
        assert_eq!(parse(&chunked[..chunked.len() - 8]), None);
    }
}
