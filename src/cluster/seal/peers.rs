//! The lives that this node has heard at other addresses, by which it addresses what it sends there.
//!
//! A message names the life of its receiver, so that what was recorded on its way to one node is of no use at another
//! one, nor at the same node after a restart. The life at an address is learnt from what comes from there. What comes
//! from a node that does not know this life yet names no receiver: anybody could have recorded it earlier. Such a
//! message begins an exchange, and never displaces what was learnt from messages that name this life.

use std::net::SocketAddr;

use super::header::LifeName;
use crate::cluster::by_key::ByKey;

/// Most addresses that are kept. One more takes the place of the one that was heard of least lately.
const HEARD_ADDRESSES_MAX: usize = 16_384;

/// The life that was heard at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeardLife {
    pub life: LifeName,
    /// Whether its last message named this node's life: so it knows this life, and its message was no recording.
    pub knows_us: bool,
}

#[derive(Clone, Copy, Debug)]
struct HeardAddress {
    heard: HeardLife,
    /// Number of the last message among all that were opened.
    last: u64,
}

/// All addresses that are kept.
#[derive(Debug, Default)]
pub(super) struct HeardPeers {
    by_address: ByKey<SocketAddr, HeardAddress>,
    heard: u64,
}

impl HeardPeers {
    /// The life that was heard at an address.
    pub fn at(&self, address: SocketAddr) -> Option<HeardLife> {
        self.by_address.get(address).map(|it| it.heard)
    }

    /// Notes that a message of `life` was opened, which came from `address`. `knows_us`: it named this node's life.
    pub fn note(&mut self, address: SocketAddr, life: LifeName, knows_us: bool) {
        self.heard += 1;
        let new = HeardAddress { heard: HeardLife { life, knows_us }, last: self.heard };
        let Some(place) = self.by_address.place(address) else {
            self.by_address.insert(address, new);
            return self.make_room();
        };
        let Some(known) = self.by_address.at_mut(place) else { return };
        let HeardLife { life: before, knows_us: is_sure } = known.heard;
        let is_next = life.name == before.name && life.boot > before.boot;
        if knows_us || !is_sure || before == life || is_next {
            *known = new;
        } else {
            // Another node may have this address now, or a recording came under a false address. Until that is
            // clear, what is sent there names no receiver, and so everybody with a key can open it.
            self.by_address.remove(place);
        }
    }

    fn make_room(&mut self) {
        if self.by_address.len() > HEARD_ADDRESSES_MAX {
            let oldest = self.by_address.iter().min_by_key(|(_, it)| it.last).map(|(place, _)| place);
            oldest.and_then(|place| self.by_address.remove(place));
        }
    }

    /// Forgets the addresses of a life that is no longer kept. What is sent there says that it is not known.
    pub fn forget(&mut self, nonce: u64) {
        let of_it = self.by_address.iter().filter(|(_, it)| it.heard.life.nonce == nonce);
        let places: Vec<usize> = of_it.map(|(place, _)| place).collect();
        places.into_iter().for_each(|place| {
            self.by_address.remove(place);
        });
    }

    /// Notes that this node has begun a new life, which nobody knows.
    pub fn begin_anew(&mut self) {
        self.by_address.iter_mut().for_each(|(_, it)| it.heard.knows_us = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    const A: LifeName = LifeName { nonce: 1, name: 1, boot: 5 };

    #[test]
    fn a_recording_does_not_displace_what_is_sure() {
        let mut peers = HeardPeers::default();
        peers.note(at(1), A, false);
        assert_eq!(peers.at(at(1)), Some(HeardLife { life: A, knows_us: false }));
        peers.note(at(1), A, true);
        let (older, other) = (LifeName { nonce: 2, boot: 4, ..A }, LifeName { nonce: 3, name: 9, boot: 9 });
        for recorded in [older, other] {
            peers.note(at(1), recorded, false);
            assert_eq!(peers.at(at(1)), None, "in doubt");
            peers.note(at(1), A, true);
        }
        let next = LifeName { nonce: 4, boot: 6, ..A };
        peers.note(at(1), next, false);
        assert_eq!(peers.at(at(1)), Some(HeardLife { life: next, knows_us: false }));
        peers.note(at(1), other, true);
        assert_eq!(peers.at(at(1)).map(|heard| heard.life), Some(other), "another node has the address now");
        peers.begin_anew();
        assert_eq!(peers.at(at(1)).map(|heard| heard.knows_us), Some(false));
        peers.forget(other.nonce);
        assert_eq!(peers.at(at(1)), None);
    }

    #[test]
    fn addresses_are_bounded() {
        let mut peers = HeardPeers::default();
        for number in 0..HEARD_ADDRESSES_MAX as u32 + 10 {
            let address = SocketAddr::from((std::net::Ipv4Addr::from(number), 1));
            peers.note(address, LifeName { nonce: number.into(), ..A }, true);
        }
        assert_eq!(peers.by_address.len(), HEARD_ADDRESSES_MAX);
    }
}
