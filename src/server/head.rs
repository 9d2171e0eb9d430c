//! The head of the first request on a connection, which says what the connection is for.
//!
//! All clients come through the same port. A request that upgrades to WebSocket on `/publish` or
//! `/subscribe` stays with the worker; every other one is handed to the control plane, with the bytes
//! read so far, and is answered or refused there.

use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;

use super::framing::message::{CODECS, Codec};
use super::framing::wrap::Framing;
use super::session::Endpoint;
use crate::limits::REQUEST_HEAD_BYTES_MAX;
use crate::protocol::json::{ProblemFields, write_problem};
use crate::protocol::refusal::Refusal;

/// A request to change to a framing of messages.
#[derive(Debug)]
pub struct Upgrade {
    /// The framing that is asked for.
    pub framing: Framing,
    /// The path that was asked for.
    pub endpoint: Endpoint,
    /// The part of the URL after the `?`; empty if there is none.
    pub query: String,
    /// Length of the head in bytes; what follows are the client's first frames.
    pub head_bytes: usize,
    request: Request,
}

/// The kind of request that a connection begins with, as far as its head has been read.
#[derive(Debug)]
pub enum RequestHead {
    /// The head is not whole yet.
    Partial,
    /// The head has more than [`REQUEST_HEAD_BYTES_MAX`] bytes.
    TooLarge,
    /// A request for the control plane, or something that is no request at all.
    Http,
    /// A request that becomes a session.
    Upgrade(Box<Upgrade>),
}

/// Reads the head at the beginning of `bytes`.
pub fn read_head(bytes: &[u8]) -> RequestHead {
    // Empty lines before a request are allowed for, and do not end a head.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let text = bytes.get(blank..).unwrap_or_default();
    let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > REQUEST_HEAD_BYTES_MAX {
            RequestHead::TooLarge
        } else {
            RequestHead::Partial
        };
    };
    if blank + end > REQUEST_HEAD_BYTES_MAX {
        return RequestHead::TooLarge;
    }
    match Request::try_parse(text.get(..end).unwrap_or_default()) {
        Ok(Some((_, request))) => upgrade(request, blank + end),
        _ => RequestHead::Http,
    }
}

fn upgrade(request: Request, head_bytes: usize) -> RequestHead {
    let wants_websocket = request
        .headers()
        .get_all("upgrade")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")));
    let endpoint = match request.uri().path() {
        "/publish" => Endpoint::Publish,
        "/subscribe" => Endpoint::Subscribe,
        _ => return RequestHead::Http,
    };
    if !wants_websocket {
        return RequestHead::Http;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let framing = Framing::WebSocket;
    RequestHead::Upgrade(Box::new(Upgrade { framing, endpoint, query, head_bytes, request }))
}

impl Upgrade {
    /// The codec of the messages: the first that the client offers and this node knows, JSON if it offers
    /// none. An error says why there can be no session.
    pub fn codec(&self) -> Result<Codec, String> {
        self.negotiate().map(|chosen| chosen.unwrap_or(Codec::Json))
    }

    /// The response that switches protocols. An error says why there can be no session.
    pub fn accept(&self) -> Result<Vec<u8>, String> {
        let mut response = create_response(&self.request).map_err(|error| error.to_string())?;
        if let Some(chosen) = self.negotiate()? {
            let value = HeaderValue::from_static(chosen.subprotocol());
            response.headers_mut().insert("Sec-WebSocket-Protocol", value);
        }
        let mut bytes = Vec::with_capacity(256);
        write_response(&mut bytes, &response).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// The codec that the client named, if it named any.
    fn negotiate(&self) -> Result<Option<Codec>, String> {
        let mut offered = self
            .request
            .headers()
            .get_all("sec-websocket-protocol")
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .peekable();
        if offered.peek().is_none() {
            return Ok(None);
        }
        match offered.find_map(|name| CODECS.into_iter().find(|codec| codec.subprotocol() == name)) {
            Some(chosen) => Ok(Some(chosen)),
            None => Err("no offered subprotocol is known; there are anode.v1.json, anode.v1.protobuf".into()),
        }
    }
}

/// A whole HTTP response that says why there will be no session, and closes the connection.
pub fn refuse(status: u16, refusal: &Refusal) -> Vec<u8> {
    let title = match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let fields = ProblemFields { title, status, detail: &refusal.message, code: refusal.code.as_str() };
    let mut body = Vec::new();
    write_problem(&mut body, fields, &[]);
    let mut response = format!(
        "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Sec-WebSocket-Version: 13\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::refusal::Code;

    fn request(line: &str, headers: &str) -> Vec<u8> {
        format!(
            "{line}\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .into_bytes()
    }

    fn upgrade(headers: &str) -> Upgrade {
        match read_head(&request("GET /subscribe?source=a/** HTTP/1.1", headers)) {
            RequestHead::Upgrade(upgrade) => *upgrade,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_upgrade_is_told_from_plain_requests() {
        let whole = request("GET /publish HTTP/1.1", "");
        assert!(
            matches!(read_head(&whole), RequestHead::Upgrade(upgrade) if upgrade.endpoint == Endpoint::Publish)
        );
        assert!(matches!(read_head(&whole[..whole.len() - 1]), RequestHead::Partial));
        for line in
            ["GET / HTTP/1.1", "POST /publish HTTP/1.1", "GET /publish HTTP/1.0", "\u{1} x", "GET /publish"]
        {
            assert!(matches!(read_head(&request(line, "")), RequestHead::Http), "{line:?}");
        }
        assert!(matches!(read_head(b"GET /subscribe HTTP/1.1\r\n\r\n"), RequestHead::Http));
        assert!(matches!(read_head(&[b'x'; REQUEST_HEAD_BYTES_MAX + 1]), RequestHead::TooLarge));
        let padding = format!("X: {}\r\n", "x".repeat(REQUEST_HEAD_BYTES_MAX));
        assert!(matches!(read_head(&request("GET / HTTP/1.1", &padding)), RequestHead::TooLarge));
    }

    #[test]
    fn the_query_and_what_follows_the_head_are_kept() {
        let mut bytes = request("GET /subscribe?source=a%2Fb&mode=all HTTP/1.1", "");
        let head = bytes.len();
        bytes.extend_from_slice(b"\x81\x80....");
        match read_head(&bytes) {
            RequestHead::Upgrade(upgrade) => {
                assert_eq!((upgrade.query.as_str(), upgrade.head_bytes), ("source=a%2Fb&mode=all", head));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let offered = |names: &str| upgrade(&format!("Sec-WebSocket-Protocol: {names}\r\n"));
        assert_eq!(upgrade("").codec(), Ok(Codec::Json));
        assert_eq!(offered("x, anode.v1.protobuf, anode.v1.json").codec(), Ok(Codec::Protobuf));
        assert_eq!(offered("anode.v1.json").codec(), Ok(Codec::Json));
        assert!(offered("mqtt").codec().is_err());
        let response = String::from_utf8(offered("anode.v1.json").accept().expect("accepted")).expect("text");
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{response}");
        assert!(response.to_lowercase().contains("sec-websocket-protocol: anode.v1.json\r\n"), "{response}");
        assert!(!String::from_utf8_lossy(&upgrade("").accept().expect("accepted")).contains("rotocol:"));
    }

    #[test]
    fn a_refusal_is_a_problem() {
        let response = refuse(400, &Refusal::new(Code::BadRequest, "no \"x\""));
        let text = String::from_utf8(response).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}
