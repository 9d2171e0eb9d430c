//! Two machines that talk through a seal that costs as much as any seal may, in datagrams and on streams.
//!
//! The seal here is a toy without any secret, but it has the shape of a cipher's: a counter for every
//! datagram, a body that cannot be read as it lies, a tag at the end, refusal of what came before, and
//! streams to whose key both sides contribute.

mod keyed;
mod odd_peers;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::cluster::random::Random;
use crate::cluster::{
    Arrival, Effect, Machine, MachineConfig, Profile, Replica, StreamEvent, StreamId, StreamOutput,
};
use crate::record::{Birth, NodeName, Now, Payload, Record, SharedRecord, Source, Stamp};
use crate::sim::SimReplica;

const COUNTER_BYTES: usize = 8;
const TAG_BYTES: usize = OVERHEAD_BYTES_MAX - COUNTER_BYTES;
const CLEAR_BYTES: usize = PREFIX_BYTES + COUNTER_BYTES + SENDER_BYTES;
const SHARE_BYTES: usize = 8;
const CHUNK_TAG_BYTES: usize = 8;

/// Changes bytes so that they cannot be read; the second time it changes them back.
fn scramble(key: u64, bytes: &mut [u8]) {
    let mut stream = Random::new(key);
    bytes.iter_mut().for_each(|byte| *byte ^= stream.next_u64() as u8);
}

/// A seal that adds as many bytes to a datagram as any seal may.
#[derive(Debug, Default)]
struct WideSeal {
    sealed: u64,
    seen: BTreeSet<(SocketAddr, u64)>,
    opened: Vec<u8>,
}

impl WideSeal {
    fn unseal<'a>(&'a mut self, message: &'a [u8]) -> Result<(u64, Unsealed<'a>), SealRefusal> {
        let body_bytes = message.len().checked_sub(CLEAR_BYTES + TAG_BYTES).ok_or(SealRefusal::Corrupt)?;
        let (clear, rest) = message.split_at(CLEAR_BYTES);
        let (body, tag) = rest.split_at(body_bytes);
        let checked = &message[..CLEAR_BYTES + body_bytes];
        if tag[..8] != xxh3_64(checked).to_le_bytes() {
            return Err(SealRefusal::Corrupt);
        }
        let (mut counter, mut sender) = ([0; COUNTER_BYTES], [0; SENDER_BYTES]);
        counter.copy_from_slice(&clear[PREFIX_BYTES..PREFIX_BYTES + COUNTER_BYTES]);
        sender.copy_from_slice(&clear[PREFIX_BYTES + COUNTER_BYTES..]);
        let counter = u64::from_le_bytes(counter);
        self.opened.clear();
        self.opened.extend_from_slice(body);
        scramble(counter, &mut self.opened);
        Ok((counter, Unsealed { sender, body: &self.opened, is_fresh: true }))
    }
}

impl Seal for WideSeal {
    type Stream = WideStream;

    fn overhead_bytes(&self) -> usize {
        OVERHEAD_BYTES_MAX
    }

    fn field_bytes(&self) -> usize {
        COUNTER_BYTES
    }

    fn seal(&mut self, _to: SocketAddr, message: &mut Vec<u8>) {
        self.sealed += 1;
        message[PREFIX_BYTES..PREFIX_BYTES + COUNTER_BYTES].copy_from_slice(&self.sealed.to_le_bytes());
        scramble(self.sealed, &mut message[CLEAR_BYTES..]);
        let tag = xxh3_64(message);
        message.extend_from_slice(&tag.to_le_bytes());
        message.extend_from_slice(&[0; TAG_BYTES - 8]);
    }

    fn open<'a>(&'a mut self, from: SocketAddr, message: &'a [u8]) -> Result<Unsealed<'a>, SealRefusal> {
        let (counter, _) = self.unseal(message)?;
        if !self.seen.insert((from, counter)) {
            return Err(SealRefusal::Foreign);
        }
        self.unseal(message).map(|(_, unsealed)| unsealed)
    }

    fn connect(&mut self, preamble: &mut Vec<u8>) -> WideStream {
        let share = 1_000 + self.sealed;
        preamble.extend_from_slice(&share.to_le_bytes());
        self.seal(SocketAddr::from(([0, 0, 0, 0], 0)), preamble);
        WideStream { own_share: share, ..WideStream::default() }
    }

    fn preamble_bytes(&self, _prefix: [u8; PREFIX_BYTES]) -> usize {
        CLEAR_BYTES + SHARE_BYTES + TAG_BYTES
    }

    fn accept<'a>(
        &'a mut self,
        _from: SocketAddr,
        preamble: &'a [u8],
    ) -> Result<(Unsealed<'a>, WideStream), SealRefusal> {
        let own_share = 2_000 + self.sealed;
        let (_, unsealed) = self.unseal(preamble)?;
        let theirs = unsealed.body.try_into().map_err(|_| SealRefusal::Corrupt)?;
        let key = Some(own_share ^ u64::from_le_bytes(theirs));
        let answer = own_share.to_le_bytes().to_vec();
        Ok((unsealed, WideStream { own_share, key, answer, ..WideStream::default() }))
    }
}

/// A stream whose bytes go in chunks of a length, scrambled bytes, and a tag.
#[derive(Debug, Default)]
struct WideStream {
    own_share: u64,
    key: Option<u64>,
    answer: Vec<u8>,
    sealed: u64,
    opened: u64,
    waiting: Vec<u8>,
}

impl StreamSeal for WideStream {
    fn is_ready(&self) -> bool {
        self.key.is_some()
    }

    fn take_answer(&mut self) -> Bytes {
        std::mem::take(&mut self.answer).into()
    }

    fn seal(&mut self, bytes: Bytes) -> Bytes {
        let key = self.key.expect("nothing is sealed before both have contributed");
        let mut chunk = (bytes.len() as u32).to_le_bytes().to_vec();
        chunk.extend_from_slice(&bytes);
        scramble(key + self.sealed, &mut chunk[4..]);
        self.sealed += 1;
        let tag = xxh3_64(&chunk);
        chunk.extend_from_slice(&tag.to_le_bytes());
        chunk.into()
    }

    fn open(&mut self, received: Bytes) -> Result<Bytes, SealRefusal> {
        self.waiting.extend_from_slice(&received);
        if self.key.is_none() {
            let Some(theirs) = self.waiting.first_chunk::<SHARE_BYTES>() else { return Ok(Bytes::new()) };
            self.key = Some(self.own_share ^ u64::from_le_bytes(*theirs));
            self.waiting.drain(..SHARE_BYTES);
        }
        let mut opened = Vec::new();
        while let (Some(key), Some(length)) = (self.key, self.waiting.first_chunk::<4>()) {
            let end = 4 + u32::from_le_bytes(*length) as usize;
            if self.waiting.len() < end + CHUNK_TAG_BYTES {
                break;
            }
            let mut chunk: Vec<u8> = self.waiting.drain(..end + CHUNK_TAG_BYTES).collect();
            let tag = chunk.split_off(end);
            if tag != xxh3_64(&chunk).to_le_bytes() {
                return Err(SealRefusal::Corrupt);
            }
            scramble(key + self.opened, &mut chunk[4..]);
            self.opened += 1;
            opened.extend_from_slice(&chunk[4..]);
        }
        Ok(opened.into())
    }
}

/// Something on its way to a machine.
enum Event {
    Datagram(Vec<u8>),
    Stream(StreamId, StreamEvent),
}

/// Two machines, and what is on its way between them: nothing is lost.
struct World<S: Seal> {
    now_us: u64,
    machines: Vec<Machine<S>>,
    replicas: Vec<SimReplica>,
    coming: BTreeMap<(u64, u64), (usize, Event)>,
    events: u64,
    /// The other end of each stream, by machine and number.
    ends: BTreeMap<(usize, StreamId), StreamId>,
    accepted: u64,
    /// Everything that was sent, datagrams and streams.
    sent: Vec<Vec<u8>>,
    largest_datagram: usize,
    /// Receivers and sizes of the datagrams to other addresses than the peer's.
    elsewhere: Vec<(SocketAddr, usize)>,
    /// Bytes of a stream that are delivered at once, at most.
    piece_bytes: usize,
    /// Whether the machines are also sent messages that no node would write.
    is_odd: bool,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7946))
}

fn config(index: usize) -> MachineConfig {
    MachineConfig {
        name: NodeName::parse(&format!("n{index}")).expect("a name"),
        boot: 7,
        cluster_name: "sealed".into(),
        gossip: address(index),
        http: String::new(),
        zone: String::new(),
        version: "0.1.0".into(),
        profile: Profile::Local,
        tombstones_us: 3_600_000_000,
        agreed_us: None,
        has_seeds: true,
        seed: index as u64,
        keys: None,
    }
}

/// A record that `n0` accepted, with `len` bytes of readable data.
fn record(seq: u64, len: usize) -> SharedRecord {
    let birth = Birth { origin: NodeName::parse("n0").expect("a name"), boot: 7, seq };
    let data = "plain ".repeat(len / 6 + 1).into_bytes();
    let source = Source::parse(&format!("sealed/{seq}")).expect("a source");
    let stamp = Stamp::of_data(1_000_000 + seq, &data);
    Arc::new(Record::new(source, stamp, Payload::Binary(data.into()), birth, 1_000_000, 0))
}

impl<S: Seal> World<S> {
    fn new(seals: Vec<S>) -> World<S> {
        let now = Now { mono_us: 1, wall_us: 1_763_800_000_000_000 };
        let seals = seals.into_iter().enumerate();
        let machines: Vec<_> =
            seals.map(|(index, seal)| Machine::with_seal(config(index), now, seal)).collect();
        let mut world = World {
            now_us: 1,
            replicas: machines.iter().map(|_| SimReplica::default()).collect(),
            machines,
            coming: BTreeMap::new(),
            events: 0,
            ends: BTreeMap::new(),
            accepted: 0,
            sent: Vec::new(),
            largest_datagram: 0,
            elsewhere: Vec::new(),
            piece_bytes: 1_000,
            is_odd: false,
        };
        for index in 0..world.machines.len() {
            world.machines[index].handle_seeds(now, &[address(1 - index)]);
            world.drain(index);
        }
        world
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_us: 1_763_800_000_000_000 + self.now_us }
    }

    fn schedule(&mut self, after_us: u64, to: usize, event: Event) {
        self.events += 1;
        self.coming.insert((self.now_us + after_us, self.events), (to, event));
    }

    fn drain(&mut self, index: usize) {
        let peer = 1 - index;
        while let Some(effect) = self.machines[index].poll_effect() {
            match effect {
                // Odd messages may name members at other addresses, or one of this node's own name.
                Effect::Datagram { to, bytes } if self.is_odd && to != address(peer) => {
                    self.elsewhere.push((to, bytes.len()));
                }
                Effect::NameTaken { .. } if self.is_odd => {}
                Effect::Datagram { to, bytes } => {
                    assert_eq!(to, address(peer));
                    self.largest_datagram = self.largest_datagram.max(bytes.len());
                    self.sent.push(bytes.to_vec());
                    self.schedule(300, peer, Event::Datagram(bytes.to_vec()));
                }
                Effect::Stream(StreamOutput::Connect { stream, .. }) => {
                    self.accepted += 2;
                    let accepted = StreamId(self.accepted);
                    self.ends.insert((index, stream), accepted);
                    self.ends.insert((peer, accepted), stream);
                    let from = address(index);
                    self.schedule(300, peer, Event::Stream(accepted, StreamEvent::Accepted { from }));
                    self.schedule(300, index, Event::Stream(stream, StreamEvent::Opened));
                }
                Effect::Stream(StreamOutput::Write { stream, bytes }) => {
                    self.sent.push(bytes.to_vec());
                    let Some(&there) = self.ends.get(&(index, stream)) else { continue };
                    for piece in bytes.chunks(self.piece_bytes) {
                        let piece = Bytes::copy_from_slice(piece);
                        self.schedule(300, peer, Event::Stream(there, StreamEvent::Received(piece)));
                    }
                    self.schedule(300, index, Event::Stream(stream, StreamEvent::Drained));
                }
                Effect::Stream(StreamOutput::Close { stream }) => {
                    let Some(there) = self.ends.remove(&(index, stream)) else { continue };
                    self.ends.remove(&(peer, there));
                    self.schedule(300, peer, Event::Stream(there, StreamEvent::Closed));
                }
                Effect::MembersChanged | Effect::Replicated(_) | Effect::NewBoot { .. } => {}
                Effect::NameTaken { by } => panic!("the name of {index} is taken by {by}"),
            }
        }
    }

    fn run_us(&mut self, for_us: u64) {
        let end_us = self.now_us + for_us;
        loop {
            let event_us = self.coming.first_key_value().map_or(u64::MAX, |((at_us, _), _)| *at_us);
            let due = (0..self.machines.len())
                .filter_map(|index| Some((self.machines[index].poll_timeout()?.max(self.now_us), index)))
                .min();
            let due_us = due.map_or(u64::MAX, |(due_us, _)| due_us);
            if event_us.min(due_us) > end_us {
                break;
            }
            self.now_us = event_us.min(due_us).max(self.now_us);
            let now = self.now();
            let index = if event_us <= due_us {
                let Some((_, (index, event))) = self.coming.pop_first() else { break };
                let (machine, replica) = (&mut self.machines[index], &mut self.replicas[index]);
                match event {
                    Event::Datagram(bytes) => {
                        machine.handle_datagram(now, address(1 - index), &bytes, replica);
                    }
                    Event::Stream(stream, event) => machine.handle_stream(now, stream, event, replica),
                }
                index
            } else {
                let Some((_, index)) = due else { break };
                self.machines[index].handle_timeout(now, &mut self.replicas[index]);
                index
            };
            self.drain(index);
        }
        self.now_us = end_us;
    }

    /// Puts records into the first node's map; its machine is not told.
    fn hold(&mut self, records: impl Iterator<Item = SharedRecord>) {
        for record in records {
            self.replicas[0].apply(Now::default(), record, Arrival::Reconcile);
        }
    }

    /// The first node accepts records from a client.
    fn publish(&mut self, records: &[SharedRecord]) {
        let now = self.now();
        self.hold(records.iter().cloned());
        self.machines[0].handle_published(now, records);
        self.drain(0);
    }
}

fn two_wide() -> World<WideSeal> {
    World::new(vec![WideSeal::default(), WideSeal::default()])
}

#[test]
fn a_seal_with_more_overhead_shrinks_every_datagram_and_all_arrives() {
    for piece_bytes in [1, 50_000] {
        let mut world = two_wide();
        world.piece_bytes = piece_bytes;
        // The second node has to ask for these by reconciliation.
        world.hold((1..50).map(|seq| record(seq, 100)));
        world.run_us(3_000_000);
        assert!(world.machines.iter().all(|machine| machine.ring().len() == 2 && machine.is_reconciled()));
        assert_eq!(world.replicas[1].digest(), world.replicas[0].digest());

        // Records in one datagram, in fragments, and pulled over a stream.
        let records: Vec<_> = (50..90).map(|seq| record(seq, 40 * (seq as usize - 50))).collect();
        world.publish(&records);
        world.publish(&[record(90, 20_000)]);
        world.publish(&[record(91, 200_000)]);
        world.run_us(1_000_000);
        assert_eq!(world.replicas[1].digest(), world.replicas[0].digest());
        assert_eq!(world.replicas[1].digest().0, 91);

        let filled = DATAGRAM_BYTES_MAX - 64..=DATAGRAM_BYTES_MAX;
        assert!(filled.contains(&world.largest_datagram), "{} bytes", world.largest_datagram);
        let is_readable = |bytes: &Vec<u8>| bytes.windows(12).any(|window| window == b"plain plain ");
        assert!(!world.sent.iter().any(is_readable), "something was sent without the seal");
        for machine in &world.machines {
            assert_eq!((machine.stats().foreign, machine.stats().corrupt), (0, 0));
        }
    }
}

#[test]
fn a_datagram_that_is_sent_again_is_refused_and_counted() {
    let mut world = two_wide();
    world.run_us(500_000);
    let recorded = world.sent[0].clone();
    let before = *world.machines[1].stats();
    let now = world.now();
    world.machines[1].handle_datagram(now, address(0), &recorded, &mut world.replicas[1]);
    world.machines[1].handle_datagram(now, address(0), &recorded[..40], &mut world.replicas[1]);
    let after = world.machines[1].stats();
    assert_eq!((after.foreign, after.corrupt), (before.foreign + 1, before.corrupt + 1));
}

/// A stream that is damaged is closed, and the part of the machine that used it goes on without it.
#[test]
fn a_damaged_stream_is_closed() {
    let mut world = two_wide();
    world.hold((1..50).map(|seq| record(seq, 100)));
    world.piece_bytes = 64;
    let (mut damaged, mut random) = (0, Random::new(3));
    for _ in 0..10_000 {
        world.run_us(200);
        let pieces = world.coming.values_mut().filter_map(|(_, event)| match event {
            Event::Stream(_, StreamEvent::Received(piece)) => Some(piece),
            _ => None,
        });
        for piece in pieces {
            if random.below(50) > 0 {
                continue;
            }
            let mut bytes = piece.to_vec();
            let at = random.index(bytes.len());
            bytes[at] ^= 1;
            *piece = bytes.into();
            damaged += 1;
        }
    }
    world.run_us(20_000_000);
    assert_eq!(world.replicas[1].digest(), world.replicas[0].digest());
    let refused = |machine: &Machine<_>| machine.stats().corrupt + machine.stats().foreign;
    let refused: u64 = world.machines.iter().map(refused).sum();
    assert!(damaged > 0 && refused > 0, "{damaged} pieces were damaged, {refused} streams were refused");
}

/// A peer that answers a handshake with bytes of another seal: the part of the machine that asked for the
/// stream is told that it has ended, and nothing is written on it.
#[test]
fn a_handshake_that_fails_ends_the_stream() {
    let mut world = two_wide();
    world.run_us(500_000);
    let (now, stream) = (world.now(), StreamId(1));
    let refused = world.machines[0].stats().corrupt;
    world.machines[0].handle_stream(now, stream, StreamEvent::Opened, &mut world.replicas[0]);
    let answer = Bytes::from(vec![0; SHARE_BYTES + 4 + CHUNK_TAG_BYTES]);
    let answered = StreamEvent::Received(answer);
    world.machines[0].handle_stream(now, stream, answered, &mut world.replicas[0]);
    assert_eq!(world.machines[0].stats().corrupt, refused + 1);
    let mut outputs = Vec::new();
    while let Some(effect) = world.machines[0].poll_effect() {
        if let Effect::Stream(output) = effect {
            outputs.push(output);
        }
    }
    let is_preamble = |output: &StreamOutput| matches!(output, StreamOutput::Write { .. });
    assert_eq!(outputs.iter().filter(|output| is_preamble(output)).count(), 1, "{outputs:?}");
    assert_eq!(outputs.last(), Some(&StreamOutput::Close { stream }));
}

#[test]
fn who_has_another_seal_is_not_understood() {
    let mut plain = World::new(vec![Checksum, Checksum]);
    plain.run_us(300_000);
    let mut wide = two_wide();
    let now = wide.now();
    for datagram in &plain.sent {
        wide.machines[1].handle_datagram(now, address(0), datagram, &mut wide.replicas[1]);
    }
    let stats = wide.machines[1].stats();
    assert_eq!(stats.corrupt + stats.foreign, plain.sent.len() as u64);
    assert_eq!(wide.machines[1].ring().len(), 1);
}
