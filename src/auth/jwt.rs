//! JSON Web Tokens (RFC 7519) that others issue, judged as RFC 8725 recommends.
//!
//! The signature is verified once. What the token says is kept, so that a client can be judged again when the file
//! of rights or the keys change, without its token.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

use super::keys::IssuerKey;
use super::patterns::PatternSet;
use super::rights::Rights;
use crate::limits::{JWT_LEEWAY_US, JWT_REMEMBERED_MAX, PATTERNS_PER_RIGHT_MAX};
use crate::record::Pattern;

/// Longest name that a JWT may give its holder, in bytes. The rest is cut off.
const SUBJECT_BYTES_MAX: usize = 128;
/// The name of those whose JWT has no `sub`.
const NAMELESS: &str = "jwt";

/// The issuers whose JWTs are taken: the keys with which they sign, and the claims that their tokens must have.
pub(super) struct Issuers {
    /// The keys of which any may have signed.
    pub(super) keys: Vec<IssuerKey>,
    /// The value that the claim `iss` must have; `None`: any, or none.
    pub(super) issuer: Option<String>,
    /// What `aud` must be or hold, if anything.
    pub(super) audience: Option<String>,
}

/// What a JWT with a valid signature says.
#[derive(Debug)]
pub(super) struct ProvenClaims {
    pub(super) name: Arc<str>,
    pub(super) rights: Arc<Rights>,
    /// Wall-clock time at which the token ends, in microseconds since the Unix epoch.
    pub(super) expires_us: u64,
    not_before_us: u64,
    issuers: Vec<String>,
    audience: Vec<String>,
    /// The fingerprint of the key that has signed.
    key: [u8; 32],
}

/// The content of a token, which is an object.
#[derive(Deserialize)]
struct RawContent(#[serde(deserialize_with = "object")] RawClaims);

/// The claims as they stand in a token.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    sub: Option<String>,
    iss: Option<OneOrMany>,
    aud: Option<OneOrMany>,
    #[serde(default, deserialize_with = "object")]
    anode: RawGrants,
}

/// Reads a struct from an object of JSON. The derived reader also takes a list of the fields' values, but the claims
/// of a token are an object (RFC 7519, 7.2).
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let fields = Map::deserialize(deserializer)?;
    T::deserialize(Value::Object(fields)).map_err(Error::custom)
}

/// A claim that is a text or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The claim `anode`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGrants {
    publish: Vec<String>,
    subscribe: Vec<String>,
    observe: bool,
    admin: bool,
    rate: Option<NonZeroU32>,
}

impl Issuers {
    /// Verifies the signature of a token and reads its claims. An error says why the token is not taken.
    pub(super) fn prove(&self, token: &str, wall_us: u64) -> Result<ProvenClaims, String> {
        // The crate knows no `none`: such a header cannot be read.
        let header = decode_header(token).map_err(|_| "the token is no JWT of a known algorithm")?;
        let is_named = |key: &&IssuerKey| match (&header.kid, &key.id) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        // A key is used with its own algorithm alone, whatever the token says.
        let fitting = self.keys.iter().filter(|key| key.algorithm == header.alg).filter(is_named);
        for key in fitting {
            if let Ok(decoded) = decode::<RawContent>(token, &key.key, &signature_only(key.algorithm)) {
                let claims = proven(decoded.claims.0, key.fingerprint)?;
                self.check(&claims, wall_us)?;
                return Ok(claims);
            }
        }
        Err("no key that issues tokens has signed the token, or its claims cannot be read".into())
    }

    /// Checks claims that were proven: whether the key is still one that may sign, the issuer and the audience are the
    /// right ones, and the token is in force.
    pub(super) fn check(&self, claims: &ProvenClaims, wall_us: u64) -> Result<(), String> {
        if !self.keys.iter().any(|key| key.fingerprint == claims.key) {
            return Err("the key that has signed the token may not sign any longer".into());
        }
        if self.issuer.as_ref().is_some_and(|issuer| !claims.issuers.contains(issuer)) {
            return Err("the claim iss is not the issuer that is configured".into());
        }
        if self.audience.as_ref().is_some_and(|audience| !claims.audience.contains(audience)) {
            return Err("the claim aud does not name the audience that is configured".into());
        }
        if wall_us >= claims.expires_us {
            return Err("the token has expired".into());
        }
        if wall_us.saturating_add(JWT_LEEWAY_US) < claims.not_before_us {
            return Err("the token is not valid yet (nbf)".into());
        }
        Ok(())
    }
}

/// Lets the crate check the signature and the header. Claims are checked here, because they are checked again later.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn proven(raw: RawClaims, key: [u8; 32]) -> Result<ProvenClaims, String> {
    let time_us = |name: &str, number: &serde_json::Number| {
        micros(number).ok_or_else(|| format!("the claim {name} is no number of seconds since 1970"))
    };
    let expires = raw.exp.ok_or("the claim exp is missing")?;
    let not_before_us = raw.nbf.map_or(Ok(0), |number| time_us("nbf", &number))?;
    let RawGrants { publish, subscribe, observe, admin, rate } = raw.anode;
    let rights = Rights {
        publish: patterns("publish", &publish)?,
        subscribe: patterns("subscribe", &subscribe)?,
        observe,
        admin,
        rate,
    };
    Ok(ProvenClaims {
        name: name(raw.sub.as_deref().unwrap_or(NAMELESS)),
        rights: Arc::new(rights),
        expires_us: time_us("exp", &expires)?,
        not_before_us,
        issuers: listed(raw.iss),
        audience: listed(raw.aud),
        key,
    })
}

/// Returns a time in microseconds. Times beyond what a timestamp can be are cut to that.
fn micros(seconds: &serde_json::Number) -> Option<u64> {
    match seconds.as_u64() {
        Some(seconds) => Some(seconds.saturating_mul(1_000_000)),
        None => seconds.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| (seconds * 1e6) as u64),
    }
}

fn patterns(name: &str, texts: &[String]) -> Result<PatternSet, String> {
    if texts.len() > PATTERNS_PER_RIGHT_MAX {
        return Err(format!("the claim anode.{name} has more than {PATTERNS_PER_RIGHT_MAX} patterns"));
    }
    let parsed = texts.iter().map(|text| Pattern::parse(text).map_err(|error| error.to_string()));
    let patterns = parsed.collect::<Result<_, _>>();
    patterns.map(PatternSet::new).map_err(|error| format!("the claim anode.{name}: {error}"))
}

fn listed(claim: Option<OneOrMany>) -> Vec<String> {
    match claim {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    }
}

/// Returns the name as it may stand in a line of a log.
fn name(subject: &str) -> Arc<str> {
    let end = (0..=subject.len().min(SUBJECT_BYTES_MAX)).rev().find(|&at| subject.is_char_boundary(at));
    let cut = subject.get(..end.unwrap_or(0)).unwrap_or_default();
    cut.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect::<String>().into()
}

/// JWTs whose signatures were valid, by their hashes.
#[derive(Debug, Default)]
pub(super) struct ProvenTokens(Mutex<BTreeMap<[u8; 32], Arc<ProvenClaims>>>);

impl ProvenTokens {
    /// Returns the claims of a token that was proven before.
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Arc<ProvenClaims>> {
        self.0.lock().get(digest).cloned()
    }

    /// Remembers a token.
    pub(super) fn insert(&self, digest: [u8; 32], claims: Arc<ProvenClaims>, wall_us: u64) {
        let mut tokens = self.0.lock();
        if tokens.len() >= JWT_REMEMBERED_MAX {
            tokens.retain(|_, claims| claims.expires_us > wall_us);
        }
        if tokens.len() >= JWT_REMEMBERED_MAX {
            tokens.clear();
        }
        tokens.insert(digest, claims);
    }

    /// Forgets all tokens.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
