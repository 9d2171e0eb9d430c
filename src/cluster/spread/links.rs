//! All links of a node, by address and by number; bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::assembly::{Assemblies, Fragment};
use super::by_key::ByKey;
use super::lateness::Lateness;
use super::link::{Link, NO_LINE, Note};
use super::rtt::Rtt;
use super::wire::PartHeader;
use crate::cluster::stats::Gauge;

/// Most links. Beyond it those that are idle go, the longest unused first.
const LINKS_MAX: usize = 2_048;
/// Round trip to another zone before one was measured, in microseconds: too long costs time if a
/// first packet is lost, too short sends a whole zone everything again.
const FAR_RTT_US: u64 = 200_000;
/// Most zones whose round trips are kept.
const ZONES_MAX: usize = 1_024;
/// An idle link goes after this long, in microseconds.
const IDLE_US_MAX: u64 = 30_000_000;

/// All links, by address; their numbers are their places.
#[derive(Debug)]
pub(super) struct Links {
    links: ByKey<SocketAddr, Box<Link>>,
    /// Numbers of new links start here: a peer that remembers an earlier link of this life must
    /// not take new numbers for old ones.
    first_number: u64,
    /// Round trip over the links inside this zone, which stands in for those that have none of their own.
    rtt: Option<Rtt>,
    /// The same to each other zone: one that is 40 ms away must not be given up after five.
    far: BTreeMap<Arc<str>, Rtt>,
    default_rtt: Rtt,
    /// Lateness over all links.
    lateness: Lateness,
    /// Links with something to send, in the order in which they are served.
    ready: VecDeque<usize>,
    /// Batches that come in fragments, of all links.
    assemblies: Assemblies,
}

impl Links {
    /// No links; `default_rtt_us` is assumed until a round trip was measured.
    pub fn new(default_rtt_us: u64) -> Links {
        Links {
            links: ByKey::default(),
            first_number: 1,
            rtt: None,
            far: BTreeMap::new(),
            default_rtt: Rtt::new(default_rtt_us),
            lateness: Lateness::default(),
            ready: VecDeque::new(),
            assemblies: Assemblies::default(),
        }
    }

    /// The number of the link to an address, made if there is none. `None`: too many are in use.
    pub fn open(&mut self, to: SocketAddr, now_us: u64) -> Option<usize> {
        if let Some(id) = self.links.place(to) {
            return Some(id);
        }
        if self.links.len() >= LINKS_MAX {
            let idle = self.links.iter().filter(|link| link.1.is_idle());
            let oldest = idle.min_by_key(|link| link.1.used_us).map(|link| link.0)?;
            self.close(oldest);
        }
        let mut link = Link::new(to, self.first_number, self.lateness);
        link.used_us = now_us;
        Some(self.links.insert(to, Box::new(link)))
    }

    /// The link of this number.
    pub fn get(&self, id: usize) -> Option<&Link> {
        self.links.at(id).map(Box::as_ref)
    }

    /// The link of this number, to be changed.
    pub fn get_mut(&mut self, id: usize) -> Option<&mut Link> {
        self.links.at_mut(id).map(Box::as_mut)
    }

    /// The link to this address, if there is one.
    pub fn find(&self, to: SocketAddr) -> Option<&Link> {
        self.links.get(to).map(Box::as_ref)
    }

    /// Shows how many links there are and how full the room for fragments is.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::new("links", self.links.len(), LINKS_MAX));
        self.assemblies.visit_gauges(visit);
    }

    /// Whether there is no link.
    pub fn is_empty(&self) -> bool {
        self.links.len() == 0
    }

    /// Closes the links that were not used for long, and drops fragments that made no progress for long.
    pub fn sweep(&mut self, now_us: u64) {
        let is_over = |link: &Link| link.is_idle() && now_us.saturating_sub(link.used_us) > IDLE_US_MAX;
        let over: Vec<usize> = self.links.iter().filter(|link| is_over(link.1)).map(|link| link.0).collect();
        over.into_iter().for_each(|id| self.close(id));
        self.assemblies.forget_old(now_us);
    }

    /// Closes a link, together with the fragments that came over it: its number may be given to another.
    fn close(&mut self, id: usize) {
        if let Some(link) = self.links.remove(id) {
            debug_assert!(link.is_idle(), "something waits for {}", link.to);
            self.first_number = self.first_number.max(link.next_number());
            self.assemblies.forget_link(id);
        }
    }

    /// Notes that the peer of a link was heard, with this boot number.
    pub fn hear(&mut self, id: usize, now_us: u64, boot: u64) {
        let Some(link) = self.links.at_mut(id) else { return };
        if link.boot != boot {
            self.assemblies.forget_link(id);
        }
        link.hear(now_us, boot);
    }

    /// Has a link looked at by the next [`Links::pop_ready`]s: it may have something to send.
    pub fn mark_ready(&mut self, id: usize) {
        if let Some(link) = self.links.at_mut(id)
            && !link.is_ready
        {
            link.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// The next link that may have something to send.
    pub fn pop_ready(&mut self) -> Option<usize> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(link) = self.links.at_mut(id) {
                link.is_ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Has a want or a lack sent to the peer of a link, unless too many wait.
    pub fn note(&mut self, id: usize, note: Note) {
        if self.links.at_mut(id).is_some_and(|link| link.push_note(note)) {
            self.mark_ready(id);
        }
    }

    /// Asks the peer of a link for a sign of life.
    pub fn ask_sign_of_life(&mut self, id: usize) {
        if self.links.at(id).is_some_and(|link| !link.asks_sign_of_life()) {
            self.note(id, Note { is_want: true, line: NO_LINE, ranges: Vec::new() });
        }
    }

    /// Keeps a fragment that came over a link; returns by what its batch is found. `None`: there is no
    /// room, or no node would send it.
    pub fn put_fragment(&mut self, id: usize, now_us: u64, fragment: Fragment) -> Option<(usize, u64)> {
        self.assemblies.put(now_us, id, fragment)
    }

    /// A batch that came in fragments, with its header, if all of them are there.
    pub fn assembled(&self, key: (usize, u64)) -> Option<(PartHeader, Bytes)> {
        self.assemblies.whole(key)
    }

    /// Drops the fragments of a batch.
    pub fn drop_fragments(&mut self, key: (usize, u64)) {
        self.assemblies.close(key);
    }

    /// How many batches that come in fragments are not whole.
    #[cfg(test)]
    pub fn assembling(&self) -> usize {
        self.assemblies.len()
    }

    /// Takes a measured round trip of a link.
    pub fn sample_rtt(&mut self, id: usize, us: u64) {
        let typical = self.rtt_of_zone(id);
        let Some(link) = self.links.at_mut(id) else { return };
        match &mut link.rtt {
            Some(rtt) => rtt.sample(us),
            None => link.rtt = Some(Rtt::like(typical, us)),
        }
        let zone = link.zone.clone();
        self.sample_zone(zone.as_deref(), us);
    }

    /// Takes a measured round trip to a zone; `None`: inside this one.
    fn sample_zone(&mut self, zone: Option<&str>, us: u64) {
        let has_room = self.far.len() < ZONES_MAX;
        let known = match zone {
            Some(zone) => self.far.get_mut(zone),
            None => self.rtt.as_mut(),
        };
        match (known, zone) {
            (Some(rtt), _) => rtt.sample(us),
            (None, None) => self.rtt = Some(Rtt::new(us)),
            (None, Some(zone)) if has_room => {
                self.far.insert(zone.into(), Rtt::new(us));
            }
            (None, Some(_)) => {}
        }
    }

    /// Takes a round trip to a member of a zone that was measured elsewhere: what a link assumes until
    /// it has one of its own. `None`: of this zone.
    pub fn note_rtt(&mut self, to: SocketAddr, zone: Option<&str>, us: u64) {
        match self.links.place(to) {
            Some(id) if self.links.at(id).is_some_and(|link| link.rtt.is_none()) => self.sample_rtt(id, us),
            _ => {
                let known = zone.map_or(self.rtt, |zone| self.far.get(zone).copied());
                // A probe may have been answered late for other reasons than its way.
                let us_max = known.map_or(u64::MAX, |rtt| 4 * rtt.smooth_us());
                self.sample_zone(zone, us.min(us_max));
            }
        }
    }

    /// Says in which zone the peer of a link is; `None`: in this one.
    pub fn set_zone(&mut self, id: usize, zone: Option<&Arc<str>>) {
        if let Some(link) = self.links.at_mut(id) {
            link.zone = zone.cloned();
        }
    }

    /// Takes the answer to a question: whether what was asked about had been lost.
    pub fn note_answer(&mut self, id: usize, was_lost: bool) {
        self.lateness.note(was_lost);
        if let Some(link) = self.links.at_mut(id) {
            link.lateness.note(was_lost);
        }
    }

    /// Takes note of a receipt that came in time.
    pub fn note_in_time(&mut self, id: usize) {
        self.lateness.fade();
        if let Some(link) = self.links.at_mut(id) {
            link.lateness.fade();
        }
    }

    /// Whether receipts on this link, or on most, are late rather than lost.
    pub fn is_late(&self, id: usize) -> bool {
        self.lateness.is_late() || self.links.at(id).is_some_and(|link| link.lateness.is_late())
    }

    /// Whether receipts on most links are late rather than lost.
    pub fn are_late(&self) -> bool {
        self.lateness.is_late()
    }

    /// The round trip of a link, its own or what stands in for it.
    pub fn rtt(&self, id: usize) -> Rtt {
        let own = self.links.at(id).and_then(|link| link.rtt);
        own.unwrap_or_else(|| self.rtt_of_zone(id))
    }

    /// What is usual between here and a link's peer.
    fn rtt_of_zone(&self, id: usize) -> Rtt {
        match self.links.at(id).and_then(|link| link.zone.as_ref()) {
            Some(zone) => self.far.get(zone).copied().unwrap_or(Rtt::new(FAR_RTT_US)),
            None => self.typical_rtt(),
        }
    }

    /// The round trip over all links inside this zone.
    pub fn typical_rtt(&self) -> Rtt {
        self.rtt.unwrap_or(self.default_rtt)
    }
}
