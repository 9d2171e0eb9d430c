//! A cache of which connections want the sources that were asked for last.
//!
//! The same sources are published again and again, and mostly the same connections want them. Equal lists
//! made one after the other are one allocation, so that comparing two lists is comparing two addresses. Every
//! change of the index empties the cache; emptying an empty one costs nothing.

use std::sync::Arc;

use crate::limits::SHARDS;
use crate::record::Source;

/// The numbers of the connections that have at least one matching pattern, each once, in increasing order.
pub type Audience = Arc<[usize]>;

/// Most connections that all lists together may name: half a megabyte of numbers. A single longer list is
/// kept alone.
const CONNECTIONS_MAX: usize = 64 * 1024;

/// Number of places that the sources of one map shard share. A source replaces the one that had its place.
const PLACES_EACH: usize = 4;

/// Returns the place of a source. The last byte of its name decides, because similar names mostly differ in
/// it.
fn place_of(shard: u16, source: &Source) -> usize {
    let last = source.as_str().bytes().next_back().unwrap_or(0);
    PLACES_EACH * usize::from(shard) + usize::from(last) % PLACES_EACH
}

/// The lists that were made last, each with its source.
#[derive(Debug, Default)]
pub(super) struct AudienceCache {
    places: Vec<Option<(Source, Audience)>>,
    /// The list that was made last.
    last: Audience,
    /// Reused as the buffer into which the index writes what it finds.
    found: Vec<usize>,
    /// Number of connections that all lists made since the last clearing name together.
    connections: usize,
}

impl AudienceCache {
    /// Forgets every list.
    pub(super) fn clear(&mut self) {
        if !self.places.is_empty() {
            self.places.clear();
            self.last = Audience::default();
            self.connections = 0;
        }
    }

    /// Returns the connections that want the source `source` of the map shard `shard`. If they are not in the
    /// cache, `walk` is called to find them: it must replace the content of the list that it is given.
    pub(super) fn get(
        &mut self,
        shard: u16,
        source: &Source,
        walk: impl FnOnce(&mut Vec<usize>),
    ) -> &Audience {
        let place = place_of(shard, source);
        let is_known = matches!(self.places.get(place), Some(Some((known, _))) if known == source);
        if !is_known {
            let mut found = std::mem::take(&mut self.found);
            walk(&mut found);
            self.keep(place, source, &found);
            self.found = found;
        }
        match self.places.get(place) {
            Some(Some((_, audience))) => audience,
            _ => &self.last,
        }
    }

    /// Keeps the connections that were found for a source at its place.
    fn keep(&mut self, place: usize, source: &Source, connections: &[usize]) {
        if *self.last != *connections {
            if self.connections + connections.len() > CONNECTIONS_MAX {
                self.clear();
            }
            self.connections += connections.len();
            self.last = connections.into();
            debug_assert!(self.connections <= CONNECTIONS_MAX || self.connections == connections.len());
        }
        if self.places.is_empty() {
            self.places.resize(PLACES_EACH * SHARDS, None);
        }
        if let Some(place) = self.places.get_mut(place) {
            *place = Some((source.clone(), self.last.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::record::Pattern;
    use crate::subscriptions::{Index, Role};

    fn source(name: &str) -> Source {
        Source::parse(name).expect("a name")
    }

    #[test]
    fn whoever_comes_or_goes_is_seen_at_once() {
        let (mut index, room) = (Index::default(), source("room/1"));
        for round in 0..3 {
            let (one, all) = (Pattern::parse("room/*").expect("good"), Pattern::parse("**").expect("good"));
            assert!(index.audience(5, &room).is_empty(), "round {round}");
            assert!(index.insert(from_ref(&one), 7, Role::Whole).is_ok());
            assert_eq!(index.audience(5, &room)[..], [7]);
            assert!(index.insert(from_ref(&all), 3, Role::Whole).is_ok());
            assert_eq!(index.audience(5, &room)[..], [3, 7]);
            assert_eq!(index.audience(5, &source("hall"))[..], [3], "another source of the shard");
            assert_eq!(index.audience(5, &room)[..], [3, 7]);
            assert!(index.remove(&one, 7, Role::Whole));
            assert_eq!(index.audience(5, &room)[..], [3]);
            assert!(index.remove(&all, 3, Role::Whole));
        }
    }

    #[test]
    fn equal_lists_are_one_and_all_of_them_stay_within_the_bound() {
        let mut cache = AudienceCache::default();
        let many: Vec<usize> = (0..CONNECTIONS_MAX / 4).collect();
        let all = cache.get(0, &source("a"), |found| found.clone_from(&many)).clone();
        let same = cache.get(1, &source("b"), |found| found.clone_from(&many)).clone();
        assert!(Arc::ptr_eq(&all, &same));
        for number in 0..100u16 {
            let own: Vec<usize> = (usize::from(number)..many.len()).collect();
            let audience = cache.get(number, &source(&format!("s/{number}")), |found| found.clone_from(&own));
            assert_eq!(audience[..], own[..]);
            let mut lists: Vec<&Audience> = cache.places.iter().flatten().map(|(_, list)| list).collect();
            lists.sort_by_key(|list| list.as_ptr());
            lists.dedup_by(|a, b| Arc::ptr_eq(a, b));
            let held: usize = lists.iter().map(|list| list.len()).sum();
            assert!(held <= CONNECTIONS_MAX, "{held}");
        }
    }
}
