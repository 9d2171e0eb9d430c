//! The trie of the index: a node is a place in a pattern, and its children are the segments that may follow.
//!
//! Most nodes have few children and belong to one connection, so both are kept without a table in that case.
//! A node takes 64 bytes. Children of a node that has many are found by a hash of their segment. The hash is
//! seeded with a number that clients do not know, because otherwise a client could choose segments that all
//! have the same hash, and every search would compare all of them.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::role::Listed;
use crate::record::Segment;
use crate::record::words::{equal, position};

/// Up to this number of children are compared one by one, which is faster than hashing a segment.
const COMPARED_CHILDREN_MAX: usize = 4;

/// Most bytes that the allocator adds to an allocation.
const ALLOCATION_BYTES: usize = 16;

/// Bytes of a node that is reached by `*`.
pub(super) const ONE_NODE_BYTES: usize = size_of::<TrieNode>() + ALLOCATION_BYTES;

/// Bytes of a node that is reached by the text of a segment, without that text: the node, the allocation of
/// the text, and a slot of its parent's table, of which at least seven of sixteen are in use while it grows.
pub(super) const EXACT_NODE_BYTES: usize =
    ONE_NODE_BYTES + ALLOCATION_BYTES + (size_of::<Child>() + 1) * 16 / 7 + 1;

/// Bytes of a connection in the list of a node: a list of two is half a leaf of a B-tree for each.
pub(super) const LISTED_BYTES: usize = 96;

const _: () = assert!(size_of::<TrieNode>() == 64);

/// A place in a pattern.
#[derive(Debug, Default)]
pub(super) struct TrieNode {
    exact: Children,
    one: Option<Box<TrieNode>>,
    /// Connections whose patterns end at this node.
    here: Connections,
    /// Connections whose patterns end with one more segment `**` after this node.
    rest: Connections,
}

impl TrieNode {
    /// Adds a pattern of a connection in a role. `seed` is the seed of the hashes, the same in every call.
    pub(super) fn insert<'a>(
        &mut self,
        segments: impl Iterator<Item = Segment<'a>>,
        listed: Listed,
        seed: u64,
    ) {
        let mut node = self;
        for segment in segments {
            node = match segment {
                Segment::Exact(text) => node.exact.get_or_insert(text, seed),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => return node.rest.add(listed),
            };
        }
        node.here.add(listed);
    }

    /// Removes one insertion of a pattern. Nodes that become empty are removed on the way back, so that the
    /// index never holds more than its patterns need. The depth of the recursion is bounded by the number of
    /// segments that a pattern may have.
    pub(super) fn remove<'a>(
        &mut self,
        segments: &mut impl Iterator<Item = Segment<'a>>,
        listed: Listed,
    ) -> bool {
        match segments.next() {
            None => self.here.release(listed),
            Some(Segment::Rest) => self.rest.release(listed),
            Some(Segment::One) => {
                let Some(node) = &mut self.one else { return false };
                let was_there = node.remove(segments, listed);
                if node.is_empty() {
                    self.one = None;
                }
                was_there
            }
            Some(Segment::Exact(text)) => {
                let Some(node) = self.exact.get_mut(text) else { return false };
                let was_there = node.remove(segments, listed);
                if node.is_empty() {
                    self.exact.remove(text);
                }
                was_there
            }
        }
    }

    /// Returns the list of a pattern that is in the trie.
    pub(super) fn list_of<'a>(
        &mut self,
        segments: impl Iterator<Item = Segment<'a>>,
    ) -> Option<&mut Connections> {
        let mut node = self;
        for segment in segments {
            node = match segment {
                Segment::Exact(text) => node.exact.get_mut(text)?,
                Segment::One => node.one.as_mut()?,
                Segment::Rest => return Some(&mut node.rest),
            };
        }
        Some(&mut node.here)
    }

    /// Returns whether no pattern ends at this node or below.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// Returns whether no pattern tells one source from another, those beginning with `$` left out: there is none but
    /// `**`. To be called at the root.
    pub(super) fn takes_all_alike(&self) -> bool {
        self.exact.is_empty() && self.one.is_none()
    }

    /// Replaces the content of `connections` by the connections that have a pattern that matches `source`,
    /// each once, in increasing order. To be called at the root.
    pub(super) fn matches(&self, source: &str, connections: &mut Vec<usize>) {
        connections.clear();
        let mut lists = 0;
        self.visit(source, &mut |list: &Connections| {
            if !list.is_empty() {
                lists += 1;
                list.append_to(connections);
            }
        });
        if lists > 1 {
            connections.sort_unstable();
            connections.dedup();
        }
        debug_assert!(connections.is_sorted_by(|a, b| a < b), "each connection once, in order");
    }

    /// Calls `take` once for every node that the search of `source` visits, with a list of connections that
    /// match. The list may be empty.
    pub(super) fn visit(&self, source: &str, take: &mut impl FnMut(&Connections)) {
        if !source.starts_with('$') {
            return self.collect(Some(source.as_bytes()), take);
        }
        // No wildcard matches a first segment that begins with `$`, so only the child with this name counts.
        let (first, others) = split(source.as_bytes());
        if let Some(node) = self.exact.get(first) {
            node.collect(others, take);
        }
    }

    /// Calls `take` with all lists of matching connections at and below this node. `name` holds the segments
    /// that are left; `None` means that the name ends here.
    fn collect(&self, name: Option<&[u8]>, take: &mut impl FnMut(&Connections)) {
        let Some(name) = name else { return take(&self.here) };
        take(&self.rest);
        if self.exact.is_empty() && self.one.is_none() {
            return;
        }
        let (first, others) = split(name);
        if let Some(node) = self.exact.get(first) {
            node.collect(others, take);
        }
        if let Some(node) = &self.one {
            node.collect(others, take);
        }
    }
}

/// Splits a name into its first segment and the rest, if there is one. Names are taken apart as bytes, because cutting
/// a text anew looks each time at whether a character ends there.
#[inline]
fn split(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    let parts = position(name, |word| equal(word, b'/')).and_then(|at| name.split_at_checked(at));
    match parts {
        Some((first, [_, others @ ..])) => (first, Some(others)),
        _ => (name, None),
    }
}

/// A segment and the node that it leads to.
type Child = (Box<str>, Box<TrieNode>);

/// The children of a node that are reached by the text of a segment.
#[derive(Debug)]
enum Children {
    /// At most [`COMPARED_CHILDREN_MAX`], in no order.
    Few(Vec<Child>),
    /// More children. The table stays until half of [`COMPARED_CHILDREN_MAX`] are left.
    Many(Box<Table>),
}

/// Many children, found by the hashes of their segments.
#[derive(Debug)]
struct Table {
    seed: u64,
    slots: HashTable<Child>,
}

impl Default for Children {
    fn default() -> Children {
        Children::Few(Vec::new())
    }
}

impl Children {
    fn is_empty(&self) -> bool {
        match self {
            Children::Few(list) => list.is_empty(),
            Children::Many(_) => false,
        }
    }

    #[inline]
    fn get(&self, segment: &[u8]) -> Option<&TrieNode> {
        let is_it = |(name, _): &Child| name.as_bytes() == segment;
        let child = match self {
            Children::Few(list) => list.iter().find(|child| is_it(child)),
            Children::Many(table) => table.slots.find(hash_of(segment, table.seed), is_it),
        };
        child.map(|(_, node)| &**node)
    }

    fn get_mut(&mut self, segment: &str) -> Option<&mut TrieNode> {
        let child = match self {
            Children::Few(list) => list.iter_mut().find(|(name, _)| **name == *segment),
            Children::Many(table) => {
                let hash = hash_of(segment.as_bytes(), table.seed);
                table.slots.find_mut(hash, |(name, _)| **name == *segment)
            }
        };
        child.map(|(_, node)| &mut **node)
    }

    fn get_or_insert(&mut self, segment: &str, seed: u64) -> &mut TrieNode {
        if let Children::Few(list) = self
            && list.len() == COMPARED_CHILDREN_MAX
            && list.iter().all(|(name, _)| **name != *segment)
        {
            *self = Children::Many(Box::new(Table::new(seed, list)));
        }
        let new = || (segment.into(), Box::default());
        match self {
            Children::Few(list) => {
                let at = list.iter().position(|(name, _)| **name == *segment).unwrap_or_else(|| {
                    list.reserve_exact(1);
                    list.push(new());
                    list.len() - 1
                });
                &mut list[at].1
            }
            Children::Many(table) => {
                let seed = table.seed;
                let hash = hash_of(segment.as_bytes(), seed);
                let is_it = |(name, _): &Child| **name == *segment;
                let entry = table.slots.entry(hash, is_it, |(name, _)| hash_of(name.as_bytes(), seed));
                &mut entry.or_insert_with(new).into_mut().1
            }
        }
    }

    /// Removes a child, and gives back the memory that the remaining ones do not need. A table shrinks only
    /// when most of it is unused, so that the cost for each removal is constant on average.
    fn remove(&mut self, segment: &str) {
        match self {
            Children::Few(list) => {
                list.retain(|(name, _)| **name != *segment);
                list.shrink_to_fit();
            }
            Children::Many(table) => {
                let seed = table.seed;
                let hash = hash_of(segment.as_bytes(), seed);
                if let Ok(entry) = table.slots.find_entry(hash, |(name, _)| **name == *segment) {
                    entry.remove();
                }
                let len = table.slots.len();
                if len <= COMPARED_CHILDREN_MAX / 2 {
                    *self = Children::Few(table.slots.drain().collect());
                } else if 4 * len < table.slots.capacity() {
                    table.slots.shrink_to(2 * len, |(name, _)| hash_of(name.as_bytes(), seed));
                }
            }
        }
    }
}

impl Table {
    fn new(seed: u64, children: &mut Vec<Child>) -> Table {
        let mut slots = HashTable::with_capacity(children.len() + 1);
        for child in children.drain(..) {
            slots.insert_unique(hash_of(child.0.as_bytes(), seed), child, |(name, _)| {
                hash_of(name.as_bytes(), seed)
            });
        }
        Table { seed, slots }
    }
}

fn hash_of(segment: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(segment, seed)
}

/// The connections whose patterns end at a place, each in its roles, with the number of insertions of each.
#[derive(Debug, Default)]
pub(super) enum Connections {
    #[default]
    None,
    One {
        listed: Listed,
        insertions: u32,
    },
    /// At least two connections, or one in at least two roles.
    Many(Box<Counts>),
}

/// Numbers of insertions by connection and role. It is a tree so that removing many connections moves no memory.
#[derive(Debug)]
pub(super) struct Counts(BTreeMap<Listed, u32>);

impl Connections {
    fn is_empty(&self) -> bool {
        matches!(self, Connections::None)
    }

    fn append_to(&self, connections: &mut Vec<usize>) {
        match self {
            Connections::None => {}
            Connections::One { listed, .. } => connections.push(listed.connection()),
            Connections::Many(counts) => {
                let mut last = usize::MAX;
                for listed in counts.0.keys() {
                    let connection = listed.connection();
                    if connection != last {
                        connections.push(connection);
                        last = connection;
                    }
                }
            }
        }
    }

    /// Returns the first and the last entry from `least` to `most`, if there is one.
    pub(super) fn ends(&self, least: Listed, most: Listed) -> Option<(Listed, Listed)> {
        match self {
            Connections::One { listed, .. } if (least..=most).contains(listed) => Some((*listed, *listed)),
            Connections::None | Connections::One { .. } => None,
            Connections::Many(counts) => {
                let mut between = counts.0.range(least..=most);
                let (first, _) = between.next()?;
                Some((*first, between.next_back().map_or(*first, |(last, _)| *last)))
            }
        }
    }

    pub(super) fn add(&mut self, new: Listed) {
        match self {
            Connections::None => *self = Connections::One { listed: new, insertions: 1 },
            Connections::One { listed, insertions } if *listed == new => *insertions += 1,
            Connections::One { listed, insertions } => {
                let counts = BTreeMap::from([(*listed, *insertions), (new, 1)]);
                *self = Connections::Many(Box::new(Counts(counts)));
            }
            Connections::Many(counts) => *counts.0.entry(new).or_default() += 1,
        }
    }

    /// Takes back one insertion. Returns whether there was one.
    pub(super) fn release(&mut self, gone: Listed) -> bool {
        match self {
            Connections::One { listed, insertions } if *listed == gone => {
                debug_assert!(*insertions > 0, "a connection is listed only with the patterns that it has");
                *insertions -= 1;
                if *insertions == 0 {
                    *self = Connections::None;
                }
                true
            }
            Connections::None | Connections::One { .. } => false,
            Connections::Many(counts) => {
                let Some(insertions) = counts.0.get_mut(&gone) else { return false };
                debug_assert!(*insertions > 0, "a connection is listed only with the patterns that it has");
                *insertions -= 1;
                if *insertions == 0 {
                    counts.0.remove(&gone);
                }
                if counts.0.len() == 1
                    && let Some((listed, insertions)) = counts.0.pop_first()
                {
                    *self = Connections::One { listed, insertions };
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Pattern;
    use crate::subscriptions::Role;

    impl TrieNode {
        /// Bytes that this node and all below it hold, as the allocator counts them.
        fn bytes(&self) -> usize {
            let (children, table): (Vec<&Child>, usize) = match &self.exact {
                Children::Few(list) => (list.iter().collect(), list.capacity() * size_of::<Child>()),
                Children::Many(table) => (table.slots.iter().collect(), table.slots.allocation_size()),
            };
            let below = children.iter().map(|(name, node)| name.len() + ALLOCATION_BYTES + node.bytes());
            let one = self.one.as_ref().map_or(0, |node| node.bytes());
            size_of::<TrieNode>() + ALLOCATION_BYTES + table + below.sum::<usize>() + one
        }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    fn listed(connection: usize) -> Listed {
        Listed::new(connection, Role::Whole)
    }

    #[test]
    fn what_a_node_is_said_to_hold_is_not_less_than_what_it_holds() {
        for count in [1, 2, 4, 5, 8, 15, 29, 113, 1_000, 8_000] {
            let mut root = TrieNode::default();
            for number in 0..count {
                root.insert(pattern(&format!("room/{number:05}/*")).segments(), listed(1), 7);
            }
            let said = 3 * EXACT_NODE_BYTES + count * (EXACT_NODE_BYTES + 5 + ONE_NODE_BYTES);
            assert!(root.bytes() <= said, "{count}: {} > {said}", root.bytes());
        }
    }

    /// A table that kept its size would let a client grow many of them and pay for the few children that it
    /// leaves in each.
    #[test]
    fn tables_shrink_when_children_leave() {
        let mut root = TrieNode::default();
        let patterns: Vec<_> = (0..5_000).map(|number| pattern(&format!("{number:04}"))).collect();
        for pattern in &patterns {
            root.insert(pattern.segments(), listed(1), 7);
        }
        for (at, pattern) in patterns.iter().enumerate().rev() {
            assert!(root.remove(&mut pattern.segments(), listed(1)));
            let bound = 512 + at * 2 * (EXACT_NODE_BYTES + 4);
            assert!(root.bytes() <= bound, "{at} left: {} > {bound}", root.bytes());
            let (mut found, last) = (Vec::new(), format!("{:04}", at.saturating_sub(1)));
            root.matches(&last, &mut found);
            assert_eq!(found.len(), at.min(1), "{last}");
        }
        assert!(root.is_empty());
    }

    #[test]
    fn lists_hold_each_connection_as_often_as_it_came() {
        let mut list = Connections::default();
        for connection in [5, 3, 5, 9] {
            list.add(listed(connection));
        }
        let held = |list: &Connections| {
            let mut held = Vec::new();
            list.append_to(&mut held);
            held
        };
        assert_eq!(held(&list), [3, 5, 9]);
        assert!(!list.release(listed(4)));
        assert!(list.release(listed(9)) && list.release(listed(3)));
        assert_eq!(held(&list), [5]);
        assert!(list.release(listed(5)) && !list.is_empty() && !list.release(listed(3)));
        assert!(list.release(listed(5)) && list.is_empty() && !list.release(listed(5)));
    }
}
