//! The head of a connection: what it wants, before it is anything.
//!
//! Everyone comes through the same port. A request that upgrades to WebSocket on `/publish` or
//! `/subscribe` stays with the worker; every other one is handed to the control plane, with the bytes
//! read so far, which answers it or says what is wrong with it.

use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;

use crate::limits::HEAD_BYTES_MAX;
use crate::protocol::answer::Refusal;
use crate::protocol::json::write_string;

/// Which of the two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/publish`
    Publish,
    /// `/subscribe`
    Subscribe,
}

/// The form of a connection's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `anode.v1.json`, or none named.
    Json,
    /// `anode.v1.protobuf`
    Protobuf,
}

/// A request to upgrade.
#[derive(Debug)]
pub struct Upgrade {
    /// Where to.
    pub path: Path,
    /// What stands after the `?`.
    pub query: String,
    /// How many bytes the head has; what follows is the client's first frames.
    pub head_bytes: usize,
    request: Request,
}

/// What the bytes so far are.
#[derive(Debug)]
pub enum Head {
    /// Not whole yet.
    Partial,
    /// Over [`HEAD_BYTES_MAX`].
    TooLarge,
    /// For the control plane.
    Http,
    /// For a session.
    Upgrade(Box<Upgrade>),
}

/// Reads the head at the beginning of `bytes`.
pub fn read_head(bytes: &[u8]) -> Head {
    // Empty lines before a request are allowed for, and do not end a head.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let text = bytes.get(blank..).unwrap_or_default();
    let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > HEAD_BYTES_MAX { Head::TooLarge } else { Head::Partial };
    };
    if blank + end > HEAD_BYTES_MAX {
        return Head::TooLarge;
    }
    match Request::try_parse(text.get(..end).unwrap_or_default()) {
        Ok(Some((_, request))) => upgrade(request, blank + end),
        _ => Head::Http,
    }
}

fn upgrade(request: Request, head_bytes: usize) -> Head {
    let wants_websocket = request
        .headers()
        .get_all("upgrade")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")));
    let path = match request.uri().path() {
        "/publish" => Path::Publish,
        "/subscribe" => Path::Subscribe,
        _ => return Head::Http,
    };
    if !wants_websocket {
        return Head::Http;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    Head::Upgrade(Box::new(Upgrade { path, query, head_bytes, request }))
}

impl Upgrade {
    /// The form of the messages: the first that the client offers and this node knows.
    pub fn subprotocol(&self) -> Result<Subprotocol, String> {
        self.negotiate().map(|chosen| chosen.unwrap_or(Subprotocol::Json))
    }

    /// The response that switches protocols, or why there is none.
    pub fn accept(&self) -> Result<Vec<u8>, String> {
        let mut response = create_response(&self.request).map_err(|error| error.to_string())?;
        if let Some(chosen) = self.negotiate()? {
            let value = HeaderValue::from_static(chosen.name());
            response.headers_mut().insert("Sec-WebSocket-Protocol", value);
        }
        let mut bytes = Vec::with_capacity(256);
        write_response(&mut bytes, &response).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn negotiate(&self) -> Result<Option<Subprotocol>, String> {
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
        let known = [Subprotocol::Json, Subprotocol::Protobuf];
        match offered.find_map(|name| known.into_iter().find(|known| known.name() == name)) {
            Some(chosen) => Ok(Some(chosen)),
            None => Err("no offered subprotocol is known; there are anode.v1.json, anode.v1.protobuf".into()),
        }
    }
}

impl Subprotocol {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Subprotocol::Json => "anode.v1.json",
            Subprotocol::Protobuf => "anode.v1.protobuf",
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
    let mut body =
        format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},").into_bytes();
    body.extend_from_slice(b"\"detail\":");
    write_string(&mut body, &refusal.message);
    body.extend_from_slice(format!(",\"code\":\"{}\"}}", refusal.code.as_str()).as_bytes());
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
    use crate::protocol::answer::Code;

    fn request(line: &str, headers: &str) -> Vec<u8> {
        format!(
            "{line}\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .into_bytes()
    }

    fn upgrade(headers: &str) -> Upgrade {
        match read_head(&request("GET /subscribe?source=a/** HTTP/1.1", headers)) {
            Head::Upgrade(upgrade) => *upgrade,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_upgrade_is_told_from_plain_requests() {
        let whole = request("GET /publish HTTP/1.1", "");
        assert!(matches!(read_head(&whole), Head::Upgrade(upgrade) if upgrade.path == Path::Publish));
        assert!(matches!(read_head(&whole[..whole.len() - 1]), Head::Partial));
        for line in
            ["GET / HTTP/1.1", "POST /publish HTTP/1.1", "GET /publish HTTP/1.0", "\u{1} x", "GET /publish"]
        {
            assert!(matches!(read_head(&request(line, "")), Head::Http), "{line:?}");
        }
        assert!(matches!(read_head(b"GET /subscribe HTTP/1.1\r\n\r\n"), Head::Http));
        assert!(matches!(read_head(&[b'x'; HEAD_BYTES_MAX + 1]), Head::TooLarge));
        let padding = format!("X: {}\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert!(matches!(read_head(&request("GET / HTTP/1.1", &padding)), Head::TooLarge));
    }

    #[test]
    fn the_query_and_what_follows_the_head_are_kept() {
        let mut bytes = request("GET /subscribe?source=a%2Fb&mode=all HTTP/1.1", "");
        let head = bytes.len();
        bytes.extend_from_slice(b"\x81\x80....");
        match read_head(&bytes) {
            Head::Upgrade(upgrade) => {
                assert_eq!((upgrade.query.as_str(), upgrade.head_bytes), ("source=a%2Fb&mode=all", head));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let offered = |names: &str| upgrade(&format!("Sec-WebSocket-Protocol: {names}\r\n"));
        assert_eq!(upgrade("").subprotocol(), Ok(Subprotocol::Json));
        assert_eq!(offered("x, anode.v1.protobuf, anode.v1.json").subprotocol(), Ok(Subprotocol::Protobuf));
        assert_eq!(offered("anode.v1.json").subprotocol(), Ok(Subprotocol::Json));
        assert!(offered("mqtt").subprotocol().is_err());
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
