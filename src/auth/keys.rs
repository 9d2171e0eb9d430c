//! The keys of those who issue JWTs: public keys in PEM files and in sets of JWKs, and secrets.
//!
//! Each key has one algorithm, which follows from its kind and never from a token. So a token cannot have a
//! public key taken for a secret (RFC 8725, 2.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::{PemObject, SectionKind};

/// Least length of a secret for HS256, in bytes: that of the hash (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Allowed lengths of the modulus of an RSA key, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// A key that may have signed JWTs.
pub(super) struct IssuerKey {
    /// The name by which tokens refer to the key, if it has one.
    pub(super) id: Option<String>,
    /// The only algorithm that the key is used with.
    pub(super) algorithm: Algorithm,
    /// The key itself.
    pub(super) key: DecodingKey,
    /// A hash of the algorithm and the key, by which the key is known again when the files are read again.
    pub(super) fingerprint: [u8; 32],
}

impl IssuerKey {
    fn new(algorithm: Algorithm, bytes: &[u8], key: DecodingKey) -> IssuerKey {
        let name = format!("{algorithm:?}");
        let hash = digest(&SHA256, &[name.as_bytes(), &[0], bytes].concat());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.as_ref());
        IssuerKey { id: None, algorithm, key, fingerprint }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<IssuerKey, String> {
        let modulus = unpadded(modulus);
        if !RSA_BYTES.contains(&modulus.len()) {
            let (bits, least, most) = (8 * modulus.len(), 8 * RSA_BYTES.start(), 8 * RSA_BYTES.end());
            return Err(format!("an RSA key of {bits} bits; allowed are {least} to {most}"));
        }
        let key = DecodingKey::from_rsa_raw_components(modulus, unpadded(exponent));
        Ok(IssuerKey::new(Algorithm::RS256, &[modulus, exponent].concat(), key))
    }

    /// `point` is the point in its uncompressed form.
    fn p256(point: &[u8]) -> Result<IssuerKey, String> {
        match point {
            [4, rest @ ..] if rest.len() == 64 => {
                Ok(IssuerKey::new(Algorithm::ES256, point, DecodingKey::from_ec_der(point)))
            }
            _ => Err("a P-256 key that is no uncompressed point".into()),
        }
    }

    fn ed25519(bytes: &[u8]) -> Result<IssuerKey, String> {
        match bytes.len() {
            32 => Ok(IssuerKey::new(Algorithm::EdDSA, bytes, DecodingKey::from_ed_der(bytes))),
            length => Err(format!("an Ed25519 key of {length} bytes; allowed are 32")),
        }
    }

    /// Makes the key of HS256 from the content of a file. A line break at the end of a text is not part of it.
    pub(super) fn from_secret_file(content: &[u8]) -> Result<IssuerKey, String> {
        let secret = match std::str::from_utf8(content) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).as_bytes(),
            Err(_) => content,
        };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "a secret of {} bytes; allowed are {SECRET_BYTES_MIN} and more",
                secret.len()
            ));
        }
        let key = DecodingKey::from_secret(secret).map_err(|error| error.to_string())?;
        Ok(IssuerKey::new(Algorithm::HS256, secret, key))
    }
}

/// Reads the public keys of a PEM file, of which there must be at least one.
pub(super) fn from_pem(content: &[u8]) -> Result<Vec<IssuerKey>, String> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(content) {
        // The error of the reader repeats what it has read, which may be a part of a private key.
        let (kind, der) = section.map_err(|_| "PEM that cannot be read")?;
        match kind {
            SectionKind::PublicKey => keys.push(from_spki(&der)?),
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err("a private key, which only the issuer should have".into());
            }
            _ => return Err("a PEM section that is no PUBLIC KEY".into()),
        }
    }
    match keys.is_empty() {
        true => Err("no section PUBLIC KEY".into()),
        false => Ok(keys),
    }
}

/// Reads the keys of a set of JWKs. Keys for other purposes and of other kinds are skipped, but at least one must be
/// left.
pub(super) fn from_jwks(content: &[u8]) -> Result<Vec<IssuerKey>, String> {
    // The text of the error may repeat a value, and with it a secret.
    let set: JwkSet = serde_json::from_slice(content).map_err(|error| {
        format!("no set of JWKs, as line {} and column {} show", error.line(), error.column())
    })?;
    let mut keys = Vec::new();
    for jwk in set.keys.iter().filter(|jwk| is_for_signatures(jwk)) {
        let Some(key) = from_jwk(jwk) else { continue };
        let key = key?;
        let is_its =
            |named: KeyAlgorithm| Algorithm::try_from(named).is_ok_and(|named| named == key.algorithm);
        if jwk.common.key_algorithm.is_none_or(is_its) {
            keys.push(IssuerKey { id: jwk.common.key_id.clone(), ..key });
        }
    }
    match keys.is_empty() {
        true => Err("no key for Ed25519, ES256 or RS256 in the set".into()),
        false => Ok(keys),
    }
}

fn is_for_signatures(jwk: &Jwk) -> bool {
    matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
}

/// Returns `None` for a key of a kind that is not used here.
fn from_jwk(jwk: &Jwk) -> Option<Result<IssuerKey, String>> {
    let decoded = |text: &str| {
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| "a key with invalid base64url".to_owned())
    };
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            Some(decoded(&rsa.n).and_then(|n| IssuerKey::rsa(&n, &decoded(&rsa.e)?)))
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            let point = |x: Vec<u8>, y: Vec<u8>| IssuerKey::p256(&[&[4], &*x, &*y].concat());
            Some(decoded(&curve.x).and_then(|x| point(x, decoded(&curve.y)?)))
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Some(decoded(&pair.x).and_then(|x| IssuerKey::ed25519(&x)))
        }
        _ => None,
    }
}

/// Object identifiers of the kinds of keys, as they stand in DER.
const RSA_OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_OID: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256_OID: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;

/// Reads a key in the form of RFC 5280, 4.1 (SubjectPublicKeyInfo).
fn from_spki(der: &[u8]) -> Result<IssuerKey, String> {
    let parts = || {
        let mut outer = der;
        let mut inner = take(&mut outer, SEQUENCE)?;
        let mut kind = take(&mut inner, SEQUENCE)?;
        let name = take(&mut kind, OBJECT)?;
        let (&unused_bits, key) = take(&mut inner, BIT_STRING)?.split_first()?;
        (unused_bits == 0 && outer.is_empty() && inner.is_empty()).then_some((name, kind, key))
    };
    let (name, mut parameters, mut key) = parts().ok_or("a public key that cannot be read")?;
    match name {
        RSA_OID => {
            let mut numbers = take(&mut key, SEQUENCE).unwrap_or_default();
            let (modulus, exponent) = (take(&mut numbers, INTEGER), take(&mut numbers, INTEGER));
            let (modulus, exponent) = modulus.zip(exponent).ok_or("an RSA key that cannot be read")?;
            IssuerKey::rsa(modulus, exponent)
        }
        EC_OID if take(&mut parameters, OBJECT) == Some(P256_OID) => IssuerKey::p256(key),
        ED25519_OID => IssuerKey::ed25519(key),
        _ => Err("a key that is neither Ed25519 nor P-256 nor RSA".into()),
    }
}

/// Takes one element with this tag from the beginning of `der`, and returns its content.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    (found == tag).then_some(content)
}

/// Returns a number without the zeros in front.
fn unpadded(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<Vec<IssuerKey>, String>) -> String {
        result.err().expect("refused")
    }

    #[test]
    fn keys_have_the_algorithm_of_their_kind() {
        let set = br#"{"keys":[
            {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"ed","use":"sig"},
            {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
             "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"ec"},
            {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
             "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"enc","use":"enc"},
            {"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0","kid":"secret"}]}"#;
        let keys = from_jwks(set).expect("keys");
        let told: Vec<_> = keys.iter().map(|key| (key.id.as_deref(), key.algorithm)).collect();
        assert_eq!(told, [(Some("ed"), Algorithm::EdDSA), (Some("ec"), Algorithm::ES256)]);
        assert_ne!(keys[0].fingerprint, keys[1].fingerprint);
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        assert!(refused(from_pem(b"nothing")).contains("PUBLIC KEY"));
        let private = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(refused(from_pem(private)).contains("private key"));
        let broken = b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n";
        assert!(refused(from_pem(broken)).contains("cannot be read"));
        assert!(refused(from_jwks(b"{}")).contains("JWK"));
        assert!(refused(from_jwks(br#"{"keys":[]}"#)).contains("no key"));
        // A private key that was damaged or misplaced must not get into the log by an error about it.
        for secret in [
            &b"-----BEGIN PRIVATE KEY\nmy-secret\n"[..],
            b"-----BEGIN my-secret",
            b"\"my-secret\"",
            b"my-secret",
        ] {
            for said in [from_pem(secret), from_jwks(secret)].map(refused) {
                let numbers = format!("{:?}", b"my-secret");
                assert!(
                    !said.contains("secret") && !said.contains(numbers.trim_matches(['[', ']'])),
                    "{said}"
                );
                assert!(said.len() < 100, "{said}");
            }
        }
        let small = br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        assert!(refused(from_jwks(small)).contains("RSA key of 24 bits"));
        assert!(IssuerKey::from_secret_file(b"short\n").is_err());
        assert!(IssuerKey::from_secret_file(&[b'x'; 32]).is_ok());
    }
}
