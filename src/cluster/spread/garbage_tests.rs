//! Messages that no node would write.

use proptest::prelude::*;
use prost::Message;

use super::Packet;
use super::harness::{World, address};
use crate::proto::gossip as proto;

proptest! {
    /// hashicorp/memberlist#368, #369: datagrams nobody would write panicked the decoder.
    #[test]
    fn garbage_is_survived(seed: u64, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut world = World::new(20, 1);
        world.publish(3, 2, 100);
        world.run(400);
        let mut draw = Draw(seed);
        for _ in 0..20 {
            let message = if draw.below(4) == 0 {
                proto::Spread::decode(&bytes[..]).unwrap_or_default()
            } else {
                draw.message(&bytes)
            };
            let now = world.now();
            let node = &mut world.nodes[0];
            let ring = node.ring.clone();
            let from = address((draw.below(30)) as usize);
            let packet = Packet::from_proto(message);
            node.spread.handle_spread(now, from, draw.below(3), packet, &ring, &mut node.arrivals);
            node.spread.handle_heads(now, from, &[(draw.any(), draw.any())]);
            world.pump(0);
            world.run(draw.below(100_000));
        }
    }
}

/// Messages of the right form with fields of any content.
struct Draw(u64);

impl Draw {
    fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let drawn = super::tree::mix(self.0);
        match drawn % 5 {
            0 => (drawn >> 8) % 4,
            1 => u64::MAX - (drawn >> 8) % 4,
            2 => (drawn >> 8) % 3_000,
            _ => drawn,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    fn message(&mut self, bytes: &[u8]) -> proto::Spread {
        let parts = (0..self.below(4)).map(|_| proto::Part {
            number: self.any(),
            batch: bytes[..(self.below(bytes.len() as u64 + 1)) as usize].to_vec().into(),
            from: self.any(),
            to: self.any(),
            zone: if self.below(2) == 0 { String::new() } else { "z".repeat(self.below(300) as usize) },
            hops: self.any() as u32,
            age_us: self.any() as u32,
            without: (0..self.below(20)).map(|_| self.any()).collect(),
            instead_of: (self.below(2) == 0).then(|| self.any()),
            other: (self.below(2) == 0).then(|| self.any()),
            fragment: self.any() as u32,
            fragments: self.any() as u32,
            repair: self.below(2) == 0,
            line: self.any(),
            first_seq: self.any(),
            hurried: self.below(2) == 0,
            body_bytes: self.any() as u32,
            body_checksum: self.any(),
            counted: self.below(2) == 0,
        });
        let parts = parts.collect();
        let want = |draw: &mut Draw| proto::Want {
            line: draw.any(),
            runs: (0..draw.below(9)).map(|_| draw.any()).collect(),
        };
        let receipt = proto::Receipt {
            life: self.below(4) as u32,
            below: self.any(),
            runs: (0..self.below(9)).map(|_| self.any()).collect(),
            wanted: vec![self.any(), self.any()],
            unserved: vec![proto::Unserved { number: self.any(), member: self.any() }],
            pulling: vec![self.any(), self.any()],
            tallies: vec![proto::Tally { number: self.any(), count: self.any() as u32, members: self.any() }],
        };
        proto::Spread {
            floor: self.any(),
            parts,
            receipt: Some(receipt),
            wants: vec![want(self), want(self)],
            lacks: vec![want(self)],
            inquiries: vec![proto::Inquiry {
                id: self.any(),
                source: "a".repeat(self.below(3) as usize),
                ts: self.any(),
                deleted: self.below(2) == 0,
                hash: vec![0; 15 + self.below(3) as usize].into(),
                line: self.any(),
                seq: self.any(),
            }],
            holding: Some(proto::Holding { member: self.any(), ids: vec![self.any()] }),
            uncounted: vec![self.any()],
        }
    }
}
