use proptest::prelude::*;

use super::*;

fn frames() -> Vec<ReconcileFrame> {
    let mut differing = ShardSet::default();
    differing.insert(0);
    differing.insert(255);
    let symbols =
        vec![Symbol { sum: u128::MAX - 5, check: 9, count: -3 }, Symbol { sum: 1, check: 2, count: 70_000 }];
    vec![
        ReconcileFrame::Hello {
            sender: NodeName::parse("a").expect("name"),
            seed: 1,
            wall_us: 2,
            young_us: 3,
            is_reconciled: true,
            fingerprints: Box::new(std::array::from_fn(|shard| shard as u64 * 77)),
        },
        ReconcileFrame::Busy,
        ReconcileFrame::Welcome {
            sender: NodeName::parse("b").expect("name"),
            clocks_us: (4, 5),
            is_reconciled: false,
            differing,
        },
        ReconcileFrame::Open { shard: 255, count: 1 << 40, fold: 4 },
        ReconcileFrame::Ask { shard: 0, upto: 12 },
        ReconcileFrame::Symbols { shard: 3, symbols },
        ReconcileFrame::Ids { shard: 4, ids: vec![1, u128::MAX], has_more: true },
        ReconcileFrame::Records(Bytes::from_static(b"abc")),
        ReconcileFrame::Settled { shard: 9, found: 3, wanted: vec![1, u64::MAX], wants_all: false },
        ReconcileFrame::Finish { is_complete: true, heads: Bytes::from_static(b"h") },
    ]
}

proptest! {
    #[test]
    fn frames_come_back_however_they_are_cut(cuts in proptest::collection::vec(1usize..400, 1..60)) {
        let mut bytes = Vec::new();
        for frame in frames() {
            frame.encode(&mut bytes);
        }
        let (mut reader, mut read, mut rest) = (VarintFrameReader::default(), Vec::new(), &bytes[..]);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            reader.push(part);
            while let Some(frame) = reader.next_frame().expect("sound") {
                read.push(ReconcileFrame::decode(&frame).expect("sound"));
            }
        }
        prop_assert_eq!(read, frames());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = VarintFrameReader::default();
        reader.push(&bytes);
        while let Ok(Some(frame)) = reader.next_frame() {
            let _ = ReconcileFrame::decode(&frame);
        }
        let _ = ReconcileFrame::decode(&bytes);
        let _ = unpack_heads(&bytes);
        prop_assert!(records(&bytes).all(|record| record.is_err()));
    }

    #[test]
    fn a_flipped_bit_never_panics(which in 0usize..10, at: prop::sample::Index) {
        let mut bytes = Vec::new();
        frames().swap_remove(which).encode(&mut bytes);
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut reader = VarintFrameReader::default();
        reader.push(&bytes);
        while let Ok(Some(frame)) = reader.next_frame() {
            let _ = ReconcileFrame::decode(&frame);
        }
    }
}

/// nats-server 2.2–2.11: a 64-bit length with its top bit set panicked the frame parser.
#[test]
fn absurd_lengths_are_refused_at_once() {
    for length in [1u64 << 63, u64::MAX, STREAM_FRAME_BYTES_MAX as u64 + 1] {
        let mut reader = VarintFrameReader::default();
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(length, &mut bytes);
        reader.push(&bytes);
        assert!(matches!(reader.next_frame(), Err(FrameError::Length(seen, _)) if seen == length));
    }
    let mut reader = VarintFrameReader::default();
    reader.push(&[0xff; 11]);
    assert!(matches!(reader.next_frame(), Err(FrameError::Varint)));
}

#[test]
fn heads_come_back() {
    let name = |name| NodeName::parse(name).expect("name");
    let heads = Heads::from([((name("a"), 1), 7), ((name("a"), 2), 1), ((name("b"), 1), u64::MAX)]);
    assert_eq!(unpack_heads(&pack_heads(&heads)).expect("sound"), heads);
    assert_eq!(unpack_heads(&[]).expect("sound"), Heads::new());
}

#[test]
fn shard_sets() {
    let mut set = ShardSet::default();
    set.insert(3);
    set.insert(200);
    set.insert(SHARDS);
    assert_eq!(set.iter().collect::<Vec<_>>(), [3, 200]);
    assert!(set.contains(3) && !set.contains(4) && !set.contains(SHARDS));
    assert_eq!((set.len(), ShardSet::all().len(), set.and(&ShardSet::all())), (2, SHARDS, set));
}
