//! Reads the file of rights: TOML, with an error for the first mistake that names its place.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{AuthFileError, quoted};
use super::jwt::Issuers;
use super::keys::{self, IssuerKey};
use super::patterns::PatternSet;
use super::policy::{ANONYMOUS, Holder, Policy};
use super::rights::Rights;
use crate::limits::{AUTH_FILE_BYTES_MAX, JWT_KEYS_MAX, PATTERNS_PER_RIGHT_MAX, TOKENS_MAX};
use crate::record::Pattern;

/// Longest name of a token, in bytes: that of a DNS name, which a certificate may have.
const TOKEN_NAME_BYTES_MAX: usize = 253;
/// Greatest rate, in records a second.
const RATE_MAX: u32 = 1_000_000_000;

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawFile {
    anonymous: Option<RawAnonymous>,
    token: Vec<RawToken>,
    jwt: Option<Spanned<RawJwt>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAnonymous {
    publish: Vec<Spanned<String>>,
    subscribe: Vec<Spanned<String>>,
    observe: bool,
    rate: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    name: Spanned<String>,
    sha256: Option<Spanned<String>>,
    #[serde(default)]
    publish: Vec<Spanned<String>>,
    #[serde(default)]
    subscribe: Vec<Spanned<String>>,
    #[serde(default)]
    observe: bool,
    #[serde(default)]
    admin: bool,
    rate: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawJwt {
    keys: Vec<Spanned<String>>,
    jwks: Option<Spanned<String>>,
    hmac_secret_file: Option<Spanned<String>>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// The text that is being read, for errors that name a place in it.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    files: &'a ReadFile,
}

/// Returns the content of a file, or the reason why there is none.
pub(super) type ReadFile = dyn Fn(&Path) -> Result<Vec<u8>, String>;

/// Reads the file at `path` and the files that it names, relative to its folder.
pub(super) fn read(path: &Path) -> Result<Policy, AuthFileError> {
    let unread = |reason: &str| {
        let shown = quoted(&path.display().to_string());
        AuthFileError::at(path, "", 0, "auth", &shown, format!("a readable file of TOML ({reason})"))
    };
    let bytes = content_of(path).map_err(|reason| unread(&reason))?;
    let text = String::from_utf8(bytes).map_err(|_| unread("it is no UTF-8"))?;
    parse(path, &text, &content_of)
}

fn content_of(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large. Its length is not asked for, since a device or a
    // pipe has none and may never end.
    file.take(AUTH_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() > AUTH_FILE_BYTES_MAX {
        true => Err(format!("it has more than {AUTH_FILE_BYTES_MAX} bytes")),
        false => Ok(bytes),
    }
}

/// Reads the text of a file of rights. The files that it names are read by `files`.
pub(super) fn parse(path: &Path, text: &str, files: &ReadFile) -> Result<Policy, AuthFileError> {
    let reader = Reader { path, text, files };
    let raw: RawFile = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
    let mut policy = Policy::default();
    if let Some(raw) = raw.anonymous {
        let RawAnonymous { publish, subscribe, observe, rate } = raw;
        let rights = reader.rights("anonymous", &publish, &subscribe, rate.as_ref())?;
        policy.anonymous = Some(Holder::new(ANONYMOUS, Rights { observe, ..rights }));
    }
    if let Some(beyond) = raw.token.get(TOKENS_MAX) {
        let shown = quoted(beyond.name.get_ref());
        return Err(reader.wrong(&beyond.name, "token", &shown, format!("at most {TOKENS_MAX} tokens")));
    }
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for token in raw.token {
        let RawToken { name, sha256, publish, subscribe, observe, admin, rate } = token;
        reader.check_name(&name, &mut names)?;
        if let Some(sha256) = &sha256 {
            let digest = reader.digest(sha256)?;
            if !digests.insert(digest) {
                let allowed = "a token of its own for each name";
                return Err(reader.wrong(sha256, "token.sha256", "a hash that stands there twice", allowed));
            }
            policy.digests.push((digest, policy.holders.len()));
        }
        let rights = reader.rights("token", &publish, &subscribe, rate.as_ref())?;
        policy.holders.push(Holder::new(name.get_ref(), Rights { observe, admin, ..rights }));
    }
    if let Some(raw) = raw.jwt {
        policy.issuers = Some(reader.issuers(raw, &mut policy)?);
    }
    policy.index();
    Ok(policy)
}

impl Reader<'_> {
    /// The error of a text that is no TOML, or has other fields than it may have. The text itself is not repeated,
    /// since it may be a secret without its quotes.
    fn syntax(&self, error: &toml::de::Error) -> AuthFileError {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message();
        if let Some((field, rest)) =
            message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'))
        {
            let allowed = rest.trim_start_matches(", expected ").replace('`', "");
            return AuthFileError::at(self.path, self.text, at, field, "an unknown field", allowed);
        }
        let allowed = format!("TOML with the tables [anonymous], [[token]] and [jwt] ({message})");
        AuthFileError::at(self.path, self.text, at, "auth", "the text here", allowed)
    }

    fn wrong<T>(
        &self,
        place: &Spanned<T>,
        field: &str,
        value: &str,
        allowed: impl Into<String>,
    ) -> AuthFileError {
        AuthFileError::at(self.path, self.text, place.span().start, field, value, allowed)
    }

    fn check_name(&self, name: &Spanned<String>, names: &mut BTreeSet<String>) -> Result<(), AuthFileError> {
        let text = name.get_ref();
        let is_fine = (1..=TOKEN_NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !is_fine || text == ANONYMOUS {
            let allowed = format!(
                "1 to {TOKEN_NAME_BYTES_MAX} bytes without control characters, and not {ANONYMOUS:?}"
            );
            return Err(self.wrong(name, "token.name", &quoted(text), allowed));
        }
        if !names.insert(text.clone()) {
            return Err(self.wrong(name, "token.name", &quoted(text), "each name once"));
        }
        Ok(())
    }

    fn digest(&self, sha256: &Spanned<String>) -> Result<[u8; 32], AuthFileError> {
        let text = sha256.get_ref();
        let mut digest = [0; 32];
        let digits = text.as_bytes().as_chunks::<2>();
        let is_whole = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (place, pair) in digest.iter_mut().zip(digits.0) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *place = u8::from_str_radix(pair, 16).unwrap_or(0);
        }
        match is_whole {
            true => Ok(digest),
            // The token itself may have been written here by mistake.
            false => {
                let value = format!("a text of {} characters", text.chars().count());
                let allowed = "the 64 hexadecimal digits of the token's SHA-256 (`anode token` prints them)";
                Err(self.wrong(sha256, "token.sha256", &value, allowed))
            }
        }
    }

    fn rights(
        &self,
        table: &str,
        publish: &[Spanned<String>],
        subscribe: &[Spanned<String>],
        rate: Option<&Spanned<i64>>,
    ) -> Result<Rights, AuthFileError> {
        let publish = self.patterns(&format!("{table}.publish"), publish)?;
        let subscribe = self.patterns(&format!("{table}.subscribe"), subscribe)?;
        let rate = rate.map(|rate| self.rate(&format!("{table}.rate"), rate)).transpose()?;
        Ok(Rights { publish, subscribe, rate, ..Rights::default() })
    }

    fn patterns(&self, field: &str, texts: &[Spanned<String>]) -> Result<PatternSet, AuthFileError> {
        if let Some(beyond) = texts.get(PATTERNS_PER_RIGHT_MAX) {
            let allowed = format!("at most {PATTERNS_PER_RIGHT_MAX} patterns");
            return Err(self.wrong(beyond, field, &quoted(beyond.get_ref()), allowed));
        }
        let mut patterns = Vec::new();
        for text in texts {
            let pattern = Pattern::parse(text.get_ref()).map_err(|error| {
                let allowed = format!("patterns such as sensors/*/temp and public/** ({error})");
                self.wrong(text, field, &quoted(text.get_ref()), allowed)
            })?;
            if field.ends_with("publish") && pattern.as_str().starts_with('$') {
                let allowed =
                    "patterns that do not begin with $; admin = true lets a token change the system's";
                return Err(self.wrong(text, field, &quoted(text.get_ref()), allowed));
            }
            patterns.push(pattern);
        }
        Ok(PatternSet::new(patterns))
    }

    fn rate(&self, field: &str, rate: &Spanned<i64>) -> Result<NonZeroU32, AuthFileError> {
        let number = u32::try_from(*rate.get_ref()).ok().filter(|number| *number <= RATE_MAX);
        number.and_then(NonZeroU32::new).ok_or_else(|| {
            let allowed = format!("whole numbers from 1 to {RATE_MAX}, records a second");
            self.wrong(rate, field, &rate.get_ref().to_string(), allowed)
        })
    }

    fn issuers(&self, raw: Spanned<RawJwt>, policy: &mut Policy) -> Result<Issuers, AuthFileError> {
        let at = raw.span().start;
        let RawJwt { keys: files, jwks, hmac_secret_file, issuer, audience } = raw.into_inner();
        let mut keys = Vec::new();
        for file in &files {
            keys.extend(self.keys("jwt.keys", file, policy, keys::from_pem)?);
        }
        if let Some(file) = &jwks {
            keys.extend(self.keys("jwt.jwks", file, policy, keys::from_jwks)?);
        }
        if let Some(file) = &hmac_secret_file {
            let secret = |content: &[u8]| IssuerKey::from_secret_file(content).map(|key| vec![key]);
            keys.extend(self.keys("jwt.hmac_secret_file", file, policy, secret)?);
        }
        if keys.is_empty() || keys.len() > JWT_KEYS_MAX {
            let value = format!("{} keys", keys.len());
            let allowed = format!("1 to {JWT_KEYS_MAX} keys, from keys, jwks or hmac_secret_file");
            return Err(AuthFileError::at(self.path, self.text, at, "jwt", &value, allowed));
        }
        Ok(Issuers { keys, issuer, audience })
    }

    /// Reads the keys of a file. The file is watched from then on.
    fn keys(
        &self,
        field: &str,
        file: &Spanned<String>,
        policy: &mut Policy,
        read: impl Fn(&[u8]) -> Result<Vec<IssuerKey>, String>,
    ) -> Result<Vec<IssuerKey>, AuthFileError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let path = folder.join(file.get_ref());
        let keys = (self.files)(&path).and_then(|content| read(&content));
        policy.files.push(path);
        keys.map_err(|reason| {
            let allowed = format!("a readable file of keys ({reason})");
            self.wrong(file, field, &quoted(file.get_ref()), allowed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn error(text: &str) -> AuthFileError {
        parse(Path::new("auth.toml"), text, &content_of).err().unwrap_or_else(|| panic!("taken: {text}"))
    }

    #[test]
    fn the_example_of_the_guide_is_taken() {
        let text = format!(
            "[anonymous]\nsubscribe = [\"public/**\"]\n[[token]]\nname = \"sensors\"\nsha256 = \"{HASH}\"\n\
             publish = [\"sensors/**\"]\nrate = 1000\n[[token]]\nname = \"ops\"\nadmin = true\n\
             [[token]]\nname = \"prometheus\"\nobserve = true\n"
        );
        let policy =
            parse(Path::new("auth.toml"), &text, &content_of).unwrap_or_else(|error| panic!("{error}"));
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&[0x9f, 0x86]);
        assert!(policy.holder_of(&digest).is_none());
        digest = policy.digests[0].0;
        assert_eq!(policy.holder_of(&digest).map(|holder| &*holder.name), Some("sensors"));
        assert!(policy.holder_named("ops").is_some_and(|holder| holder.rights.admin));
        assert!(policy.anonymous.is_some_and(|holder| holder.rights.may_read("public/x")));
        assert!(
            parse(Path::new("auth.toml"), "", &content_of).is_ok_and(|policy| policy.anonymous.is_none())
        );
    }

    #[test]
    fn errors_name_the_place_the_field_and_what_is_allowed() {
        for (text, place, field) in [
            ("[[token]]\nname = \"a\"\nrate = 0\n", (3, 8), "token.rate"),
            ("[[token]]\nname = \"a\"\n  publish = [\"a\", \"b//c\"]\n", (3, 19), "token.publish"),
            ("[[token]]\nname = \"a\"\npublish = [\"$sys/**\"]\n", (3, 12), "token.publish"),
            ("[[token]]\nname = \"\"\n", (2, 8), "token.name"),
            ("[[token]]\nname = \"anonymous\"\n", (2, 8), "token.name"),
            ("[[token]]\nname = \"a\"\n[[token]]\nname = \"a\"\n", (4, 8), "token.name"),
            ("[anonymous]\nsubscribe = [\"a*\"]\n", (2, 14), "anonymous.subscribe"),
            ("[anonymous]\nadmin = true\n", (2, 1), "admin"),
            ("[[token]]\nname = \"a\"\npublsh = []\n", (3, 1), "publsh"),
            ("[jwt]\nissuer = \"x\"\n", (1, 1), "jwt"),
            ("[jwt]\nkeys = [\"none.pem\"]\n", (2, 9), "jwt.keys"),
            ("[[token]\n", (1, 9), "auth"),
        ] {
            let error = error(text);
            assert_eq!((error.line, error.column), place, "{error}");
            assert_eq!(error.field, field, "{error}");
            assert!(!error.allowed.is_empty() && error.file == "auth.toml", "{error}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        for text in [
            "[[token]]\nname = \"a\"\nsha256 = \"my-secret-token\"\n",
            "[[token]]\nname = \"a\"\nsha256 = my-secret-token\n",
            "[[token]]\nname = \"a\"\nsha256 = [\"my-secret-token\"]\n",
        ] {
            let error = error(text);
            assert_eq!(error.line, 3, "{error}");
            assert!(!error.to_string().contains("my-secret"), "{error}");
        }
        let twice = format!(
            "[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\n[[token]]\nname = \"b\"\nsha256 = \"{HASH}\"\n"
        );
        assert_eq!(error(&twice).line, 6);
    }

    /// A device such as /dev/zero tells no length and never ends: a node that read it to its end would use up its memory.
    #[test]
    fn a_file_without_an_end_is_refused() {
        let error = read(Path::new("/dev/zero")).err().expect("refused");
        assert!(error.allowed.contains("more than"), "{error}");
    }
}
