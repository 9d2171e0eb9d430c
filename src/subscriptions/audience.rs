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

/// Connections that all lists may name together: half a megabyte of them.
const CONNECTIONS_MAX: usize = 64 * 1024;

/// A place a shard: a source that comes takes the place of the one before.
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

    /// Who wants a source of this shard; `walk` finds it out where it is not remembered.
    pub(super) fn of(
        &mut self,
        shard: u16,
        source: &Source,
        walk: impl FnOnce(&mut Vec<usize>),
    ) -> &Audience {
        let place = usize::from(shard);
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
            self.places.resize(SHARDS, None);
        }
        if let Some(place) = self.places.get_mut(place) {
            *place = Some((source.clone(), self.last.clone()));
        }
    }
}
