//! Nodes and addresses of a virtual world: how each is named, and which node listens where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A node of a world, counted from 0: one name at one address, through all its lives. A node that moves
/// to another address is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A socket address in four bytes instead of 32: either the number of a default address, or, from
/// [`NUMBERED_MAX`] on, a place in [`Hosts::others`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// The nodes that listen at each address.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// The listeners of the default addresses, by the number of the address.
    numbered: Vec<Option<NodeId>>,
    /// All other addresses that were ever named, and their listeners.
    others: Vec<(SocketAddr, Option<NodeId>)>,
    by_address: BTreeMap<SocketAddr, Place>,
}

/// How many default addresses there are: all of 10.0.0.0/8.
const NUMBERED_MAX: u32 = 1 << 24;
/// The port of all default addresses.
const GOSSIP_PORT: u16 = 7946;

impl Hosts {
    /// Returns the place of an address, or `None` if [`Hosts::place`] has to make it first.
    pub fn find(&self, address: SocketAddr) -> Option<Place> {
        number_of(address).map(Place).or_else(|| self.by_address.get(&address).copied())
    }

    /// Returns the place of an address, and makes it if there is none yet.
    pub fn place(&mut self, address: SocketAddr) -> Place {
        if let Some(place) = self.find(address) {
            return place;
        }
        let Hosts { others, by_address, .. } = self;
        *by_address.entry(address).or_insert_with(|| {
            others.push((address, None));
            Place(NUMBERED_MAX + others.len() as u32 - 1)
        })
    }

    /// Returns the address of a place.
    pub fn address(&self, place: Place) -> SocketAddr {
        let other = place.0.checked_sub(NUMBERED_MAX).and_then(|other| self.others.get(other as usize));
        other.map_or_else(|| numbered_address(place.0), |other| other.0)
    }

    /// Returns the node that listens at a place now.
    pub fn node_at(&self, place: Place) -> Option<NodeId> {
        match place.0.checked_sub(NUMBERED_MAX) {
            None => self.numbered.get(place.0 as usize).copied().flatten(),
            Some(other) => self.others.get(other as usize).and_then(|other| other.1),
        }
    }

    /// Sets which node listens at a place from now on; `None`: nobody does.
    pub fn set(&mut self, place: Place, node: Option<NodeId>) {
        match place.0.checked_sub(NUMBERED_MAX) {
            None => {
                if self.numbered.len() <= place.0 as usize {
                    self.numbered.resize(place.0 as usize + 1, None);
                }
                self.numbered[place.0 as usize] = node;
            }
            Some(other) => {
                if let Some(other) = self.others.get_mut(other as usize) {
                    other.1 = node;
                }
            }
        }
    }
}

/// Returns the address that a node gets unless another one is asked for.
pub(super) fn default_address(node: NodeId) -> SocketAddr {
    numbered_address(node.0 as u32 + 1)
}

fn numbered_address(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], GOSSIP_PORT))
}

fn number_of(address: SocketAddr) -> Option<u32> {
    match address.ip() {
        IpAddr::V4(ip) if address.port() == GOSSIP_PORT && ip.octets()[0] == 10 => {
            Some(u32::from(ip) - u32::from(Ipv4Addr::new(10, 0, 0, 0)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_and_other_addresses_have_places_of_their_own() {
        let mut hosts = Hosts::default();
        let default = default_address(NodeId(4));
        let others = ["192.0.2.1:7946", "10.0.0.5:1"].map(|text| text.parse().expect("an address"));
        let places = [default, others[0], others[1]].map(|address| hosts.place(address));
        for (node, place) in places.into_iter().enumerate() {
            assert_eq!(hosts.node_at(place), None);
            hosts.set(place, Some(NodeId(node)));
        }
        for (node, address) in [default, others[0], others[1]].into_iter().enumerate() {
            let place = hosts.find(address).expect("a place");
            assert_eq!((hosts.node_at(place), hosts.address(place)), (Some(NodeId(node)), address));
        }
    }
}
