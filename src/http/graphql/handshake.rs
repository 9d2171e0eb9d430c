//! The handshake of a WebSocket of GraphQL (RFC 6455, 4.2).

use axum::http::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderName, Method, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::auth::is_token_subprotocol;

/// The subprotocol of messages.
pub(super) const SUBPROTOCOL: &str = "graphql-transport-ws";

/// Returns whether a request asks to change to WebSocket.
pub(in crate::http) fn asks_for_socket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    *method == Method::GET && version == Version::HTTP_11 && has_word(headers, &UPGRADE, "websocket")
}

/// Reads the terms of the change. Returns the proof that the request was understood, or why it is refused.
pub(super) fn accept_key(headers: &HeaderMap) -> Result<String, String> {
    if !has_word(headers, &CONNECTION, "upgrade") {
        return Err("a request for a WebSocket needs the header Connection: Upgrade".into());
    }
    if only(headers, &SEC_WEBSOCKET_VERSION, "Sec-WebSocket-Version")? != b"13" {
        return Err("Sec-WebSocket-Version is not 13, which is the only one there is".into());
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY, "Sec-WebSocket-Key")?;
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err("Sec-WebSocket-Key is not the base64 of 16 bytes".into());
    }
    let is_it = |word: &[u8]| word == SUBPROTOCOL.as_bytes();
    let mut offered = words(headers, &SEC_WEBSOCKET_PROTOCOL).filter(|word| !is_token_subprotocol(word));
    if !offered.any(is_it) {
        return Err(format!("no offered subprotocol is known; at /graphql there is {SUBPROTOCOL}"));
    }
    Ok(derive_accept_key(key))
}

/// The value of a header that must be there exactly once. `shown` is its name for people.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName, shown: &str) -> Result<&'a [u8], String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes().trim_ascii()),
        (None, _) => Err(format!("a request for a WebSocket needs the header {shown}")),
        (Some(_), Some(_)) => Err(format!("the header {shown} is there twice")),
    }
}

/// The words of a header that is a list.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|other| other.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "anode.token.eA, graphql-transport-ws"),
        ]
        .iter()
        .chain(changes)
        {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_handshake_is_accepted_with_its_subprotocol_alone() {
        assert_eq!(accept_key(&headers(&[])).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for change in [
            ("connection", "close"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "short"),
            ("sec-websocket-protocol", "graphql-ws"),
            ("sec-websocket-protocol", "anode.token.eA"),
            ("sec-websocket-protocol", ""),
        ] {
            assert!(accept_key(&headers(&[change])).is_err(), "{change:?}");
        }
        let mut twice = headers(&[]);
        twice.append("sec-websocket-version", HeaderValue::from_static("13"));
        assert!(accept_key(&twice).is_err());
    }

    #[test]
    fn only_a_get_of_http_1_1_changes() {
        let upgrade = headers(&[]);
        assert!(asks_for_socket(&Method::GET, Version::HTTP_11, &upgrade));
        assert!(!asks_for_socket(&Method::POST, Version::HTTP_11, &upgrade));
        assert!(!asks_for_socket(&Method::GET, Version::HTTP_10, &upgrade));
        assert!(!asks_for_socket(&Method::GET, Version::HTTP_11, &headers(&[("upgrade", "h2c")])));
    }
}
