//! A cache of which connections want the sources that were asked for last.
//!
//! The same sources are published again and again, and mostly the same connections want them. Equal lists
//! made one after the other are one allocation, so that comparing two lists is comparing two addresses. Every
//! change of the index empties the cache; emptying an empty one costs nothing.

use std::sync::Arc;

use crate::record::Source;
use crate::record::hash::name_hash;

/// The numbers of the connections that have at least one matching pattern, each once, in increasing order.
pub type Audience = Arc<[usize]>;

/// Most connections that all lists together may name: half a megabyte of numbers. A single longer list is
/// kept alone.
const CONNECTIONS_MAX: usize = 64 * 1024;

/// Number of places at first.
const PLACES_MIN: usize = 4 * 1024;
/// Greatest number of places: with 24 bytes each, they take one and a half megabytes.
const PLACES_MAX: usize = 64 * 1024;

/// The list of one source.
type Place = Option<(u64, Audience)>;

/// The lists that were made last, each with the hash of its source.
///
/// Names are not compared, because the memory of a name would have to be fetched for it with every record. Nobody can
/// choose two names with the same hash, and one pair of names in 2^64 has it by chance.
#[derive(Debug, Default)]
pub(super) struct AudienceCache {
    /// The place of a source is given by the lowest bits of its hash. A source replaces the one that had its place.
    places: Vec<Place>,
    /// The connections that want every source, if the index asked for them.
    common: Option<Audience>,
    /// Number of times that a source took the place of another one since the number of places last changed.
    replaced: usize,
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
        self.common = None;
        if !self.places.is_empty() {
            self.places.clear();
            self.last = Audience::default();
            self.connections = 0;
        }
    }

    /// Returns the connections that want any source, where no pattern tells sources apart: no place need be looked up.
    /// `walk` is as in [`AudienceCache::get`].
    #[inline]
    pub(super) fn get_common(&mut self, walk: impl FnOnce(&mut Vec<usize>)) -> &Audience {
        let found = &mut self.found;
        self.common.get_or_insert_with(|| {
            walk(found);
            found.as_slice().into()
        })
    }

    /// Returns the connections that want the source. If they are not in the cache, `walk` is called to find them: it
    /// must replace the content of the list that it is given.
    pub(super) fn get(&mut self, source: &Source, walk: impl FnOnce(&mut Vec<usize>)) -> &Audience {
        let hash = name_hash(source.as_str());
        let at = hash as usize & self.places.len().wrapping_sub(1);
        let is_known = matches!(self.places.get(at), Some(Some((known, _))) if *known == hash);
        if !is_known {
            let mut found = std::mem::take(&mut self.found);
            walk(&mut found);
            self.keep(hash, &found);
            self.found = found;
            return &self.last;
        }
        match self.places.get(at) {
            Some(Some((_, audience))) => audience,
            _ => &self.last,
        }
    }

    /// Keeps the connections that were found for the source of this hash at its place.
    fn keep(&mut self, hash: u64, connections: &[usize]) {
        if *self.last != *connections {
            if self.connections + connections.len() > CONNECTIONS_MAX {
                self.clear();
            }
            self.connections += connections.len();
            self.last = connections.into();
            debug_assert!(self.connections <= CONNECTIONS_MAX || self.connections == connections.len());
        }
        if self.places.is_empty() {
            self.places.resize(self.places.capacity().clamp(PLACES_MIN, PLACES_MAX), None);
        } else if self.replaced > self.places.len() && self.places.len() < PLACES_MAX {
            self.widen();
        }
        let at = hash as usize & (self.places.len() - 1);
        if let Some(place) = self.places.get_mut(at)
            && let Some((replaced, _)) = place.replace((hash, self.last.clone()))
        {
            self.replaced += usize::from(replaced != hash);
        }
    }

    /// Doubles the number of places, since there are more sources than these.
    fn widen(&mut self) {
        self.replaced = 0;
        let count = 2 * self.places.len();
        let mut places: Vec<Place> = vec![None; count];
        for kept in std::mem::take(&mut self.places).into_iter().flatten() {
            if let Some(place) = places.get_mut(kept.0 as usize & (count - 1)) {
                *place = Some(kept);
            }
        }
        self.places = places;
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
            assert!(index.audience(&room).is_empty(), "round {round}");
            assert!(index.insert(from_ref(&one), 7, Role::Whole).is_ok());
            assert_eq!(index.audience(&room)[..], [7]);
            assert!(index.insert(from_ref(&all), 3, Role::Whole).is_ok());
            assert_eq!(index.audience(&room)[..], [3, 7]);
            assert_eq!(index.audience(&source("hall"))[..], [3], "another source");
            assert_eq!(index.audience(&room)[..], [3, 7]);
            assert!(index.remove(&one, 7, Role::Whole));
            assert_eq!(index.audience(&room)[..], [3]);
            assert!(index.remove(&all, 3, Role::Whole));
        }
    }

    #[test]
    fn equal_lists_are_one_and_all_of_them_stay_within_the_bound() {
        let mut cache = AudienceCache::default();
        let many: Vec<usize> = (0..CONNECTIONS_MAX / 4).collect();
        let all = cache.get(&source("a"), |found| found.clone_from(&many)).clone();
        let same = cache.get(&source("b"), |found| found.clone_from(&many)).clone();
        assert!(Arc::ptr_eq(&all, &same));
        for number in 0..100u16 {
            let own: Vec<usize> = (usize::from(number)..many.len()).collect();
            let audience = cache.get(&source(&format!("s/{number}")), |found| found.clone_from(&own));
            assert_eq!(audience[..], own[..]);
            let mut lists: Vec<&Audience> = cache.places.iter().flatten().map(|(_, list)| list).collect();
            lists.sort_by_key(|list| list.as_ptr());
            lists.dedup_by(|a, b| Arc::ptr_eq(a, b));
            let held: usize = lists.iter().map(|list| list.len()).sum();
            assert!(held <= CONNECTIONS_MAX, "{held}");
        }
    }

    /// With ten thousand sources in turns nearly every record walked the patterns: the cache had 4,096 places.
    #[test]
    fn has_place_for_all_sources_that_are_published_in_turns() {
        let mut cache = AudienceCache::default();
        let sources: Vec<Source> = (0..10_000).map(|n| source(&format!("s/{n}"))).collect();
        let mut walks = 0;
        for round in 0..20 {
            walks = 0;
            for source in &sources {
                cache.get(source, |found| {
                    walks += 1;
                    *found = vec![1];
                });
            }
            assert!(cache.places.len() <= PLACES_MAX, "round {round}");
        }
        assert!(walks < sources.len() / 4, "{walks} walks");
    }
}
