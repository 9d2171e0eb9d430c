//! Messages between nodes, written byte by byte, to send what a stranger may send who knows the name of the
//! cluster.

use xxhash_rust::xxh3::xxh3_64;

/// The messages between nodes, generated from their schema.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/anode.gossip.v1.rs"));
}

/// Kind of a datagram.
pub const DATAGRAM: u8 = 0;
/// Kind of a stream on which member lists are exchanged.
pub const MEMBERS: u8 = 1;
/// Kind of a stream on which two maps are made equal.
pub const RECONCILE: u8 = 2;
/// Kind of a stream on which batches are pulled.
pub const BODIES: u8 = 3;

/// Makes a message of this kind, with its header: a whole datagram, or the first bytes of a stream.
pub fn message(cluster: &str, kind: u8, boot: u64, body: &[u8]) -> Vec<u8> {
    let prefix = [b'a', b'N', 1, kind];
    let cluster = (xxh3_64(cluster.as_bytes()) as u32).to_le_bytes();
    let rest = [&cluster[..], &boot.to_le_bytes(), body].concat();
    let checksum = xxh3_64(&[&prefix[..], &rest].concat()).to_le_bytes();
    [&prefix[..], &checksum, &rest].concat()
}
