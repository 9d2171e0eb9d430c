//! A run: changes in a row that the same connections want.
//!
//! A run is handed out connection by connection: the state of a connection, and the end of its buffer, are
//! fetched into the core's caches once for all changes of the run.

use std::sync::Arc;

use super::super::session::EncodedChange;
use crate::ingest::Change;
use crate::subscriptions::Audience;

/// Bytes of data after which a run is handed out, so that the whole run and, for a moment, its encoded form
/// fit the core's caches.
const RUN_BYTES_MAX: usize = 256 * 1024;
/// A run for at most [`FEW_CONNECTIONS`] connections is handed out after [`FEW_CHANGES`] changes: the state
/// of these few connections stays in the caches anyway, and so should the changes.
const FEW_CONNECTIONS: usize = 3;
/// Number of changes that are handed to [`FEW_CONNECTIONS`] or fewer connections at a time.
pub const FEW_CHANGES: usize = 16;

/// Changes in a row that the same connections want.
#[derive(Debug, Default)]
pub struct ChangeRun {
    changes: Vec<Change>,
    /// Bytes of the changes' data.
    bytes: usize,
    connections: Audience,
    /// The changes, encoded, in their order. There may be more of them than changes.
    encoded: Vec<EncodedChange>,
}

impl ChangeRun {
    /// Returns whether there is nothing to hand out.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns whether the run is known to be for this very audience, without comparing connections.
    pub fn is_same(&self, audience: &Audience) -> bool {
        Arc::ptr_eq(audience, &self.connections)
    }

    /// Returns whether the run is for the same connections as this audience.
    pub fn is_for(&self, audience: &Audience) -> bool {
        *audience == self.connections
    }

    /// Makes the run one for this audience. A run that is for other connections must be empty.
    pub fn set_audience(&mut self, audience: Audience) {
        debug_assert!(self.is_empty() || self.is_for(&audience), "changes for others are in the run");
        self.connections = audience;
    }

    /// The changes, in their order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Adds a change of `bytes` bytes of data. Returns whether the run is to be handed out.
    pub fn push(&mut self, change: Change, bytes: usize) -> bool {
        self.changes.push(change);
        self.bytes += bytes;
        let is_few = self.connections.len() <= FEW_CONNECTIONS && self.changes.len() >= FEW_CHANGES;
        is_few || self.bytes >= RUN_BYTES_MAX
    }

    /// Calls `each` for every connection, with the changes and their encoded forms, and empties the run. Returns the
    /// number of connections.
    pub fn hand_out(&mut self, mut each: impl FnMut(usize, &[Change], &mut [EncodedChange])) -> usize {
        let places = self.encoded.len()..self.changes.len();
        self.encoded.extend(places.map(EncodedChange::at));
        for &key in self.connections.iter() {
            each(key, &self.changes, &mut self.encoded);
        }
        self.encoded.iter_mut().zip(&self.changes).for_each(|(encoded, _)| encoded.clear());
        self.changes.clear();
        self.bytes = 0;
        self.connections.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

    fn change() -> Change {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let source = Source::parse("a").expect("source");
        let record = Record::new(source, Stamp::of_data(1, b"1"), Payload::Json("1".into()), birth, 0, 0);
        Change { record: Arc::new(record), is_expiry: false, shard: 0, version: 1 }
    }

    #[test]
    fn a_run_for_few_is_short_and_one_for_many_is_as_large_as_the_caches() {
        let mut run = ChangeRun::default();
        run.set_audience(Audience::from(vec![1, 2, 3]));
        let pushed = (1..).find(|_| run.push(change(), 1));
        assert_eq!(pushed, Some(FEW_CHANGES));
        let mut told = Vec::new();
        run.hand_out(|key, changes, encoded| told.push((key, changes.len(), encoded.len())));
        assert_eq!(told, [(1, 16, 16), (2, 16, 16), (3, 16, 16)]);
        assert!(run.is_empty());
        run.set_audience(Audience::from(vec![1, 2, 3, 4]));
        assert_eq!((1..).find(|_| run.push(change(), RUN_BYTES_MAX / 100)), Some(101));
    }

    #[test]
    fn an_audience_is_known_by_its_memory_first_and_else_by_its_connections() {
        let mut run = ChangeRun::default();
        let (one, same) = (Audience::from(vec![1, 2]), Audience::from(vec![1, 2]));
        run.set_audience(one.clone());
        assert!(run.is_same(&one) && !run.is_same(&same));
        assert!(run.is_for(&same) && !run.is_for(&Audience::from(vec![1])));
    }
}
