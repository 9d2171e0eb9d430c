//! The messages of `graphql-transport-ws`, read and written, and the codes with which its connections are closed.

use std::borrow::Cow;

use async_graphql::{Request, Response, ServerError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest id of an operation, in bytes. Every answer repeats it.
const OPERATION_ID_BYTES_MAX: usize = 128;

/// The reason for which a connection is closed: the number that is sent, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketClose {
    pub(super) number: u16,
    pub(super) reason: Cow<'static, str>,
}

impl SocketClose {
    /// A message that cannot be read, or is none that a client may send.
    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> SocketClose {
        SocketClose { number: 4400, reason: reason.into() }
    }

    /// An operation before the connection was acknowledged.
    pub(super) fn unauthorized() -> SocketClose {
        SocketClose { number: 4401, reason: "Unauthorized".into() }
    }

    /// A client that may not use the connection, or may not any longer.
    pub(super) fn forbidden(reason: &str) -> SocketClose {
        SocketClose { number: 4403, reason: format!("Forbidden: {reason}").into() }
    }

    /// A client whose first message has not come in time.
    pub(super) fn init_late() -> SocketClose {
        SocketClose { number: 4408, reason: "Connection initialisation timeout".into() }
    }

    /// An operation whose id another one has that still runs.
    pub(super) fn duplicate(id: &str) -> SocketClose {
        SocketClose { number: 4409, reason: format!("Subscriber for {id} already exists").into() }
    }

    /// A second first message.
    pub(super) fn repeated_init() -> SocketClose {
        SocketClose { number: 4429, reason: "Too many initialisation requests".into() }
    }

    /// A defect of the node.
    pub(super) fn internal() -> SocketClose {
        SocketClose { number: 4500, reason: "Internal server error".into() }
    }

    /// A client that goes on at many times its rate, as on every connection.
    pub(super) fn over_rate() -> SocketClose {
        SocketClose { number: 4101, reason: "ten times the rate of the token for ten seconds".into() }
    }

    /// The node is stopping, as on every connection.
    pub(super) fn draining() -> SocketClose {
        SocketClose { number: 4200, reason: "draining".into() }
    }

    /// A client that does not answer pings, as on every connection.
    pub(super) fn no_pong() -> SocketClose {
        SocketClose { number: 4201, reason: "no pong".into() }
    }
}

/// A message of a client.
pub(super) enum SocketMessage<'a> {
    /// The first message. Holds the token that it brings, if it brings one.
    Init(Option<Cow<'a, str>>),
    /// Asks for a [`SocketMessage::Pong`] with the same payload.
    Ping(Option<&'a RawValue>),
    /// Answers a ping, or is a sign of life.
    Pong,
    /// Starts an operation.
    Subscribe(Cow<'a, str>, Box<Request>),
    /// Ends an operation.
    Complete(Cow<'a, str>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The parameters of a connection. Clients bring their token in one of these ways.
#[derive(Default, Deserialize)]
struct ConnectionParams<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "Authorization", alias = "authorization")]
    authorization: Option<Cow<'a, str>>,
    #[serde(borrow)]
    headers: Option<HeaderParams<'a>>,
}

#[derive(Deserialize)]
struct HeaderParams<'a> {
    #[serde(borrow, rename = "Authorization", alias = "authorization")]
    authorization: Option<Cow<'a, str>>,
}

/// Reads a message of a client. An error closes the connection.
pub(super) fn read(text: &str) -> Result<SocketMessage<'_>, SocketClose> {
    let Envelope { kind, id, payload }: Envelope<'_> =
        serde_json::from_str(text).map_err(invalid("Invalid message"))?;
    if payload.is_some_and(|payload| !payload.get().starts_with('{')) {
        return Err(SocketClose::invalid("Invalid message: payload is no object"));
    }
    match &*kind {
        "connection_init" => {
            let payload = payload.map(|payload| serde_json::from_str(payload.get())).transpose();
            let payload: Option<ConnectionParams<'_>> =
                payload.map_err(invalid("Invalid connection_init"))?;
            Ok(SocketMessage::Init(payload.and_then(token_of)))
        }
        "ping" => Ok(SocketMessage::Ping(payload)),
        "pong" => Ok(SocketMessage::Pong),
        "subscribe" => {
            let id = checked_id(id)?;
            let Some(payload) = payload else {
                return Err(SocketClose::invalid("Invalid message: subscribe has no payload"));
            };
            let request: Request =
                serde_json::from_str(payload.get()).map_err(invalid("Invalid subscribe"))?;
            if request.query.is_empty() {
                return Err(SocketClose::invalid("Invalid subscribe: query is missing"));
            }
            Ok(SocketMessage::Subscribe(id, Box::new(request)))
        }
        "complete" => checked_id(id).map(SocketMessage::Complete),
        _ => Err(SocketClose::invalid("Invalid message: the type is unknown")),
    }
}

fn invalid(what: &'static str) -> impl Fn(serde_json::Error) -> SocketClose {
    move |error| SocketClose::invalid(format!("{what}: {error}"))
}

/// The id of an operation, if it is one.
fn checked_id(id: Option<Cow<'_, str>>) -> Result<Cow<'_, str>, SocketClose> {
    id.filter(|id| (1..=OPERATION_ID_BYTES_MAX).contains(&id.len())).ok_or_else(|| {
        let message = format!("Invalid message: id is a string of 1 to {OPERATION_ID_BYTES_MAX} bytes");
        SocketClose::invalid(message)
    })
}

/// The token among the parameters of a connection.
fn token_of(params: ConnectionParams<'_>) -> Option<Cow<'_, str>> {
    let authorization =
        params.authorization.or_else(|| params.headers.and_then(|headers| headers.authorization));
    params.token.or_else(|| authorization.map(without_scheme))
}

/// The token of a value as the header `Authorization` has it. Whatever has no scheme is taken for the token itself.
fn without_scheme(value: Cow<'_, str>) -> Cow<'_, str> {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Cow::Owned(token.trim().to_owned()),
        _ => value,
    }
}

#[derive(Serialize)]
struct Answer<'a, P: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<P>,
}

fn write<P: Serialize>(id: Option<&str>, kind: &'static str, payload: Option<P>) -> String {
    // Nothing in an answer can fail to be written.
    serde_json::to_string(&Answer { id, kind, payload }).unwrap_or_default()
}

/// Who the client is, as the acknowledgement of the connection tells it.
#[derive(Serialize)]
pub(super) struct AckPayload<'a> {
    /// Name of the node.
    pub(super) node: &'a str,
    /// Name of the token.
    pub(super) name: &'a str,
    /// When the token ends, in seconds since the Unix epoch; `None` for never.
    pub(super) expires: Option<u64>,
}

/// The connection is acknowledged: operations may be started.
pub(super) fn connection_ack(payload: AckPayload<'_>) -> String {
    write(None, "connection_ack", Some(payload))
}

/// Answers a ping.
pub(super) fn pong(payload: Option<&RawValue>) -> String {
    write(None, "pong", payload)
}

/// An answer of an operation.
pub(super) fn next(id: &str, response: &Response) -> String {
    write(Some(id), "next", Some(response))
}

/// An operation has failed, and is over.
pub(super) fn error(id: &str, errors: &[ServerError]) -> String {
    write(Some(id), "error", Some(errors))
}

/// An operation is over.
pub(super) fn complete(id: &str) -> String {
    write::<()>(Some(id), "complete", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> Option<String> {
        let text = format!(r#"{{"type":"connection_init","payload":{payload}}}"#);
        match read(&text) {
            Ok(SocketMessage::Init(token)) => token.map(Cow::into_owned),
            _ => panic!("{payload}"),
        }
    }

    #[test]
    fn a_token_comes_in_several_ways() {
        assert_eq!(token(r#"{"token":"t"}"#).as_deref(), Some("t"));
        assert_eq!(token(r#"{"Authorization":"Bearer t"}"#).as_deref(), Some("t"));
        assert_eq!(token(r#"{"authorization":"bearer  t"}"#).as_deref(), Some("t"));
        assert_eq!(token(r#"{"headers":{"Authorization":"t"},"x":1}"#).as_deref(), Some("t"));
        assert_eq!(token("{}"), None);
        assert_eq!(token("null"), None);
    }

    #[test]
    fn what_is_no_message_is_4400() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"start"}"#,
            r#"{"type":"connection_init","payload":[]}"#,
            r#"{"type":"connection_init","payload":{"token":1}}"#,
            r#"{"type":"ping","payload":"x"}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"subscribe","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":7,"payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":""}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[]}}"#,
            r#"{"type":"complete"}"#,
        ] {
            match read(bad) {
                Err(close) => assert_eq!(close.number, 4400, "{bad}"),
                Ok(_) => panic!("{bad}"),
            }
        }
        let fine = r#"{"id":"1","type":"subscribe","payload":{"query":"{a}","variables":null,"operationName":null}}"#;
        assert!(matches!(read(fine), Ok(SocketMessage::Subscribe(id, _)) if id == "1"));
        assert!(
            matches!(read(r#"{"type":"complete","id":"x"}"#), Ok(SocketMessage::Complete(id)) if id == "x")
        );
    }

    #[test]
    fn answers_have_only_what_they_need() {
        assert_eq!(complete("a\"b"), r#"{"id":"a\"b","type":"complete"}"#);
        assert_eq!(pong(None), r#"{"type":"pong"}"#);
        let payload = RawValue::from_string(r#"{"a": 1.0}"#.into()).expect("JSON");
        assert_eq!(pong(Some(&payload)), r#"{"type":"pong","payload":{"a": 1.0}}"#);
        let acked = connection_ack(AckPayload { node: "n", name: "t", expires: None });
        assert_eq!(acked, r#"{"type":"connection_ack","payload":{"node":"n","name":"t","expires":null}}"#);
    }
}
