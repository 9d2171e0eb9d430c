//! Names of sources: segments separated by `/`.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::words::{HIGH, ONES, ascii_equal, not_printable, short};
use crate::limits::{SOURCE_BYTES_MAX, SOURCE_SEGMENTS_MAX};

/// A valid name of a source. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

/// The reason why a text is not a valid name of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The text is empty or too long. Holds its length in bytes.
    #[error("source has {0} bytes; allowed are 1 to {SOURCE_BYTES_MAX}")]
    Length(usize),
    /// The text has too many segments. Holds their number.
    #[error("source has {0} segments; at most {SOURCE_SEGMENTS_MAX}")]
    Segments(usize),
    /// A segment is empty, `.` or `..`. Holds the text.
    #[error("source {0:?} has a segment that is empty, \".\" or \"..\"")]
    Segment(String),
    /// The text has a control character, or a `*`, which only patterns may have. Holds the text.
    #[error("source {0:?} has a control character or \"*\"")]
    Character(String),
}

impl Source {
    /// Checks `name` and makes a copy of it.
    pub fn parse(name: &str) -> Result<Source, SourceError> {
        Source::check(name)?;
        Ok(Source(name.into()))
    }

    /// Checks `name` without making a copy.
    pub fn check(name: &str) -> Result<(), SourceError> {
        if name.is_empty() || name.len() > SOURCE_BYTES_MAX {
            return Err(SourceError::Length(name.len()));
        }
        if is_simple(name.as_bytes()) {
            debug_assert_eq!(check_thoroughly(name), Ok(()), "the fast check is never too lenient");
            return Ok(());
        }
        check_thoroughly(name)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name begins with `$`. Such names belong to the system; clients cannot publish to
    /// them.
    pub fn is_system(name: &str) -> bool {
        name.starts_with('$')
    }
}

/// Returns whether a fast look at eight bytes at a time finds the name valid. It does so for nearly every
/// name: printable ASCII with few segments, none of which begins with a dot. `false` does not mean that the
/// name is invalid, but that it needs the thorough check.
fn is_simple(name: &[u8]) -> bool {
    let (words, rest) = name.as_chunks::<8>();
    let mut marks = NameMarks::default();
    words.iter().for_each(|word| marks.take(u64::from_le_bytes(*word)));
    if !rest.is_empty() {
        // The last eight bytes overlap the words before, where the first of them has been looked at together with
        // the byte before it. Slashes that are looked at twice are counted twice, which can only be too strict.
        match name.last_chunk::<8>() {
            Some(last) => marks.overlap(u64::from_le_bytes(*last)),
            None => marks.take(short(name)),
        }
    }
    marks.odd & HIGH == 0 && marks.slashes() < SOURCE_SEGMENTS_MAX && name.last() != Some(&b'/')
}

/// Collects what [`is_simple`] wants to know about the words of a name.
struct NameMarks {
    /// Has marks if any byte is not printable ASCII, is a `*`, or is a dot or slash at the beginning of a segment.
    odd: u64,
    /// Number of slashes in the bytes of each place of a word: at most one for each of 32 words.
    slashes: u64,
    /// The mark of the last byte, as one of the first: whether a segment begins with the next byte.
    before: u64,
}

impl Default for NameMarks {
    fn default() -> NameMarks {
        // A segment begins at the beginning of the name.
        NameMarks { odd: 0, slashes: 0, before: 0x80 }
    }
}

impl NameMarks {
    #[inline]
    fn take(&mut self, word: u64) {
        let slash = ascii_equal(word, b'/') & HIGH;
        // Only the lowest bit tells a dot from a slash.
        let border = ascii_equal(word | ONES, b'/') & (slash << 8 | self.before);
        self.odd |= not_printable(word) | ascii_equal(word, b'*') | border;
        self.slashes += slash >> 7;
        self.before = slash >> 56;
    }

    #[inline]
    fn overlap(&mut self, word: u64) {
        self.before = 0;
        self.take(word);
    }

    fn slashes(&self) -> usize {
        (self.slashes.wrapping_mul(ONES) >> 56) as usize
    }
}

/// Checks the characters and the segments of a name one by one.
fn check_thoroughly(name: &str) -> Result<(), SourceError> {
    if name.chars().any(|c| c == '*' || c.is_control()) {
        return Err(SourceError::Character(name.into()));
    }
    check_segments(name)
}

/// Checks what names and patterns have in common: the number of segments, and that none of them is empty, `.`
/// or `..`.
pub(super) fn check_segments(name: &str) -> Result<(), SourceError> {
    let mut count = 0;
    for segment in name.as_bytes().split(|byte| *byte == b'/') {
        if matches!(segment, b"" | b"." | b"..") {
            return Err(SourceError::Segment(name.into()));
        }
        count += 1;
    }
    if count > SOURCE_SEGMENTS_MAX {
        return Err(SourceError::Segments(count));
    }
    Ok(())
}

impl Borrow<str> for Source {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The fast path and the thorough check agree with the definition of a name.
        #[test]
        fn names_are_judged_by_their_definition(name in "([a-c/.]|[a-c]{1,7}/?|[.*é\\x00\\x1f\\x20\\x7f\u{85}]){0,24}") {
            let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
            let is_name = (1..=SOURCE_BYTES_MAX).contains(&name.len())
                && !name.chars().any(|c| c == '*' || c.is_control())
                && name.split('/').all(is_segment)
                && name.split('/').count() <= SOURCE_SEGMENTS_MAX;
            prop_assert_eq!(Source::check(&name).is_ok(), is_name, "{}", name);
        }
    }

    #[test]
    fn source_names() {
        for good in ["a", "sensors/7/temp", "ä/ö", "a b", "$sys/x", "a/.../b"] {
            assert!(Source::check(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "a/*", "a\nb", "a\u{7f}"] {
            assert!(Source::check(bad).is_err(), "{bad:?}");
        }
        assert!(Source::check(&"x".repeat(255)).is_ok());
        assert!(Source::check(&"x".repeat(256)).is_err());
        assert!(Source::check(&vec!["a"; 16].join("/")).is_ok());
        assert!(Source::check(&vec!["a"; 17].join("/")).is_err());
    }
}
