//! Patterns that subscribers select sources with: names in which a segment `*` stands for any one segment,
//! and a last segment `**` for one or more.

use std::fmt;
use std::sync::Arc;

use super::source::{SourceError, check_segments};
use crate::limits::{SOURCE_BYTES_MAX, SOURCE_SEGMENTS_MAX};

/// A valid pattern. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

/// The reason why a text is not a valid pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is empty, or longer than any name of a source could be. Holds its length in bytes.
    #[error("pattern has {0} bytes; allowed are 1 to {SOURCE_BYTES_MAX}")]
    Length(usize),
    /// The text has more segments than a name may have. Holds their number.
    #[error("pattern has {0} segments; at most {SOURCE_SEGMENTS_MAX}")]
    Segments(usize),
    /// A segment is empty, `.` or `..`, or the text has a control character. Holds the text.
    #[error("pattern {0:?} has a segment that is empty, \".\" or \"..\", or a control character")]
    Segment(String),
    /// A `*` is beside other characters, or a `**` is not the last segment. Holds the text.
    #[error("pattern {0:?}: \"*\" must be a whole segment, and \"**\" the last one")]
    Star(String),
}

/// One segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Matches exactly this segment.
    Exact(&'a str),
    /// `*` matches any one segment.
    One,
    /// `**`, always the last segment, matches one or more segments.
    Rest,
}

impl Pattern {
    /// Checks `text` and makes a copy of it.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() || text.len() > SOURCE_BYTES_MAX {
            return Err(PatternError::Length(text.len()));
        }
        match check_segments(text) {
            Err(SourceError::Segments(count)) => return Err(PatternError::Segments(count)),
            Err(_) => return Err(PatternError::Segment(text.into())),
            Ok(()) => {}
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Segment(text.into()));
        }
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            let misplaced = segment == "**" && segments.peek().is_some();
            let mixed = segment.contains('*') && !matches!(segment, "*" | "**");
            if misplaced || mixed {
                return Err(PatternError::Star(text.into()));
            }
        }
        Ok(Pattern(text.into()))
    }

    /// Returns the pattern as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the segments of the pattern in their order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('/').map(|segment| match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            exact => Segment::Exact(exact),
        })
    }

    /// Returns whether the pattern matches the name `source`. A wildcard never matches a first segment that
    /// begins with `$`.
    pub fn matches(&self, source: &str) -> bool {
        if source.starts_with('$') && !self.0.starts_with('$') {
            return false;
        }
        let mut names = source.split('/');
        for segment in self.segments() {
            match (segment, names.next()) {
                (Segment::Rest, name) => return name.is_some(),
                (Segment::One, Some(_)) => {}
                (Segment::Exact(exact), Some(name)) if exact == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, source: &str) -> bool {
        Pattern::parse(pattern).expect(pattern).matches(source)
    }

    #[test]
    fn wildcards() {
        assert!(matches("a/*/c", "a/b/c"));
        assert!(!matches("a/*/c", "a/b/b/c"));
        assert!(!matches("a/*", "a"));
        assert!(matches("a/**", "a/b/c"));
        assert!(!matches("a/**", "a"));
        assert!(matches("**", "a/b"));
        assert!(matches("*", "a"));
        assert!(!matches("*", "$sys"));
        assert!(!matches("**", "$sys/a"));
        assert!(matches("$sys/*", "$sys/a"));
        assert!(!matches("a", "a/b"));
    }

    #[test]
    fn refused() {
        for bad in ["", "a*", "a/b*", "**/a", "a//b", "a/***", "a/./b", "a\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
