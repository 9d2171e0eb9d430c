//! Finds the connections that want a source: subscribers give patterns, and records bring names.
//!
//! The index is a trie whose levels are segments (`trie`). A name walks down along at most two branches a
//! level, the child of its own segment and the child `*`, and collects on its way the connections of every
//! `**` it passes and of the patterns that end where it ends. So a search costs as much as there are patterns
//! that match (or nearly match), and patterns that have nothing in common with the name cost nothing.
//!
//! Two branches at each of 16 levels are 65,536 paths. A client that subscribed to all patterns of `*` and `a`
//! made every matching record cost 27 ms. So the number of paths is bounded when a client subscribes
//! (`admission`): the search for one record visits at most [`SEARCH_NODES_MAX`] nodes, whatever patterns
//! clients choose, and finds each connection at most 65 times. With 268,000 patterns that were chosen to make it
//! long, a search took 87 µs.
//!
//! Results are cached for as long as no subscription is added or removed (`audience`).
//!
//! Rejected for the index:
//!
//! - A list of all patterns, because every record would be compared with each.
//! - A cache from names to connections without the trie, because one subscriber that comes and goes would
//!   empty it all the time.
//! - One hash table for each shape of patterns. It needs less memory, but every record would pay for every
//!   shape in use, while the trie visits only those that begin like the name.
//!
//! Rejected for the bound:
//!
//! - Counting for each node how many paths the worst name could take below it. That refuses fewer patterns,
//!   but one client could use up the budget of all, even for plain patterns, and a removal would have to find
//!   the next worst among up to 100,000 children.
//! - Continuing a long search with bit sets: for each segment of the name, the set of patterns that accept it,
//!   and the intersection of all of them. That refuses nothing and processes 64 patterns at a time, but it is
//!   a second index that needs as much memory again, and one connection could still be found once for each of
//!   its patterns.
//! - A bound without plain patterns, only on the number of all shapes. A few clients could use it up, and then
//!   ordinary patterns of others would be refused.

mod admission;
mod audience;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod leaving;
mod role;
mod trie;

use std::slice::from_ref;

use crate::limits::{INTRICATE_SHAPES_PER_WORKER_MAX, PLAIN_WILDCARDS_MAX, SOURCE_SEGMENTS_MAX};
use crate::record::{Pattern, Source};

use self::admission::Admission;
pub use self::admission::{Excess, bytes_of};
pub use self::audience::Audience;
use self::audience::AudienceCache;
use self::leaving::Leaving;
pub use self::leaving::LeavingPattern;
use self::role::Listed;
pub use self::role::{FilterSlot, FilteredRole, Role, SLOT_MAX, SlotSet, Wants};
use self::trie::TrieNode;

/// Most nodes that the search for one record visits: those that plain patterns can lead to, and those that each
/// intricate shape adds after its third `*`.
pub const SEARCH_NODES_MAX: usize =
    plain_nodes() + INTRICATE_SHAPES_PER_WORKER_MAX * (SOURCE_SEGMENTS_MAX - PLAIN_WILDCARDS_MAX as usize);

/// Returns how many nodes the search for one name can reach through patterns with at most
/// [`PLAIN_WILDCARDS_MAX`] `*`. Each of them stands for a number of segments and a choice of those that are
/// `*`, because the others must be as in the name.
const fn plain_nodes() -> usize {
    let (mut nodes, mut segments) = (0, 0);
    while segments <= SOURCE_SEGMENTS_MAX {
        // Number of ways to choose which `ones` of the segments are `*`.
        let (mut choices, mut ones) = (1, 0);
        while ones <= PLAIN_WILDCARDS_MAX as usize && ones <= segments {
            nodes += choices;
            choices = choices * (segments - ones) / (ones + 1);
            ones += 1;
        }
        segments += 1;
    }
    nodes
}

const _: () = assert!(SEARCH_NODES_MAX <= 4_096, "a search must not take much more than 100 microseconds");

/// The patterns of the connections of one worker. A connection is identified by a number that the worker
/// chooses.
#[derive(Debug, Default)]
pub struct Index {
    root: TrieNode,
    /// Seed of the hashes of segments.
    seed: u64,
    len: usize,
    admission: Admission,
    cache: AudienceCache,
    leaving: Leaving,
}

impl Index {
    /// Makes an empty index. Clients must not be able to guess the seed of its hashes.
    pub fn seeded(seed: u64) -> Index {
        Index { seed, ..Index::default() }
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

    /// Returns how many bytes all patterns hold, here and in the sessions. What connections share is counted
    /// for each, so it is an upper bound.
    pub fn bytes(&self) -> usize {
        self.admission.bytes()
    }

    /// Returns how many bytes the patterns of one connection hold, here and in its session.
    pub fn bytes_of(&self, connection: usize) -> usize {
        self.admission.bytes_of_connection(connection)
    }

    /// Adds patterns of a connection in a role, or none of them if they exceed a bound. A pattern may be added
    /// several times and must then be removed as often.
    pub fn insert(
        &mut self,
        patterns: &[Pattern],
        connection: usize,
        role: impl Into<FilteredRole>,
    ) -> Result<(), Excess> {
        let listed = Listed::new(connection, role);
        self.admission.admit(patterns, connection)?;
        self.cache.clear();
        for pattern in patterns {
            self.root.insert(pattern.segments(), listed, self.seed);
        }
        self.len += patterns.len();
        Ok(())
    }

    /// Removes a pattern of a connection in a role once. Returns `false` if the connection does not have it.
    pub fn remove(&mut self, pattern: &Pattern, connection: usize, role: impl Into<FilteredRole>) -> bool {
        let was_there = self.root.remove(&mut pattern.segments(), Listed::new(connection, role));
        if was_there {
            self.cache.clear();
            self.admission.release(pattern, connection);
            self.len -= 1;
        }
        debug_assert_eq!(self.len == 0, self.root.is_empty(), "nodes exist exactly as long as patterns do");
        debug_assert_eq!(self.len == 0, self.admission.bytes() == 0, "patterns hold bytes");
        was_there
    }

    /// Lists patterns that a connection has in the role `old` in the role `new` instead.
    pub fn change_role(
        &mut self,
        patterns: &[Pattern],
        connection: usize,
        old: FilteredRole,
        new: FilteredRole,
    ) {
        for pattern in patterns {
            let Some(list) = self.root.list_of(pattern.segments()) else { continue };
            let was_there = list.release(Listed::new(connection, old));
            debug_assert!(was_there, "a pattern is listed in the role that it has");
            list.add(Listed::new(connection, new));
        }
    }

    /// Lists patterns that a connection has in one more role. That role must be taken away again
    /// ([`Index::take_role`]) before the pattern is removed.
    pub fn add_role(&mut self, patterns: &[Pattern], connection: usize, role: FilteredRole) {
        for pattern in patterns {
            if let Some(list) = self.root.list_of(pattern.segments()) {
                list.add(Listed::new(connection, role));
            }
        }
    }

    /// Takes a role away that was added ([`Index::add_role`]).
    pub fn take_role(&mut self, patterns: &[Pattern], connection: usize, role: FilteredRole) {
        for pattern in patterns {
            if let Some(list) = self.root.list_of(pattern.segments()) {
                let was_there = list.release(Listed::new(connection, role));
                debug_assert!(was_there, "a pattern is listed in the role that it has");
            }
        }
    }

    /// Returns the roles in which a connection wants a source, of subscriptions with these filters. The search visits as few nodes as the one for all
    /// connections, and looks into the list of each for this connection alone.
    pub fn wants(&self, source: &str, connection: usize, slots: SlotSet) -> Wants {
        let mut wants = Wants::default();
        self.root.visit(source, &mut |list| {
            for slot in slots.iter() {
                wants.add(connection, slot, |least, most| list.ends(least, most));
            }
        });
        wants
    }

    /// Takes over the patterns of a connection that is gone, to be removed in parts by [`Index::sweep`]. Its number
    /// must not be given to another connection while [`Index::is_leaving`].
    pub fn leave(&mut self, connection: usize, patterns: Vec<LeavingPattern>) {
        self.leaving.add(connection, patterns);
    }

    /// Returns whether patterns of this connection are still to be removed.
    pub fn is_leaving(&self, connection: usize) -> bool {
        self.leaving.has(connection)
    }

    /// Returns whether patterns of any connection are still to be removed.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Removes up to `count` patterns of connections that are gone. Returns whether any are left.
    pub fn sweep(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some((connection, gone)) = self.leaving.next() else { return false };
            let LeavingPattern { pattern, role, is_extra } = gone;
            if is_extra {
                self.take_role(from_ref(&pattern), connection, role);
            } else {
                let was_there = self.remove(&pattern, connection, role);
                debug_assert!(was_there, "a connection has the patterns with which it leaves");
            }
        }
        !self.leaving.is_empty()
    }

    /// Returns the connections that want the source, from the cache if possible.
    pub fn audience(&mut self, source: &Source) -> &Audience {
        let walk = |found: &mut Vec<usize>| self.root.matches(source.as_str(), found);
        match self.root.takes_all_alike() && !source.as_str().starts_with('$') {
            true => self.cache.get_common(walk),
            false => self.cache.get(source, walk),
        }
    }

    /// Replaces the content of `connections` by the connections that have a matching pattern, each once, in
    /// increasing order. Does not use the cache.
    pub fn matches(&self, source: &str, connections: &mut Vec<usize>) {
        self.root.matches(source, connections);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    fn insert(index: &mut Index, text: &str, connection: usize) {
        assert_eq!(index.insert(&[pattern(text)], connection, Role::Whole), Ok(()), "{text}");
    }

    fn matches(index: &Index, source: &str) -> Vec<usize> {
        let mut found = vec![99];
        index.matches(source, &mut found);
        found
    }

    #[test]
    fn a_connection_is_named_once() {
        let mut index = Index::default();
        for text in ["a/*", "a/**", "a/b", "**", "*/b", "a/b"] {
            insert(&mut index, text, 7);
        }
        insert(&mut index, "a/b", 3);
        assert_eq!(matches(&index, "a/b"), [3, 7]);
        assert_eq!(matches(&index, "c"), [7]);
        assert_eq!(matches(&index, "$sys"), [0; 0]);
        for text in ["a/*", "a/**", "a/b", "**", "*/b"] {
            assert!(index.remove(&pattern(text), 7, Role::Whole));
        }
        assert_eq!(matches(&index, "a/b"), [3, 7], "one adding of a/b is left");
        assert!(index.remove(&pattern("a/b"), 7, Role::Whole));
        assert!(!index.remove(&pattern("a/b"), 7, Role::Whole));
        assert!(index.remove(&pattern("a/b"), 3, Role::Whole));
        assert!(index.is_empty() && index.root.is_empty());
    }

    /// In openobserve (#13676) a storm of reconnects left hundreds of watchers behind.
    #[test]
    fn a_reconnect_storm_leaves_nothing_behind() {
        let mut index = Index::default();
        for round in 0..20 {
            let patterns: Vec<_> = (0..500).map(|n| (n, pattern(&format!("room/{n}/*/x/**")))).collect();
            for (connection, pattern) in &patterns {
                assert!(index.insert(from_ref(pattern), round * 1000 + connection, Role::Whole).is_ok());
            }
            for (connection, pattern) in &patterns {
                assert!(index.remove(pattern, round * 1000 + connection, Role::Whole));
            }
        }
        assert!(index.is_empty() && index.root.is_empty());
    }

    /// Patterns of 16 segments, of which those whose bit is set are `*` and the others `a`.
    fn masked(mask: u16) -> Pattern {
        let segments: Vec<_> = (0..16).map(|at| if mask & (1 << at) == 0 { "a" } else { "*" }).collect();
        pattern(&segments.join("/"))
    }

    /// One connection subscribed to all 65,536 patterns of 16 segments that are `*` or `a`. Every search
    /// visited twice as many nodes.
    #[test]
    fn a_search_is_short_whatever_clients_subscribe_to() {
        let mut index = Index::seeded(5);
        let mut by_ones: Vec<u16> = (0..=u16::MAX).collect();
        by_ones.sort_by_key(|mask| mask.count_ones());
        let (mut connection, mut crowded) = (0, 0);
        for mask in by_ones {
            let with_rest = pattern(&(masked(mask >> 1).as_str()[2..].to_owned() + "/**"));
            for pattern in [masked(mask), with_rest] {
                loop {
                    match index.insert(from_ref(&pattern), connection, Role::Whole) {
                        Ok(()) => break,
                        Err(Excess::Crowded) => {
                            crowded += 1;
                            break;
                        }
                        Err(Excess::Shapes | Excess::Intricate) => connection += 1,
                        Err(excess) => panic!("{excess}"),
                    }
                }
            }
        }
        assert!(crowded > 100_000, "{crowded}");
        let name = ["a"; 16].join("/");
        let mut visited = 0;
        index.root.visit(&name, &mut |_| visited += 1);
        assert!((3_213..=SEARCH_NODES_MAX).contains(&visited), "{visited} of {SEARCH_NODES_MAX}");
        let found = matches(&index, &name);
        assert!(found.len() > 10 && found.iter().all(|number| *number <= connection));
    }

    #[test]
    fn a_refused_insertion_changes_nothing() {
        let mut index = Index::default();
        insert(&mut index, "a/*", 1);
        let bytes = index.bytes();
        let many: Vec<_> = (0..100).map(masked).collect();
        assert_eq!(index.insert(&many, 1, Role::Whole), Err(Excess::Intricate));
        assert_eq!((index.len(), index.bytes(), index.bytes_of(1)), (1, bytes, bytes));
        assert_eq!(matches(&index, &["a"; 16].join("/")), [0; 0]);
        assert_eq!(matches(&index, "a/b"), [1]);
        assert!(!index.remove(&many[0], 1, Role::Whole) && index.remove(&pattern("a/*"), 1, Role::Whole));
        assert_eq!(index.bytes(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_pattern_matches(
            patterns in proptest::collection::vec(("(([ab$]|\\*)/){0,3}([ab]|\\*|\\*\\*|\\$)", 0usize..6), 0..30),
            sources in proptest::collection::vec("([ab$]/){0,4}[ab$]", 1..20),
            removed in any::<prop::sample::Index>(),
        ) {
            let mut patterns: Vec<_> = patterns.iter().map(|(text, n)| (pattern(text), *n)).collect();
            let mut index = Index::default();
            for (pattern, connection) in &patterns {
                prop_assert!(index.insert(from_ref(pattern), *connection, Role::Whole).is_ok());
            }
            let keep = removed.index(patterns.len() + 1);
            for (pattern, connection) in patterns.split_off(keep) {
                prop_assert!(index.remove(&pattern, connection, Role::Whole));
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
                prop_assert_eq!(&**index.audience(&source), &want);
                prop_assert_eq!(&**index.audience(&source), &want);
            }
        }
    }
}
