//! Finds the connections that want a source: subscribers give patterns, and records bring names.
//!
//! The index is a trie whose levels are segments. A name walks down along at most two branches a level, the
//! child of its own segment and the child `*`, and collects on its way the connections of every `**` it
//! passes and of the patterns that end where it ends. So a search costs as much as there are patterns that
//! match (or nearly match), and patterns that have nothing in common with the name cost nothing.
//!
//! Results are cached for as long as no subscription is added or removed (`audience`).
//!
//! Rejected: a list of all patterns, because every record would be compared with each; and a cache from names
//! to connections without the trie, because one subscriber that comes and goes would empty it all the time.

mod audience;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::record::hash::NameState;
use crate::record::words::{equal, position};
use crate::record::{Pattern, Segment, Source};

pub use self::audience::Audience;
use self::audience::AudienceCache;

/// Up to this number of children are compared one by one, which is faster than hashing a segment.
const COMPARED_CHILDREN_MAX: usize = 4;

/// The patterns of the connections of one worker. A connection is identified by a number that the worker
/// chooses.
#[derive(Debug, Default)]
pub struct Index {
    root: TrieNode,
    len: usize,
    cache: AudienceCache,
}

/// For each connection, how many of its subscriptions have this pattern. It is ordered so that deliveries
/// happen in the same order in every run, and a tree so that removing many connections moves no memory.
type Connections = BTreeMap<usize, u32>;

#[derive(Debug, Default)]
struct TrieNode {
    exact: HashMap<Box<str>, TrieNode, NameState>,
    one: Option<Box<TrieNode>>,
    /// Connections whose patterns end at this node.
    here: Connections,
    /// Connections whose patterns end with one more segment `**` after this node.
    rest: Connections,
}

impl Index {
    /// Makes an empty index.
    pub fn new() -> Index {
        Index::default()
    }

    /// Returns the number of patterns in the index; a pattern that was inserted several times is counted each
    /// time.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no connection has a pattern.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pattern of a connection. It may be added several times and must then be removed as often.
    pub fn insert(&mut self, pattern: &Pattern, connection: usize) {
        self.cache.clear();
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

    /// Removes a pattern of a connection once. Returns `false` if the connection does not have it.
    pub fn remove(&mut self, pattern: &Pattern, connection: usize) -> bool {
        self.cache.clear();
        let was_there = self.root.remove(&mut pattern.segments(), connection);
        self.len -= usize::from(was_there);
        debug_assert_eq!(self.len == 0, self.root.is_empty(), "nodes exist exactly as long as patterns do");
        was_there
    }

    /// Returns the connections that want the source `source` of the map shard `shard`, from the cache if
    /// possible.
    pub fn audience(&mut self, shard: u16, source: &Source) -> &Audience {
        self.cache.get(shard, source, |found| self.root.matches(source.as_str(), found))
    }

    /// Replaces the content of `connections` by the connections that have a matching pattern, each once, in
    /// increasing order. Does not use the cache.
    pub fn matches(&self, source: &str, connections: &mut Vec<usize>) {
        self.root.matches(source, connections);
    }
}

impl TrieNode {
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
            // No wildcard matches a first segment that begins with `$`, so only the child with this name
            // counts.
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
        debug_assert!(connections.is_sorted_by(|a, b| a < b), "each connection once, in order");
    }

    /// Returns the child for exactly this segment.
    fn child(&self, segment: &str) -> Option<&TrieNode> {
        if self.exact.len() > COMPARED_CHILDREN_MAX {
            return self.exact.get(segment);
        }
        self.exact.iter().find(|(name, _)| ***name == *segment).map(|(_, node)| node)
    }

    /// Calls `take` with all lists of matching connections at and below this node. `name` holds the segments
    /// that are left; `None` means that the name ends here.
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

    /// Removes one insertion of a pattern. Nodes that become empty are removed on the way back, so that the
    /// index never holds more than its patterns need. The depth of the recursion is bounded by the number of
    /// segments that a pattern may have.
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
    debug_assert!(*count > 0, "a connection is listed only with the patterns that it has");
    *count -= 1;
    if *count == 0 {
        connections.remove(&connection);
    }
    true
}

/// Splits a name into its first segment and the rest, if there is one.
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

    /// In openobserve (#13676) a storm of reconnects left hundreds of watchers behind.
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
            // Every source is searched twice, so that the answer from the cache is compared too. All sources
            // use the same shard, so that they replace each other in it.
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
