//! Gathers the records of an archive from the map, frame by frame.

use std::collections::VecDeque;

use super::error::ArchiveError;
use super::frame::{FrameDraft, WrittenFrame};
use crate::protocol::token::Token;
use crate::record::{Record, RecordWalk, SharedRecord};

/// Memory of the records that are taken from the map at a time, in bytes.
const WALK_BYTES: usize = 64 * 1024;
/// Values that expired up to this long before the last archive was made are written again, in microseconds: the clocks of
/// the nodes differ.
const EXPIRED_SLACK_US: u64 = 30_000_000;

/// A walk through the records that an archive is to have.
pub struct Collector {
    walk: Box<dyn RecordWalk>,
    /// Token of the archive before: what it covers is there already. `None` takes everything.
    covered: Option<Token>,
    /// Time of the archive, in microseconds since the Unix epoch. The time to live that lines have is what is left then.
    at: u64,
    taken: VecDeque<SharedRecord>,
    frames: usize,
}

impl Collector {
    /// Gathers what a walk finds and the token does not cover.
    pub fn new(walk: Box<dyn RecordWalk>, covered: Option<Token>, at: u64) -> Collector {
        Collector { walk, covered, at, taken: VecDeque::new(), frames: 0 }
    }

    /// The next frame; `None` at the end. It takes as long as it takes to fill a frame, so it is called on a thread for
    /// blocking work.
    pub fn next_frame(&mut self) -> Result<Option<WrittenFrame>, ArchiveError> {
        let mut draft = FrameDraft::default();
        while let Some(record) = self.next_record() {
            if !draft.push(&record, self.at) {
                self.taken.push_front(record);
                break;
            }
        }
        if draft.is_empty() {
            return Ok(None);
        }
        let frame = draft.finish(self.frames)?;
        self.frames += 1;
        Ok(Some(frame))
    }

    fn next_record(&mut self) -> Option<SharedRecord> {
        loop {
            while let Some(record) = self.taken.pop_front() {
                if is_wanted(&record, self.covered.as_ref(), self.at) {
                    return Some(record);
                }
            }
            if self.walk.is_over() {
                return None;
            }
            self.taken.extend(self.walk.next_part(WALK_BYTES));
        }
    }
}

/// Returns whether an archive that goes on from a token has to have a record: the token does not cover it, or its value
/// has expired since.
fn is_wanted(record: &Record, covered: Option<&Token>, at: u64) -> bool {
    let Some(token) = covered else { return true };
    let has_expired = |at_us: u64| at_us <= at && at_us.saturating_add(EXPIRED_SLACK_US) >= token.issued_us;
    !token.covers_birth(&record.birth) || record.expires_us().is_some_and(has_expired)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::token::head_key;
    use crate::record::{Birth, NodeName, Payload, Source, Stamp};

    struct Parts(Vec<Vec<SharedRecord>>);

    impl RecordWalk for Parts {
        fn next_part(&mut self, _: usize) -> Vec<SharedRecord> {
            self.0.pop().unwrap_or_default()
        }

        fn is_over(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn record(source: &str, seq: u64, data: &str, ttl_ms: u64) -> SharedRecord {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq };
        let payload = Payload::Json(Bytes::copy_from_slice(data.as_bytes()));
        let stamp = Stamp::of_data(1_000_000, payload.bytes());
        let source = Source::parse(source).expect("source");
        Arc::new(Record::new(source, stamp, payload, birth, 1_000_000, ttl_ms))
    }

    fn token(seq: u64, issued_us: u64) -> Token {
        let heads = [(head_key(&NodeName::parse("n").expect("name"), 1), seq)].into();
        Token { cluster: 1, issued_us, patterns: Vec::new(), heads }
    }

    fn collected(covered: Option<Token>, at: u64) -> Vec<(String, bool)> {
        let parts = vec![
            vec![record("c", 3, "3", 0)],
            Vec::new(),
            vec![record("a", 1, "1", 0), record("b", 2, "2", 60_000)],
        ];
        let mut collector = Collector::new(Box::new(Parts(parts)), covered, at);
        let mut all = Vec::new();
        while let Some(frame) = collector.next_frame().expect("a frame") {
            let read =
                super::super::frame::ReadFrame::open("x", &frame.entry, &frame.stored).expect("a frame");
            let take = |record: super::super::frame::ArchivedRecord<'_>| {
                let is_deleted = record.draft.payload == crate::protocol::draft::DraftPayload::Deleted;
                all.push((record.draft.source.into_owned(), is_deleted));
            };
            read.each("x", take).expect("records");
        }
        all
    }

    #[test]
    fn only_what_is_not_covered_is_taken() {
        let of = |names: &[(&str, bool)]| {
            names.iter().map(|(name, d)| ((*name).to_owned(), *d)).collect::<Vec<_>>()
        };
        assert_eq!(collected(None, 2_000_000), of(&[("a", false), ("b", false), ("c", false)]));
        assert_eq!(collected(Some(token(2, 2_000_000)), 3_000_000), of(&[("c", false)]));
        assert_eq!(collected(Some(token(3, 2_000_000)), 3_000_000), of(&[]));
        // The value of "b" expires at 61 s: whoever looks later has to learn of it, although it is covered.
        assert_eq!(collected(Some(token(3, 2_000_000)), 70_000_000), of(&[("b", true)]));
        assert_eq!(collected(Some(token(3, 80_000_000)), 90_000_000), of(&[("b", true)]), "clocks differ");
        assert_eq!(collected(Some(token(3, 100_000_000)), 110_000_000), of(&[]), "it is known by now");
    }

    #[test]
    fn frames_are_cut_where_they_are_full() {
        let data = format!("\"{}\"", "x".repeat(2 << 20));
        let parts = vec![(0..5).map(|seq| record(&format!("s{seq}"), seq, &data, 0)).collect()];
        let mut collector = Collector::new(Box::new(Parts(parts)), None, 2_000_000);
        let mut records = Vec::new();
        while let Some(frame) = collector.next_frame().expect("a frame") {
            records.push((frame.entry.name.clone(), frame.entry.records));
        }
        let expected = [("data-00000.ndjson.zst".to_owned(), 3), ("data-00001.ndjson.zst".to_owned(), 2)];
        assert_eq!(records, expected);
    }
}
