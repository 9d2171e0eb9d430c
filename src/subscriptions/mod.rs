//! Which connections want a source: patterns on one side, names on the other.
//!
//! A trie by segment. A name walks down it along at most two branches a level, the child of its own
//! segment and the child `*`, and picks up on its way the connections of every `**` it passes and
//! of the patterns that end where it ends. So what a match costs depends on the patterns that match
//! (or nearly do), never on those that are unrelated.
//!
//! What was found is remembered for as long as no subscription comes or goes (`audience`).
//!
//! Rejected: a list of all patterns, whose cost every record would pay; and nothing but a memory of
//! name → connections, which one subscriber that comes and goes would empty all the time.

mod audience;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::record::hash::NameState;
use crate::record::words::{equal, position};
use crate::record::{Pattern, Segment, Source};

pub use self::audience::Audience;
use self::audience::Remembered;

/// So many children are compared sooner than a segment is hashed.
const FEW: usize = 4;

/// The patterns of one worker's connections. A connection is a number that the worker gives.
#[derive(Debug, Default)]
pub struct Index {
    root: Node,
    len: usize,
    remembered: Remembered,
}

/// Connections, and how many of their subscriptions have this very pattern. Ordered, so that the
/// order of delivery is the same in every run; a tree, so that a storm of leavers costs no shifting.
type Connections = BTreeMap<usize, u32>;

#[derive(Debug, Default)]
struct Node {
    exact: HashMap<Box<str>, Node, NameState>,
    one: Option<Box<Node>>,
    /// Patterns that end here.
    here: Connections,
    /// Patterns that end here with one more segment, `**`.
    rest: Connections,
}

impl Index {
    /// An index of nothing.
    pub fn new() -> Index {
        Index::default()
    }

    /// How many patterns are in it, a repeated one counted each time.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no connection wants anything.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pattern of a connection. The same one may be added again, and is then to be removed
    /// as often.
    pub fn insert(&mut self, pattern: &Pattern, connection: usize) {
        self.remembered.clear();
        let mut node = &mut self.root;
        self.len += 1;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Exact(text) => node.exact.entry(text.into()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => {
                    *node.rest.entry(connection).or_default() += 1;
                    return;
                }
            };
        }
        *node.here.entry(connection).or_default() += 1;
    }

    /// Takes away one adding of a pattern. `false`: it was not there.
    pub fn remove(&mut self, pattern: &Pattern, connection: usize) -> bool {
        self.remembered.clear();
        let was_there = self.root.remove(&mut pattern.segments(), connection);
        self.len -= usize::from(was_there);
        was_there
    }

    /// Who wants a source of this shard.
    pub fn audience(&mut self, shard: u16, source: &Source) -> &Audience {
        self.remembered.of(shard, source, |found| self.root.matches(source.as_str(), found))
    }

    /// Replaces what is in `connections` by those with a pattern that matches, each named once, in
    /// the order of their numbers.
    pub fn matches(&self, source: &str, connections: &mut Vec<usize>) {
        self.root.matches(source, connections);
    }
}

impl Node {
    fn matches(&self, source: &str, connections: &mut Vec<usize>) {
        connections.clear();
        let mut lists = 0;
        let mut take = |list: &Connections| {
            if !list.is_empty() {
                lists += 1;
                connections.extend(list.keys());
            }
        };
        if source.starts_with('$') {
            // No wildcard matches a leading `$`, so the first segment has to be named.
            let (first, others) = split(source);
            if let Some(node) = self.child(first) {
                node.collect(others, &mut take);
            }
        } else {
            self.collect(Some(source), &mut take);
        }
        if lists > 1 {
            connections.sort_unstable();
            connections.dedup();
        }
    }

    /// The child of this very segment.
    fn child(&self, segment: &str) -> Option<&Node> {
        if self.exact.len() > FEW {
            return self.exact.get(segment);
        }
        self.exact.iter().find(|(name, _)| ***name == *segment).map(|(_, node)| node)
    }

    /// `name`: the segments that are left; `None` at the end.
    fn collect(&self, name: Option<&str>, take: &mut impl FnMut(&Connections)) {
        let Some(name) = name else { return take(&self.here) };
        take(&self.rest);
        if self.exact.is_empty() && self.one.is_none() {
            return;
        }
        let (first, others) = split(name);
        if let Some(node) = self.child(first) {
            node.collect(others, take);
        }
        if let Some(node) = &self.one {
            node.collect(others, take);
        }
    }

    /// Nodes left empty are taken out on the way back, so that the index is as large as what is in
    /// it. The depth is bounded by the segments a pattern may have.
    fn remove<'a>(&mut self, segments: &mut impl Iterator<Item = Segment<'a>>, connection: usize) -> bool {
        match segments.next() {
            None => release(&mut self.here, connection),
            Some(Segment::Rest) => release(&mut self.rest, connection),
            Some(Segment::One) => {
                let Some(node) = &mut self.one else { return false };
                let was_there = node.remove(segments, connection);
                if node.is_empty() {
                    self.one = None;
                }
                was_there
            }
            Some(Segment::Exact(text)) => {
                let Some(node) = self.exact.get_mut(text) else { return false };
                let was_there = node.remove(segments, connection);
                if node.is_empty() {
                    self.exact.remove(text);
                }
                was_there
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }
}

fn release(connections: &mut Connections, connection: usize) -> bool {
    let Some(count) = connections.get_mut(&connection) else { return false };
    *count -= 1;
    if *count == 0 {
        connections.remove(&connection);
    }
    true
}

/// The first segment, and the rest if there is one.
fn split(name: &str) -> (&str, Option<&str>) {
    match position(name.as_bytes(), |word| equal(word, b'/')) {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    fn matches(index: &Index, source: &str) -> Vec<usize> {
        let mut found = vec![99];
        index.matches(source, &mut found);
        found
    }

    #[test]
    fn a_connection_is_named_once() {
        let mut index = Index::new();
        for text in ["a/*", "a/**", "a/b", "**", "*/b", "a/b"] {
            index.insert(&pattern(text), 7);
        }
        index.insert(&pattern("a/b"), 3);
        assert_eq!(matches(&index, "a/b"), [3, 7]);
        assert_eq!(matches(&index, "c"), [7]);
        assert_eq!(matches(&index, "$sys"), [0; 0]);
        for text in ["a/*", "a/**", "a/b", "**", "*/b"] {
            assert!(index.remove(&pattern(text), 7));
        }
        assert_eq!(matches(&index, "a/b"), [3, 7], "one adding of a/b is left");
        assert!(index.remove(&pattern("a/b"), 7));
        assert!(!index.remove(&pattern("a/b"), 7));
        assert!(index.remove(&pattern("a/b"), 3));
        assert!(index.is_empty() && index.root.is_empty());
    }

    /// openobserve#13676: a reconnect storm left hundreds of watchers behind.
    #[test]
    fn a_reconnect_storm_leaves_nothing_behind() {
        let mut index = Index::new();
        for round in 0..20 {
            let patterns: Vec<_> = (0..500).map(|n| (n, pattern(&format!("room/{n}/*/x/**")))).collect();
            for (connection, pattern) in &patterns {
                index.insert(pattern, round * 1000 + connection);
            }
            for (connection, pattern) in &patterns {
                assert!(index.remove(pattern, round * 1000 + connection));
            }
        }
        assert!(index.is_empty() && index.root.is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_pattern_matches(
            patterns in proptest::collection::vec(("(([ab$]|\\*)/){0,3}([ab]|\\*|\\*\\*|\\$)", 0usize..6), 0..30),
            sources in proptest::collection::vec("([ab$]/){0,4}[ab$]", 1..20),
            removed in any::<prop::sample::Index>(),
        ) {
            let mut patterns: Vec<_> = patterns.iter().map(|(text, n)| (pattern(text), *n)).collect();
            let mut index = Index::new();
            for (pattern, connection) in &patterns {
                index.insert(pattern, *connection);
            }
            let keep = removed.index(patterns.len() + 1);
            for (pattern, connection) in patterns.split_off(keep) {
                prop_assert!(index.remove(&pattern, connection));
            }
            prop_assert_eq!(index.len(), patterns.len());
            // Twice, so that what is remembered is seen too, and all of one shard.
            for source in sources.iter().chain(&sources) {
                let mut want: Vec<usize> =
                    patterns.iter().filter(|(p, _)| p.matches(source)).map(|(_, n)| *n).collect();
                want.sort_unstable();
                want.dedup();
                prop_assert_eq!(&matches(&index, source), &want);
                let source = Source::parse(source).expect("a name");
                prop_assert_eq!(&**index.audience(7, &source), &want);
                prop_assert_eq!(&**index.audience(7, &source), &want);
            }
        }
    }
}
