//! Two machines whose messages are sealed with keys, and the seal by itself.

use super::*;

const NAMES: [&str; 2] = ["n0", "n1"];

fn keyring(keys: &[u8]) -> Keyring {
    let text: String = keys.iter().map(|&byte| ClusterKey::new([byte; 32]).to_text() + "\n").collect();
    Keyring::parse(&text).expect("keys")
}

fn keys(keys: &[u8], phase: KeyPhase, secret: u8) -> SealKeys {
    SealKeys { keyring: keyring(keys), phase, secret: LifeSecret([secret; 32]) }
}

fn seal(index: usize, boot: u64, keys: SealKeys) -> KeyedSeal {
    KeyedSeal::new("sealed", &NodeName::parse(NAMES[index]).expect("a name"), boot, keys)
}

fn seal_of(index: usize) -> KeyedSeal {
    seal(index, 7, keys(&[1], KeyPhase::Require, index as u8 + 1))
}

fn keyed(seal: KeyedSeal) -> ClusterSeal {
    ClusterSeal::Keyed(Box::new(seal))
}

/// Two machines with one key, each in its phase.
pub(super) fn two(phases: [KeyPhase; 2]) -> World<ClusterSeal> {
    let seals = phases.into_iter().enumerate();
    World::new(
        seals.map(|(index, phase)| keyed(seal(index, 7, keys(&[1], phase, index as u8 + 1)))).collect(),
    )
}

fn refused(world: &World<ClusterSeal>) -> (u64, u64, u64, u64) {
    let sum = |of: fn(&crate::cluster::stats::RefusedMessages) -> u64| {
        world.machines.iter().map(|machine| of(&machine.stats().refused)).sum()
    };
    (sum(|it| it.plain), sum(|it| it.key), sum(|it| it.replay), sum(|it| it.forged))
}

/// Joins, reconciles, and sends records in one datagram, in fragments and over a stream.
fn exercise(world: &mut World<ClusterSeal>) {
    world.hold((1..50).map(|seq| record(seq, 100)));
    world.run_us(3_000_000);
    assert!(world.machines.iter().all(|machine| machine.ring().len() == 2 && machine.is_reconciled()));
    let records: Vec<_> = (50..90).map(|seq| record(seq, 40 * (seq as usize - 50))).collect();
    world.publish(&records);
    world.publish(&[record(90, 20_000)]);
    world.publish(&[record(91, 200_000)]);
    world.run_us(1_000_000);
    assert_eq!(world.replicas[1].digest(), world.replicas[0].digest());
    assert_eq!(world.replicas[1].digest().0, 91);
}

#[test]
fn everything_is_sealed_and_arrives() {
    for piece_bytes in [1, 50_000] {
        let mut world = two([KeyPhase::Require; 2]);
        world.piece_bytes = piece_bytes;
        exercise(&mut world);
        assert!(world.largest_datagram <= DATAGRAM_BYTES_MAX);
        let is_readable = |bytes: &Vec<u8>| bytes.windows(12).any(|window| window == b"plain plain ");
        assert!(!world.sent.iter().any(is_readable), "something was sent without the seal");
        assert_eq!(refused(&world), (0, 0, 0, 0));
    }
}

#[test]
fn nodes_in_neighbouring_phases_understand_each_other() {
    use KeyPhase::{Accept, Require, Send};
    for phases in
        [[Accept, Accept], [Accept, Send], [Send, Accept], [Send, Send], [Send, Require], [Require, Send]]
    {
        let mut world = two(phases);
        exercise(&mut world);
        assert_eq!(refused(&world), (0, 0, 0, 0), "{phases:?}");
    }
    // A node of the program before, or without keys, beside one that accepts keys.
    let plain = ClusterSeal::new("sealed", &NodeName::parse("n0").expect("a name"), 7, None);
    let accepting = keyed(seal(1, 7, keys(&[1], Accept, 2)));
    let mut world = World::new(vec![plain, accepting]);
    exercise(&mut world);
    assert_eq!(refused(&world), (0, 0, 0, 0));
}

#[test]
fn nobody_without_the_key_is_answered() {
    let plain = || ClusterSeal::new("sealed", &NodeName::parse("n0").expect("a name"), 7, None);
    let other = || keyed(seal(0, 7, keys(&[9], KeyPhase::Require, 1)));
    for (stranger, is_plain) in [(plain as fn() -> ClusterSeal, true), (other, false)] {
        let mut world = World::new(vec![stranger(), keyed(seal_of(1))]);
        world.run_us(5_000_000);
        assert!(world.machines.iter().all(|machine| machine.ring().len() == 1));
        let refused = world.machines[1].stats().refused;
        assert_eq!((refused.plain > 0, refused.key > 0), (is_plain, !is_plain), "{refused:?}");
        assert_eq!((refused.replay, refused.forged), (0, 0));
        let mismatch = world.machines[1].take_key_mismatch().map(|it| (it.from, it.key.is_none()));
        assert_eq!(mismatch, Some((address(0), is_plain)));
    }
}

fn plain_message(body: &[u8]) -> Vec<u8> {
    let field = [&b"aN\x01\x00"[..], &[0; CHECKSUM_BYTES + SENDER_BYTES], body].concat();
    let mut message = field;
    Checksum::fill(&mut message);
    message
}

/// A message with room for a long header.
fn begun(body: &[u8]) -> Vec<u8> {
    [&b"aN\x01\x00"[..], &[0; 36], body].concat()
}

fn sent(seal: &mut KeyedSeal, to: usize, body: &[u8]) -> Vec<u8> {
    let mut message = begun(body);
    seal.seal(address(to), &mut message);
    message
}

/// What a node opens of a message: its body, whether it is fresh, and the sender's boot number.
fn opened(seal: &mut KeyedSeal, from: usize, message: &[u8]) -> Result<(Vec<u8>, bool, u64), SealRefusal> {
    let unsealed = seal.open(address(from), message)?;
    let boot = unsealed.sender[4..].try_into().map(u64::from_le_bytes).expect("eight bytes");
    assert_eq!(unsealed.sender[..4], cluster_hash("sealed").to_le_bytes());
    Ok((unsealed.body.to_vec(), unsealed.is_fresh, boot))
}

fn body(body: &[u8], is_fresh: bool, boot: u64) -> Result<(Vec<u8>, bool, u64), SealRefusal> {
    Ok((body.to_vec(), is_fresh, boot))
}

#[test]
fn lives_get_to_know_each_other_and_say_less() {
    let (mut a, mut b) = (seal_of(0), seal_of(1));
    let first = sent(&mut a, 1, b"one");
    assert_eq!(opened(&mut b, 0, &first), body(b"one", false, 7));
    assert_eq!(opened(&mut b, 0, &first), Err(SealRefusal::Replay));
    let answer = sent(&mut b, 0, b"two");
    assert_eq!(opened(&mut a, 1, &answer), body(b"two", true, 7));
    let third = sent(&mut a, 1, b"three");
    assert_eq!((first.len(), third.len()), (56 + 3, 42 + 5), "the header is short by now");
    assert_eq!(opened(&mut b, 0, &third), body(b"three", true, 7));
    // A new boot number while the node runs is told at once, and what is on its way still arrives.
    let late = sent(&mut b, 0, b"late");
    a.begin_life(8);
    assert_eq!(opened(&mut a, 1, &late), body(b"late", true, 7));
    let next = sent(&mut a, 1, b"next");
    assert_eq!(next.len(), 56 + 4);
    assert_eq!(opened(&mut b, 0, &next), body(b"next", true, 8));
    assert_eq!(opened(&mut b, 0, &sent(&mut a, 1, b"x")), body(b"x", true, 8));
    // A restart: it knows nobody, and what is meant for its last life is of no use.
    let mut again = seal(0, 9, keys(&[1], KeyPhase::Require, 77));
    assert_eq!(opened(&mut again, 1, &sent(&mut b, 0, b"old")), Err(SealRefusal::Replay));
    assert_eq!(opened(&mut b, 0, &sent(&mut again, 1, b"new")), body(b"new", false, 9));
    assert_eq!(opened(&mut again, 1, &sent(&mut b, 0, b"hello")), body(b"hello", true, 7));
}

#[test]
fn a_recording_is_of_no_use_elsewhere_nor_later() {
    let (mut a, mut b) = (seal_of(0), seal_of(1));
    let first = sent(&mut a, 1, b"one");
    opened(&mut b, 0, &first).expect("opens");
    opened(&mut a, 1, &sent(&mut b, 0, b"two")).expect("opens");
    let recorded = sent(&mut a, 1, b"three");
    let mut other = KeyedSeal::new(
        "sealed",
        &NodeName::parse("n2").expect("a name"),
        7,
        keys(&[1], KeyPhase::Require, 3),
    );
    assert_eq!(opened(&mut other, 0, &recorded), Err(SealRefusal::Replay));
    assert_eq!(opened(&mut other, 0, &first), body(b"one", false, 7), "as any stranger's");
    // The sender has been restarted, and its new life is a member: the life before is over.
    let a_name = NodeName::parse("n0").expect("a name");
    b.note_members(&mut [(&a_name, 8, true)].into_iter());
    assert_eq!(opened(&mut b, 0, &recorded), Err(SealRefusal::Replay));
    other.note_members(&mut [(&a_name, 8, true)].into_iter());
    assert_eq!(opened(&mut other, 0, &sent(&mut a, 2, b"old")), Err(SealRefusal::Replay));
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    for is_known in [false, true] {
        let (mut a, mut b) = (seal_of(0), seal_of(1));
        if is_known {
            opened(&mut b, 0, &sent(&mut a, 1, b"one")).expect("opens");
            opened(&mut a, 1, &sent(&mut b, 0, b"two")).expect("opens");
        }
        let message = sent(&mut a, 1, b"body");
        // The version and the kind are in the clear and authenticated, too.
        for bit in 16..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = opened(&mut b, 0, &flipped).expect_err("refused");
            let expected = match bit / 8 {
                4..8 => SealRefusal::Key,
                22..26 => SealRefusal::Replay,
                _ => SealRefusal::Forged,
            };
            // A number that has come, or a life that is not known, is refused before the cipher is asked.
            let is_told_sooner = refusal == SealRefusal::Replay && (8..22).contains(&(bit / 8));
            assert!(refusal == expected || is_told_sooner, "bit {bit}: {refusal}");
        }
        for cut in 0..message.len() {
            assert!(opened(&mut b, 0, &message[..cut]).is_err(), "cut at {cut}");
        }
        assert!(opened(&mut b, 0, &message).is_ok(), "nothing of that was kept");
    }
}

#[test]
fn numbers_that_are_used_up_begin_a_new_life() {
    let (mut a, mut b) = (seal_of(0), seal_of(1));
    opened(&mut b, 0, &sent(&mut a, 1, b"one")).expect("opens");
    a.use_up_numbers();
    assert_eq!(opened(&mut b, 0, &sent(&mut a, 1, b"last")), body(b"last", false, 7));
    assert_eq!(opened(&mut b, 0, &sent(&mut a, 1, b"first")), body(b"first", false, 7));
}

#[test]
fn plain_messages_are_taken_in_the_first_phases_alone() {
    let plain = plain_message(b"body");
    for (phase, is_taken) in [(KeyPhase::Accept, true), (KeyPhase::Send, true), (KeyPhase::Require, false)] {
        let mut seal = seal(1, 7, keys(&[1], phase, 2));
        let opened = seal.open(address(0), &plain).map(|unsealed| unsealed.body.to_vec());
        let expected = if is_taken { Ok(b"body".to_vec()) } else { Err(SealRefusal::Plain) };
        assert_eq!(opened, expected, "{phase:?}");
        let preamble = seal.accept(address(0), &plain_message(b"")).map(|(_, stream)| stream.is_none());
        assert_eq!(preamble, if is_taken { Ok(true) } else { Err(SealRefusal::Plain) }, "{phase:?}");
    }
}

#[test]
fn keys_change_while_both_run() {
    let (mut a, mut b) = (seal_of(0), seal_of(1));
    opened(&mut b, 0, &sent(&mut a, 1, b"0")).expect("opens");
    opened(&mut a, 1, &sent(&mut b, 0, b"0")).expect("opens");
    for (ours, theirs) in [
        (&[1, 2][..], &[1][..]),
        (&[1, 2], &[1, 2]),
        (&[2, 1], &[1, 2]),
        (&[2, 1], &[2, 1]),
        (&[2], &[2, 1]),
        (&[2], &[2]),
    ] {
        a.set_keys(&keyring(ours));
        b.set_keys(&keyring(theirs));
        for _ in 0..3 {
            assert_eq!(opened(&mut b, 0, &sent(&mut a, 1, b"x")), body(b"x", true, 7), "{ours:?}");
            assert_eq!(opened(&mut a, 1, &sent(&mut b, 0, b"y")), body(b"y", true, 7), "{theirs:?}");
        }
    }
    a.set_keys(&keyring(&[3]));
    assert_eq!(opened(&mut b, 0, &sent(&mut a, 1, b"x")), Err(SealRefusal::Key));
    let key = ClusterKey::new([3; 32]).id();
    assert_eq!(b.take_mismatch(), Some(KeyMismatch { from: address(0), key: Some(key) }));
    assert_eq!(b.take_mismatch(), None);
}

#[test]
fn a_stream_needs_both_shares_and_a_key_in_common() {
    let (mut a, mut b) = (seal_of(0), seal_of(1));
    let mut preamble = begun(b"");
    let mut ours = a.connect(&mut preamble).expect("a sealed stream");
    assert_eq!(preamble.len(), 72);
    let (unsealed, theirs) = b.accept(address(0), &preamble).expect("opens");
    assert_eq!((unsealed.body, unsealed.is_fresh), (&[][..], false));
    let mut theirs = theirs.expect("a sealed stream");
    let answer = theirs.take_answer();
    assert!(answer.len() <= preamble.len());
    assert!(!ours.is_ready());
    ours.open(answer).expect("a share");
    let said = ours.seal(Bytes::from_static(b"hello"));
    assert_eq!(theirs.open(said.clone()), Ok(Bytes::from_static(b"hello")));
    // A stream may go on for as long as both have the key with which it began.
    a.set_keys(&keyring(&[2, 1]));
    assert!(a.is_current(&ours));
    a.set_keys(&keyring(&[2]));
    assert!(!a.is_current(&ours) && b.is_current(&theirs));
    // The whole stream, recorded and sent again.
    let (_, again) = b.accept(address(0), &preamble).expect("opens");
    assert_eq!(again.expect("a sealed stream").open(said), Err(SealRefusal::Forged));
    for bit in 16..preamble.len() * 8 {
        let mut flipped = preamble.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(b.accept(address(0), &flipped).is_err(), "bit {bit}");
    }
    let mut stranger = seal(0, 7, keys(&[9], KeyPhase::Require, 9));
    let mut preamble = begun(b"");
    stranger.connect(&mut preamble);
    assert_eq!(b.accept(address(0), &preamble).map(|_| ()), Err(SealRefusal::Key));
}
