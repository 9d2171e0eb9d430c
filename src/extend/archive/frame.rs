//! Frames: lines of records, compressed with zstd, each by itself so that a reader needs the memory of one.

use bytes::Bytes;

use super::error::ArchiveError;
use super::manifest::{FrameOf, frame_name};
use super::s3::sha256_hex;
use crate::protocol::draft::{Draft, DraftPayload, Items};
use crate::protocol::json::{publish_frame, write_export_line};
use crate::record::Record;

/// Most bytes of a frame, compressed or not.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of the lines of a frame. What cannot be compressed grows by one byte in 256 at most.
const FRAME_LINES_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_BYTES_MAX / 128;
/// How hard it is tried to compress, from 1 to 22: twice as fast as a disk writes.
const COMPRESSION: i32 = 3;

const _: () = assert!(FRAME_LINES_BYTES_MAX + FRAME_LINES_BYTES_MAX / 256 + 64 <= FRAME_BYTES_MAX);
// The longest line: data in base64 with all its fields, and a name of which every byte is escaped.
const _: () = assert!(
    crate::limits::RECORD_BYTES_CEILING * 4 / 3 + 6 * crate::limits::SOURCE_BYTES_MAX + 1_024
        < FRAME_LINES_BYTES_MAX
);

/// Lines that become a frame.
#[derive(Debug, Default)]
pub struct FrameDraft {
    lines: Vec<u8>,
    records: u64,
    deletions: u64,
    sources: Option<(String, String)>,
    ts: Option<(u64, u64)>,
}

/// A frame as it is written, and its entry in the manifest.
#[derive(Debug)]
pub struct WrittenFrame {
    /// The entry in the manifest.
    pub entry: FrameOf,
    /// The bytes of the object.
    pub stored: Bytes,
}

impl FrameDraft {
    /// Adds the line of a record as it is at the wall clock `wall_us`. Returns whether there was room for it.
    pub fn push(&mut self, record: &Record, wall_us: u64) -> bool {
        let before = self.lines.len();
        write_export_line(&mut self.lines, record, wall_us);
        if self.lines.len() > FRAME_LINES_BYTES_MAX && before > 0 {
            self.lines.truncate(before);
            return false;
        }
        self.records += 1;
        self.deletions += u64::from(!record.is_visible(wall_us));
        let (name, ts) = (record.source.as_str(), record.stamp.ts);
        match &mut self.sources {
            None => self.sources = Some((name.into(), name.into())),
            Some((first, _)) if name < first.as_str() => *first = name.into(),
            Some((_, last)) if name > last.as_str() => *last = name.into(),
            Some(_) => {}
        }
        self.ts = Some(self.ts.map_or((ts, ts), |(least, greatest)| (least.min(ts), greatest.max(ts))));
        true
    }

    /// Returns whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Compresses the lines.
    pub fn finish(self, number: usize) -> Result<WrittenFrame, ArchiveError> {
        let stored = zstd::bulk::compress(&self.lines, COMPRESSION);
        let stored = stored.map_err(|error| ArchiveError::Node(format!("compression failed: {error}")))?;
        let entry = FrameOf {
            name: frame_name(number),
            sha256: sha256_hex(&stored),
            stored_bytes: stored.len() as u64,
            bytes: self.lines.len() as u64,
            records: self.records,
            deletions: self.deletions,
            sources: self.sources.unwrap_or_default(),
            ts: self.ts.unwrap_or_default(),
        };
        Ok(WrittenFrame { entry, stored: stored.into() })
    }
}

/// The lines of a frame that was read and checked against its entry in the manifest.
#[derive(Debug)]
pub struct ReadFrame {
    lines: String,
}

impl ReadFrame {
    /// Checks and decompresses a frame of the archive `id`.
    pub fn open(id: &str, entry: &FrameOf, stored: &[u8]) -> Result<ReadFrame, ArchiveError> {
        let what = || format!("{id}/{}", entry.name);
        let damaged = |why: String| ArchiveError::damaged(what(), why);
        if stored.len() as u64 != entry.stored_bytes || sha256_hex(stored) != entry.sha256 {
            return Err(damaged("its hash is not that in the manifest".into()));
        }
        let bytes = usize::try_from(entry.bytes).ok().filter(|bytes| *bytes <= FRAME_BYTES_MAX);
        let bytes = bytes.ok_or_else(|| damaged(format!("it has more than {FRAME_BYTES_MAX} bytes")))?;
        let lines = zstd::bulk::decompress(stored, bytes).map_err(|error| damaged(error.to_string()))?;
        if lines.len() != bytes {
            return Err(damaged(format!("it has {} bytes, and {bytes} by the manifest", lines.len())));
        }
        let lines = String::from_utf8(lines).map_err(|error| damaged(error.to_string()))?;
        Ok(ReadFrame { lines })
    }

    /// Calls `take` for every record. Returns how many there were.
    pub fn each(&self, what: &str, mut take: impl FnMut(ArchivedRecord<'_>)) -> Result<u64, ArchiveError> {
        let (mut count, mut from) = (0, 0);
        while let Some((record, next)) = self.record_at(what, from)? {
            take(record);
            (count, from) = (count + 1, next);
        }
        Ok(count)
    }

    /// The record whose line begins at a place, in bytes, and the place of the next line; `None` at the end.
    pub fn record_at(
        &self,
        what: &str,
        from: usize,
    ) -> Result<Option<(ArchivedRecord<'_>, usize)>, ArchiveError> {
        let Some(rest) = self.lines.get(from..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
        let line = rest.split('\n').next().unwrap_or_default();
        let damaged = |why: String| ArchiveError::damaged(what, format!("byte {from}: {why}"));
        let frame = publish_frame(line).map_err(|error| damaged(error.to_string()))?;
        let Items::One(item) = frame.items else { return Err(damaged("it is no record".into())) };
        let draft = item.draft.map_err(|refusal| damaged(refusal.to_string()))?;
        let ts = draft.ts.ok_or_else(|| damaged("it has no ts".into()))?;
        Ok(Some((ArchivedRecord { ts, draft }, from + line.len() + 1)))
    }

    /// Number of bytes of all lines.
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }
}

/// A record of an archive. The `ttl_ms` of the draft is what was left when the archive was made.
#[derive(Debug)]
pub struct ArchivedRecord<'a> {
    /// The timestamp in microseconds since the Unix epoch.
    pub ts: u64,
    /// The record as it can be published.
    pub draft: Draft<'a>,
}

impl ArchivedRecord<'_> {
    /// Returns whether it is the deletion of its source.
    pub fn is_deletion(&self) -> bool {
        self.draft.payload == DraftPayload::Deleted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Birth, NodeName, Payload, Source, Stamp};

    fn record(source: &str, ts: u64, payload: Payload) -> Record {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let mut stamp = Stamp::of_data(ts, payload.bytes());
        stamp.deleted = matches!(payload, Payload::Deleted);
        Record::new(Source::parse(source).expect("source"), stamp, payload, birth, ts, 0)
    }

    fn json(text: &str) -> Payload {
        Payload::Json(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn written() -> WrittenFrame {
        let mut draft = FrameDraft::default();
        assert!(draft.is_empty());
        for (source, ts, payload) in [
            ("b", 5, json("{\"x\":1}")),
            ("a", 9, Payload::Deleted),
            ("c\"", 7, Payload::Binary(Bytes::from_static(&[0, 255]))),
        ] {
            assert!(draft.push(&record(source, ts, payload), 100));
        }
        draft.finish(3).expect("a frame")
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let WrittenFrame { entry, stored } = written();
        assert_eq!((entry.name.as_str(), entry.records, entry.deletions), ("data-00003.ndjson.zst", 3, 1));
        assert_eq!((entry.sources.clone(), entry.ts), (("a".into(), "c\"".into()), (5, 9)));
        let read = ReadFrame::open("x", &entry, &stored).expect("a frame");
        let mut all = Vec::new();
        let count = read.each("x", |record| {
            let text = match &record.draft.payload {
                DraftPayload::Json(text) => String::from_utf8_lossy(text).into_owned(),
                DraftPayload::Binary(bytes) => format!("{bytes:?}"),
                DraftPayload::Deleted => "deleted".into(),
            };
            all.push((record.draft.source.clone().into_owned(), record.ts, text));
        });
        let expected = [("b", 5, "{\"x\":1}"), ("a", 9, "deleted"), ("c\"", 7, "[0, 255]")];
        let expected: Vec<_> =
            expected.iter().map(|(a, b, c)| ((*a).to_owned(), *b, (*c).to_owned())).collect();
        assert_eq!((count, all), (Ok(3), expected));
    }

    #[test]
    fn every_damage_is_seen() {
        let WrittenFrame { entry, stored } = written();
        for at in 0..stored.len() {
            let mut bad = stored.to_vec();
            bad[at] ^= 1;
            assert!(ReadFrame::open("x", &entry, &bad).is_err(), "byte {at}");
        }
        assert!(ReadFrame::open("x", &entry, &stored[..stored.len() - 1]).is_err());
        // A manifest that promises more or fewer bytes than there are.
        for bytes in [entry.bytes - 1, entry.bytes + 1, u64::MAX] {
            assert!(ReadFrame::open("x", &FrameOf { bytes, ..entry.clone() }, &stored).is_err());
        }
        // Lines that are no records.
        for bad in [
            "{}\n",
            "[1]\n",
            "{\"source\":\"a\",\"data\":1}\n",
            "{\"source\":\"$\u{7}\",\"ts\":1,\"data\":1}",
        ] {
            assert!(ReadFrame { lines: bad.into() }.each("x", |_| {}).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_frame_takes_no_more() {
        let mut draft = FrameDraft::default();
        let data = format!("\"{}\"", "x".repeat(2 << 20));
        let mut count = 0;
        while draft.push(&record("a", 1, json(&data)), 2) {
            count += 1;
        }
        assert_eq!((count, draft.records), (3, 3));
        let frame = draft.finish(0).expect("a frame");
        assert!(frame.stored.len() < FRAME_BYTES_MAX);
        assert!(ReadFrame::open("x", &frame.entry, &frame.stored).is_ok(), "the last line is whole");
    }
}
