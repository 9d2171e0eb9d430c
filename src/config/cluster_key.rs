//! The keys that seal everything nodes send each other, and the file that holds them.
//!
//! The file has one key a line: 64 hexadecimal digits, as `anode keys new` prints them. Empty lines and lines that
//! begin with `#` are skipped. The first key seals, and all of them open. A key is named by its *id* wherever it may
//! be seen: the first four bytes of its SHA-256, from which the key cannot be computed.

use std::fmt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::{ConfigError, Raw, raw, values};

/// Bytes of a key.
pub const CLUSTER_KEY_BYTES: usize = 32;
/// Most keys of a node. A rotation needs two, and one more for each rotation that begins before the last has ended.
pub const CLUSTER_KEYS_MAX: usize = 8;
/// Largest key file, in bytes: room for all keys, and a comment for each.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// A secret that all nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    bytes: [u8; CLUSTER_KEY_BYTES],
    id: KeyId,
}

/// The name of a key in the log, in lists and in the messages between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// How far a cluster has gone over to sealed messages, as one of its nodes sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyPhase {
    /// The node sends plain messages, and takes sealed and plain ones.
    Accept,
    /// The node seals what it sends, and takes sealed and plain messages.
    Send,
    /// The node seals what it sends, and takes nothing plain.
    #[default]
    Require,
}

/// The keys of a node, in the order of its file: at least one, and none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    first: ClusterKey,
    others: Vec<ClusterKey>,
}

/// The checked flags about the keys of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    /// The file with the keys.
    pub file: PathBuf,
    /// The keys that the file had when the configuration was checked.
    pub keyring: Keyring,
    /// How far the cluster has gone over to sealed messages.
    pub phase: KeyPhase,
}

/// The reason why a key file cannot be used. It never contains a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The file is larger than any key file.
    #[error("it is larger than {KEY_FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// A line is not a key.
    #[error("line {line} is no key")]
    NoKey {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A key stands in the file twice.
    #[error("line {line} repeats the key {id}")]
    Twice {
        /// Number of the second line with the key, from 1.
        line: usize,
        /// Id of the key.
        id: KeyId,
    },
    /// There is no key in the file.
    #[error("there is no key in it")]
    Empty,
    /// There are too many keys in the file.
    #[error("there are more than {CLUSTER_KEYS_MAX} keys in it")]
    TooMany,
}

impl ClusterKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; CLUSTER_KEY_BYTES]) -> ClusterKey {
        let mut id = [0; 4];
        let hash = digest(&SHA256, &bytes);
        id.iter_mut().zip(hash.as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
        ClusterKey { bytes, id: KeyId(id) }
    }

    /// Reads a key as it stands in a file; `None`: the text is no key.
    pub fn parse(text: &str) -> Option<ClusterKey> {
        let digits = text.as_bytes();
        if digits.len() != 2 * CLUSTER_KEY_BYTES {
            return None;
        }
        let mut bytes = [0; CLUSTER_KEY_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(ClusterKey::new(bytes))
    }

    /// The key as it stands in a file. It must not be shown to anybody but the user who asked for a new key.
    pub fn to_text(&self) -> String {
        self.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8; CLUSTER_KEY_BYTES] {
        &self.bytes
    }

    /// The id of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

fn digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Writes the id alone, so that no key gets into a log.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id)
    }
}

/// Writes eight hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl KeyPhase {
    /// Name of the phase as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyPhase::Accept => "accept",
            KeyPhase::Send => "send",
            KeyPhase::Require => "require",
        }
    }
}

impl Keyring {
    /// Reads the content of a key file.
    pub fn parse(text: &str) -> Result<Keyring, KeyFileError> {
        let mut keys: Vec<ClusterKey> = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let (line, text) = (index + 1, text.trim());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = ClusterKey::parse(text).ok_or(KeyFileError::NoKey { line })?;
            // Two keys with one id could not be told apart in a message.
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyFileError::Twice { line, id: key.id });
            }
            keys.push(key);
        }
        if keys.len() > CLUSTER_KEYS_MAX {
            return Err(KeyFileError::TooMany);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeyFileError::Empty)?;
        Ok(Keyring { first, others: keys.collect() })
    }

    /// Reads a key file.
    pub fn read(file: &Path) -> Result<Keyring, KeyFileError> {
        use std::io::Read;
        let unreadable = |error: std::io::Error| KeyFileError::Unreadable(error.to_string());
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        // One byte more than allowed shows that the file is too large, whatever it is.
        opened.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
            return Err(KeyFileError::TooLarge);
        }
        Keyring::from_bytes(&bytes)
    }

    /// Reads the content of a key file, which may be no text.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Keyring, KeyFileError> {
        let text = std::str::from_utf8(bytes).map_err(|error| KeyFileError::NoKey {
            line: bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1,
        })?;
        Keyring::parse(text)
    }

    /// The key that seals.
    pub fn first(&self) -> &ClusterKey {
        &self.first
    }

    /// All keys, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &ClusterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

const PHASES: [(&str, KeyPhase); 3] =
    [("accept", KeyPhase::Accept), ("send", KeyPhase::Send), ("require", KeyPhase::Require)];

/// What a key file must be, for errors.
pub const KEY_FILE_ALLOWED: &str =
    "a file with one key a line, as `anode keys new` prints them: 64 hexadecimal digits";

/// Checks the flags about the keys of the cluster, and reads the file.
pub(super) fn check(raw: &Raw) -> Result<Option<ClusterKeys>, ConfigError> {
    let phase = raw.cluster_key_phase.as_ref();
    let Some(raw::Text(file)) = &raw.cluster_key else {
        return match phase {
            None => Ok(None),
            Some(raw::Text(phase)) => {
                Err(ConfigError::new("cluster-key-phase", phase, "nothing, unless there is a --cluster-key"))
            }
        };
    };
    let phase = match phase {
        None => KeyPhase::default(),
        Some(raw::Text(phase)) => values::choice("cluster-key-phase", phase, &PHASES)?,
    };
    let keyring = Keyring::read(Path::new(file)).map_err(|error| {
        ConfigError::new(
            "cluster-key",
            file,
            format!("{KEY_FILE_ALLOWED}, at most {CLUSTER_KEYS_MAX} ({error})"),
        )
    })?;
    Ok(Some(ClusterKeys { file: PathBuf::from(file), keyring, phase }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(digit: char) -> String {
        String::from(digit).repeat(2 * CLUSTER_KEY_BYTES)
    }

    #[test]
    fn keys_stand_in_lines_and_the_first_seals() {
        let file = format!("# new since spring\n{}\r\n\n  {}  \n", text('1'), text('b').to_uppercase());
        let keyring = Keyring::parse(&file).expect("two keys");
        let texts: Vec<String> = keyring.keys().map(ClusterKey::to_text).collect();
        assert_eq!(texts, [text('1'), text('b')]);
        assert_eq!(keyring.first().id(), ClusterKey::new([0x11; 32]).id());
        assert_eq!(format!("{keyring:?}").matches("ClusterKey(").count(), 2);
        assert!(!format!("{keyring:?}").contains("1111"), "a key is not shown");
    }

    #[test]
    fn an_id_is_the_beginning_of_the_hash() {
        // SHA-256 of 32 zero bytes begins with 66687aad.
        assert_eq!(ClusterKey::new([0; 32]).id().to_string(), "66687aad");
    }

    #[test]
    fn bad_files_are_refused_by_line() {
        assert_eq!(Keyring::parse("# nothing\n\n"), Err(KeyFileError::Empty));
        assert_eq!(Keyring::parse(&format!("{}\nxyz", text('1'))), Err(KeyFileError::NoKey { line: 2 }));
        for bad in [text('1')[1..].to_owned(), text('1') + "1", text('g'), format!("{} x", text('1'))] {
            assert_eq!(Keyring::parse(&bad), Err(KeyFileError::NoKey { line: 1 }), "{bad}");
        }
        let twice = format!("{0}\n{0}\n", text('1'));
        assert!(matches!(Keyring::parse(&twice), Err(KeyFileError::Twice { line: 2, .. })));
        let many: String = (0..9u8).map(|byte| ClusterKey::new([byte; 32]).to_text() + "\n").collect();
        assert_eq!(Keyring::parse(&many), Err(KeyFileError::TooMany));
        let error = Keyring::parse(&format!("{}zz", &text('a')[2..])).expect_err("no key").to_string();
        assert!(!error.contains("aaaa"), "{error}");
    }

    #[test]
    fn files_are_read_up_to_a_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys");
        assert!(matches!(Keyring::read(&file), Err(KeyFileError::Unreadable(_))));
        assert!(matches!(Keyring::read(folder.path()), Err(KeyFileError::Unreadable(_))));
        std::fs::write(&file, "#".repeat(KEY_FILE_BYTES_MAX as usize + 1)).expect("written");
        assert_eq!(Keyring::read(&file), Err(KeyFileError::TooLarge));
        std::fs::write(&file, b"#\n\xff\n").expect("written");
        assert_eq!(Keyring::read(&file), Err(KeyFileError::NoKey { line: 2 }));
        std::fs::write(&file, text('7')).expect("written");
        assert_eq!(Keyring::read(&file).map(|keyring| keyring.keys().count()), Ok(1));
    }
}
