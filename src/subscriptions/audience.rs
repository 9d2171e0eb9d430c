//! Who wanted the sources that were asked for last.
//!
//! Sources come again and again, and mostly the same connections want them: lists that are the same in
//! a row are one, so that whoever compares two compares two addresses. Whatever is changed in the index
//! empties the memory, which costs nothing where nobody asked in between.

use std::sync::Arc;

use crate::limits::SHARDS;
use crate::record::Source;

/// Connections with a pattern that matches, each named once, in the order of their numbers.
pub type Audience = Arc<[usize]>;

/// Connections that all lists may name together, half a megabyte of them, unless one names more by itself.
const CONNECTIONS_MAX: usize = 64 * 1024;

/// Places that the sources of a shard share: one that comes takes the place of the one before.
const PLACES_EACH: usize = 4;

/// Names that are alike differ at their ends.
fn place_of(shard: u16, source: &Source) -> usize {
    let last = source.as_str().bytes().next_back().unwrap_or(0);
    PLACES_EACH * usize::from(shard) + usize::from(last) % PLACES_EACH
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    places: Vec<Option<(Source, Audience)>>,
    /// The list that was made last.
    last: Audience,
    /// For what a walk finds.
    found: Vec<usize>,
    /// Connections named by the lists made since it was empty.
    connections: usize,
}

impl Remembered {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        if !self.places.is_empty() {
            self.places.clear();
            self.last = Audience::default();
            self.connections = 0;
        }
    }

    /// Who wants a source of this shard. Where it is not remembered, `walk` replaces what is in a list by it.
    pub(super) fn of(
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

    fn keep(&mut self, place: usize, source: &Source, connections: &[usize]) {
        if *self.last != *connections {
            if self.connections + connections.len() > CONNECTIONS_MAX {
                self.clear();
            }
            self.connections += connections.len();
            self.last = connections.into();
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
    use super::*;
    use crate::record::Pattern;
    use crate::subscriptions::Index;

    fn source(name: &str) -> Source {
        Source::parse(name).expect("a name")
    }

    #[test]
    fn whoever_comes_or_goes_is_seen_at_once() {
        let (mut index, room) = (Index::new(), source("room/1"));
        for round in 0..3 {
            let (one, all) = (Pattern::parse("room/*").expect("good"), Pattern::parse("**").expect("good"));
            assert!(index.audience(5, &room).is_empty(), "round {round}");
            index.insert(&one, 7);
            assert_eq!(index.audience(5, &room)[..], [7]);
            index.insert(&all, 3);
            assert_eq!(index.audience(5, &room)[..], [3, 7]);
            assert_eq!(index.audience(5, &source("hall"))[..], [3], "another source of the shard");
            assert_eq!(index.audience(5, &room)[..], [3, 7]);
            assert!(index.remove(&one, 7));
            assert_eq!(index.audience(5, &room)[..], [3]);
            assert!(index.remove(&all, 3));
        }
    }

    #[test]
    fn equal_lists_are_one_and_all_of_them_stay_within_the_bound() {
        let mut remembered = Remembered::default();
        let many: Vec<usize> = (0..CONNECTIONS_MAX / 4).collect();
        let all = remembered.of(0, &source("a"), |found| found.clone_from(&many)).clone();
        let same = remembered.of(1, &source("b"), |found| found.clone_from(&many)).clone();
        assert!(Arc::ptr_eq(&all, &same));
        for number in 0..100u16 {
            let own: Vec<usize> = (usize::from(number)..many.len()).collect();
            let audience =
                remembered.of(number, &source(&format!("s/{number}")), |found| found.clone_from(&own));
            assert_eq!(audience[..], own[..]);
            let mut lists: Vec<&Audience> =
                remembered.places.iter().flatten().map(|(_, list)| list).collect();
            lists.sort_by_key(|list| list.as_ptr());
            lists.dedup_by(|a, b| Arc::ptr_eq(a, b));
            let held: usize = lists.iter().map(|list| list.len()).sum();
            assert!(held <= CONNECTIONS_MAX, "{held}");
        }
    }
}
