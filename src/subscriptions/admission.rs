//! Decides which patterns the index takes, by what they hold and by how long they make a search.
//!
//! The *shape* of a pattern is its number of segments and the places of its wildcards. For one name, all
//! patterns of one shape lead the search along the same path, so only the number of shapes decides how many
//! nodes it visits, never the number of patterns or their texts. Two rules bound it:
//!
//! - A shape with at most three `*` is *plain* and never counts against others. All plain shapes that there
//!   are together make a search visit at most 3,213 nodes, so there is nothing that a client could use up.
//! - A shape with more is *intricate*. A worker has at most 64 of them at a time and a connection at most 8.
//!   A further connection may use a shape that is in use already.
//!
//! A connection has at most 64 shapes in all, so that one record finds it at most 65 times (the one more is
//! the pattern without wildcards). And the bytes of its patterns are bounded. They are counted as if it were
//! the only connection, because then the count depends on the pattern alone: it is the same when a pattern
//! comes and when it goes, and does not change when others who shared its nodes leave.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::trie::{EXACT_NODE_BYTES, LISTED_BYTES, ONE_NODE_BYTES};
use crate::limits::{
    INTRICATE_SHAPES_PER_CONNECTION_MAX, INTRICATE_SHAPES_PER_WORKER_MAX, PATTERN_BYTES_PER_CONNECTION_MAX,
    PLAIN_WILDCARDS_MAX, SHAPES_PER_CONNECTION_MAX, SOURCE_SEGMENTS_MAX,
};
use crate::record::hash::NameState;
use crate::record::{Pattern, Segment};

/// Bytes of a pattern beside its nodes: the list that names the connection, the two lists of the session, the
/// shared text's counts and allocation, and its part of what is kept here.
const PATTERN_BYTES: usize = LISTED_BYTES + 2 * size_of::<Pattern>() + 64;

/// Why patterns are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The patterns of the connection would hold more bytes than a connection may.
    #[error(
        "the patterns of a connection may take at most {PATTERN_BYTES_PER_CONNECTION_MAX} bytes of memory; with these \
         they would take {0}"
    )]
    Bytes(usize),
    /// The patterns of the connection would have more shapes than a connection may.
    #[error(
        "the patterns of a connection may have at most {SHAPES_PER_CONNECTION_MAX} shapes (number of segments and \
         places of the wildcards)"
    )]
    Shapes,
    /// The connection would have more intricate shapes than a connection may.
    #[error(
        "the patterns of a connection may have at most {INTRICATE_SHAPES_PER_CONNECTION_MAX} shapes (number of \
         segments and places of the wildcards) with more than {PLAIN_WILDCARDS_MAX} \"*\""
    )]
    Intricate,
    /// The connections of the worker would have more intricate shapes than a worker may.
    #[error(
        "too many clients use patterns with more than {PLAIN_WILDCARDS_MAX} \"*\": all \
         {INTRICATE_SHAPES_PER_WORKER_MAX} shapes (number of segments and places of the wildcards) are taken"
    )]
    Crowded,
}

impl Excess {
    /// Returns whether the same patterns may be admitted later, after other connections have ended.
    pub fn is_temporary(self) -> bool {
        self == Excess::Crowded
    }
}

/// The number of segments of a pattern and the places of its wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Bit n is set if segment n is `*`.
    ones: u16,
    /// Number of segments, without the final `**`.
    segments: u8,
    has_rest: bool,
}

const _: () = assert!(SOURCE_SEGMENTS_MAX <= u16::BITS as usize);

impl Shape {
    fn of(pattern: &Pattern) -> Shape {
        let mut shape = Shape { ones: 0, segments: 0, has_rest: false };
        for segment in pattern.segments() {
            match segment {
                Segment::Exact(_) => {}
                Segment::One => shape.ones |= 1 << shape.segments,
                Segment::Rest => {
                    shape.has_rest = true;
                    return shape;
                }
            }
            shape.segments += 1;
        }
        shape
    }

    /// Returns whether the pattern has no wildcard.
    fn is_name(self) -> bool {
        self.ones == 0 && !self.has_rest
    }

    fn is_intricate(self) -> bool {
        self.ones.count_ones() > PLAIN_WILDCARDS_MAX
    }
}

/// Returns how many bytes patterns hold, in the index and in their session, if they share nothing with others.
pub fn bytes_of(patterns: &[Pattern]) -> usize {
    patterns.iter().map(bytes_of_one).sum()
}

fn bytes_of_one(pattern: &Pattern) -> usize {
    let node = |segment| match segment {
        Segment::Exact(text) => EXACT_NODE_BYTES + text.len(),
        Segment::One => ONE_NODE_BYTES,
        Segment::Rest => 0,
    };
    PATTERN_BYTES + pattern.as_str().len() + pattern.segments().map(node).sum::<usize>()
}

/// The patterns of one connection, as they are counted.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// The shapes of the patterns with wildcards, each with the number of patterns. In no order.
    shapes: Vec<(Shape, u32)>,
}

impl Held {
    fn find(&self, shape: Shape) -> Option<usize> {
        self.shapes.iter().position(|(known, _)| *known == shape)
    }
}

/// The patterns of all connections of an index, as they are counted.
#[derive(Debug, Default)]
pub(super) struct Admission {
    connections: HashMap<usize, Held, NameState>,
    /// The intricate shapes in use, each with the number of connections that have it.
    intricate: BTreeMap<Shape, u32>,
    bytes: usize,
}

impl Admission {
    /// Returns how many bytes the patterns of all connections hold together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many bytes the patterns of one connection hold.
    pub(super) fn bytes_of_connection(&self, connection: usize) -> usize {
        self.connections.get(&connection).map_or(0, |held| held.bytes)
    }

    /// Counts patterns that are inserted for a connection, or none of them if they exceed a bound.
    pub(super) fn admit(&mut self, patterns: &[Pattern], connection: usize) -> Result<(), Excess> {
        let bytes = bytes_of(patterns) + self.bytes_of_connection(connection);
        if bytes > PATTERN_BYTES_PER_CONNECTION_MAX {
            return Err(Excess::Bytes(bytes));
        }
        for (at, pattern) in patterns.iter().enumerate() {
            if let Err(excess) = self.admit_one(pattern, connection) {
                patterns.iter().take(at).for_each(|pattern| self.release(pattern, connection));
                return Err(excess);
            }
        }
        Ok(())
    }

    fn admit_one(&mut self, pattern: &Pattern, connection: usize) -> Result<(), Excess> {
        let (shape, bytes) = (Shape::of(pattern), bytes_of_one(pattern));
        if !shape.is_name() {
            self.admit_shape(shape, connection)?;
        }
        self.connections.entry(connection).or_default().bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Counts one more pattern of this shape for a connection, if the bounds allow it.
    fn admit_shape(&mut self, shape: Shape, connection: usize) -> Result<(), Excess> {
        if let Some(held) = self.connections.get_mut(&connection) {
            if let Some((_, count)) = held.find(shape).and_then(|at| held.shapes.get_mut(at)) {
                *count += 1;
                return Ok(());
            }
            if held.shapes.len() >= SHAPES_PER_CONNECTION_MAX {
                return Err(Excess::Shapes);
            }
            let intricate = held.shapes.iter().filter(|(shape, _)| shape.is_intricate());
            if shape.is_intricate() && intricate.count() >= INTRICATE_SHAPES_PER_CONNECTION_MAX {
                return Err(Excess::Intricate);
            }
        }
        if shape.is_intricate() {
            let is_full = self.intricate.len() >= INTRICATE_SHAPES_PER_WORKER_MAX;
            if is_full && !self.intricate.contains_key(&shape) {
                return Err(Excess::Crowded);
            }
            *self.intricate.entry(shape).or_default() += 1;
        }
        let held = self.connections.entry(connection).or_default();
        held.shapes.reserve_exact(1);
        held.shapes.push((shape, 1));
        debug_assert!(held.shapes.len() <= SHAPES_PER_CONNECTION_MAX);
        debug_assert!(self.intricate.len() <= INTRICATE_SHAPES_PER_WORKER_MAX);
        Ok(())
    }

    /// Uncounts one insertion of a pattern of a connection. It must have been admitted.
    pub(super) fn release(&mut self, pattern: &Pattern, connection: usize) {
        let (shape, bytes) = (Shape::of(pattern), bytes_of_one(pattern));
        let Some(held) = self.connections.get_mut(&connection) else { return };
        debug_assert!(held.bytes >= bytes && self.bytes >= held.bytes, "what goes has come before");
        held.bytes -= bytes;
        self.bytes -= bytes;
        let place = held.find(shape);
        if let Some(at) = place
            && let Some((_, count)) = held.shapes.get_mut(at)
        {
            *count -= 1;
            if *count == 0 {
                held.shapes.swap_remove(at);
                if shape.is_intricate() {
                    self.release_intricate(shape);
                }
            }
        }
        if self.bytes_of_connection(connection) == 0 {
            self.connections.remove(&connection);
        }
        debug_assert!(!self.connections.is_empty() || self.bytes == 0 && self.intricate.is_empty());
    }

    fn release_intricate(&mut self, shape: Shape) {
        if let Some(connections) = self.intricate.get_mut(&shape) {
            *connections -= 1;
            if *connections == 0 {
                self.intricate.remove(&shape);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: impl IntoIterator<Item = String>) -> Vec<Pattern> {
        texts.into_iter().map(|text| Pattern::parse(&text).expect("a pattern")).collect()
    }

    /// Patterns of 16 segments, of which those whose bit is set are `*` and the others `a`.
    fn masked(masks: impl IntoIterator<Item = u16>) -> Vec<Pattern> {
        let text = |mask: u16| {
            let segments: Vec<_> = (0..16).map(|at| if mask & (1 << at) == 0 { "a" } else { "*" }).collect();
            segments.join("/")
        };
        patterns(masks.into_iter().map(text))
    }

    fn is_empty(admission: &Admission) -> bool {
        admission.bytes == 0 && admission.connections.is_empty() && admission.intricate.is_empty()
    }

    #[test]
    fn shapes_tell_where_wildcards_stand() {
        let shape = |text: &str| Shape::of(&Pattern::parse(text).expect(text));
        assert_eq!(shape("a/*/b"), shape("x/*/y"));
        assert_ne!(shape("a/*/b"), shape("a/*"));
        assert_ne!(shape("a/*/b"), shape("a/*/b/**"));
        assert_ne!(shape("a/b"), shape("a/**"));
        assert!(shape("a/b").is_name() && !shape("a/**").is_name() && !shape("a/*").is_name());
        assert!(!shape("*/*/a/*/**").is_intricate() && shape("*/*/a/*/*").is_intricate());
    }

    #[test]
    fn a_connection_has_so_many_shapes_and_any_number_of_patterns_of_each() {
        let mut admission = Admission::default();
        let plain: Vec<u16> = (1..=u16::MAX).filter(|mask| mask.count_ones() == 2).collect();
        let (first, others) = plain.split_at(SHAPES_PER_CONNECTION_MAX);
        let first = masked(first.iter().copied());
        assert_eq!(admission.admit(&first, 1), Ok(()));
        let before = admission.bytes();
        assert_eq!(admission.admit(&masked(others.iter().copied()), 1), Err(Excess::Shapes));
        assert_eq!(admission.bytes(), before);
        assert_eq!(
            admission.admit(&masked(others.iter().copied().take(64)), 2),
            Ok(()),
            "another connection"
        );
        let same = patterns((0..1_000).map(|n| format!("*/*/b/b/b/b/b/b/b/b/b/b/b/b/b/{n}")));
        assert_eq!(admission.admit(&same, 1), Ok(()), "a shape that it has");
        let names = patterns((0..1_000).map(|n| format!("name/{n}")));
        assert_eq!(admission.admit(&names, 1), Ok(()), "names have no shape");
        for (patterns, connection) in [(&first, 1), (&same, 1), (&names, 1)] {
            patterns.iter().for_each(|pattern| admission.release(pattern, connection));
        }
        assert_eq!(admission.bytes_of_connection(1), 0);
        others.iter().take(64).for_each(|mask| admission.release(&masked([*mask])[0], 2));
        assert!(is_empty(&admission), "{admission:?}");
    }

    /// One client must not be able to use up what the patterns of others need.
    #[test]
    fn plain_patterns_are_taken_whatever_others_have() {
        let mut admission = Admission::default();
        let mut intricate = (0..=u16::MAX).filter(|mask| mask.count_ones() > PLAIN_WILDCARDS_MAX);
        for connection in 0..INTRICATE_SHAPES_PER_WORKER_MAX / INTRICATE_SHAPES_PER_CONNECTION_MAX {
            let own = masked(intricate.by_ref().take(INTRICATE_SHAPES_PER_CONNECTION_MAX));
            assert_eq!(admission.admit(&own, connection), Ok(()));
            let one_more = masked(intricate.by_ref().take(1));
            assert_eq!(admission.admit(&one_more, connection), Err(Excess::Intricate));
        }
        let new = masked(intricate.take(1));
        assert_eq!(admission.admit(&new, 99), Err(Excess::Crowded));
        assert_eq!(admission.connections.len(), 8, "nothing is left of a refusal");
        let known = masked([0b1111]);
        assert_eq!(admission.admit(&known, 99), Ok(()), "a shape that others have");
        for ones in 0..=PLAIN_WILDCARDS_MAX {
            let plain =
                (0..=u16::MAX).filter(|mask| mask.count_ones() == ones).take(SHAPES_PER_CONNECTION_MAX);
            assert_eq!(admission.admit(&masked(plain), 100 + ones as usize), Ok(()));
        }
        masked([0b1111]).iter().for_each(|pattern| admission.release(pattern, 0));
        assert_eq!(admission.admit(&new, 98), Err(Excess::Crowded), "99 has it still");
        known.iter().for_each(|pattern| admission.release(pattern, 99));
        assert_eq!(admission.admit(&new, 98), Ok(()));
    }

    #[test]
    fn the_bytes_of_a_connection_are_bounded() {
        let mut admission = Admission::default();
        let mut count = 0;
        let excess = loop {
            let some = patterns((0..256).map(|n| format!("room/{}/temperature", 256 * count + n)));
            match admission.admit(&some, 7) {
                Ok(()) => count += 1,
                Err(excess) => break excess,
            }
        };
        assert!(matches!(excess, Excess::Bytes(bytes) if bytes > PATTERN_BYTES_PER_CONNECTION_MAX));
        assert!(admission.bytes() <= PATTERN_BYTES_PER_CONNECTION_MAX);
        assert!((75..131).contains(&count), "{} patterns", 256 * count);
        assert_eq!(admission.admit(&patterns(["room/1/temperature".into()]), 8), Ok(()));
    }
}
