//! Reads frames that bring a token: `{"id":1,"auth":{"token":"…"}}`.

use std::borrow::Cow;

use super::publish::{bad_request, request_id};
use super::scan::{JsonValue, Scanner, as_string};
use super::subscribe::known_fields;
use crate::protocol::refusal::Refusal;
use crate::protocol::request::AuthFrame;

/// Reads a frame that brings a token. Returns `None` for a text that is no such frame: that has no field `auth`, is
/// no object or no JSON. Values are never repeated in refusals, because they may be secrets.
pub fn auth_frame(text: &str) -> Option<AuthFrame<'_>> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Some(b'{') {
        return None;
    }
    let ([id, auth], wrong) = known_fields(&mut scanner, "known beside auth", ["id", "auth"]).ok()?;
    scanner.end().ok()?;
    let auth = auth?;
    match (request_id(id.as_ref()), wrong) {
        (Ok(id), Some(message)) => Some(AuthFrame { id, token: bad_request(message) }),
        (Ok(id), None) => Some(AuthFrame { id, token: token(&auth) }),
        (Err(refusal), _) => Some(AuthFrame { id: None, token: Err(refusal) }),
    }
}

fn token<'a>(auth: &JsonValue<'a>) -> Result<Cow<'a, str>, Refusal> {
    let malformed = || bad_request("auth must be an object with the field \"token\", a string");
    if auth.flaw.is_some() || !auth.text.starts_with('{') {
        return malformed();
    }
    match known_fields(&mut Scanner::new(auth.text), "known in auth", ["token"]) {
        Ok(([Some(token)], None)) => as_string(&token).map_or_else(malformed, Ok),
        Ok((_, Some(message))) => bad_request(message),
        Ok(([None], None)) | Err(_) => malformed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::draft::RequestId;

    #[test]
    fn tokens_are_read_with_their_ids() {
        let frame = auth_frame(r#"{"id":1,"auth":{"token":"a\u0062c"}}"#).expect("an auth frame");
        assert_eq!((frame.id, frame.token), (Some(RequestId::Json("1")), Ok("abc".into())));
        let frame = auth_frame(r#" {"auth":{"token":"x"}} "#).expect("an auth frame");
        assert!(frame.id.is_none() && frame.token == Ok("x".into()));
    }

    #[test]
    fn other_frames_are_none_and_malformed_ones_do_not_repeat_the_secret() {
        for other in ["", "[]", "{}", r#"{"source":"a","data":1}"#, r#"{"auth":{"token":"x"}"#, "auth"] {
            assert!(auth_frame(other).is_none(), "{other}");
        }
        for bad in [
            r#"{"id":1,"auth":"my-secret"}"#,
            r#"{"id":1,"auth":{"token":["my-secret"]}}"#,
            r#"{"id":1,"auth":{"token":"my-secret","x":1}}"#,
            r#"{"id":1,"auth":{}}"#,
            r#"{"id":1,"auth":{"token":"my-secret"},"source":"a"}"#,
            r#"{"id":[],"auth":{"token":"my-secret"}}"#,
        ] {
            let refused = auth_frame(bad).expect(bad).token.expect_err(bad);
            assert!(!refused.message.contains("my-secret"), "{refused}");
        }
        let shown = format!("{:?}", auth_frame(r#"{"auth":{"token":"my-secret"}}"#));
        assert!(!shown.contains("my-secret"), "{shown}");
    }
}
