//! The bytes that records take between nodes.

use super::codec::{BATCH_BYTES_MAX, pack};
use super::harness::{World, identity};
use crate::cluster::seal::{CHECKSUM_BYTES, PREFIX_BYTES, SENDER_BYTES};
use crate::record::{Birth, Payload, Record, SharedRecord, Source, Stamp};

/// Number of records that are published at once.
const RECORDS: u64 = 64;
/// Bytes of the data of a record.
const DATA_BYTES: usize = 128;

/// Bytes of a datagram around a packet: seal, header, tag and length.
const AROUND_BYTES: usize = PREFIX_BYTES + CHECKSUM_BYTES + SENDER_BYTES + 4;

/// Records as the load generator publishes them at 100,000 records a second: one of 10,000 sources, ten
/// microseconds after the last.
fn records() -> Vec<SharedRecord> {
    let made = (1..=RECORDS).map(|seq| {
        let source = Source::parse(&format!("load/0/{:04}", seq * 151 % 10_000)).expect("a name");
        let data = format!("\"{seq:0width$}\"", width = DATA_BYTES - 2).into_bytes();
        let ts = 1_763_800_000_000_000 + 10 * seq;
        let birth = Birth { origin: identity(0).name.clone(), boot: identity(0).boot, seq };
        let payload = Payload::Json(data.clone().into());
        Record::new(source, Stamp::of_data(ts, &data), payload, birth, ts, 0).into()
    });
    made.collect()
}

/// A record of 128 bytes took 231 to 265 bytes between nodes: each batch said again what the record before
/// had said, and five records filled a datagram.
#[test]
fn a_copy_takes_little_more_than_name_and_data() {
    let records = records();
    let content: usize = records.iter().map(|record| record.source.as_str().len() + DATA_BYTES).sum();
    let batches = pack(&identity(0).name, identity(0).boot, 0, 1_000_000_000, &records);
    let bytes: usize = batches.iter().map(|batch| batch.encoded.len()).sum();
    assert!(batches.iter().all(|batch| batch.encoded.len() <= BATCH_BYTES_MAX));
    assert!(bytes * 100 <= content * 106, "{bytes} bytes for {content} in {} batches", batches.len());

    let mut world = World::new(3, 1);
    let (now, ring) = (world.now(), world.nodes[0].ring.clone());
    world.nodes[0].spread.handle_published(now, &records, &ring);
    world.pump(0);
    world.run(100_000);
    assert_eq!(world.missing(0, 1, RECORDS), 0);
    let packets: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    let sent = packets + world.delivered * AROUND_BYTES;
    // Receipts are among it.
    assert!(sent * 100 <= 2 * content * 115, "{sent} bytes for two copies of {content}");
}
