//! Peers whose messages have the right form, and any content.
//!
//! Two whole machines talk, and each is also sent copies of the other's datagrams in which numbers, texts
//! and whole parts are others than a node would write, under a checksum that is right. Bytes on streams are
//! changed, too.

use super::*;
use crate::cluster::outbox::Awaited;

/// Takes a varint from the front of `bytes`.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number that may be at an edge, or next to what it was.
fn odd_number(random: &mut Random, was: u64) -> u64 {
    match random.below(8) {
        0 => random.below(2),
        1 => u64::MAX - random.below(4),
        2 => u64::from(u32::MAX) - random.below(2),
        3 => was.wrapping_add(1),
        4 => was.wrapping_sub(1),
        5 => was.wrapping_mul(2),
        _ => random.next_u64() >> random.below(64),
    }
}

/// A text, some bytes or a message inside another one: shorter, longer, or with other content.
fn odd_part(random: &mut Random, part: &[u8], rarity: u64) -> Vec<u8> {
    let odd = match random.below(4 * rarity) {
        0 => Vec::new(),
        1 => part.repeat(2),
        2 => part[..random.index(part.len() + 1)].to_vec(),
        _ => part.to_vec(),
    };
    match random.below(8) {
        0 => odd,
        _ => odd_message(random, &odd, rarity).unwrap_or(odd),
    }
}

/// The protobuf message with some of its fields changed, left out or repeated; the greater `rarity`, the
/// fewer. `None` if `bytes` are no message.
fn odd_message(random: &mut Random, mut bytes: &[u8], rarity: u64) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while !bytes.is_empty() {
        let (mut field, tag) = (Vec::new(), take_varint(&mut bytes)?);
        put_varint(&mut field, tag);
        let is_odd = random.below(rarity) == 0;
        match tag & 7 {
            0 => {
                let number = take_varint(&mut bytes)?;
                put_varint(&mut field, if is_odd { odd_number(random, number) } else { number });
            }
            1 => {
                let (number, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                let number = u64::from_le_bytes(*number);
                let number = if is_odd { odd_number(random, number) } else { number };
                field.extend_from_slice(&number.to_le_bytes());
            }
            2 => {
                let part_bytes = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (part, rest) = bytes.split_at_checked(part_bytes)?;
                bytes = rest;
                let part = odd_part(random, part, rarity);
                put_varint(&mut field, part.len() as u64);
                field.extend_from_slice(&part);
            }
            _ => return None,
        }
        let times = [0, 2].get(random.below(4 * rarity) as usize).copied().unwrap_or(1);
        message.extend_from_slice(&field.repeat(times));
    }
    Some(message)
}

/// Changes what is on its way: some pieces of streams themselves, and of some datagrams a copy that comes
/// beside them.
fn disturb(world: &mut World<Checksum>, random: &mut Random, rarity: u64) {
    let mut odd = Vec::new();
    for (to, event) in world.coming.values_mut() {
        match event {
            Event::Datagram(datagram) if random.below(3) == 0 => {
                let (header, body) = datagram.split_at(CHECKED_HEADER_BYTES);
                let body = odd_message(random, body, rarity).unwrap_or_default();
                let mut copy = [header, &body].concat();
                copy[PREFIX_BYTES..PREFIX_BYTES + CHECKSUM_BYTES].fill(0);
                Checksum::fill(&mut copy);
                odd.push((*to, copy));
            }
            Event::Stream(_, StreamEvent::Received(piece)) if random.below(40) == 0 => {
                let mut bytes = piece.to_vec();
                let at = random.index(bytes.len());
                bytes[at] = odd_number(random, bytes[at].into()) as u8;
                *piece = bytes.into();
            }
            _ => {}
        }
    }
    for (to, copy) in odd {
        let after_us = random.below(3_000);
        world.schedule(after_us, to, Event::Datagram(copy));
    }
}

/// hashicorp/memberlist#368, #369: the decoder panicked on datagrams that no node would write. What is
/// decoded well and means nothing must not panic either, nor break what the machine asserts of itself.
#[test]
fn odd_messages_of_a_peer_are_survived() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let rarity = 2 + random.below(30);
        let mut world = World::new(vec![Checksum, Checksum]);
        (world.is_odd, world.piece_bytes) = (true, 5_000);
        world.hold((1..30).map(|seq| record(seq, 100)));
        let mut seq = 30;
        for _ in 0..60 {
            let (count, len) = (1 + random.below(20), 10 + random.below(1_500) as usize);
            let records: Vec<_> = (seq..seq + count).map(|seq| record(seq, len)).collect();
            seq += count;
            let awaited = records.iter().map(|record| Awaited {
                token: record.birth.seq,
                source: record.source.clone(),
                stamp: record.stamp,
                birth: record.birth.clone(),
                is_fresh: true,
            });
            let (now, awaited) = (world.now(), awaited.collect());
            world.machines[0].handle_awaited(now, awaited);
            world.publish(&records);
            for _ in 0..3 {
                world.run_us(250 + random.below(20_000));
                disturb(&mut world, &mut random, rarity);
            }
        }
    }
}
