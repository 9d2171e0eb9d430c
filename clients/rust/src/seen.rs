//! Which records a subscription has delivered, so that none comes twice or out of order after it was resumed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::record::{Data, Record};

/// Deleted sources, and those that are gone, that are remembered, in each of two generations.
const DELETED_MAX: usize = 65_536;

/// The place of a record in the order of its source, with a hash of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenMark {
    ts: u64,
    deleted: bool,
    data_hash: u64,
}

/// The newest record of every source, as far as it must be known.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    live: HashMap<String, SeenMark>,
    deleted: HashMap<String, SeenMark>,
    deleted_before: HashMap<String, SeenMark>,
}

impl Seen {
    /// Returns whether the record is to be delivered, and remembers it if so.
    ///
    /// Of two records with the same timestamp a node sends the winner last, so a second one with other data is new.
    pub(crate) fn admit(&mut self, record: &Record) -> bool {
        let mark = SeenMark { ts: record.ts, deleted: record.deleted, data_hash: data_hash(&record.data) };
        let source = record.source.as_str();
        let generations = [&self.live, &self.deleted, &self.deleted_before];
        let known = generations.iter().find_map(|marks| marks.get(source));
        if let Some(known) = known
            && ((mark.ts, mark.deleted) < (known.ts, known.deleted) || mark == *known)
        {
            return false;
        }
        if !record.deleted && !record.gone {
            self.deleted.remove(source);
            match self.live.get_mut(source) {
                Some(known) => *known = mark,
                None => {
                    self.live.insert(source.to_owned(), mark);
                }
            }
            return true;
        }
        self.live.remove(source);
        self.deleted.insert(source.to_owned(), mark);
        if self.deleted.len() > DELETED_MAX {
            self.deleted_before = std::mem::take(&mut self.deleted);
        }
        true
    }

    /// Forgets everything: the state begins anew.
    pub(crate) fn forget(&mut self) {
        *self = Seen::default();
    }
}

fn data_hash(data: &Data) -> u64 {
    let mut hasher = DefaultHasher::new();
    match data {
        Data::Json(raw) => raw.get().hash(&mut hasher),
        Data::Bytes(bytes) => bytes.hash(&mut hasher),
        Data::Deleted => {}
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: &str, ts: u64, data: Data) -> Record {
        let deleted = data == Data::Deleted;
        Record { source: source.into(), ts, origin: "n".into(), data, deleted, gone: false, snapshot: false }
    }

    #[test]
    fn records_rise_and_come_once() {
        let mut seen = Seen::default();
        assert!(seen.admit(&record("a", 5, Data::from(1))));
        assert!(!seen.admit(&record("a", 5, Data::from(1))), "the same again");
        assert!(!seen.admit(&record("a", 4, Data::from(9))), "older");
        assert!(seen.admit(&record("a", 5, Data::from(2))), "of two with one ts the winner comes last");
        assert!(seen.admit(&record("a", 5, Data::Deleted)), "an expired value ends with its own ts");
        assert!(!seen.admit(&record("a", 5, Data::from(2))), "a deletion wins over data of the same ts");
        assert!(seen.admit(&record("b", 1, Data::from(1))), "each source for itself");
        assert!(seen.admit(&record("a", 6, Data::from(3))));
        assert!(!seen.admit(&record("a", 5, Data::Deleted)));
        seen.forget();
        assert!(seen.admit(&record("a", 5, Data::from(1))));
    }

    #[test]
    fn deletions_are_not_kept_for_ever() {
        let mut seen = Seen::default();
        for n in 0..3 * DELETED_MAX as u64 {
            assert!(seen.admit(&record(&format!("s/{n}"), n, Data::Deleted)));
        }
        assert!(seen.deleted.len() + seen.deleted_before.len() <= 2 * (DELETED_MAX + 1));
        assert!(seen.live.is_empty());
    }
}
