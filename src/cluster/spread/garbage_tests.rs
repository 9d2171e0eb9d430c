//! Messages that no node would write.

use proptest::prelude::*;
use prost::Message;

use super::harness::{World, address};
use super::{Opened, PeerLife};
use crate::proto::gossip as proto;

proptest! {
    /// hashicorp/memberlist#368, #369: the decoder panicked on datagrams that no node would write.
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
            let address = address((draw.below(30)) as usize);
            let from = PeerLife { address, boot: draw.below(3) };
            node.spread.handle_spread(now, from, Opened::of(&message), &ring, &mut node.arrivals);
            node.spread.handle_heads(now, address, &[(draw.any(), draw.any())]);
            world.pump(0);
            world.run(draw.below(100_000));
        }
    }
}

proptest! {
    /// The decoder by hand reads the same as the generated one, whatever the message says.
    #[test]
    fn is_read_as_the_generated_code_reads_it(seed: u64, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = Draw(seed).message(&bytes);
        let opened = Opened::of(&message);
        prop_assert_eq!(opened.floor, message.floor);
        prop_assert_eq!(&opened.uncounted, &message.uncounted);
        prop_assert_eq!(opened.holding, message.holding.clone().map(|it| (it.member, it.ids)));
        prop_assert_eq!(opened.lacks, message.lacks.iter().map(|it| it.line).collect::<Vec<_>>());
        let wanted: Vec<_> = message.wants.iter().map(|it| it.line).collect();
        prop_assert_eq!(opened.wants.iter().map(|it| it.line).collect::<Vec<_>>(), wanted);
        prop_assert_eq!(opened.parts.len(), message.parts.len());
        for (ours, theirs) in opened.parts.iter().zip(&message.parts) {
            prop_assert_eq!(ours.number, theirs.number);
            let Some(header) = &ours.header else { continue };
            prop_assert_eq!((header.span.from, header.span.to), (theirs.from, theirs.to));
            prop_assert_eq!((&header.zone, &header.without), (&theirs.zone, &theirs.without));
            prop_assert_eq!((header.hops, header.age_us), (theirs.hops, theirs.age_us));
            prop_assert_eq!((header.instead_of, header.other), (theirs.instead_of, theirs.other));
            let flags = (header.is_hurried, header.is_repair, header.counted.is_some());
            prop_assert_eq!(flags, (theirs.hurried, theirs.repair, theirs.counted));
        }
        if let (Some(ours), Some(theirs)) = (opened.receipt, &message.receipt) {
            prop_assert_eq!((ours.life, ours.below), (theirs.life, theirs.below));
            prop_assert_eq!((&ours.wanted, &ours.pulling), (&theirs.wanted, &theirs.pulling));
            let unserved = ours.unserved.iter().map(|it| (it.number, it.member));
            prop_assert!(unserved.eq(theirs.unserved.iter().map(|it| (it.number, it.member))));
            let tallies = ours.tallies.iter().map(|(number, it)| (*number, it.count, it.members));
            let expected = theirs.tallies.iter().map(|it| (it.number, it.count, it.members));
            prop_assert!(tallies.eq(expected));
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = message.encode_to_vec();
            let len = flipped.len();
            flipped[bit / 8 % len] ^= 1 << (bit % 8);
            let _ = Opened::read(&flipped);
        }
    }
}

/// Draws messages of the right form whose fields have any content.
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
            probe: self.any(),
            padding: vec![0; self.below(9) as usize].into(),
            carried: self.any(),
        }
    }
}
