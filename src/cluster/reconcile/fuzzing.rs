//! The check of the frames on a stream of reconciliation.

use bytes::Bytes;

use super::riblt::Symbol;
use super::wire::{ReconcileFrame, ShardSet, pack_heads, push_record, records, unpack_heads};
use crate::cluster::Heads;
use crate::limits::SHARDS;
use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

/// A frame, given without its length, comes back when it is written, and so does what is packed in it.
pub(crate) fn frame_comes_back(bytes: &[u8]) {
    // Each piece may also be a frame behind its length.
    let behind = bytes.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1);
    for bytes in [bytes, bytes.get(behind..).unwrap_or_default()] {
        let Ok(frame) = ReconcileFrame::decode(bytes) else { continue };
        match &frame {
            ReconcileFrame::Records(batch) => {
                for record in records(batch).flatten() {
                    let mut written = Vec::new();
                    push_record(&mut written, &record);
                    let again: Vec<Record> = records(&written).flatten().collect();
                    assert_eq!(again, [record]);
                }
            }
            ReconcileFrame::Finish { heads, .. } => {
                if let Ok(heads) = unpack_heads(heads) {
                    assert_eq!(unpack_heads(&pack_heads(&heads)).ok(), Some(heads));
                }
            }
            _ => {}
        }
        let mut written = Vec::new();
        frame.clone().encode(&mut written);
        let length = written.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1);
        let again = ReconcileFrame::decode(&written[length..]).expect("what is written is read");
        assert_eq!(again, frame);
    }
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("name")
}

fn a_batch() -> Bytes {
    let data = Bytes::from_static(b"{\"t\":1}");
    let (ts, mut batch) = (1_700_000_000_000_000, Vec::new());
    for (seq, source) in (1..).zip(["a", "a/b", "c"]) {
        let birth = Birth { origin: name("n2"), boot: 5, seq };
        let (source, stamp) = (Source::parse(source).expect("source"), Stamp::of_data(ts + seq, &data));
        let record = Record::new(source, stamp, Payload::Json(data.clone()), birth, ts, 0);
        push_record(&mut batch, &record);
    }
    batch.into()
}

/// What the other end of a session may say, frame by frame, each with its length in front.
pub(crate) fn conversations() -> Vec<Vec<Vec<u8>>> {
    let mut differing = ShardSet::default();
    differing.insert(0);
    differing.insert(SHARDS - 1);
    let mut heads = Heads::new();
    heads.insert((name("n2"), 5), 3);
    let hello = ReconcileFrame::Hello {
        sender: name("n2"),
        seed: 1,
        wall_us: 1_700_000_000_000_000,
        young_us: 3,
        is_reconciled: true,
        fingerprints: Box::new(std::array::from_fn(|shard| u64::from(shard == 0))),
    };
    let welcome = ReconcileFrame::Welcome {
        sender: name("n2"),
        clocks_us: (1_700_000_000_000_000, 1_700_000_000_000_001),
        is_reconciled: true,
        differing,
    };
    let finish = ReconcileFrame::Finish { is_complete: true, heads: pack_heads(&heads) };
    let symbols = ReconcileFrame::Symbols {
        shard: 0,
        symbols: vec![Symbol { sum: 5, check: 9, count: -3 }, Symbol { sum: 1, check: 2, count: 7 }],
    };
    let conversations = vec![
        vec![
            hello.clone(),
            ReconcileFrame::Open { shard: 0, count: 3, fold: 4 },
            symbols,
            ReconcileFrame::Records(a_batch()),
            finish.clone(),
        ],
        vec![hello, ReconcileFrame::Ids { shard: 0, ids: vec![1, u128::MAX], has_more: false }],
        vec![welcome.clone(), ReconcileFrame::Ask { shard: 0, upto: 12 }, finish.clone()],
        vec![
            welcome,
            ReconcileFrame::Settled { shard: 0, found: 3, wanted: vec![1], wants_all: true },
            ReconcileFrame::Records(a_batch()),
            finish,
        ],
        vec![ReconcileFrame::Busy],
    ];
    let encode = |frame: ReconcileFrame| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    };
    conversations.into_iter().map(|frames| frames.into_iter().map(encode).collect()).collect()
}
