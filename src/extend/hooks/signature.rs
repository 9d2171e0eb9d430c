//! Signatures of webhooks by the Standard Webhooks specification.
//!
//! A message has an id, the time at which it is sent, and a body. The signature is HMAC-SHA256 of `ID.TIME.BODY`, with
//! the bytes that the secret has in base64 behind its prefix `whsec_`. A message that is sent again has the same id, so
//! that a receiver can tell that it has it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Fewest and most bytes of a secret, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of the hash of a message that its id consists of.
const ID_BYTES: usize = 16;

/// A secret that messages are signed with.
#[derive(Debug)]
pub struct HookSecret(hmac::Key);

/// The reason why a text is no secret. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is not whsec_ and 24 to 64 bytes in base64")]
pub struct HookSecretError;

impl HookSecret {
    /// Reads a secret.
    pub fn parse(text: &str) -> Result<HookSecret, HookSecretError> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(HookSecretError)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| HookSecretError)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(HookSecretError);
        }
        Ok(HookSecret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of the header `webhook-signature` of a message. `seconds` is the time at which it is sent, since the
    /// Unix epoch.
    pub fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

/// The id of a message. It follows from the name of the webhook and the body, so a message that is sent again by
/// another node has the same. No two bodies are equal, because the records in them have timestamps.
pub fn message_id(hook: &str, body: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(hook.as_bytes());
    context.update(b"\n");
    context.update(body);
    let hash = context.finish();
    let hex = hash.as_ref().iter().take(ID_BYTES).map(|byte| format!("{byte:02x}"));
    hex.fold("msg_".to_owned(), |id, byte| id + &byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the libraries of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = HookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn texts_that_are_no_secrets() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert!(HookSecret::parse(&of(24)).is_ok() && HookSecret::parse(&of(64)).is_ok());
        assert!(HookSecret::parse(&format!("{}\n", of(32))).is_ok(), "as from a file");
        for bad in ["", "whsec_", "whsec_?", &of(23), &of(65), &of(32)["whsec_".len()..]] {
            assert!(HookSecret::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_follow_from_name_and_body() {
        assert_eq!(message_id("a", b"x"), message_id("a", b"x"));
        assert_ne!(message_id("a", b"x"), message_id("b", b"x"));
        assert_ne!(message_id("a", b"x"), message_id("a", b"y"));
        assert_eq!(message_id("a", b"x").len(), "msg_".len() + 2 * ID_BYTES);
    }
}
