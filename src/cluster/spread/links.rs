//! All links of a node, by address and by number; bounded.

use std::net::SocketAddr;

use hashbrown::HashMap;
use slab::Slab;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::link::{Link, Rtt};

/// Most links. Beyond it those that are idle go, the longest unused first.
const LINKS_MAX: usize = 2_048;
/// An idle link goes after this long, in microseconds.
const IDLE_US_MAX: u64 = 30_000_000;

/// All links. The map of addresses is only looked into, never gone through.
#[derive(Debug)]
pub(super) struct Links {
    slab: Slab<Link>,
    by_address: HashMap<SocketAddr, usize, Xxh3DefaultBuilder>,
    /// Numbers of new links start here: a peer that remembers an earlier link of this life must
    /// not take new numbers for old ones.
    first_number: u64,
    /// Round trip over all links, which stands in for those that have none of their own.
    rtt: Option<Rtt>,
    default_rtt: Rtt,
}

impl Links {
    /// No links; `default_rtt_us` is assumed until a round trip was measured.
    pub fn new(default_rtt_us: u64) -> Links {
        Links {
            slab: Slab::new(),
            by_address: HashMap::with_hasher(Xxh3DefaultBuilder::new()),
            first_number: 1,
            rtt: None,
            default_rtt: Rtt::new(default_rtt_us),
        }
    }

    /// The number of the link to an address; made if there is none. `None`: too many are in use.
    pub fn open(&mut self, to: SocketAddr, now_us: u64) -> Option<usize> {
        if let Some(id) = self.by_address.get(&to) {
            return Some(*id);
        }
        if self.slab.len() >= LINKS_MAX {
            let idle = self.slab.iter().filter(|link| link.1.is_idle());
            let oldest = idle.min_by_key(|link| link.1.used_us).map(|link| link.0)?;
            self.close(oldest);
        }
        let mut link = Link::new(to, self.first_number);
        link.used_us = now_us;
        let id = self.slab.insert(link);
        self.by_address.insert(to, id);
        Some(id)
    }

    /// The link of this number.
    pub fn get(&self, id: usize) -> Option<&Link> {
        self.slab.get(id)
    }

    /// The link of this number, to be changed.
    pub fn get_mut(&mut self, id: usize) -> Option<&mut Link> {
        self.slab.get_mut(id)
    }

    /// The link to this address, if there is one.
    pub fn find(&self, to: SocketAddr) -> Option<&Link> {
        self.by_address.get(&to).and_then(|id| self.slab.get(*id))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Closes the links that were not used for long; returns their numbers.
    pub fn close_idle(&mut self, now_us: u64) -> Vec<usize> {
        let is_over = |link: &Link| link.is_idle() && now_us.saturating_sub(link.used_us) > IDLE_US_MAX;
        let over: Vec<usize> = self.slab.iter().filter(|link| is_over(link.1)).map(|link| link.0).collect();
        for id in &over {
            self.close(*id);
        }
        over
    }

    fn close(&mut self, id: usize) {
        if let Some(link) = self.slab.try_remove(id) {
            self.by_address.remove(&link.to);
            self.first_number = self.first_number.max(link.next_number());
        }
    }

    /// Takes a measured round trip of a link.
    pub fn sample_rtt(&mut self, id: usize, us: u64) {
        let typical = self.typical_rtt();
        if let Some(link) = self.slab.get_mut(id) {
            match &mut link.rtt {
                Some(rtt) => rtt.sample(us),
                None => link.rtt = Some(Rtt::like(typical, us)),
            }
        }
        match &mut self.rtt {
            Some(rtt) => rtt.sample(us),
            None => self.rtt = Some(Rtt::new(us)),
        }
    }

    /// Takes a round trip measured elsewhere: what a link assumes until it has one of its own.
    pub fn note_rtt(&mut self, to: SocketAddr, us: u64) {
        match self.by_address.get(&to) {
            Some(id) if self.slab.get(*id).is_some_and(|link| link.rtt.is_none()) => self.sample_rtt(*id, us),
            _ => match &mut self.rtt {
                // A probe may have been answered late for other reasons than its way.
                Some(rtt) => rtt.sample(us.min(4 * rtt.smooth_us())),
                None => self.rtt = Some(Rtt::new(us)),
            },
        }
    }

    /// The round trip of a link, its own or what stands in for it.
    pub fn rtt(&self, id: usize) -> Rtt {
        let own = self.slab.get(id).and_then(|link| link.rtt);
        own.or(self.rtt).unwrap_or(self.default_rtt)
    }

    /// The round trip over all links.
    pub fn typical_rtt(&self) -> Rtt {
        self.rtt.unwrap_or(self.default_rtt)
    }
}
