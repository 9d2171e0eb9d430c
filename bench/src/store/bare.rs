//! A bare loop over redb, to see what the disk allows a program that writes every record to its place. One
//! thread writes groups of records into the tables that the node fills, and each group is one durable
//! commit, as in the node. It has no journal, by which the node writes fewer pages.
//!
//! There is no socket, no map and no queue; records are made in memory in advance. As in the node, a record
//! replaces the latest one of its source, which moves to the history, and the sources of a group are in
//! order of name.

use std::path::Path;
use std::time::{Duration, Instant};

use anode::record::{Birth, NodeName, Payload, Record, Source, Stamp, wire};
use anode_loadgen::Outcome;
use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, TableDefinition};

const LATEST: TableDefinition<&str, &[u8]> = TableDefinition::new("latest");
const HISTORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("history");

/// Bytes before the record in a value of `latest`: the stamp, and the length of the ring.
const ROW_HEAD_BYTES: usize = 29;

/// Sizes of groups that are tried, in records. The node is compared with the best.
pub const GROUPS: [usize; 3] = [1_024, 4_096, 16_384];

/// The result of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Bare {
    /// Number of records in a group.
    pub group: usize,
    /// Number of durable records per second.
    pub records_per_s: f64,
}

/// Writes groups of `group` records, of `sources` sources in turn, until `time` has passed.
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

/// Returns the value that the table `latest` holds for a record.
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
