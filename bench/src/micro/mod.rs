//! Small pieces of a record's way, each by itself. `benches/micro.rs` times them, and `anode-bench
//! instructions` counts their instructions. Every call of a piece does the same.

mod cluster;
mod fan_out;
mod wires;

use std::hint::black_box;
use std::sync::Arc;

use anode::latest::Latest;
use anode::limits::{INTRICATE_SHAPES_PER_WORKER_MAX, PLAIN_WILDCARDS_MAX};
use anode::protocol::{json, protobuf};
use anode::record::merge::{Verdict, judge};
use anode::record::{Birth, NodeName, Pattern, Payload, Record, SharedRecord, Source, Stamp};
use anode::subscriptions::{Index, Role};
use bytes::Bytes;

/// A piece of work.
pub struct Work {
    /// Name of the piece in reports.
    pub name: &'static str,
    /// Prepares the work. Each call of the returned function handles [`RECORDS`] records.
    pub make: fn() -> Box<dyn FnMut()>,
    /// Name of the function inside which alone instructions are counted, as callgrind writes it; `None` if all of
    /// the work counts.
    pub counted: Option<&'static str>,
}

const fn piece(name: &'static str, make: fn() -> Box<dyn FnMut()>) -> Work {
    Work { name, make, counted: None }
}

/// The part of `make`'s work that is done inside the function `counted`.
const fn part(name: &'static str, counted: &'static str, make: fn() -> Box<dyn FnMut()>) -> Work {
    Work { name, make, counted: Some(counted) }
}

const PUBLISHER: &str = "anode_bench::micro::cluster::publisher*";
const OBSERVED_PEER: &str = "anode_bench::micro::cluster::observed_peer*";

/// Number of records, or frames, of a call.
pub const RECORDS: usize = 64;
/// Size of each record's data, in bytes.
pub const DATA_BYTES: usize = 128;
/// Number of sources in the map.
const SOURCES: usize = 10_000;

/// All pieces of work.
pub const WORKS: [Work; 26] = [
    piece("decode/json", wires::decode_json),
    piece("decode/protobuf", wires::decode_protobuf),
    piece("record/checksum", || {
        each_record(|record| {
            black_box(record.checksum_of());
        })
    }),
    piece("merge", merge),
    piece("match/alone", || matches(0)),
    piece("match/1000_unrelated", || matches(1_000)),
    piece("match/100000_unrelated", || matches(100_000)),
    piece("match/remembered", remembered),
    piece("match/hostile", hostile),
    piece("encode/json", || encode(json::write_record)),
    piece("encode/protobuf", || encode(protobuf::write_record)),
    piece("encode/peers", || {
        each_record(|record| {
            black_box(anode::record::wire::encode(record));
        })
    }),
    piece("seal", wires::seal),
    // Datagrams of 1,200 bytes, sealed with a key; and sealed at one node and opened at another.
    piece("sealed/seal", wires::sealed),
    piece("sealed/seal_and_open", wires::sealed_and_opened),
    piece("fan_out/100_subscribers", fan_out::make),
    // Of three nodes one publishes 64 records in a turn, or one in each turn.
    part("cluster/origin/batch", PUBLISHER, || cluster::make(3, RECORDS)),
    part("cluster/origin/single", PUBLISHER, || cluster::make(3, 1)),
    part("cluster/peer/batch", OBSERVED_PEER, || cluster::make(3, RECORDS)),
    part("cluster/peer/single", OBSERVED_PEER, || cluster::make(3, 1)),
    // The same with keys.
    part("cluster/origin/batch_sealed", PUBLISHER, || cluster::make_sealed(RECORDS)),
    part("cluster/origin/single_sealed", PUBLISHER, || cluster::make_sealed(1)),
    part("cluster/peer/batch_sealed", OBSERVED_PEER, || cluster::make_sealed(RECORDS)),
    part("cluster/peer/single_sealed", OBSERVED_PEER, || cluster::make_sealed(1)),
    // A peer of seven passes on some of the batches, and is the last on the way of others.
    part("cluster/peer_of_8/batch", OBSERVED_PEER, || cluster::make(8, RECORDS)),
    part("cluster/peer_of_8/single", OBSERVED_PEER, || cluster::make(8, 1)),
];

fn name(number: usize) -> String {
    format!("sensors/site-{}/temperature-{number}", number % 100)
}

fn source(number: usize) -> Source {
    match Source::parse(&name(number)) {
        Ok(source) => source,
        Err(error) => unreachable!("a good name: {error}"),
    }
}

fn data(number: u64) -> Bytes {
    Bytes::from(format!("\"{number:0width$}\"", width = DATA_BYTES - 2))
}

fn record(number: usize, ts: u64) -> SharedRecord {
    let Ok(origin) = NodeName::parse("bench-node") else { unreachable!("a good name") };
    let (birth, data) = (Birth { origin, boot: 1, seq: ts }, data(ts));
    Arc::new(Record::new(source(number), Stamp::of_data(ts, &data), Payload::Json(data), birth, ts, 0))
}

fn records() -> Vec<SharedRecord> {
    (0..RECORDS).map(|number| record(number * 151 % SOURCES, 2 + number as u64)).collect()
}

fn each_record(act: fn(&SharedRecord)) -> Box<dyn FnMut()> {
    let records = records();
    Box::new(move || records.iter().for_each(|record| act(black_box(record))))
}

/// Merges records that replace others. From the second call on each replaces itself, which costs the same:
/// nothing grows, and every call does the same.
fn merge() -> Box<dyn FnMut()> {
    let latest = Latest::seeded(1);
    let put = move |record: &SharedRecord| {
        latest.update(record.source.as_str(), |slot| match judge(slot.current(), black_box(record)) {
            Verdict::Newer | Verdict::Same => {
                black_box(slot.replace(record.clone(), 1, 0));
            }
            Verdict::Older | Verdict::SameOfGreaterBirth => {}
        });
    };
    (0..SOURCES).for_each(|number| put(&record(number, 1)));
    let records = records();
    Box::new(move || records.iter().for_each(&put))
}

fn index(unrelated: usize) -> Index {
    let mut index = Index::default();
    let mut insert = |text: &str, connection| match Pattern::parse(text) {
        Ok(pattern) => assert!(index.insert(&[pattern], connection, Role::Whole).is_ok()),
        Err(error) => unreachable!("a good pattern: {error}"),
    };
    insert("sensors/**", 0);
    insert("sensors/*/temperature-151", 1);
    for number in 0..unrelated {
        let kinds =
            [format!("others/{number}/**"), format!("sensors/unit-{number}/*"), format!("x{number}/*/y")];
        insert(&kinds[number % kinds.len()], 2 + number);
    }
    index
}

fn matches(unrelated: usize) -> Box<dyn FnMut()> {
    let (index, records, mut hits) = (index(unrelated), records(), Vec::new());
    Box::new(move || {
        for record in &records {
            index.matches(black_box(record.source.as_str()), &mut hits);
            black_box(&hits);
        }
    })
}

/// Searches an index in which clients have put all that they may to make a search long: 66,000 patterns of 16
/// segments, of all plain shapes and as many intricate ones as there may be, whose nodes have many children.
fn hostile() -> Box<dyn FnMut()> {
    let (mut index, mut connection) = (Index::default(), 0);
    let mut masks: Vec<u16> = (0..=u16::MAX).collect();
    masks.sort_by_key(|mask| mask.count_ones());
    let mut intricate = 0;
    for mask in masks {
        intricate += usize::from(mask.count_ones() > PLAIN_WILDCARDS_MAX);
        if intricate > INTRICATE_SHAPES_PER_WORKER_MAX {
            break;
        }
        let mut segments = ["a"; 16].map(str::to_owned);
        (0..16).filter(|at| mask & (1 << at) != 0).for_each(|at| segments[at] = "*".into());
        let varied = segments.iter().rposition(|segment| segment == "a").unwrap_or(0);
        let patterns: Vec<Pattern> = (0..88)
            .filter_map(|number| {
                segments[varied] = if number == 0 { "a".into() } else { format!("a{number}") };
                Pattern::parse(&segments.join("/")).ok()
            })
            .collect();
        while index.insert(&patterns, connection, Role::Whole).is_err_and(|excess| !excess.is_temporary()) {
            connection += 1;
        }
    }
    let (name, mut hits) = (["a"; 16].join("/"), Vec::new());
    Box::new(move || {
        for _ in 0..RECORDS {
            index.matches(black_box(&name), &mut hits);
            black_box(&hits);
        }
    })
}

fn remembered() -> Box<dyn FnMut()> {
    let mut index = index(1_000);
    let sources: Vec<Source> = records().iter().take(100).map(|record| record.source.clone()).collect();
    Box::new(move || {
        for source in sources.iter().cycle().take(RECORDS) {
            black_box(index.audience(black_box(source)));
        }
    })
}

fn encode(write: fn(&mut Vec<u8>, &Record, bool)) -> Box<dyn FnMut()> {
    let (records, mut out) = (records(), Vec::new());
    Box::new(move || {
        out.clear();
        records.iter().for_each(|record| write(&mut out, black_box(record), false));
        black_box(&out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_works_twice() {
        for work in WORKS.iter().filter(|work| !work.name.contains("100000")) {
            let mut act = (work.make)();
            act();
            act();
        }
    }

    #[test]
    fn unrelated_patterns_match_nothing() {
        let (alone, crowded) = (index(0), index(1_000));
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for record in records() {
            alone.matches(record.source.as_str(), &mut few);
            crowded.matches(record.source.as_str(), &mut many);
            assert_eq!(few, many, "{}", record.source.as_str());
        }
    }
}
