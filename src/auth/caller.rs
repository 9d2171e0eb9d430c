//! Who sends a request: what its header fields say, and what is known of the connection.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The subprotocol by which a browser brings a token begins with this; base64url of the token follows.
pub const TOKEN_SUBPROTOCOL: &str = "anode.token.";

/// What is known of the client of a connection before it says anything.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address that the connection comes from.
    pub address: IpAddr,
    /// The name in the client's certificate, if it has shown one that was verified.
    pub certificate: Option<Arc<str>>,
}

/// What the header fields of a request say about who sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The value of the header `Host`.
    pub host: Option<Box<str>>,
    /// The value of the header `Origin`, which browsers send.
    pub origin: Option<Box<str>>,
    /// The token that the request brings, if it brings one.
    pub token: BroughtToken,
}

/// A token as it stands in a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum BroughtToken {
    /// There is none.
    #[default]
    None,
    /// A token, which may be wrong.
    Token(Box<str>),
    /// Something that is no token. Holds what is wrong with it.
    Unreadable(&'static str),
}

/// Written to logs without the secret.
impl std::fmt::Debug for BroughtToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BroughtToken::None => f.write_str("None"),
            BroughtToken::Token(_) => f.write_str("Token(…)"),
            BroughtToken::Unreadable(reason) => write!(f, "Unreadable({reason:?})"),
        }
    }
}

impl Caller {
    /// Reads the header fields. `values` returns the values of all fields of a name.
    pub fn read<'a, V: Iterator<Item = &'a [u8]>>(values: impl Fn(&'static str) -> V) -> Caller {
        let text = |value: &[u8]| String::from_utf8_lossy(value.trim_ascii()).into_owned().into_boxed_str();
        let mut origins = values("origin");
        let origin = match (origins.next(), origins.next()) {
            (Some(_), Some(_)) => Some("several origins".into()),
            (origin, _) => origin.map(text),
        };
        let mut token = bearer(values("authorization"));
        if token == BroughtToken::None {
            token = in_subprotocols(values("sec-websocket-protocol"));
        }
        Caller { host: values("host").next().map(text), origin, token }
    }
}

/// Reads the token of the header `Authorization` (RFC 6750, 2.1).
fn bearer<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> BroughtToken {
    let Some(value) = values.next() else { return BroughtToken::None };
    if values.next().is_some() {
        return BroughtToken::Unreadable("the header Authorization is there twice");
    }
    let parts = std::str::from_utf8(value.trim_ascii()).ok().and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            BroughtToken::Token(token.trim().into())
        }
        _ => BroughtToken::Unreadable("the header Authorization is not of the form: Bearer TOKEN"),
    }
}

/// Returns whether an offered subprotocol is none, but brings a token.
pub fn is_token_subprotocol(name: &[u8]) -> bool {
    name.starts_with(TOKEN_SUBPROTOCOL.as_bytes())
}

fn in_subprotocols<'a>(values: impl Iterator<Item = &'a [u8]>) -> BroughtToken {
    let offered = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut tokens = offered.filter_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL.as_bytes()));
    let Some(encoded) = tokens.next() else { return BroughtToken::None };
    if tokens.next().is_some() {
        return BroughtToken::Unreadable("several subprotocols bring a token");
    }
    let padding = encoded.iter().rev().take_while(|byte| **byte == b'=').count();
    let encoded = encoded.get(..encoded.len() - padding).unwrap_or_default();
    let token = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match token {
        Some(token) if !token.is_empty() => BroughtToken::Token(token.into()),
        _ => BroughtToken::Unreadable("the subprotocol anode.token.… is not base64url of a token"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(fields: &[(&str, &str)]) -> Caller {
        Caller::read(|name| {
            fields.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value.as_bytes())
        })
    }

    fn token(fields: &[(&str, &str)]) -> Option<String> {
        match caller(fields).token {
            BroughtToken::Token(token) => Some(token.into()),
            _ => None,
        }
    }

    #[test]
    fn a_token_comes_in_a_header_or_as_a_subprotocol() {
        assert_eq!(token(&[("authorization", "Bearer abc.d")]).as_deref(), Some("abc.d"));
        assert_eq!(token(&[("authorization", "bearer  abc")]).as_deref(), Some("abc"));
        let offered = "anode.v1.json, anode.token.c2VjcmV0";
        assert_eq!(token(&[("sec-websocket-protocol", offered)]).as_deref(), Some("secret"));
        assert_eq!(token(&[("sec-websocket-protocol", "anode.token.c2VjcmU=")]).as_deref(), Some("secre"));
        assert_eq!(caller(&[("sec-websocket-protocol", "anode.v1.json")]).token, BroughtToken::None);
        assert_eq!(caller(&[]), Caller::default());
        for fields in [
            &[("authorization", "Basic abc")][..],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("sec-websocket-protocol", "anode.token.!")],
            &[("sec-websocket-protocol", "anode.token.")],
            &[("sec-websocket-protocol", "anode.token.YQ, anode.token.Yg")],
        ] {
            assert!(matches!(caller(fields).token, BroughtToken::Unreadable(_)), "{fields:?}");
        }
    }

    #[test]
    fn no_secret_is_written_to_a_log() {
        let shown = format!("{:?}", caller(&[("authorization", "Bearer my-secret")]));
        assert!(!shown.contains("my-secret"), "{shown}");
    }
}
