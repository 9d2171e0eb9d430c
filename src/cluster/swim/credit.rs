//! The bytes that this node may send to addresses that have not proved themselves.
//!
//! Anybody can write any sender's address on a datagram, and an answer may then go to somebody who never asked.
//! Until a member has answered at an address, the address gets no more bytes than have come in its name. A node
//! that joins makes its first ping as large as the answer may be. A ping that is to prove an address is paid for
//! in the same way, so nobody is pinged because a stranger named its address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::message::Ping;
use crate::limits::DATAGRAM_BYTES_MAX;

/// Most addresses whose bytes are counted. One more takes the place of the one that was heard of least lately,
/// which then gets no answer until it is heard of again.
const CREDITED_MAX: usize = 512;
/// Most bytes that are kept for one address: those of two datagrams.
const CREDIT_BYTES_MAX: usize = 2 * DATAGRAM_BYTES_MAX;
/// Least size in bytes, without its seal, of a ping to whoever is at an address. It is that of the largest answer
/// with an introduction, and of a ping by which the receiver finds out whether this node answers at its address.
const FIRST_PING_BYTES_MIN: usize = 786;
/// Most bytes of an answer to a ping without an introduction, but for the name of the node that answers.
const ACK_BYTES: usize = 36;

/// Returns the size to which a ping is filled up so that a receiver at which its sender is no member may answer,
/// in bytes without the seal. Where the sender introduces itself, the receiver may also ping it.
/// `receiver_bytes` is the length of the receiver's name, `overhead_bytes` what the header and the seal of a
/// datagram take.
pub(super) fn ping_bytes_min(ping: &Ping, receiver_bytes: usize, overhead_bytes: usize) -> usize {
    let ack_bytes = ACK_BYTES + receiver_bytes;
    match ping {
        Ping { target: 0, .. } => FIRST_PING_BYTES_MIN,
        Ping { introduction: None, .. } => ack_bytes,
        Ping { sender, .. } => {
            // A ping has no more bytes than its answer, but for the name.
            ack_bytes + overhead_bytes + ACK_BYTES + receiver_bytes.max(sender.as_str().len())
        }
    }
}

/// The bytes of one address.
#[derive(Clone, Copy, Debug, Default)]
struct AddressCredit {
    bytes: usize,
    /// When bytes came last, on the monotonic clock in microseconds.
    heard_us: u64,
}

/// The bytes that each address may be sent.
#[derive(Debug, Default)]
pub(super) struct Credit {
    addresses: BTreeMap<SocketAddr, AddressCredit>,
}

impl Credit {
    /// Notes that bytes came in the name of an address.
    pub fn add(&mut self, now_us: u64, address: SocketAddr, bytes: usize) {
        if self.addresses.len() >= CREDITED_MAX && !self.addresses.contains_key(&address) {
            let oldest = self.addresses.iter().min_by_key(|(_, credit)| credit.heard_us);
            oldest.map(|(&address, _)| address).and_then(|address| self.addresses.remove(&address));
        }
        let credit = self.addresses.entry(address).or_default();
        credit.bytes = (credit.bytes + bytes).min(CREDIT_BYTES_MAX);
        credit.heard_us = now_us;
    }

    /// Takes bytes that are to be sent to an address. Returns `false`, and takes nothing, if so many may not be
    /// sent.
    pub fn take(&mut self, address: SocketAddr, bytes: usize) -> bool {
        let Some(credit) = self.addresses.get_mut(&address).filter(|credit| credit.bytes >= bytes) else {
            return false;
        };
        credit.bytes -= bytes;
        if credit.bytes == 0 {
            self.addresses.remove(&address);
        }
        true
    }

    /// Lets what is left of one address be sent to another one, if both are of one host. So a node is reached
    /// whose datagrams come from another port than the one that it advertises.
    pub fn pass_on(&mut self, from: SocketAddr, to: SocketAddr) {
        if from.ip() == to.ip()
            && from != to
            && let Some(AddressCredit { bytes, heard_us }) = self.addresses.remove(&from)
        {
            self.add(heard_us, to, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::members::Identity;
    use crate::cluster::seal::OVERHEAD_BYTES_MAX;
    use crate::cluster::swim::message::{Ack, Introduction, SwimMessage};
    use crate::cluster::swim::wire::message_bytes;
    use crate::limits::{HTTP_ADDRESS_BYTES_MAX, NODE_NAME_BYTES_MAX, VERSION_BYTES_MAX, ZONE_BYTES_MAX};
    use crate::record::NodeName;

    /// A node that joins, or a member that lost its memory of the other one, gets its answer.
    #[test]
    fn a_ping_has_room_for_the_largest_answer() {
        let long = |length| "x".repeat(length);
        let name = NodeName::parse(&long(NODE_NAME_BYTES_MAX)).expect("a name");
        let gossip: SocketAddr =
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
        let (http, zone) = (long(HTTP_ADDRESS_BYTES_MAX), long(ZONE_BYTES_MAX));
        let version = long(VERSION_BYTES_MAX);
        let identity = Identity::new(name.clone(), u64::MAX, gossip, &http, &zone, &version);
        let identity = Arc::new(identity.with_renewals(u32::MAX).expect("so many fit"));
        let ack = |introduction| {
            let (sender, view, is_unknown) = (name.clone(), u64::MAX, true);
            let (sequence, wall_us) = (u32::MAX, u64::MAX);
            SwimMessage::Ack(Ack {
                sequence,
                sender,
                wall_us,
                view,
                is_unknown,
                is_unreached: true,
                is_leaving: true,
                is_joining: true,
                introduction,
            })
        };
        let ping = |target| {
            let (sender, view, introduction) = (name.clone(), u64::MAX, None);
            SwimMessage::Ping(Ping { sequence: u32::MAX, target, sender, view, introduction, padding: 0 })
        };
        let (SwimMessage::Ping(plain), SwimMessage::Ping(first)) = (ping(1), ping(0)) else { return };
        let ack_bytes = message_bytes(&ack(None));
        assert!(ack_bytes <= ping_bytes_min(&plain, NODE_NAME_BYTES_MAX, 0));
        let proof = ping_bytes_min(&plain, NODE_NAME_BYTES_MAX, 0).max(message_bytes(&ping(1)));
        let said = Introduction { identity, incarnation: u32::MAX };
        let introduced = message_bytes(&ack(Some(said.clone())));
        let room = ping_bytes_min(&first, 0, OVERHEAD_BYTES_MAX);
        assert!(introduced + OVERHEAD_BYTES_MAX + proof <= room, "{introduced} + {proof} > {room}");
        let known = Ping { introduction: Some(said), ..plain };
        let room = ping_bytes_min(&known, NODE_NAME_BYTES_MAX, OVERHEAD_BYTES_MAX);
        assert!(ack_bytes + OVERHEAD_BYTES_MAX + proof <= room);
    }

    #[test]
    fn an_address_gets_no_more_than_came_from_it() {
        let host = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 7946));
        let mut credit = Credit::default();
        assert!(!credit.take(host(1), 1));
        credit.add(0, host(1), 100);
        assert!(credit.take(host(1), 60) && !credit.take(host(1), 60) && credit.take(host(1), 40));
        (0..9).for_each(|_| credit.add(0, host(1), 1_000));
        assert!(!credit.take(host(1), CREDIT_BYTES_MAX + 1) && credit.take(host(1), CREDIT_BYTES_MAX));
        credit.add(0, host(1), 100);
        credit.pass_on(host(1), host(2));
        assert!(!credit.take(host(2), 1), "it is another host");
        let elsewhere = SocketAddr::new(host(1).ip(), 9);
        credit.pass_on(host(1), elsewhere);
        assert!(!credit.take(host(1), 1) && credit.take(elsewhere, 100));
        for number in 0..2 * CREDITED_MAX as u32 {
            credit.add(number.into(), host(number), 100);
        }
        assert_eq!(credit.addresses.len(), CREDITED_MAX);
        assert!(!credit.take(host(0), 1) && credit.take(host(2 * CREDITED_MAX as u32 - 1), 100));
    }
}
