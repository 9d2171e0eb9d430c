//! The checks of the file of rights, of the keys of those who issue JWTs, and of the JWTs that clients bring.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use ring::hmac;
use serde_json::Value;

use super::error::AuthFileError;
use super::jwt::Issuers;
use super::keys::{self, IssuerKey};
use super::policy::Policy;
use super::{file, provider};
use crate::fuzzing::{Pieces, join};
use crate::limits::{JWT_KEYS_MAX, JWT_LEEWAY_US, PATTERNS_PER_RIGHT_MAX};
use crate::record::Pattern;

/// The text that stands for a secret in inputs. No error may repeat it where it stands as the hash of a token.
const SECRET: &str = "fuzz-secret-token";
/// The wall clock of the checks, in microseconds.
const WALL_US: u64 = 1_800_000_000_000_000;
/// A secret with which tokens are signed.
const HMAC_SECRET: [u8; 32] = [7; 32];
/// The public key of an issuer, of which nobody has the private part.
const ED25519_KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// A file of JWKs with that key.
const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"ed"}]}"#;
/// The same key as a PEM file.
const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                   -----END PUBLIC KEY-----\n";

/// The first piece is the text of the file. The others are the contents of the files that it may name: `0`, `1`, …
pub(crate) fn auth_file(input: &[u8]) {
    let mut pieces = Pieces(input);
    let Some(Ok(text)) = pieces.next().map(std::str::from_utf8) else { return };
    let others: Vec<&[u8]> = pieces.take(4).collect();
    let files = others.iter().map(|content| content.to_vec()).collect::<Vec<_>>();
    let read = move |path: &Path| {
        let number =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<usize>().ok());
        number.and_then(|number| files.get(number).cloned()).ok_or_else(|| "there is no such file".to_owned())
    };
    match file::parse(Path::new("auth.toml"), text, &read) {
        Ok(policy) => policy_holds(&policy, text),
        Err(error) => error_holds(&error, text),
    }
}

/// What other code relies on when it is given rights, and what another reader of TOML finds in the file.
fn policy_holds(policy: &Policy, text: &str) {
    let table: toml::Table = toml::from_str(text).expect("TOML");
    let tokens = table.get("token").and_then(|tokens| tokens.as_array()).cloned().unwrap_or_default();
    assert_eq!(tokens.len(), policy.holders.len(), "{text:?}");
    assert_eq!(table.contains_key("anonymous"), policy.anonymous.is_some());
    let mut names = BTreeSet::new();
    for (token, holder) in tokens.iter().zip(&policy.holders) {
        assert_eq!(token.get("name").and_then(|name| name.as_str()), Some(&*holder.name));
        let is_admin = token.get("admin").and_then(|admin| admin.as_bool()).unwrap_or(false);
        assert_eq!(holder.rights.admin, is_admin, "{text:?}");
        assert!(names.insert(holder.name.clone()), "two tokens have the name {:?}", holder.name);
        assert!(policy.holder_named(&holder.name).is_some_and(|found| found.name == holder.name));
    }
    for holder in policy.holders.iter().chain(&policy.anonymous) {
        let rights = &holder.rights;
        for pattern in rights.publish.patterns() {
            assert!(!pattern.as_str().starts_with('$'), "{pattern:?}");
        }
        assert!(rights.publish.patterns().len() <= PATTERNS_PER_RIGHT_MAX);
        assert!(rights.subscribe.patterns().iter().all(|pattern| rights.may_read_all(pattern)), "{text:?}");
        assert_eq!(rights.rate.is_some(), holder.rate.is_some());
    }
    assert!(
        !policy.anonymous.as_ref().is_some_and(|holder| holder.rights.admin),
        "everybody may do everything"
    );
    for (digest, at) in &policy.digests {
        let holder = policy.holders.get(*at).expect("a holder");
        assert!(policy.holder_of(digest).is_some_and(|found| found.name == holder.name), "{text:?}");
        assert!(policy.holder_again(digest).is_some_and(|found| found.name == holder.name), "{text:?}");
    }
    if let Some(issuers) = &policy.issuers {
        assert!((1..=JWT_KEYS_MAX).contains(&issuers.keys.len()), "{text:?}");
    }
    assert_eq!(table.contains_key("jwt"), policy.issuers.is_some());
}

fn error_holds(error: &AuthFileError, text: &str) {
    assert!(!error.field.is_empty() && !error.allowed.is_empty(), "{error:?}");
    let line = text.split('\n').nth(error.line.wrapping_sub(1));
    let columns = line.map(|line| line.chars().count() + 1);
    assert!(columns.is_some_and(|columns| (1..=columns).contains(&error.column)), "{error:?} in {text:?}");
    let hashes = text.matches(&format!("sha256 = \"{SECRET}")).count()
        + text.matches(&format!("sha256 = {SECRET}")).count();
    if hashes > 0 && hashes == text.matches(SECRET).count() {
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
}

pub(crate) fn auth_file_seeds() -> Vec<Vec<u8>> {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let texts = [
        format!(
            "[anonymous]\nsubscribe = [\"public/**\"]\n[[token]]\nname = \"sensors\"\nsha256 = \"{hash}\"\n\
             publish = [\"sensors/**\"]\nrate = 1000\n[[token]]\nname = \"ops\"\nadmin = true\n"
        ),
        "[jwt]\nkeys = [\"0\"]\njwks = \"1\"\nhmac_secret_file = \"2\"\nissuer = \"i\"\naudience = \"a\"\n"
            .into(),
        "[jwt]\njwks = \"0\"\n".into(),
        format!("[[token]]\nname = \"a\"\nsha256 = \"{SECRET}\"\n"),
        format!("[[token]]\nname = \"a\"\nsha256 = {SECRET}\n"),
        format!(
            "[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\n[[token]]\nname = \"b\"\nsha256 = \"{hash}\"\n"
        ),
        "[[token]]\nname = \"\u{fc}\"\nrate = 0\npublish = [\"$sys/**\"]\nsubscribe = [\"a*\"]\n".into(),
        "[anonymous]\nobserve = true\npublish = ['''a/b''', \"*/c/**\"]\n[token]\n".into(),
    ];
    let secret = [b's'; 40];
    let files: [&[u8]; 3] = [PEM.as_bytes(), JWKS.as_bytes(), &secret];
    texts.iter().map(|text| join([text.as_bytes()].into_iter().chain(files))).collect()
}

/// The first byte tells which kind of file it is; the rest is its content.
pub(crate) fn issuer_keys(input: &[u8]) {
    let Some((&kind, content)) = input.split_first() else { return };
    let read = match kind % 3 {
        0 => keys::from_pem(content),
        1 => keys::from_jwks(content),
        _ => IssuerKey::from_secret_file(content).map(|key| vec![key]),
    };
    let keys = match read {
        Ok(keys) => keys,
        Err(reason) => return assert!(!reason.is_empty() && reason.len() < 200, "{reason:?}"),
    };
    assert!(!keys.is_empty(), "a file without keys was taken");
    for key in &keys {
        let allowed: &[Algorithm] = match kind % 3 {
            // A public key that was taken for a secret would let anybody sign (RFC 8725, 2.1).
            0 | 1 => &[Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
            _ => &[Algorithm::HS256],
        };
        assert!(allowed.contains(&key.algorithm), "{:?}", key.algorithm);
    }
    // Nobody signs for these keys, so nothing is taken that names them.
    provider::install();
    let issuers = Issuers { keys, issuer: None, audience: None };
    for algorithm in ["EdDSA", "ES256", "RS256", "HS256", "none"] {
        let token = unsigned(&format!("{{\"alg\":{algorithm:?}}}"), "{\"exp\":99999999999}") + "." + "AAAA";
        assert!(issuers.prove(&token, WALL_US).is_err(), "{algorithm}");
    }
}

pub(crate) fn issuer_keys_seeds() -> Vec<Vec<u8>> {
    let ec = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"ec","use":"sig","alg":"ES256"},
        {"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}"#;
    let rsa = format!("{{\"keys\":[{{\"kty\":\"RSA\",\"n\":{:?},\"e\":\"AQAB\"}}]}}", "wQ".repeat(172));
    let seeds: [(u8, &str); 8] = [
        (0, PEM),
        (0, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        (0, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"),
        (1, JWKS),
        (1, ec),
        (1, &rsa),
        (
            1,
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"X25519","x":"AA"}]}"#,
        ),
        (2, "a secret of thirty-two characters"),
    ];
    seeds.iter().map(|(kind, text)| [&[*kind], text.as_bytes()].concat()).collect()
}

/// The part of a token that is signed.
fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let unsigned = unsigned(header, claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), unsigned.as_bytes());
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The issuers of the checks: a secret, and a public key.
fn issuers(issuer: Option<&str>) -> Issuers {
    provider::install();
    let mut keys = keys::from_jwks(JWKS.as_bytes()).expect("a key");
    keys.extend(IssuerKey::from_secret_file(&HMAC_SECRET));
    Issuers { keys, issuer: issuer.map(str::to_owned), audience: None }
}

/// The input is a header and claims, which are signed here, and a token that is tried as it is.
pub(crate) fn jwt(input: &[u8]) {
    let mut texts = Pieces(input).map(std::str::from_utf8);
    let (Some(Ok(header)), Some(Ok(claims))) = (texts.next(), texts.next()) else { return };
    let (any, issued) = (issuers(None), issuers(Some("https://id.example")));
    if let Some(Ok(token)) = texts.next() {
        assert!(any.prove(token, WALL_US).is_err(), "taken, and signed by nobody: {token:?}");
    }
    let token = signed(header, claims, &HMAC_SECRET);
    let proven = any.prove(&token, WALL_US);
    if proven.is_ok() {
        claims_hold(&any, header, claims, &token);
        let is_issued = issued.prove(&token, WALL_US).is_ok();
        let issuer = serde_json::from_str::<Value>(claims).ok().and_then(|claims| claims.get("iss").cloned());
        let names = match issuer {
            Some(Value::String(name)) => vec![Value::String(name)],
            Some(Value::Array(names)) => names,
            _ => Vec::new(),
        };
        assert_eq!(is_issued, names.contains(&"https://id.example".into()), "{claims:?}");
    } else {
        assert!(issued.prove(&token, WALL_US).is_err(), "taken for the sake of its issuer: {claims:?}");
    }
    // A public key that stands for a secret, no signature, a signature that was cut, and one that was changed.
    let public = URL_SAFE_NO_PAD.decode(ED25519_KEY).expect("a key");
    let unsigned = unsigned(header, claims);
    let cut = token.get(..token.len() - 2).unwrap_or_default();
    let last = if token.ends_with(['A', 'E', 'I', 'M']) { 'Q' } else { 'A' };
    let changed = format!("{}{last}", token.get(..token.len() - 1).unwrap_or_default());
    for forged in [
        &signed(header, claims, &public),
        &signed(header, claims, JWKS.as_bytes()),
        &signed(header, claims, &[]),
        &unsigned,
        &format!("{unsigned}."),
        cut,
        &changed,
    ] {
        assert!(any.prove(forged, WALL_US).is_err(), "forged: {forged:?}");
    }
}

/// What a token says that was taken, as another reader of JSON understands it.
fn claims_hold(issuers: &Issuers, header: &str, claims: &str, token: &str) {
    let proven = issuers.prove(token, WALL_US).expect("proven before");
    let header: Value = serde_json::from_str(header).expect("JSON");
    assert_eq!(header.get("alg"), Some(&"HS256".into()), "another algorithm was taken: {header}");
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64);
    let now_s = WALL_US as f64 / 1e6;
    assert!(seconds("exp").is_some_and(|exp| exp > now_s), "expired: {claims}");
    assert!(proven.expires_us > WALL_US);
    let leeway_s = JWT_LEEWAY_US as f64 / 1e6;
    assert!(seconds("nbf").is_none_or(|nbf| nbf <= now_s + leeway_s + 1e-3), "not valid yet: {claims}");
    assert!(proven.name.len() <= 3 * 128 && !proven.name.chars().any(char::is_control), "{:?}", proven.name);
    let grants = claims.get("anode").cloned().unwrap_or_default();
    let listed = |name: &str| -> Vec<Arc<str>> {
        let texts = grants.get(name).and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(Value::as_str).map(Arc::from).collect()
    };
    let is_told = |name: &str| grants.get(name).and_then(Value::as_bool).unwrap_or(false);
    let rights = &proven.rights;
    for (name, patterns) in
        [("publish", rights.publish.patterns()), ("subscribe", rights.subscribe.patterns())]
    {
        let told = listed(name);
        assert!(told.len() <= PATTERNS_PER_RIGHT_MAX && told.iter().all(|text| Pattern::parse(text).is_ok()));
        assert!(
            patterns.iter().all(|pattern| told.iter().any(|text| **text == *pattern.as_str())),
            "{grants}"
        );
        assert_eq!(patterns.is_empty(), told.is_empty(), "{grants}");
    }
    assert_eq!((rights.admin, rights.observe), (is_told("admin"), is_told("observe")), "{grants}");
    let rate = grants.get("rate").and_then(Value::as_u64);
    assert_eq!(rights.rate.map(|rate| u64::from(rate.get())), rate, "{grants}");
}

pub(crate) fn jwt_seeds() -> Vec<Vec<u8>> {
    let hs256 = r#"{"alg":"HS256","typ":"JWT"}"#;
    let full = r#"{"exp":1900000000,"nbf":1700000000,"sub":"device-1","iss":"https://id.example","aud":["a","b"],
        "anode":{"publish":["sensors/**"],"subscribe":["public/*"],"observe":true,"admin":false,"rate":10}}"#;
    let example = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjk5OTk5OTk5OTl9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let seeds = [
        [hs256, full, example],
        // Lists of the fields' values.
        [hs256, r#"[1900000000,null,"listed"]"#, ""],
        [hs256, r#"{"exp":1900000000,"anode":[["a/**"],[],false,true]}"#, ""],
        [r#"{"alg":"none"}"#, full, "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."],
        [r#"{"alg":"EdDSA","kid":"ed"}"#, full, "a.b.c"],
        [r#"{"alg":"HS256","kid":"ed"}"#, r#"{"exp":1900000000.5,"iss":["https://id.example"]}"#, ""],
        [hs256, r#"{"exp":1800000000}"#, "."],
        [hs256, r#"{"exp":-1,"sub":"\u0000\n"}"#, ".."],
        [hs256, r#"{"exp":1e300,"nbf":1800000010.0,"sub":"\u0007x"}"#, "..."],
        [hs256, r#"{"exp":1900000000,"nbf":1800000011}"#, ""],
        [hs256, r#"{"sub":"no end"}"#, ""],
        [hs256, r#"{"exp":1900000000,"anode":{"publish":["a//b"],"rate":0}}"#, ""],
        [hs256, r#"{"exp":1900000000,"anode":{"admin":true,"subscribe":["**","a"]},"exp":1}"#, ""],
    ];
    seeds.iter().map(|seed| join(seed.iter().map(|text| text.as_bytes()))).collect()
}
