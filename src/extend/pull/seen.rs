//! What a pull source published last of each source, so that what has not changed is not published again.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::mapped::{PullData, PullDraft};

/// Most sources that are remembered. Beyond that all are forgotten, and published once more.
const SEEN_SOURCES_MAX: usize = 100_000;

/// Fingerprints of the records that were published last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    records: BTreeMap<u64, u64>,
}

impl Seen {
    /// Returns whether the record is the one that was published last; `None` if nothing is known of its source.
    pub fn is_same(&self, draft: &PullDraft) -> Option<bool> {
        let last = self.records.get(&xxh3_64(draft.source.as_bytes()))?;
        Some(*last == fingerprint(draft))
    }

    /// Remembers a record that was published.
    pub fn remember(&mut self, draft: &PullDraft) {
        if self.records.len() >= SEEN_SOURCES_MAX {
            self.records.clear();
        }
        self.records.insert(xxh3_64(draft.source.as_bytes()), fingerprint(draft));
    }
}

/// A hash of the data and of the timestamp, if it came from outside.
fn fingerprint(draft: &PullDraft) -> u64 {
    let (bytes, kind) = match &draft.data {
        PullData::Json(text) => (text.as_bytes(), 1),
        PullData::Binary(bytes) => (bytes.as_slice(), 2),
        PullData::Deleted => (&[][..], 3),
    };
    // Timestamps have 53 bits.
    xxh3_64_with_seed(bytes, draft.ts.map_or(0, |ts| ts + 1) << 2 | kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(source: &str, ts: Option<u64>, data: &str) -> PullDraft {
        PullDraft { source: source.into(), ts, data: PullData::Json(data.into()), ttl_ms: 0 }
    }

    #[test]
    fn the_same_again_is_seen() {
        let mut seen = Seen::default();
        let first = draft("a", None, "1");
        assert_eq!(seen.is_same(&first), None);
        seen.remember(&first);
        assert_eq!(seen.is_same(&first), Some(true));
        assert_eq!(seen.is_same(&draft("a", None, "2")), Some(false));
        assert_eq!(seen.is_same(&draft("a", Some(5), "1")), Some(false), "a measurement of another time");
        let deleted = PullDraft { data: PullData::Deleted, ..draft("a", None, "") };
        assert_eq!(seen.is_same(&deleted), Some(false));
        assert_eq!(seen.is_same(&draft("b", None, "1")), None);
    }

    #[test]
    fn only_so_many_sources_are_remembered() {
        let mut seen = Seen::default();
        (0..=SEEN_SOURCES_MAX).for_each(|at| seen.remember(&draft(&at.to_string(), None, "1")));
        assert_eq!(seen.records.len(), 1);
    }
}
