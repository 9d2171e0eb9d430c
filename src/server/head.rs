//! The heads of the requests on a connection, until one says what the connection is for.
//!
//! All clients come through the same port. A request that upgrades to WebSocket on `/publish` or
//! `/subscribe` stays with the worker, and so does one for a health path, after whose answer the next head
//! is read. With any other request the connection is handed to the control plane, with the bytes read so
//! far, and is answered or refused there. A request for a stream of events stays with the worker, too.
//!
//! Heads are read by the same parser as in the control plane (httparse, as hyper uses it) and under the same
//! bounds, so a head has one meaning, whichever of the two reads it. Both take a bare LF for the end of a
//! line, as RFC 9112 (2.2) allows.

use httparse::Status;

use super::framing::wrap::Framing;
use super::handshake::Handshake;
use super::headers::{has_body, has_token, values_of};
use super::session::Endpoint;
use crate::auth::{Caller, Resource, Right};
use crate::http::{HealthPath, check_host};
use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};

/// The bytes with which a client begins that takes it for granted that HTTP/2 is spoken (RFC 9113, 3.4).
const HTTP2_BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// The first byte of a connection of TLS: the type of the record that carries a handshake (RFC 8446, 5.1).
const TLS_BEGINNING: u8 = 22;

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
    /// What the header fields say of who sends the request.
    pub caller: Caller,
    /// The terms of the change. An error says why there can be no session.
    pub handshake: Result<Handshake, String>,
}

/// A request for a health path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRequest {
    /// The path that was asked for.
    pub path: HealthPath,
    /// Whether the answer has no body, because the method is HEAD.
    pub is_head: bool,
    /// Whether the client wants the connection to be closed behind the answer.
    pub closes: bool,
    /// Who asks; only read where the answer is not for everybody.
    pub caller: Caller,
    /// Length of the head in bytes; what follows is the next request.
    pub head_bytes: usize,
}

/// A request for a stream of Server-Sent Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// The part of the URL after the `?`; empty if there is none.
    pub query: String,
    /// The token that a client which comes back sends in the header `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// What the header fields say of who sends the request.
    pub caller: Caller,
}

/// The kind of request that a connection begins with, as far as its head has been read.
#[derive(Debug)]
pub enum RequestHead {
    /// The head is not whole yet.
    Partial,
    /// The head has more than [`REQUEST_HEAD_BYTES_MAX`] bytes.
    TooLarge,
    /// The beginning of something other than a request of HTTP/1.1, with what its client is told.
    Foreign(&'static str),
    /// A request for the control plane, or something that is no request at all.
    Http,
    /// A request that the worker answers.
    Health(HealthRequest),
    /// A request that becomes a stream of events.
    Stream(Box<StreamRequest>),
    /// A request that becomes a session.
    Upgrade(Box<Upgrade>),
}

/// The bytes of a connection from the beginning of a head on.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    bytes: Vec<u8>,
    /// Number of empty bytes that were dropped before the head.
    blank_bytes: usize,
    /// The head does not end before this place.
    searched: usize,
    /// Whether a request was answered on the connection before.
    follows_another: bool,
}

impl HeadBuffer {
    /// Appends bytes that were read.
    pub fn push(&mut self, mut input: &[u8]) {
        // Empty lines before a request are allowed for, and do not end a head.
        if self.bytes.is_empty() {
            let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.blank_bytes += blank;
            input = input.get(blank..).unwrap_or_default();
        }
        // No more memory than the head needs: a connection that holds so little is never refused.
        self.bytes.reserve_exact(input.len());
        self.bytes.extend_from_slice(input);
    }

    /// Number of bytes by which the head, of which so much has come, may still grow until it is too large.
    pub fn room_bytes(&self) -> usize {
        (REQUEST_HEAD_BYTES_MAX + 1).saturating_sub(self.bytes.len() + self.blank_bytes)
    }

    /// Number of bytes of memory that the buffer takes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads the head at the beginning of the bytes.
    pub fn read(&mut self) -> RequestHead {
        // What cannot become a head is not waited for: its client would learn of its mistake seconds later.
        if let Some(message) = self.bytes.first().and_then(|first| foreign(*first)) {
            return RequestHead::Foreign(message);
        }
        if !self.has_end() {
            return self.partial();
        }
        let mut headers = [httparse::EMPTY_HEADER; REQUEST_HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&self.bytes) {
            Ok(Status::Complete(head_bytes)) if head_bytes + self.blank_bytes > REQUEST_HEAD_BYTES_MAX => {
                RequestHead::TooLarge
            }
            Ok(Status::Complete(head_bytes)) => kind_of(&request, head_bytes),
            Ok(Status::Partial) => self.partial(),
            // hyper would close the connection without a word.
            Err(_) if self.bytes.starts_with(HTTP2_BEGINNING) => {
                RequestHead::Foreign("this is the beginning of HTTP/2; this port speaks HTTP/1.1")
            }
            // The control plane says what is wrong with it.
            Err(_) => RequestHead::Http,
        }
    }

    fn partial(&self) -> RequestHead {
        match self.bytes.len() + self.blank_bytes > REQUEST_HEAD_BYTES_MAX {
            true => RequestHead::TooLarge,
            false => RequestHead::Partial,
        }
    }

    /// Returns whether there is an empty line. Each byte is looked at once, however slowly they come.
    fn has_end(&mut self) -> bool {
        let from = self.searched.saturating_sub(2);
        let new = self.bytes.get(from..).unwrap_or_default();
        let ends = |at: usize| {
            let rest = new.get(at..).unwrap_or_default();
            rest.starts_with(b"\n\n") || rest.starts_with(b"\n\r\n")
        };
        match (0..new.len()).find(|&at| ends(at)) {
            Some(_) => true,
            None => {
                self.searched = self.bytes.len();
                false
            }
        }
    }

    /// Takes all bytes.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Drops a head of this length, which was answered; what is behind it begins the next one.
    pub fn handle_answered(&mut self, head_bytes: usize) {
        let rest = self.bytes.split_off(head_bytes.min(self.bytes.len()));
        *self = HeadBuffer { follows_another: true, ..HeadBuffer::default() };
        self.push(&rest);
    }

    /// Returns whether nothing has come of the head.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns whether a request was answered on the connection, and nothing has come since.
    pub fn is_between_requests(&self) -> bool {
        self.follows_another && self.is_empty()
    }
}

/// Returns what a client is told whose first byte no request of HTTP begins with.
fn foreign(first: u8) -> Option<&'static str> {
    match first {
        TLS_BEGINNING => Some(
            "this is the beginning of TLS; this port speaks HTTP and WebSocket without it (http://, ws://), \
             unless the node is started with --tls-cert and --tls-key",
        ),
        _ if first.is_ascii_graphic() => None,
        _ => Some("this is no request of HTTP, which begins with the name of a method"),
    }
}

/// Returns the kind of a request whose head is whole.
fn kind_of(request: &httparse::Request<'_, '_>, head_bytes: usize) -> RequestHead {
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return RequestHead::Http;
    };
    let headers = &*request.headers;
    let (path, query) = split(target);
    let is_http_11 = version == 1;
    if let Some(health) = HealthPath::of(path) {
        let is_plain = matches!(method, "GET" | "HEAD") && !has_body(headers);
        if is_plain && check_host(is_http_11, values_of(headers, "host")).is_ok() {
            let closes = !is_http_11 || has_token(headers, "connection", "close");
            let is_head = method == "HEAD";
            let is_public = Resource::of(path).is_some_and(|resource| resource.right() == Right::Public);
            let has_origin = values_of(headers, "origin").next().is_some();
            let caller = match is_public && !has_origin {
                true => Caller::default(),
                false => Caller::read(|name| values_of(headers, name)),
            };
            let request = HealthRequest { path: health, is_head, closes, caller, head_bytes };
            return RequestHead::Health(request);
        }
        return RequestHead::Http;
    }
    if path == Resource::Stream.path() {
        // The control plane says what is wrong with any other request for a stream.
        let is_plain = method == "GET" && !has_body(headers);
        return match is_plain && check_host(is_http_11, values_of(headers, "host")).is_ok() {
            true => RequestHead::Stream(Box::new(stream_request(headers, query))),
            false => RequestHead::Http,
        };
    }
    let endpoint = match path {
        "/publish" => Endpoint::Publish,
        "/subscribe" => Endpoint::Subscribe,
        _ => return RequestHead::Http,
    };
    if method != "GET" || !is_http_11 || !has_token(headers, "upgrade", "websocket") {
        return RequestHead::Http;
    }
    let (framing, query) = (Framing::WebSocket, query.to_owned());
    let (caller, handshake) = (Caller::read(|name| values_of(headers, name)), Handshake::read(headers));
    RequestHead::Upgrade(Box::new(Upgrade { framing, endpoint, query, head_bytes, caller, handshake }))
}

fn stream_request(headers: &[httparse::Header<'_>], query: &str) -> StreamRequest {
    // An empty one says that the client has seen no token (the HTML standard, 9.2.3).
    let id = values_of(headers, "last-event-id").map(<[u8]>::trim_ascii).find(|id| !id.is_empty());
    StreamRequest {
        query: query.to_owned(),
        last_event_id: id.map(|id| String::from_utf8_lossy(id).into_owned()),
        caller: Caller::read(|name| values_of(headers, name)),
    }
}

/// The path and the query of the target of a request, which may begin with a scheme and a host.
fn split(target: &str) -> (&str, &str) {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => target,
    };
    path.split_once('?').unwrap_or((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, headers: &str) -> Vec<u8> {
        format!(
            "{line}\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .into_bytes()
    }

    fn read_head(bytes: &[u8]) -> RequestHead {
        let mut head = HeadBuffer::default();
        head.push(bytes);
        head.read()
    }

    #[test]
    fn an_upgrade_is_told_from_plain_requests() {
        for line in ["GET /publish HTTP/1.1", "GET http://h/publish HTTP/1.1"] {
            let whole = request(line, "");
            assert!(
                matches!(read_head(&whole), RequestHead::Upgrade(upgrade) if upgrade.endpoint == Endpoint::Publish)
            );
            assert!(matches!(read_head(&whole[..whole.len() - 1]), RequestHead::Partial));
        }
        for line in [
            "GET / HTTP/1.1",
            "POST /publish HTTP/1.1",
            "GET /publish HTTP/1.0",
            "GET \u{1} x",
            "GET /publish",
        ] {
            assert!(matches!(read_head(&request(line, "")), RequestHead::Http), "{line:?}");
        }
        assert!(matches!(read_head(b"GET /subscribe HTTP/1.1\r\n\r\n"), RequestHead::Http));
        assert!(matches!(read_head(&[b'x'; REQUEST_HEAD_BYTES_MAX + 1]), RequestHead::TooLarge));
        assert!(matches!(read_head(&[b'\n'; REQUEST_HEAD_BYTES_MAX + 1]), RequestHead::TooLarge));
        let padding = format!("X: {}\r\n", "x".repeat(REQUEST_HEAD_BYTES_MAX));
        assert!(matches!(read_head(&request("GET / HTTP/1.1", &padding)), RequestHead::TooLarge));
        let many = "X: y\r\n".repeat(REQUEST_HEADERS_MAX);
        assert!(matches!(read_head(&request("GET /publish HTTP/1.1", &many)), RequestHead::Http));
    }

    #[test]
    fn what_cannot_become_a_request_is_not_waited_for() {
        let told = |bytes: &[u8]| match read_head(bytes) {
            RequestHead::Foreign(message) => message,
            other => panic!("{other:?}"),
        };
        for hello in [&b"\x16"[..], b"\x16\x03\x01\x02", b"\r\n\x16\x03\x01\x02\x00\r\n\r\n"] {
            assert!(told(hello).contains("TLS"), "{hello:?}");
        }
        for garbage in [&b"\x00"[..], b"\x80.\x01", b"\xff", b" GET / HTTP/1.1\r\n\r\n"] {
            assert!(told(garbage).contains("no request"), "{garbage:?}");
        }
        assert!(told(b"PRI * HTTP/2.0\r\n\r\n").contains("HTTP/2"));
        for beginning in [&b"G"[..], b"PRI * HTTP/2.0\r\n", b"\r\n", b"!"] {
            assert!(matches!(read_head(beginning), RequestHead::Partial), "{beginning:?}");
        }
    }

    #[test]
    fn the_query_and_what_follows_the_head_are_kept() {
        for end in ["\r\n", "\n"] {
            let text = request("GET /subscribe?source=a%2Fb&mode=all HTTP/1.1", "");
            let text = String::from_utf8(text).expect("text").replace("\r\n", end);
            let mut bytes = format!("\r\n{text}").into_bytes();
            bytes.extend_from_slice(b"\x81\x80..\r\n\r\n..");
            match read_head(&bytes) {
                RequestHead::Upgrade(upgrade) => {
                    assert_eq!(upgrade.query, "source=a%2Fb&mode=all");
                    assert_eq!(upgrade.head_bytes, text.len());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_end_is_found_however_the_head_is_cut() {
        for end in ["\r\n", "\n"] {
            let text = format!("\r\nGET /healthz HTTP/1.1{end}Host: x{end}{end}");
            let mut head = HeadBuffer::default();
            for (at, byte) in text.bytes().enumerate() {
                head.push(&[byte]);
                let is_whole = matches!(head.read(), RequestHead::Health(_));
                assert_eq!(is_whole, at + 1 == text.len(), "{end:?} at {at}");
            }
        }
    }

    #[test]
    fn health_paths_are_answered_here_if_nothing_is_strange_about_them() {
        let health = |text: &str| match read_head(text.as_bytes()) {
            RequestHead::Health(health) => Some(health),
            _ => None,
        };
        let plain = health("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\nGET").expect("health");
        assert_eq!((plain.path, plain.is_head, plain.closes), (HealthPath::Ready, false, false));
        assert_eq!(plain.head_bytes, 33);
        assert!(health("HEAD /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").is_some_and(|health| health.is_head));
        assert!(health("GET /healthz HTTP/1.0\r\n\r\n").is_some_and(|health| health.closes));
        let closing = health("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n");
        assert!(closing.is_some_and(|health| health.closes));
        for strange in [
            "GET /healthz HTTP/1.1\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /healthz/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(health(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn a_stream_is_asked_for_by_a_plain_get() {
        let stream = |text: &str| match read_head(text.as_bytes()) {
            RequestHead::Stream(request) => Some(request),
            _ => None,
        };
        let request = stream("GET /v1/stream?source=a%2F* HTTP/1.1\r\nHost: x\r\nLast-Event-ID: abc\r\n\r\n");
        let request = request.expect("a stream");
        assert_eq!((request.query.as_str(), request.last_event_id.as_deref()), ("source=a%2F*", Some("abc")));
        let first = stream("GET /v1/stream HTTP/1.0\r\nLast-Event-ID:\r\n\r\n").expect("a stream");
        assert_eq!(first.last_event_id, None);
        for other in [
            "GET /v1/stream HTTP/1.1\r\n\r\n",
            "HEAD /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1",
            "GET /v1/stream/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(stream(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_next_head_begins_behind_the_one_that_was_answered() {
        let mut head = HeadBuffer::default();
        head.push(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(!head.is_between_requests());
        let RequestHead::Health(health) = head.read() else { panic!("no health path") };
        head.handle_answered(health.head_bytes);
        assert!(matches!(head.read(), RequestHead::Http) && !head.is_between_requests());
        assert_eq!(head.take(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.is_between_requests());
    }
}
