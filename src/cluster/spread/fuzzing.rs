//! The checks of packets, and of batches of records in the compact form in which they travel.

use bytes::Bytes;
use prost::Message as _;

use super::codec::{COVERED_MAX, open, pack, read_records};
use super::wire::{Content, Opened};
use crate::proto::gossip as proto;
use crate::record::compact::{CompactReader, CompactWriter};
use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp, wire};

/// Reads a packet by hand and by generated code.
pub(crate) fn packet(message: &[u8]) {
    let opened = Opened::read(message);
    if let Ok(generated) = proto::Spread::decode(message) {
        let written = generated.encode_to_vec();
        let again = Opened::read(&written).expect("what the generated code writes is read");
        let twice = proto::Spread::decode(&written[..]).expect("what the generated code writes is read");
        assert_eq!(again, Opened::read(&twice.encode_to_vec()).expect("and again"));
    }
    for part in opened.iter().flat_map(|opened| &opened.parts) {
        if let Content::Whole(bytes) = &part.content {
            whole(bytes.clone());
        }
    }
}

/// Reads a batch that a packet brought.
fn whole(bytes: Bytes) {
    let Some(batch) = open(bytes) else { return };
    let Some(records) = read_records(&batch) else { return };
    assert_eq!(records.len(), batch.records.count as usize);
    comes_back(&batch.origin, batch.boot, batch.id.first_seq - 1, &records);
}

/// The input is the records of a batch in their compact form, behind eight bytes of the number before the first. The
/// checksums of the records, and their sum, are computed from what is read.
pub(crate) fn batch(input: &[u8]) {
    let Some((seq, bytes)) = input.split_first_chunk() else { return };
    let (origin, seq) = (NodeName::parse("n2").expect("name"), u64::from_le_bytes(*seq));
    let mut reader = CompactReader::new(bytes, &origin, 5, seq);
    let records: Vec<SharedRecord> = std::iter::from_fn(|| reader.read()).collect();
    comes_back(&origin, 5, seq, &records);
    from_disk(bytes);
}

/// Records that were read come back when they are written: alone, in the compact form, and in batches.
fn comes_back(origin: &NodeName, boot: u64, seq: u64, records: &[SharedRecord]) {
    let mut writer = CompactWriter::new(seq, 64);
    for record in records {
        let message = wire::encode(record);
        assert_eq!(message.len(), wire::encoded_len(record), "{record:?}");
        assert_eq!(wire::decode(&message).ok().as_ref(), Some(&**record));
        assert!(writer.push(record, usize::MAX));
    }
    let mut reader = CompactReader::new(writer.bytes(), origin, boot, seq);
    let again: Vec<SharedRecord> = std::iter::from_fn(|| reader.read()).collect();
    assert_eq!(again, records);
    assert!(reader.is_at_end() && reader.sum() == writer.sum(), "{records:?}");
    let mut unpacked = Vec::new();
    let mut covered = seq;
    for batch in pack(origin, boot, seq, 1_000_000, records) {
        let Some(opened) = open(batch.encoded.clone()) else {
            return assert!(batch.last_seq - covered > COVERED_MAX, "a header that was written here");
        };
        assert_eq!((opened.id.first_seq, opened.last_seq), (covered + 1, batch.last_seq));
        covered = opened.last_seq;
        unpacked.extend(read_records(&opened).expect("records that were written here"));
    }
    assert_eq!(unpacked, records);
}

/// Reads the bytes as a record in the form of the disk and of streams, by hand and by generated code.
fn from_disk(bytes: &[u8]) {
    let _ = wire::decode(bytes);
    let Ok(message) = proto::Record::decode(bytes) else { return };
    let (Ok(source), Ok(origin)) = (Source::parse(&message.source), NodeName::parse(&message.origin)) else {
        return;
    };
    use proto::record::Payload as Given;
    let (payload, stamp) = match message.payload {
        Some(Given::Json(text)) => (Payload::Json(text.clone()), Stamp::of_data(message.ts, &text)),
        Some(Given::Binary(data)) => (Payload::Binary(data.clone()), Stamp::of_data(message.ts, &data)),
        Some(Given::Deleted(true)) => (Payload::Deleted, Stamp::of_deletion(message.ts)),
        _ => return,
    };
    let birth = Birth { origin, boot: message.boot, seq: message.seq };
    let record = Record::new(source, stamp, payload, birth, message.accepted_us, message.ttl_ms);
    // What other nodes would not believe is not written by one that checks what clients send.
    if let Ok(decoded) = wire::decode(&wire::encode(&record)) {
        assert_eq!(decoded, record);
    }
}

fn records() -> Vec<SharedRecord> {
    let record = |source: &str, ts: u64, seq: u64, payload: Payload, ttl_ms: u64| {
        let stamp = match &payload {
            Payload::Deleted => Stamp::of_deletion(ts),
            data => Stamp::of_data(ts, data.bytes()),
        };
        let birth = Birth { origin: NodeName::parse("n2").expect("name"), boot: 5, seq };
        let accepted_us = ts + if ttl_ms > 0 { 3 } else { 0 };
        let source = Source::parse(source).expect("source");
        SharedRecord::new(Record::new(source, stamp, payload, birth, accepted_us, ttl_ms))
    };
    let ts = 1_700_000_000_000_000;
    vec![
        record("sensors/7/temp", ts, 1, Payload::Json(Bytes::from_static(b"{\"t\":21.5}")), 0),
        record("sensors/7/wind", ts + 5, 2, Payload::Json(Bytes::from_static(b"{\"t\":22.5}")), 1_000),
        record("sensors/\u{e4}", ts - 9, 5, Payload::Binary(Bytes::from_static(b"\0\xff")), 0),
        record("sensors/7/temp", ts + 7, 6, Payload::Deleted, 0),
    ]
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    let records = records();
    let compact = |from: usize, to: usize| {
        let seq = records[from].birth.seq - 1;
        let mut writer = CompactWriter::new(seq, 64);
        records[from..to].iter().for_each(|record| assert!(writer.push(record, usize::MAX)));
        [&seq.to_le_bytes(), writer.bytes()].concat()
    };
    let mut seeds = vec![compact(0, 1), compact(0, 2), compact(0, 4), compact(2, 3), compact(3, 4)];
    seeds.extend(records.iter().map(|record| [&[0; 8], &*wire::encode(record)].concat()));
    seeds
}

/// Bodies of datagrams that bring records, ask for them, or answer.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let batch = pack(&NodeName::parse("n2").expect("name"), 5, 0, 1_000_000, &records()).remove(0);
    let part = |number: u64, bytes: Bytes| proto::Part {
        number,
        batch: bytes,
        from: 1,
        to: u64::MAX,
        hops: 1,
        age_us: 50,
        counted: true,
        ..Default::default()
    };
    let fragments = (0..2).map(|fragment| {
        let (half, bytes) = (batch.encoded.len() / 2, &batch.encoded);
        let bytes = if fragment == 0 { bytes.slice(..half) } else { bytes.slice(half..) };
        proto::Part { fragment, fragments: 2, ..part(2 + u64::from(fragment), bytes) }
    });
    let announced = proto::Part {
        line: batch.id.line,
        first_seq: 100,
        body_bytes: 70_000,
        body_checksum: 5,
        ..part(4, Bytes::new())
    };
    let question = proto::Part { line: batch.id.line, first_seq: 1, ..part(5, Bytes::new()) };
    let receipt = proto::Receipt {
        life: super::wire::life_tag(5),
        below: 3,
        runs: vec![1, 2, 3],
        wanted: vec![4],
        unserved: vec![proto::Unserved { number: 5, member: 6 }],
        pulling: vec![6],
        tallies: vec![proto::Tally { number: 7, count: 2, members: 9 }],
    };
    let want = proto::Want { line: batch.id.line, runs: vec![0, 3, 2] };
    let inquiry = proto::Inquiry {
        id: 1,
        source: "sensors/7/temp".into(),
        ts: 1_700_000_000_000_000,
        hash: vec![7; 16].into(),
        line: batch.id.line,
        seq: 1,
        ..Default::default()
    };
    let spreads = vec![
        proto::Spread { floor: 1, parts: vec![part(1, batch.encoded.clone())], ..Default::default() },
        proto::Spread { floor: 1, parts: fragments.collect(), ..Default::default() },
        proto::Spread { floor: 1, parts: vec![announced, question], ..Default::default() },
        proto::Spread { receipt: Some(receipt), uncounted: vec![3], ..Default::default() },
        proto::Spread {
            wants: vec![want.clone()],
            lacks: vec![want],
            inquiries: vec![inquiry],
            holding: Some(proto::Holding { member: 3, ids: vec![1] }),
            ..Default::default()
        },
    ];
    let datagram = |spread| proto::Datagram {
        body: Some(proto::datagram::Body::Spread(spread)),
        heads: vec![proto::Head { line: batch.id.line, seq: 6 }],
        ..Default::default()
    };
    spreads.into_iter().map(|spread| datagram(spread).encode_to_vec()).collect()
}
