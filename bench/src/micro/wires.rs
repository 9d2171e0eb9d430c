//! Pieces of work on the wire: reading clients' frames, and making datagrams for peers.

use std::hint::black_box;
use std::net::SocketAddr;

use anode::cluster::seal::{
    Checksum, ClusterKey, ClusterSeal, KeyPhase, Keyring, LifeSecret, Seal, SealKeys,
};
use anode::limits::DATAGRAM_BYTES_MAX;
use anode::protocol::json;
use anode::protocol::protobuf::ClientMessage;
use anode::record::NodeName;

use super::{RECORDS, data, name};

/// Makes publish frames in JSON, each with one record and an id.
pub(super) fn decode_json() -> Box<dyn FnMut()> {
    let frame = |number: usize| {
        let data = data(number as u64);
        let data = String::from_utf8_lossy(&data);
        format!(r#"{{"id":{number},"source":"{}","data":{data}}}"#, name(number))
    };
    let frames: Vec<String> = (0..RECORDS).map(frame).collect();
    Box::new(move || {
        for frame in &frames {
            let decoded = json::publish_frame(black_box(frame));
            assert!(black_box(decoded).is_ok_and(|frame| frame.items.len() == 1));
        }
    })
}

/// Makes publish frames in protobuf, each with one record and an id.
pub(super) fn decode_protobuf() -> Box<dyn FnMut()> {
    let frames: Vec<Vec<u8>> = (0..RECORDS).map(publish_frame).collect();
    Box::new(move || {
        for frame in &frames {
            let message = ClientMessage::decode(black_box(frame));
            assert!(message.is_ok_and(|message| black_box(message.publish_frame()).items.len() == 1));
        }
    })
}

/// Writes `ClientMessage { publish: Publish { id: Id { number }, source, json } }` by hand: every length is
/// under 256.
fn publish_frame(number: usize) -> Vec<u8> {
    let field = |key: u8, bytes: &[u8]| {
        let mut out = vec![key << 3 | 2];
        match bytes.len() {
            short @ 0..128 => out.push(short as u8),
            long => out.extend_from_slice(&[long as u8 | 0x80, (long >> 7) as u8]),
        }
        out.extend_from_slice(bytes);
        out
    };
    let id = [2 << 3, (number as u8) << 1 & 0x7f];
    let publish = [field(1, &id), field(2, name(number).as_bytes()), field(4, &data(number as u64))].concat();
    field(1, &publish)
}

/// Makes datagrams that are full of records, and seals them as for the wire.
pub(super) fn seal() -> Box<dyn FnMut()> {
    let mut datagram = vec![7; DATAGRAM_BYTES_MAX];
    Box::new(move || {
        for _ in 0..RECORDS {
            Checksum::fill(black_box(&mut datagram));
        }
    })
}

/// Length in bytes of the header with which a message is begun before it is sealed with a key.
const LONG_HEADER_BYTES: usize = 40;
/// Bytes of the authentication tag.
const TAG_BYTES: usize = 16;

/// The seal of a node with a key, and an address for it.
fn keyed(name: &str, number: u8) -> (ClusterSeal, SocketAddr) {
    let (Ok(name), Ok(keyring)) =
        (NodeName::parse(name), Keyring::parse(&ClusterKey::new([1; 32]).to_text()))
    else {
        unreachable!("a good name and a good key")
    };
    let keys = SealKeys { keyring, phase: KeyPhase::Require, secret: LifeSecret([number; 32]) };
    (ClusterSeal::new("bench", &name, 1, Some(keys)), SocketAddr::from(([10, 0, 0, number], 7946)))
}

fn begin(message: &mut Vec<u8>) {
    message.clear();
    message.resize(DATAGRAM_BYTES_MAX - TAG_BYTES, 7);
    message[LONG_HEADER_BYTES..].fill(9);
}

/// Makes datagrams of the largest size, and seals them with a key.
pub(super) fn sealed() -> Box<dyn FnMut()> {
    let ((mut seal, _), (_, to)) = (keyed("a", 1), keyed("b", 2));
    let mut message = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    Box::new(move || {
        for _ in 0..RECORDS {
            begin(&mut message);
            seal.seal(to, black_box(&mut message));
        }
    })
}

/// Makes datagrams of the largest size, seals them at one node, and opens them at another that knows the first.
pub(super) fn sealed_and_opened() -> Box<dyn FnMut()> {
    let ((mut seal, from), (mut opener, to)) = (keyed("a", 1), keyed("b", 2));
    let mut message = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    for _ in 0..2 {
        begin(&mut message);
        seal.seal(to, &mut message);
        assert!(opener.open(from, &message).is_ok());
        begin(&mut message);
        opener.seal(from, &mut message);
        assert!(seal.open(to, &message).is_ok());
    }
    Box::new(move || {
        for _ in 0..RECORDS {
            begin(&mut message);
            seal.seal(to, black_box(&mut message));
            assert!(black_box(opener.open(from, &message)).is_ok());
        }
    })
}
