//! The manifest of an archive: what is in it, and from which archive it goes on.
//!
//! An archive is a folder of objects: frames with records, each compressed by itself, and `manifest.json`, which is
//! written last. A folder without a manifest is no archive. The manifest has the hash of every frame, and the hash of
//! its parent's manifest, so the hash of one manifest stands for everything beneath it.

use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::s3::sha256_hex;

/// Name of the object that makes a folder an archive.
pub const MANIFEST_NAME: &str = "manifest.json";
/// Largest manifest, in bytes: about two kilobytes for each of its frames.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most frames of an archive, 64 GiB of records. More would not fit into one folder of IPFS that is a single block.
pub const ARCHIVE_FRAMES_MAX: usize = 8_192;
/// Value of the field `format` in every manifest, by which a reader knows that a document is one.
const FORMAT: &str = "anode.archive";
/// Version of the format.
const ARCHIVE_VERSION: u32 = 1;
/// Longest id of an archive, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Name of the definition.
    pub archive: String,
    /// Name of the node that wrote it.
    pub node: String,
    /// Time at which the node began, in microseconds since the Unix epoch. The archive has everything up to then.
    pub at: u64,
    /// Pattern of the sources.
    pub pattern: String,
    /// The archive from which it goes on; `None` if it is a full one.
    pub parent: Option<ParentOf>,
    /// Number of archives beneath it.
    pub depth: usize,
    /// Resume token of the node at `at`. The next archive has what it does not cover.
    pub resume: Option<String>,
    /// Number of records in all frames, deletions included.
    pub records: u64,
    /// Number of deletions.
    pub deletions: u64,
    /// Bytes of the records as text.
    pub bytes: u64,
    /// Bytes of the frames.
    pub stored_bytes: u64,
    /// The frames in the order in which they are read.
    pub frames: Vec<FrameOf>,
}

/// The archive from which another one goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentOf {
    /// Id of the archive.
    pub id: String,
    /// SHA-256 of its manifest, in hexadecimal.
    pub sha256: String,
}

/// A frame: lines of records, compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameOf {
    /// Name of the object.
    pub name: String,
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// Bytes of the lines.
    pub bytes: u64,
    /// Number of lines.
    pub records: u64,
    /// How many of them are deletions.
    pub deletions: u64,
    /// First and last of the names of sources, in the order of their bytes.
    pub sources: (String, String),
    /// Least and greatest timestamp, in microseconds since the Unix epoch.
    pub ts: (u64, u64),
}

impl Manifest {
    /// A manifest without frames.
    pub fn new(archive: &str, node: &str, at: u64, pattern: &str) -> Manifest {
        Manifest {
            format: FORMAT.into(),
            version: ARCHIVE_VERSION,
            archive: archive.into(),
            node: node.into(),
            at,
            pattern: pattern.into(),
            parent: None,
            depth: 0,
            resume: None,
            records: 0,
            deletions: 0,
            bytes: 0,
            stored_bytes: 0,
            frames: Vec::new(),
        }
    }

    /// Adds a frame.
    pub fn push(&mut self, frame: FrameOf) {
        self.records += frame.records;
        self.deletions += frame.deletions;
        self.bytes += frame.bytes;
        self.stored_bytes += frame.stored_bytes;
        self.frames.push(frame);
    }

    /// The text of the manifest, and its hash in hexadecimal.
    pub fn encode(&self) -> Result<(Vec<u8>, String), ArchiveError> {
        let text = serde_json::to_vec(self).map_err(|error| ArchiveError::Node(error.to_string()))?;
        if text.len() > MANIFEST_BYTES_MAX {
            let why = format!("the manifest has {} bytes; at most {MANIFEST_BYTES_MAX}", text.len());
            return Err(ArchiveError::Node(why));
        }
        let hash = sha256_hex(&text);
        Ok((text, hash))
    }

    /// Reads the manifest of the archive `id`, and checks that its parts fit together.
    pub fn decode(id: &str, text: &[u8]) -> Result<Manifest, ArchiveError> {
        let damaged = |why: &str| Err(ArchiveError::damaged(format!("{id}/{MANIFEST_NAME}"), why));
        let manifest: Manifest = match serde_json::from_slice(text) {
            Ok(manifest) => manifest,
            Err(error) => return damaged(&error.to_string()),
        };
        if manifest.format != FORMAT || manifest.version != ARCHIVE_VERSION {
            return damaged("it is of a format that this version does not read");
        }
        if manifest.frames.len() > ARCHIVE_FRAMES_MAX {
            return damaged("it has too many frames");
        }
        let sum = |count: fn(&FrameOf) -> u64| {
            manifest.frames.iter().try_fold(0u64, |sum, frame| sum.checked_add(count(frame)))
        };
        let sums = [sum(|frame| frame.records), sum(|frame| frame.deletions), sum(|frame| frame.bytes)];
        if sums != [manifest.records, manifest.deletions, manifest.bytes].map(Some)
            || sum(|frame| frame.stored_bytes) != Some(manifest.stored_bytes)
        {
            return damaged("its counts are not the sums of those of its frames");
        }
        if !manifest.frames.iter().all(|frame| is_frame_name(&frame.name)) {
            return damaged("a frame has a name that no frame has");
        }
        if manifest.parent.is_some() != (manifest.depth > 0) {
            return damaged("its depth contradicts its parent");
        }
        if manifest.parent.as_ref().is_some_and(|parent| !is_archive_id(&parent.id)) {
            return damaged("its parent has an id that no archive has");
        }
        Ok(manifest)
    }
}

/// Name of the frame with this number.
pub fn frame_name(number: usize) -> String {
    format!("data-{number:05}.ndjson.zst")
}

/// Returns whether an object of this name is a frame. A manifest that was tampered with cannot lead to other objects.
fn is_frame_name(name: &str) -> bool {
    let digits = name.strip_prefix("data-").and_then(|rest| rest.strip_suffix(".ndjson.zst"));
    digits.is_some_and(|digits| digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns whether a text can be the id of an archive: the name of a folder, or the content id of one.
pub fn is_archive_id(id: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=ID_BYTES_MAX).contains(&id.len()) && !matches!(id, "." | "..") && id.bytes().all(is_fine)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn frame(number: usize) -> FrameOf {
        FrameOf {
            name: frame_name(number),
            sha256: sha256_hex(b"x"),
            stored_bytes: 10,
            bytes: 100,
            records: 3,
            deletions: 1,
            sources: ("a".into(), "b".into()),
            ts: (1, 2),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let mut manifest = Manifest::new("nightly", "n", 7, "a/**");
        manifest.push(frame(0));
        manifest.push(frame(1));
        (manifest.depth, manifest.parent) =
            (1, Some(ParentOf { id: "1-n".into(), sha256: sha256_hex(b"p") }));
        let (text, hash) = manifest.encode().expect("a manifest");
        assert_eq!(hash, sha256_hex(&text));
        assert_eq!(Manifest::decode("x", &text), Ok(manifest));
    }

    #[test]
    fn parts_that_do_not_fit_are_seen() {
        let mut manifest = Manifest::new("nightly", "n", 7, "a/**");
        manifest.push(frame(0));
        let with = |change: fn(&mut Manifest)| {
            let mut other = manifest.clone();
            change(&mut other);
            let (text, _) = other.encode().expect("a manifest");
            Manifest::decode("x", &text).map(|_| ())
        };
        assert_eq!(with(|_| {}), Ok(()));
        for change in [
            (|manifest| manifest.records += 1) as fn(&mut Manifest),
            |manifest| manifest.stored_bytes = 0,
            |manifest| manifest.version = 2,
            |manifest| manifest.depth = 1,
            |manifest| manifest.frames[0].name = "../secrets".into(),
            |manifest| manifest.frames[0].bytes = u64::MAX,
            |manifest| {
                manifest.depth = 1;
                manifest.parent = Some(ParentOf { id: "a/b".into(), sha256: String::new() });
            },
        ] {
            assert!(matches!(with(change), Err(ArchiveError::Damaged { .. })));
        }
        assert!(Manifest::decode("x", b"{}").is_err() && Manifest::decode("x", b"\xff").is_err());
    }

    #[test]
    fn ids() {
        for id in ["1763800000000000-n1", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"] {
            assert!(is_archive_id(id), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_archive_id(id), "{id}");
        }
    }
}
