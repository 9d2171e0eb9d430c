//! The checks of what is sealed with the keys of a cluster: datagrams, and streams from their preambles on.
//!
//! The input is a list of acts of two nodes and of whoever is between them. The checks know everything that was
//! sealed. So they can say of each message whether it must open: what was sealed opens once, and nothing else ever
//! does.

use std::net::SocketAddr;

use bytes::Bytes;

use super::header::{LONG_HEADER_BYTES, LONG_MARK, SHORT_HEADER_BYTES};
use super::keyed::{KeyedSeal, SEALED_PREAMBLE_BYTES, SealKeys};
use super::stream::SealedStream;
use super::{
    Checksum, ClusterKey, KeyPhase, Keyring, LifeSecret, SENDER_BYTES, SealRefusal, StreamSeal, is_sealed,
};
use crate::fuzzing::{Pieces, join};
use crate::record::NodeName;

/// Most acts of one input.
const ACTS_MAX: usize = 24;
/// Names of the two nodes.
const NAMES: [&str; 2] = ["n0", "n1"];
/// A body that is at least so long does not stand in a sealed message by chance.
const READABLE_BYTES: usize = 12;

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 7946))
}

/// Keys of which each is made of one byte.
fn keyring(keys: &[u8]) -> Keyring {
    let text: String = keys.iter().map(|&byte| ClusterKey::new([byte; 32]).to_text() + "\n").collect();
    Keyring::parse(&text).expect("keys")
}

fn node(index: usize, phase: KeyPhase) -> KeyedSeal {
    let keys = SealKeys { keyring: keyring(&[1, 2]), phase, secret: LifeSecret([index as u8 + 1; 32]) };
    KeyedSeal::new("sealed", &NodeName::parse(NAMES[index]).expect("a name"), 7, keys)
}

fn phase_of(byte: u8) -> KeyPhase {
    match byte % 4 {
        0 => KeyPhase::Accept,
        1 => KeyPhase::Send,
        _ => KeyPhase::Require,
    }
}

/// A message as its sender begins it, with room for a long header.
fn begun(body: &[u8]) -> Vec<u8> {
    [&b"aN\x01\x00"[..], &[0; LONG_HEADER_BYTES - 4], body].concat()
}

/// Changes one byte of a message. Returns whether the message differs afterwards.
fn change(message: &mut [u8], at: u8, by: u8) -> bool {
    let at = usize::from(at).min(message.len().saturating_sub(1));
    message.get_mut(at).is_some_and(|byte| {
        *byte ^= by;
        by != 0
    })
}

/// A message that was sealed, with what is in it.
struct Made {
    message: Vec<u8>,
    body: Vec<u8>,
    has_come: bool,
}

/// Two nodes with keys in common: the first one sends, the second one receives, and sometimes answers.
struct Pair {
    sender: KeyedSeal,
    receiver: KeyedSeal,
    made: Vec<Made>,
    /// Number of lives that the sender has begun since the start.
    begun: usize,
}

impl Pair {
    fn seal(&mut self, body: &[u8]) {
        let mut message = begun(body);
        self.sender.seal(address(1), &mut message);
        assert!(is_sealed(&message), "sent without a seal");
        let header = if message.starts_with(&LONG_MARK) { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
        let sealed = message.get(header..).unwrap_or_default();
        let is_readable = body.len() >= READABLE_BYTES && sealed.windows(body.len()).any(|part| part == body);
        assert!(!is_readable, "the body can be read: {body:?}");
        self.made.push(Made { message, body: body.to_vec(), has_come: false });
    }

    /// The message that an act means, if any was made.
    fn made(&self, number: u8) -> Option<&Made> {
        self.made.get(usize::from(number) % self.made.len().max(1))
    }

    /// Lets bytes come to the receiver, and checks whether they open.
    fn deliver(&mut self, bytes: &[u8]) {
        let made = self.made.iter_mut().find(|made| made.message == bytes);
        let phase = self.receiver.phase();
        let before = self.receiver.lives_kept();
        let opened = self.receiver.open(address(0), bytes).map(|unsealed| unsealed.body.to_vec());
        match (made, opened) {
            (Some(made), Ok(body)) => {
                assert!(!std::mem::replace(&mut made.has_come, true), "opened twice: {bytes:?}");
                assert_eq!(body, made.body, "other than what was sealed");
                return;
            }
            (Some(made), Err(refusal)) => {
                assert!(made.has_come && refusal == SealRefusal::Replay, "{refusal}: {bytes:?}");
            }
            (None, Ok(body)) => {
                let is_plain = !is_sealed(bytes) && phase != KeyPhase::Require;
                assert!(
                    is_plain && Checksum::verify(bytes).is_ok_and(|plain| plain.body == body),
                    "{bytes:?}"
                );
            }
            (None, Err(_)) => {}
        }
        assert_eq!(self.receiver.lives_kept(), before, "something is kept of what did not open");
    }

    /// Lets the receiver say something, so that the sender knows it and its headers are short from then on.
    fn answer(&mut self) {
        let mut message = begun(b"answer");
        self.receiver.seal(address(0), &mut message);
        let opened = self.sender.open(address(1), &message);
        let is_plain = !is_sealed(&message);
        // What is meant for a life before the last one is refused, as if it had been recorded.
        let is_late = self.begun > 1 && opened == Err(SealRefusal::Replay);
        assert!(is_late || opened.is_ok() != is_plain, "{opened:?}");
    }
}

/// The first byte tells the phase of the receiver. Each piece is an act, told by its first byte.
pub(crate) fn sealed_datagram(input: &[u8]) {
    let Some((&phase, acts)) = input.split_first() else { return };
    let (sender, receiver) = (node(0, KeyPhase::Require), node(1, phase_of(phase)));
    let mut pair = Pair { sender, receiver, made: Vec::new(), begun: 0 };
    let mut boot = 7;
    for act in Pieces(acts).take(ACTS_MAX) {
        match *act {
            [0, ref body @ ..] => pair.seal(body),
            [1, number] => {
                let bytes = pair.made(number).map(|made| made.message.clone()).unwrap_or_default();
                pair.deliver(&bytes);
            }
            [2, number, at, by] => {
                let mut bytes = pair.made(number).map(|made| made.message.clone()).unwrap_or_default();
                change(&mut bytes, at, by);
                pair.deliver(&bytes);
            }
            [3, number, length, ref more @ ..] => {
                let mut bytes = pair.made(number).map(|made| made.message.clone()).unwrap_or_default();
                bytes.truncate(usize::from(length));
                bytes.extend_from_slice(more);
                pair.deliver(&bytes);
            }
            [4, ..] => pair.answer(),
            [5, ..] => {
                boot += 1;
                pair.begun += 1;
                pair.sender.begin_life(boot);
            }
            // The keys change places on one side; each side has both.
            [6, side] => {
                let keys = if side & 1 == 0 { keyring(&[2, 1]) } else { keyring(&[1, 2]) };
                let node = if side & 2 == 0 { &mut pair.sender } else { &mut pair.receiver };
                node.set_keys(&keys);
            }
            ref other => pair.deliver(other),
        }
    }
    // Whatever has come: what was sealed and has not come opens now, in any order.
    for number in (0..pair.made.len()).rev() {
        let message = pair.made.get(number).map(|made| made.message.clone()).unwrap_or_default();
        pair.deliver(&message);
        pair.deliver(&message);
    }
    assert!(pair.made.iter().all(|made| made.has_come), "a message is lost");
}

pub(crate) fn sealed_datagram_seeds() -> Vec<Vec<u8>> {
    let body = b"a body that is long enough";
    let seal = [&[0][..], body].concat();
    let short: &[u8] = &[0, b'x'];
    let with = |phase: u8, acts: &[&[u8]]| [&[phase], &*join(acts.iter().copied())].concat();
    let mut plain = [&b"aN\x01\x00"[..], &[0; 8 + SENDER_BYTES], body].concat();
    Checksum::fill(&mut plain);
    // Of a node whose key neither of the two has.
    let mut sealed = begun(body);
    let mut stranger = node(0, KeyPhase::Require);
    stranger.set_keys(&keyring(&[9]));
    stranger.seal(address(1), &mut sealed);
    vec![
        with(2, &[&seal, &[1, 0], &[1, 0]]),
        with(2, &[&seal, &[1, 0], &[4], &seal, short, &[1, 2], &[1, 1]]),
        with(2, &[&seal, &[2, 0, 20, 1], &[2, 0, 0, 8], &[2, 0, 5, 128], &[2, 0, 200, 1], &[1, 0]]),
        with(2, &[&seal, &[1, 0], &[4], &seal, &[2, 1, 1, 32], &[2, 1, 9, 1], &[2, 1, 23, 1], &[3, 1, 30]]),
        with(2, &[&seal, &[3, 0, 40], &[3, 0, 255, 0], &[3, 0, 56, 1, 2, 3]]),
        with(2, &[&seal, &[1, 0], &[4], &[5], short, &[1, 1], &seal, &[1, 2]]),
        with(2, &[short, &[6, 0], short, &[6, 2], short, &[1, 2], &[1, 0], &[1, 1]]),
        with(0, &[&plain, &seal, &[1, 0], &[4], &plain]),
        with(1, &[&plain, &seal, &[4], &[1, 0]]),
        with(2, &[&plain, &sealed, &sealed[..40]]),
    ]
}

/// The two ends of a stream, and what is on its way from the first to the second.
struct Ends {
    from: SealedStream,
    to: SealedStream,
    /// Everything that was sealed, in the clear.
    said: Vec<u8>,
    /// Everything that was opened.
    came: Vec<u8>,
    /// Sealed bytes that have not come.
    wire: Vec<u8>,
    /// Whether the receiver has been sent anything that was not sealed for it at this place.
    is_disturbed: bool,
    has_failed: bool,
}

impl Ends {
    fn say(&mut self, bytes: &[u8]) {
        if !self.from.is_ready() || bytes.is_empty() {
            return;
        }
        let sealed = self.from.seal(Bytes::copy_from_slice(bytes));
        let is_readable =
            bytes.len() >= READABLE_BYTES && sealed.windows(bytes.len()).any(|part| part == bytes);
        assert!(!is_readable, "the stream can be read: {bytes:?}");
        self.wire.extend_from_slice(&sealed);
        self.said.extend_from_slice(bytes);
    }

    /// Lets bytes come that were not sealed for this place.
    fn disturb(&mut self, bytes: &[u8]) {
        self.is_disturbed = true;
        self.receive(bytes);
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.has_failed {
            return;
        }
        match self.to.open(Bytes::copy_from_slice(bytes)) {
            Ok(opened) => self.came.extend_from_slice(&opened),
            Err(refusal) => {
                assert!(self.is_disturbed, "{refusal} although nothing was changed");
                assert_eq!(refusal, SealRefusal::Forged);
                self.has_failed = true;
            }
        }
        assert!(self.said.starts_with(&self.came), "other than what was said: {:?}", self.came);
    }

    /// Lets the next `count` bytes come, one of which is changed if `by` is not 0.
    fn pass(&mut self, count: usize, at: u8, by: u8) {
        let count = count.min(self.wire.len());
        let mut bytes: Vec<u8> = self.wire.drain(..count).collect();
        match change(&mut bytes, at, by) {
            true => self.disturb(&bytes),
            false => self.receive(&bytes),
        }
    }
}

/// The first four bytes tell how the preamble and the answer to it are changed: the place, and by how much. Each piece is an act on the stream.
pub(crate) fn sealed_stream(input: &[u8]) {
    let &[preamble_at, preamble_by, share_at, share_by, ref acts @ ..] = input else { return };
    let (mut a, mut b) = (node(0, KeyPhase::Require), node(1, KeyPhase::Require));
    let mut preamble = begun(b"");
    let Some(mut from) = a.connect(&mut preamble) else { unreachable!("a node with keys seals its streams") };
    assert_eq!(preamble.len(), SEALED_PREAMBLE_BYTES);
    let kept = b.lives_kept();
    for act in Pieces(acts).take(ACTS_MAX) {
        // Any other beginning is refused, and so is one that was cut off.
        let cut = act.get(..SEALED_PREAMBLE_BYTES).unwrap_or(act);
        assert!(cut == preamble || b.accept(address(0), cut).is_err(), "{cut:?}");
    }
    let mut changed = preamble.clone();
    if change(&mut changed, preamble_at, preamble_by) {
        assert!(b.accept(address(0), &changed).is_err(), "byte {preamble_at} of the preamble was changed");
    }
    assert_eq!(b.lives_kept(), kept);
    let accepted = b.accept(address(0), &preamble).map(|(unsealed, stream)| (unsealed.is_fresh, stream));
    let Ok((false, Some(mut to))) = accepted else { panic!("{accepted:?}") };
    let mut share = to.take_answer().to_vec();
    let is_disturbed = change(&mut share, share_at, share_by);
    let (first, rest) = share.split_at(usize::from(share_at) % share.len().max(1));
    for part in [first, rest] {
        assert_eq!(from.open(Bytes::copy_from_slice(part)), Ok(Bytes::new()));
    }
    let mut ends = Ends {
        from,
        to,
        said: Vec::new(),
        came: Vec::new(),
        wire: Vec::new(),
        is_disturbed,
        has_failed: false,
    };
    let mut recorded = Vec::new();
    for act in Pieces(acts).take(ACTS_MAX) {
        match *act {
            [0, ref bytes @ ..] => ends.say(bytes),
            [1, count] => ends.pass(usize::from(count), 0, 0),
            [2, count, at, by] => ends.pass(usize::from(count), at, by),
            [3, count] => {
                let part = ends.wire.get(..usize::from(count)).unwrap_or(&ends.wire).to_vec();
                recorded.extend_from_slice(&part);
                ends.pass(part.len(), 0, 0);
            }
            // What was recorded comes again, or a part is left out.
            [4, ..] if !recorded.is_empty() => ends.disturb(&recorded.clone()),
            [5, count] if count > 0 && !ends.wire.is_empty() => {
                ends.wire.drain(..usize::from(count).min(ends.wire.len()));
                ends.disturb(&[]);
            }
            [6, ref bytes @ ..] if !bytes.is_empty() => ends.disturb(bytes),
            _ => {}
        }
    }
    ends.pass(usize::MAX, 0, 0);
    if !ends.is_disturbed {
        assert_eq!(ends.came, ends.said, "something is lost");
    } else if share_by != 0 {
        assert!(ends.came.is_empty(), "opened although the shares differ");
    }
}

pub(crate) fn sealed_stream_seeds() -> Vec<Vec<u8>> {
    let long = [&[0][..], &[b'x'; 300]].concat();
    let say: &[u8] = b"\0something that is said";
    let with = |how: [u8; 4], acts: &[&[u8]]| [&how, &*join(acts.iter().copied())].concat();
    let mut preamble = begun(b"");
    let _ = node(0, KeyPhase::Require).connect(&mut preamble);
    vec![
        with([0; 4], &[say, &[1, 255]]),
        with([0, 0, 5, 0], &[say, &long, &[1, 1], &[1, 20], &[1, 255], say]),
        with([60, 1, 0, 0], &[say, &[1, 255]]),
        with([5, 4, 0, 0], &[say]),
        with([0, 0, 3, 1], &[say, &[1, 255], say]),
        with([0; 4], &[say, &[2, 255, 0, 1], say]),
        with([0; 4], &[say, &[2, 255, 30, 1], say]),
        with([0; 4], &[say, say, &[3, 255], &[4], say]),
        with([0; 4], &[say, say, &[5, 40], &[1, 255]]),
        with([0; 4], &[say, &[6, 1, 0, 2], &[1, 255]]),
        with([0; 4], &[&preamble, &preamble[..71]]),
    ]
}
