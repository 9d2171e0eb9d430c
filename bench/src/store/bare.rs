//! The bare loop: what the disk and redb allow who writes every record to its place. One thread, nothing
//! but groups of records written into the tables that the node fills, each group one durable commit as
//! the node's are. The node's journal, by which it writes fewer pages, is none of its business.
//!
//! No socket, no map, no queue: records are made in memory before. As in the node a record replaces the
//! latest one of its source, which moves to the history, and a group's sources come in order of name.

use std::path::Path;
use std::time::{Duration, Instant};

use anode::record::{Birth, NodeName, Payload, Record, Source, Stamp, wire};
use anode_loadgen::Outcome;
use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, TableDefinition};

const LATEST: TableDefinition<&str, &[u8]> = TableDefinition::new("latest");
const HISTORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("history");

/// What a latest value has before its record: its stamp and the length of its ring.
const ROW_HEAD_BYTES: usize = 29;

/// Records for each durable commit. The best is what the node is held against.
pub const GROUPS: [usize; 3] = [1_024, 4_096, 16_384];

/// What a loop did.
#[derive(Clone, Copy, Debug)]
pub struct Bare {
    /// Records of a group.
    pub group: usize,
    /// Durable records a second.
    pub records_per_s: f64,
}

/// Writes groups of so many records of `sources` sources, in turn, for so long.
pub fn run(folder: &Path, group: usize, sources: usize, data_bytes: usize, time: Duration) -> Outcome<Bare> {
    std::fs::create_dir_all(folder)?;
    let database = Database::create(folder.join(format!("bare-{group}.redb")))?;
    let (mut next, mut records) = (0usize, 0usize);
    let mut names: Vec<String> = (0..group).map(|_| String::new()).collect();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let mut rows: Vec<(usize, Vec<u8>)> = (next..next + group)
            .map(|number| Ok((number, row(number, sources, data_bytes)?)))
            .collect::<Outcome<_>>()?;
        next += group;
        for (name, (number, _)) in names.iter_mut().zip(&rows) {
            *name = source(number % sources);
        }
        let mut order: Vec<usize> = (0..group).collect();
        order.sort_by(|a, b| (&names[*a], a).cmp(&(&names[*b], b)));
        commit(&database, &order, &names, &mut rows)?;
        records += group;
    }
    Ok(Bare { group, records_per_s: records as f64 / begun.elapsed().as_secs_f64() })
}

fn commit(
    database: &Database,
    order: &[usize],
    names: &[String],
    rows: &mut [(usize, Vec<u8>)],
) -> Outcome<()> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    {
        let (mut latest, mut history) = (transaction.open_table(LATEST)?, transaction.open_table(HISTORY)?);
        for &at in order {
            let old = latest.get(names[at].as_str())?.map(|row| row.value().to_vec());
            if let Some(old) = old {
                let mut key = names[at].clone().into_bytes();
                key.push(0);
                key.extend_from_slice(&old[..ROW_HEAD_BYTES - 4]);
                history.insert(key.as_slice(), &old[ROW_HEAD_BYTES..])?;
            }
            latest.insert(names[at].as_str(), rows[at].1.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn source(number: usize) -> String {
    format!("store/site-{}/{number}", number % 100)
}

/// The value that the table `latest` holds of a record.
fn row(number: usize, sources: usize, data_bytes: usize) -> Outcome<Vec<u8>> {
    let data = Bytes::from(format!("\"{number:0width$}\"", width = data_bytes.saturating_sub(2)));
    let stamp = Stamp::of_data(1_700_000_000_000_000 + number as u64, &data);
    let birth = Birth { origin: NodeName::parse("bare")?, boot: 1, seq: number as u64 + 1 };
    let source = Source::parse(&source(number % sources))?;
    let record = Record::new(source, stamp, Payload::Json(data), birth, stamp.ts, 0);
    let mut row = Vec::with_capacity(ROW_HEAD_BYTES + data_bytes + 100);
    row.extend_from_slice(&stamp.ts.to_be_bytes());
    row.push(u8::from(stamp.deleted));
    row.extend_from_slice(&stamp.hash.to_be_bytes());
    row.extend_from_slice(&0u32.to_be_bytes());
    row.extend_from_slice(&wire::encode(&record));
    Ok(row)
}
