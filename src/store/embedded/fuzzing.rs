//! The checks of the store's file: tables with any content, and the rows of the journal.
//!
//! The pages of the file are redb's business. Here the file is a sound one, and what stands in its tables is what
//! the input says, as after damage, or written by another version of this program.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, StorageBackend};

use super::journal::JournalBounds;
use super::medium::Medium;
use super::schema::{BOOT, FORMAT, HEADS, HISTORY, JOURNAL, LATEST, NUMBERS, TEXTS};
use super::{Backend, Embedded, NewLife, Settings, StoreEngine};
use crate::fuzzing::{Pieces, join};
use crate::record::{HistoryQuery, NodeName, Record, Stamp};
use crate::store::testing::{deletion, record};

/// Number of records kept of each source.
const HISTORY_LEN: u32 = 4;
/// Bytes of the journal's row that hold a change's head.
const MARK_RECORD: u8 = 1;
const MARK_REMOVAL: u8 = 2;

/// A file in memory; clones are the same file.
#[derive(Clone, Debug, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let place = bytes.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..data.len()));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

impl Medium for MemoryFile {
    fn open(&self, builder: &Builder) -> Result<Database, redb::Error> {
        Ok(builder.create_with_backend(self.clone())?)
    }

    fn path(&self) -> PathBuf {
        "memory".into()
    }
}

/// One entry of a table.
enum Entry<'a> {
    Latest(&'a str, &'a [u8]),
    History(&'a [u8], &'a [u8]),
    Journal(u64, &'a [u8]),
    Number(&'a str, u64),
    Text(&'a str, &'a str),
    Head(&'a str, u64),
}

/// Makes a file whose tables have these entries.
fn file_with<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Result<MemoryFile, redb::Error> {
    let file = MemoryFile::default();
    let database = super::builder(256 * 1024).create_with_backend(file.clone())?;
    let transaction = database.begin_write()?;
    {
        let (mut latest, mut history) = (transaction.open_table(LATEST)?, transaction.open_table(HISTORY)?);
        let (mut journal, mut heads) = (transaction.open_table(JOURNAL)?, transaction.open_table(HEADS)?);
        let (mut numbers, mut texts) = (transaction.open_table(NUMBERS)?, transaction.open_table(TEXTS)?);
        for entry in entries {
            match entry {
                Entry::Latest(source, row) => drop(latest.insert(source, row)?),
                Entry::History(key, row) => drop(history.insert(key, row)?),
                Entry::Journal(number, row) => drop(journal.insert(number, row)?),
                Entry::Number(name, number) => drop(numbers.insert(name, number)?),
                Entry::Text(name, text) => drop(texts.insert(name, text)?),
                Entry::Head(origin, number) => drop(heads.insert((origin, number), number)?),
            }
        }
    }
    transaction.commit()?;
    Ok(file)
}

/// Opens the file as a node does at its start.
fn open(file: &MemoryFile) -> Option<Embedded> {
    let settings =
        Settings { history: HISTORY_LEN, cache_bytes: 256 * 1024, journal: JournalBounds::default() };
    let life = NewLife { node_name: None, made_up: NodeName::parse("made-up").expect("name"), boot_min: 5 };
    let (store, identity) = Embedded::open(Box::new(file.clone()), settings, life).ok()?;
    assert!(identity.boot >= 5, "{identity:?}");
    Some(store)
}

/// The input is a number of entries: the first byte of each tells the table, and the second how long the key is.
pub(crate) fn store(input: &[u8]) {
    let entries = Pieces(input).take(40).filter_map(|piece| {
        let (&[table, len], rest) = piece.split_first_chunk()?;
        let (key, row) = rest.split_at_checked(usize::from(len))?;
        let (text, number) =
            (std::str::from_utf8(key), key.first_chunk().map(|key| u64::from_le_bytes(*key)));
        let row_number = row.first_chunk().map(|row| u64::from_le_bytes(*row));
        Some(match table % 6 {
            0 => Entry::Latest(text.ok()?, row),
            1 => Entry::History(key, row),
            2 => Entry::Journal(number?, row),
            3 => Entry::Number(text.ok()?, row_number?),
            4 => Entry::Text(text.ok()?, std::str::from_utf8(row).ok()?),
            _ => Entry::Head(text.ok()?, row_number?),
        })
    });
    opens(entries);
}

/// The input is one row of the journal, cut into several where it is long: each piece is a change. A piece begins
/// with its kind, and is a record in the form of the disk, or the stamp and the source of a removal.
pub(crate) fn journal(input: &[u8]) {
    let mut rows = Vec::new();
    for (at, piece) in Pieces(input).take(40).enumerate() {
        let Some((&kind, change)) = piece.split_first() else { continue };
        // Bits of the kind beyond the lowest tell whether a new row begins, and whether the length is right.
        if rows.is_empty() || kind & 0x10 != 0 {
            rows.push(Vec::new());
        }
        let Some(row) = rows.last_mut() else { continue };
        row.push(kind & 3);
        let length = change.len() as u32 + if kind & 0x20 != 0 { at as u32 } else { 0 };
        row.extend_from_slice(&length.to_le_bytes());
        row.extend_from_slice(change);
    }
    opens((1..).zip(&rows).map(|(number, row)| Entry::Journal(number, row)));
}

/// A store with these entries opens or is refused; and what it shows is the same after the journal was moved.
fn opens<'a>(entries: impl Iterator<Item = Entry<'a>>) {
    let file = file_with(entries).expect("memory");
    let Some(store) = open(&file) else { return };
    let before = shown(&store);
    store.settle().expect("memory");
    assert!(!store.has_deferred_work(), "everything is moved");
    let after = shown(&store);
    for (source, record) in &before {
        assert_eq!(after.get(source), Some(record), "moving the journal changes what is shown");
    }
    drop(store);
    let again = open(&file).expect("what was opened is opened again");
    assert_eq!(shown(&again), after, "closing changes what is shown");
}

/// The records that a start shows, whose histories can be read.
fn shown(store: &Embedded) -> BTreeMap<String, Record> {
    let mut shown = BTreeMap::new();
    let mut each = |record: Record| {
        assert_eq!(record.checksum, record.checksum_of(), "a damaged record is shown: {record:?}");
        let last = shown.insert(record.source.as_str().to_owned(), record);
        assert!(last.is_none(), "a source is shown twice: {last:?}");
    };
    let report = store.load(&mut each).expect("memory");
    assert_eq!(report.records as usize, shown.len());
    for source in shown.keys() {
        let query =
            HistoryQuery { source: source.clone(), from_us: 0, to_us: u64::MAX, limit: 100, after: None };
        let history = store.history(&query, &[]).expect("memory");
        assert!(history.iter().all(|record| record.checksum == record.checksum_of()));
    }
    shown
}

/// An entry of an input of [`store`].
fn entry(table: u8, key: &[u8], row: &[u8]) -> Vec<u8> {
    [&[table, key.len() as u8], key, row].concat()
}

/// A row of the journal with these changes.
fn row(changes: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let change = |(kind, change): &(u8, Vec<u8>)| {
        [&[*kind][..], &(change.len() as u32).to_le_bytes(), change].concat()
    };
    changes.iter().flat_map(change).collect()
}

fn encoded(record: &Record) -> Vec<u8> {
    crate::record::wire::encode(record)
}

fn removal(source: &str, stamp: Stamp) -> Vec<u8> {
    let mut bytes = Vec::new();
    super::rows::write_stamp(&mut bytes, stamp);
    bytes.extend_from_slice(source.as_bytes());
    bytes
}

fn latest_row(record: &Record, older: u32) -> Vec<u8> {
    super::rows::LatestRow { stamp: record.stamp, older, wire: encoded(record).into() }.encode()
}

pub(crate) fn store_seeds() -> Vec<Vec<u8>> {
    let (old, new) = (record("a/b", 5, b"1"), record("a/b", 9, b"{\"x\":2}"));
    let gone = deletion("gone", 7);
    let history = super::rows::history_key("a/b", old.stamp);
    let journal =
        row(&[(MARK_RECORD, encoded(&record("a/b", 12, b"3"))), (MARK_REMOVAL, removal("gone", gone.stamp))]);
    let entries = [
        entry(0, b"a/b", &latest_row(&new, 1)),
        entry(1, &history, &encoded(&old)),
        entry(0, b"gone", &latest_row(&gone, 0)),
        entry(2, &3u64.to_le_bytes(), &journal),
        entry(3, BOOT.as_bytes(), &41u64.to_le_bytes()),
        entry(3, FORMAT.as_bytes(), &2u64.to_le_bytes()),
        entry(4, b"node_name", b"n1"),
        entry(5, b"n2", &7u64.to_le_bytes()),
    ];
    let mut seeds: Vec<Vec<u8>> = entries.iter().map(|entry| join([entry.as_slice()])).collect();
    seeds.push(join(entries.iter().map(Vec::as_slice)));
    seeds.push(join([&*entry(3, FORMAT.as_bytes(), &9u64.to_le_bytes())]));
    // Numbers without a successor.
    seeds.push(join([&*entry(3, BOOT.as_bytes(), &u64::MAX.to_le_bytes())]));
    seeds.push(join([&*entry(2, &u64::MAX.to_le_bytes(), &journal)]));
    seeds
}

pub(crate) fn journal_seeds() -> Vec<Vec<u8>> {
    let change = |kind: u8, change: Vec<u8>| [&[kind], &*change].concat();
    let changes = [
        change(MARK_RECORD, encoded(&record("a/b", 5, b"1"))),
        change(MARK_RECORD | 0x10, encoded(&record("a/b", 9, b"[2,3]"))),
        change(MARK_REMOVAL, removal("a/b", Stamp::of_data(5, b"1"))),
        change(MARK_RECORD, encoded(&deletion("c", 3))),
        change(MARK_REMOVAL | 0x10, removal("c", Stamp::of_deletion(3))),
        change(MARK_RECORD | 0x20, encoded(&record("d", 5, b"1"))),
    ];
    let mut seeds: Vec<Vec<u8>> = changes.iter().map(|change| join([change.as_slice()])).collect();
    seeds.push(join(changes.iter().map(Vec::as_slice)));
    seeds.push(join(changes[..3].iter().map(Vec::as_slice)));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fuzzing found that a row whose bytes are damaged won over a sound record that the journal held: the stamp of the row
    /// said that it was newer. The record was shown until the journal was moved into the tables, and was lost then.
    #[test]
    fn a_damaged_row_does_not_win_over_a_record_in_the_journal() {
        let (old, new) = (record("a/b", 5, b"1"), record("a/b", 12, b"3"));
        let older = super::super::rows::history_key("a/b", old.stamp);
        let mut damaged = latest_row(&record("a/b", 9, b"2"), 1);
        damaged[0] = 0xff;
        let journal = row(&[(MARK_RECORD, encoded(&new))]);
        let file = file_with(
            [
                Entry::Latest("a/b", &damaged),
                Entry::History(&older, &encoded(&old)),
                Entry::Journal(3, &journal),
            ]
            .into_iter(),
        );
        let store = open(&file.expect("memory")).expect("a store");
        let query =
            HistoryQuery { source: "a/b".into(), from_us: 0, to_us: u64::MAX, limit: 100, after: None };
        assert_eq!(shown(&store).get("a/b"), Some(&new));
        assert!(store.history(&query, &[]).expect("memory").contains(&new));
        store.settle().expect("memory");
        assert_eq!(shown(&store).get("a/b"), Some(&new));
        assert_eq!(store.history(&query, &[]).expect("memory"), [new, old]);
    }

    /// A removal takes a damaged row away, whatever the stamp of the row.
    #[test]
    fn a_damaged_row_is_removed_by_any_removal() {
        let mut damaged = latest_row(&record("a/b", 9, b"2"), 0);
        damaged[0] = 0xff;
        let journal = row(&[(MARK_REMOVAL, removal("a/b", Stamp::of_deletion(7)))]);
        let entries = [Entry::Latest("a/b", &damaged), Entry::Journal(3, &journal)].into_iter();
        let store = open(&file_with(entries).expect("memory")).expect("a store");
        let rows = || {
            let mut rows = 0;
            store.sources(None, 10, &mut |_, _| rows += 1).expect("memory");
            rows
        };
        assert_eq!((shown(&store).len(), rows()), (0, 0));
    }
}
