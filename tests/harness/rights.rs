//! Files of rights and tokens for tests, made without the server's code.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::Value;

/// A folder with a file of rights, which lives as long as this value.
pub struct RightsFile {
    folder: Arc<tempfile::TempDir>,
}

impl RightsFile {
    /// Writes the file.
    pub fn new(text: &str) -> RightsFile {
        let folder = Arc::new(tempfile::tempdir().unwrap_or_else(|error| panic!("no folder: {error}")));
        let file = RightsFile { folder };
        file.write(text);
        file
    }

    /// Path of the file.
    pub fn path(&self) -> String {
        self.file("auth.toml").display().to_string()
    }

    /// Path of another file in the same folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the text of the file.
    pub fn write(&self, text: &str) {
        self.write_file("auth.toml", text.as_bytes());
    }

    /// Writes another file in the same folder.
    pub fn write_file(&self, name: &str, content: &[u8]) {
        let written = std::fs::write(self.file(name), content);
        assert!(written.is_ok(), "{name}: {written:?}");
    }

    /// Copies a key of the tests into the folder.
    pub fn add_key(&self, name: &str) {
        self.write_file(name, &key_file(name));
    }
}

/// Returns the content of a file of keys of the tests.
pub fn key_file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the entry of a token in a file of rights. `rights` are further lines.
pub fn token_entry(name: &str, secret: &str, rights: &str) -> String {
    format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\n{rights}\n", sha256_hex(secret))
}

/// Returns the SHA-256 of a text in hexadecimal.
pub fn sha256_hex(text: &str) -> String {
    sha256_of(text.as_bytes())
}

/// Returns the SHA-256 of bytes in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the header field with a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Makes a JWT that is signed by one of the tests' keys: `ed25519`, `p256`, `rsa`, `stranger`, or by a secret.
pub fn jwt(header: Value, claims: Value, key: &str) -> String {
    let message =
        format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = sign(message.as_bytes(), key);
    format!("{message}.{}", base64url(&signature))
}

fn sign(message: &[u8], key: &str) -> Vec<u8> {
    let der = || {
        let text = String::from_utf8(key_file(&format!("{key}.pem"))).unwrap_or_default();
        let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(lines).unwrap_or_default()
    };
    let random = SystemRandom::new();
    match key {
        "ed25519" | "stranger" => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der());
            pair.map(|pair| pair.sign(message).as_ref().to_vec()).unwrap_or_default()
        }
        "p256" => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(), &random);
            let signed = pair.ok().and_then(|pair| pair.sign(&random, message).ok());
            signed.map(|signature| signature.as_ref().to_vec()).unwrap_or_default()
        }
        "rsa" => {
            let Ok(pair) = RsaKeyPair::from_pkcs8(&der()) else { return Vec::new() };
            let mut signature = vec![0; pair.public().modulus_len()];
            let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
            assert!(signed.is_ok(), "cannot sign");
            signature
        }
        secret => hmac(secret.as_bytes(), message),
    }
}

/// Returns the HMAC-SHA-256 of a message.
pub fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    ring::hmac::sign(&key, message).as_ref().to_vec()
}
