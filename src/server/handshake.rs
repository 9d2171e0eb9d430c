//! The handshake of a WebSocket (RFC 6455, 4.2).
//!
//! Rejected: tungstenite's handshake, which looks at the first header of a name only. Two keys, of which a
//! program in front of the node might have read the other one, would be accepted, and `Upgrade: h2c,
//! websocket` refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Header;
use tungstenite::handshake::derive_accept_key;

use super::framing::message::{CODECS, Codec};
use super::headers::{has_body, has_token, values_of};
use crate::auth::is_token_subprotocol;
use crate::http::check_host;

/// The line in the head of a refusal that tells a client of another version of WebSocket which one it should use
/// (RFC 6455, 4.2.2).
pub const VERSION_FIELD: &str = "sec-websocket-version: 13\r\n";

/// The terms on which a connection changes to WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The proof that the request was understood, computed from the client's key.
    accept_key: String,
    /// The subprotocol that was chosen among those that the client offers; `None` if it offers none.
    chosen: Option<Codec>,
}

impl Handshake {
    /// Reads the terms from the headers of a request for `websocket`. An error says why there can be no
    /// session.
    pub fn read(headers: &[Header<'_>]) -> Result<Handshake, String> {
        check_host(true, values_of(headers, "host"))?;
        if has_body(headers) {
            return Err("a request for a WebSocket has no body".into());
        }
        if !has_token(headers, "connection", "upgrade") {
            return Err("a request for a WebSocket needs the header Connection: Upgrade".into());
        }
        let version = only(headers, "sec-websocket-version", "Sec-WebSocket-Version")?;
        if version != b"13" {
            return Err("Sec-WebSocket-Version is not 13, which is the only one there is".into());
        }
        let key = only(headers, "sec-websocket-key", "Sec-WebSocket-Key")?;
        if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
            return Err("Sec-WebSocket-Key is not the base64 of 16 bytes".into());
        }
        Ok(Handshake { accept_key: derive_accept_key(key), chosen: negotiate(headers)? })
    }

    /// The codec of the messages: the first that the client offers and this node knows, JSON if it offers
    /// none.
    pub fn codec(&self) -> Codec {
        self.chosen.unwrap_or(Codec::Json)
    }

    /// The response that switches protocols.
    pub fn response(&self) -> Vec<u8> {
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            self.accept_key
        );
        if let Some(chosen) = self.chosen {
            response.push_str("Sec-WebSocket-Protocol: ");
            response.push_str(chosen.subprotocol());
            response.push_str("\r\n");
        }
        response.push_str("\r\n");
        response.into_bytes()
    }
}

/// Returns the value of a header that must be there exactly once. `shown` is its name for people.
fn only<'a>(headers: &'a [Header<'a>], name: &'static str, shown: &str) -> Result<&'a [u8], String> {
    let mut values = values_of(headers, name);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.trim_ascii()),
        (None, _) => Err(format!("a request for a WebSocket needs the header {shown}")),
        (Some(_), Some(_)) => Err(format!("the header {shown} is there twice")),
    }
}

/// The codec that the client named, if it named any. A subprotocol that brings a token is none.
fn negotiate(headers: &[Header<'_>]) -> Result<Option<Codec>, String> {
    let mut offered = values_of(headers, "sec-websocket-protocol")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && !is_token_subprotocol(name))
        .peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    match offered.find_map(|name| CODECS.into_iter().find(|codec| codec.subprotocol().as_bytes() == name)) {
        Some(chosen) => Ok(Some(chosen)),
        None => Err("no offered subprotocol is known; there are anode.v1.json, anode.v1.protobuf".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

    /// The handshake of a request with these lines of headers.
    fn read(lines: &[&str]) -> Result<Handshake, String> {
        let text = format!("GET /publish HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(text.as_bytes()).is_ok_and(|status| status.is_complete()), "{text}");
        Handshake::read(request.headers)
    }

    const LINES: [&str; 5] = [
        "Host: x",
        "Connection: keep-alive, Upgrade",
        "Upgrade: h2c, websocket",
        "Sec-WebSocket-Version: 13",
        KEY,
    ];

    #[test]
    fn a_handshake_is_accepted_only_with_each_header_once() {
        assert!(read(&LINES).is_ok());
        for at in [0, 1, 3, 4] {
            let without = [&LINES[..at], &LINES[at + 1..]].concat();
            assert!(read(&without).is_err(), "without {}", LINES[at]);
        }
        for (more, is_fine) in [
            ("Host: x", false),
            ("Sec-WebSocket-Version: 13", false),
            (KEY, false),
            ("Content-Length: 5", false),
            ("Content-Length: 0", true),
            ("Transfer-Encoding: chunked", false),
            ("Connection: close", true),
            ("Sec-WebSocket-Extensions: permessage-deflate", true),
        ] {
            assert_eq!(read(&[&LINES[..], &[more]].concat()).is_ok(), is_fine, "{more}");
        }
        for (at, other) in [
            (0, "Host: a b"),
            (3, "Sec-WebSocket-Version: 8"),
            (4, "Sec-WebSocket-Key: short"),
            (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw=="),
        ] {
            let mut lines = LINES;
            lines[at] = other;
            assert!(read(&lines).is_err(), "{other}");
        }
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let offered =
            |names: &str| read(&[&LINES[..], &[&format!("Sec-WebSocket-Protocol: {names}")]].concat());
        let codec = |names: &str| offered(names).map(|handshake| handshake.codec());
        assert_eq!(read(&LINES).map(|handshake| handshake.codec()), Ok(Codec::Json));
        assert_eq!(codec("x, anode.v1.protobuf, anode.v1.json"), Ok(Codec::Protobuf));
        assert_eq!(codec("anode.v1.json"), Ok(Codec::Json));
        assert!(codec("mqtt").is_err());
        let response = |handshake: Handshake| String::from_utf8(handshake.response()).expect("text");
        let chosen = response(offered("anode.v1.json").expect("accepted"));
        assert!(chosen.starts_with("HTTP/1.1 101 ") && chosen.ends_with("\r\n\r\n"), "{chosen}");
        assert!(chosen.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{chosen}");
        assert!(chosen.contains("Sec-WebSocket-Protocol: anode.v1.json\r\n"), "{chosen}");
        assert!(!response(read(&LINES).expect("accepted")).contains("rotocol:"));
    }
}
