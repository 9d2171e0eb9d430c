//! Names of nodes.
//!
//! A node's name is in the birth of every record and in the member list of every node, and most names are
//! short: a host name, a container's id. So a name of up to 14 bytes is stored inside the value itself, which
//! costs neither an allocation nor a reference count; longer names are shared.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::limits::NODE_NAME_BYTES_MAX;

/// Longest name, in bytes, that is stored without an allocation. With it a [`NodeName`] is 16 bytes large.
const SHORT_BYTES_MAX: usize = 14;

/// A valid name of a node, which is also its member id: 1 to 63 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone)]
pub struct NodeName(NameForm);

/// A name stored inside the value itself or behind a pointer.
#[derive(Clone)]
enum NameForm {
    Short { len: u8, bytes: [u8; SHORT_BYTES_MAX] },
    // The string is in a box of its own, because an `Arc<str>` is two words and would make the name larger.
    Long(Arc<Box<str>>),
}

/// The error of a text that is not a valid name of a node. It holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no node name; allowed are 1 to {NODE_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
pub struct NodeNameError(pub String);

impl NodeName {
    /// Checks `name` and makes a copy of it.
    pub fn parse(name: &str) -> Result<NodeName, NodeNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(NodeNameError(name.into()));
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        Ok(NodeName(match bytes.get_mut(..name.len()) {
            Some(place) => {
                place.copy_from_slice(name.as_bytes());
                NameForm::Short { len: name.len() as u8, bytes }
            }
            None => NameForm::Long(Arc::new(name.into())),
        }))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // A valid name is ASCII, so this conversion always succeeds. It still looks at every byte; paths
            // that handle every record call `as_bytes`, which does not.
            NameForm::Short { .. } => str::from_utf8(self.as_bytes()).unwrap_or_default(),
            NameForm::Long(name) => name,
        }
    }

    /// Returns the name as bytes, without looking at any of them. Code that runs for every record calls this.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            NameForm::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            NameForm::Long(name) => name.as_bytes(),
        }
    }
}

impl PartialEq for NodeName {
    #[inline]
    fn eq(&self, other: &NodeName) -> bool {
        match (&self.0, &other.0) {
            // The bytes after a short name are zeros. Comparing all of them needs no call.
            (NameForm::Short { len, bytes }, NameForm::Short { len: other_len, bytes: other_bytes }) => {
                len == other_len && bytes == other_bytes
            }
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

impl Eq for NodeName {}

impl PartialOrd for NodeName {
    fn partial_cmp(&self, other: &NodeName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeName {
    fn cmp(&self, other: &NodeName) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for NodeName {
    // Hashes as `str` does, so that a map with `NodeName` keys can be searched with a `&str`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        state.write_u8(0xff);
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn node_names() {
        assert!(NodeName::parse("a.b_c-9").is_ok());
        for bad in ["", "a b", "\u{e4}", &"x".repeat(64)] {
            assert!(NodeName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn short_and_long_ones_behave_as_their_text() {
        let texts: Vec<String> = (1..=63).flat_map(|len| ["a".repeat(len), "b".repeat(len)]).collect();
        let names: Vec<NodeName> = texts.iter().filter_map(|text| NodeName::parse(text).ok()).collect();
        assert!(names.iter().zip(&texts).all(|(name, text)| name.as_str() == text));
        for (a, text_a) in names.iter().zip(&texts) {
            for (b, text_b) in names.iter().zip(&texts) {
                assert_eq!((a.cmp(b), a == b), (text_a.cmp(text_b), text_a == text_b));
            }
        }
        let hashed: HashSet<NodeName> = names.iter().cloned().collect();
        let ordered: BTreeSet<NodeName> = names.iter().cloned().collect();
        assert!(texts.iter().all(|text| hashed.contains(text.as_str()) && ordered.contains(text.as_str())));
    }

    #[test]
    fn a_name_is_two_words() {
        assert_eq!((size_of::<NodeName>(), size_of::<Option<NodeName>>()), (16, 16));
    }
}
