//! The queue of records and tokens that wait for room in a subscriber's buffer.
//!
//! The queue is first in, first out. In `mode=latest` a source waits at most once: a newer record takes the
//! place of the one that waits. So memory is bounded by the number of sources, no source starves behind a
//! busier one, and what is sent last is the newest. In `mode=all` every record waits.
//!
//! Tokens wait in the same queue ([`QueueEntry::Token`]): when one gets to the front, everything that it
//! names has been written.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::encode::SentForm;
use crate::protocol::request::Mode;
use crate::record::hash::NameState;
use crate::record::{SharedRecord, Source, Stamp};

/// A record or a token that waits.
#[derive(Clone, Debug)]
pub(super) enum QueueEntry {
    /// A record that is to be sent.
    Record(QueuedRecord),
    /// A token, and the subscription whose snapshot ends with it, if one does.
    Token {
        /// Number of the subscription.
        eos: Option<u32>,
        /// The text of the token.
        token: String,
    },
}

/// A record that waits.
#[derive(Clone, Debug)]
pub(super) struct QueuedRecord {
    pub(super) record: SharedRecord,
    /// The form in which the record is sent.
    pub(super) form: SentForm,
    /// Whether the record comes from the scan of a snapshot, and not from a change.
    pub(super) from_snapshot: bool,
}

impl QueuedRecord {
    /// The order in which a subscriber may see records of a source: an expired value is a deletion there.
    fn order(&self) -> (Stamp, SentForm) {
        (self.record.stamp, self.form)
    }
}

/// The queue of one subscriber.
#[derive(Debug)]
pub(super) struct SendQueue {
    entries: VecDeque<QueueEntry>,
    /// Number of entries that have left at the front. The place of an entry is its index plus this number.
    left: u64,
    /// The place of each source that waits; only in `mode=latest`.
    places: Option<HashMap<Source, u64, NameState>>,
    /// Memory of the records from changes that wait, in bytes.
    live_bytes: usize,
    /// Memory of the records from snapshots that wait, in bytes.
    snapshot_bytes: usize,
    /// Bytes of the tokens that wait.
    token_bytes: usize,
}

impl SendQueue {
    pub(super) fn new(mode: Mode) -> SendQueue {
        let places = (mode == Mode::Latest).then(HashMap::default);
        SendQueue {
            entries: VecDeque::new(),
            left: 0,
            places,
            live_bytes: 0,
            snapshot_bytes: 0,
            token_bytes: 0,
        }
    }

    /// Returns the queue, and leaves an empty one in its place.
    pub(super) fn take(&mut self) -> SendQueue {
        let mode = if self.places.is_some() { Mode::Latest } else { Mode::All };
        std::mem::replace(self, SendQueue::new(mode))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory of the records that do not come from a scan, in bytes.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Returns how many bytes of memory the queue holds. In `mode=latest` the records are those of the map, which
    /// holds them anyway. In `mode=all` the map may have newer ones by now, and the queue alone may hold them.
    pub(super) fn held_bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<QueueEntry>() + self.token_bytes;
        match &self.places {
            Some(places) => entries + places.allocation_size(),
            None => entries + self.live_bytes + self.snapshot_bytes,
        }
    }

    /// Puts a token at the end of the queue.
    pub(super) fn push_token(&mut self, eos: Option<u32>, token: String) {
        self.token_bytes += token.len();
        self.entries.push_back(QueueEntry::Token { eos, token });
    }

    /// The record of this source that waits, in `mode=latest`.
    fn waiting(&mut self, source: &Source) -> Option<&mut QueuedRecord> {
        let place = *self.places.as_ref()?.get(source)?;
        let index = usize::try_from(place - self.left).ok()?;
        match self.entries.get_mut(index) {
            Some(QueueEntry::Record(waiting)) => Some(waiting),
            _ => None,
        }
    }

    /// Puts a record in the place of the one of its source that waits, unless that one is as new. Gives the
    /// record back if none waits, and always in `mode=all`.
    pub(super) fn replace(&mut self, newer: QueuedRecord) -> Result<(), QueuedRecord> {
        let Some(waiting) = self.waiting(&newer.record.source) else { return Err(newer) };
        if newer.order() <= waiting.order() {
            return Ok(());
        }
        let older = std::mem::replace(waiting, newer);
        let (cost, from_snapshot) = (waiting.record.cost_bytes(), waiting.from_snapshot);
        *self.bytes_of(from_snapshot) += cost;
        *self.bytes_of(older.from_snapshot) -= older.record.cost_bytes();
        Ok(())
    }

    /// Puts a record at the end of the queue.
    pub(super) fn push(&mut self, waiting: QueuedRecord) {
        if let Some(places) = &mut self.places {
            let place = self.left + self.entries.len() as u64;
            let before = places.insert(waiting.record.source.clone(), place);
            debug_assert!(before.is_none(), "in mode=latest a source waits at most once");
        }
        *self.bytes_of(waiting.from_snapshot) += waiting.record.cost_bytes();
        self.entries.push_back(QueueEntry::Record(waiting));
    }

    /// Takes the entry that has waited longest.
    pub(super) fn pop(&mut self) -> Option<QueueEntry> {
        let entry = self.entries.pop_front()?;
        self.left += 1;
        match &entry {
            QueueEntry::Record(waiting) => {
                *self.bytes_of(waiting.from_snapshot) -= waiting.record.cost_bytes();
                if let Some(places) = &mut self.places {
                    places.remove(&waiting.record.source);
                }
            }
            QueueEntry::Token { token, .. } => self.token_bytes -= token.len(),
        }
        if self.entries.is_empty() {
            debug_assert_eq!((self.live_bytes, self.snapshot_bytes, self.token_bytes), (0, 0, 0));
            // A connection that keeps up again gives the memory back.
            *self = SendQueue::new(if self.places.is_some() { Mode::Latest } else { Mode::All });
        }
        Some(entry)
    }

    /// The count of the bytes of records that come from snapshots, or of the others.
    fn bytes_of(&mut self, from_snapshot: bool) -> &mut usize {
        if from_snapshot { &mut self.snapshot_bytes } else { &mut self.live_bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Birth, NodeName, Payload, Record};

    fn waiting(source: u8, ts: u64, from_snapshot: bool) -> QueuedRecord {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: ts };
        let source = Source::parse(&format!("s/{source}")).expect("source");
        let record = Record::new(source, Stamp::of_data(ts, b"1"), Payload::Json("1".into()), birth, ts, 0);
        QueuedRecord { record: Arc::new(record), form: SentForm::Whole, from_snapshot }
    }

    proptest! {
        /// openobserve and consul#9927: what waits is bounded by the number of sources, whatever comes;
        /// and its counts are right whatever leaves.
        #[test]
        fn latest_holds_each_source_once(acts in proptest::collection::vec((0u8..5, 0u8..8, any::<bool>()), 1..200)) {
            let mut queue = SendQueue::new(Mode::Latest);
            let mut newest = BTreeMap::new();
            for (at, (source, kind, from_snapshot)) in acts.into_iter().enumerate() {
                match kind {
                    0..5 => {
                        let newer = waiting(source, at as u64, from_snapshot);
                        newest.insert(newer.record.source.clone(), at as u64);
                        if let Err(newer) = queue.replace(newer) {
                            queue.push(newer);
                        }
                    }
                    5 => queue.push_token(None, String::new()),
                    _ => {
                        if let Some(QueueEntry::Record(taken)) = queue.pop() {
                            prop_assert_eq!(newest[&taken.record.source], taken.record.stamp.ts);
                        }
                    }
                }
                let records: Vec<_> = queue.entries.iter().filter_map(|entry| match entry {
                    QueueEntry::Record(waiting) => Some(waiting),
                    QueueEntry::Token { .. } => None,
                }).collect();
                prop_assert!(records.len() <= 5);
                let live: usize = records.iter().filter(|w| !w.from_snapshot).map(|w| w.record.cost_bytes()).sum();
                prop_assert_eq!(queue.live_bytes(), live);
            }
        }
    }
}
