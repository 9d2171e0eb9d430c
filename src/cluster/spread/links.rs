//! All links of a node, by the address of the peer and by number. Their number is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::assembly::{Assemblies, Fragment};
use super::lateness::Lateness;
use super::link::{Link, NO_LINE, Note, PartId};
use super::rtt::Rtt;
use super::wire::PartHeader;
use crate::cluster::by_key::ByKey;
use crate::cluster::stats::QueueGauge;

/// Most links. For one more, the idle one that was not used for longest is closed.
const LINKS_MAX: usize = 2_048;
/// Round trip that is assumed to another zone before one was measured, in microseconds. An assumption that is
/// too long costs time if a first packet is lost; with one that is too short, a whole zone is sent everything
/// again.
const FAR_RTT_US: u64 = 200_000;
/// Most other zones whose round trips are kept.
const ZONES_MAX: usize = 1_024;
/// An idle link is closed if it was not used for this long, in microseconds.
const LINK_IDLE_US_MAX: u64 = 30_000_000;

/// All links. The number of a link is its place in the table, which another link may take when it is closed.
#[derive(Debug)]
pub(super) struct Links {
    links: ByKey<SocketAddr, Box<Link>>,
    /// First part number of new links: a peer that remembers an earlier link must not take new parts for old
    /// ones.
    first_number: u64,
    /// Round trip inside this zone, which is assumed for links without a measured one.
    rtt: Option<Rtt>,
    /// Round trips to other zones: a member that is 40 ms away must not be given up after five.
    far: BTreeMap<Arc<str>, Rtt>,
    /// Round trip inside this zone before one was measured.
    default_rtt: Rtt,
    /// Whether receipts are late on most links.
    lateness: Lateness,
    /// Links with something to send, in the order in which they are served.
    ready: VecDeque<usize>,
    /// Batches that come in fragments, of all links.
    assemblies: Assemblies,
}

impl Links {
    /// Begins without links. `default_rtt_us` is the round trip that is assumed until one was measured, in
    /// microseconds.
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

    /// Number of the link to an address; it is made if there is none. `None`: too many are in use.
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

    /// Number of the link to this address, if there is one.
    pub fn place(&self, to: SocketAddr) -> Option<usize> {
        self.links.place(to)
    }

    /// The link to this address, if there is one.
    pub fn find(&self, to: SocketAddr) -> Option<&Link> {
        self.links.get(to).map(Box::as_ref)
    }

    /// Calls `visit` with the number of links and of bytes of fragments, and their bounds.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("links", self.links.len(), LINKS_MAX));
        self.assemblies.visit_gauges(visit);
    }

    /// Returns whether there is no link.
    pub fn is_empty(&self) -> bool {
        self.links.len() == 0
    }

    /// Closes the links that were not used for long, and drops fragments that made no progress for long.
    pub fn sweep(&mut self, now_us: u64) {
        let is_over = |link: &Link| link.is_idle() && now_us.saturating_sub(link.used_us) > LINK_IDLE_US_MAX;
        let over: Vec<usize> = self.links.iter().filter(|link| is_over(link.1)).map(|link| link.0).collect();
        over.into_iter().for_each(|id| self.close(id));
        self.links.iter_mut().for_each(|(_, link)| link.tidy());
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

    /// Puts a link among those that [`Links::pop_ready`] gives: it may have something to send.
    pub fn mark_ready(&mut self, id: usize) {
        if let Some(link) = self.links.at_mut(id)
            && !link.is_ready
        {
            link.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// Number of the next link that may have something to send.
    pub fn pop_ready(&mut self) -> Option<usize> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(link) = self.links.at_mut(id) {
                link.is_ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Queues a want or a lack for the peer of a link, unless too many wait.
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

    /// Keeps a fragment that came over a link; returns the key of its batch. `None`: there is no room, or no
    /// node would send it.
    pub fn put_fragment(&mut self, id: usize, now_us: u64, fragment: Fragment) -> Option<PartId> {
        self.assemblies.put(now_us, id, fragment)
    }

    /// The header and the bytes of a batch that came in fragments, if all of them are there.
    pub fn assembled(&self, key: PartId) -> Option<(PartHeader, Bytes)> {
        self.assemblies.whole(key)
    }

    /// Drops the fragments of a batch.
    pub fn drop_fragments(&mut self, key: PartId) {
        self.assemblies.close(key);
    }

    /// Number of batches of which fragments are missing.
    #[cfg(test)]
    pub fn assembling(&self) -> usize {
        self.assemblies.len()
    }

    /// Takes a measured round trip of a link, in microseconds.
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

    /// Takes a measured round trip to another zone, or inside this one (`None`), in microseconds.
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

    /// Takes a round trip to a member of another zone, or of this one (`None`), that was measured by
    /// membership, in microseconds: links assume it until they have measured one.
    pub fn note_rtt(&mut self, to: SocketAddr, zone: Option<&str>, us: u64) {
        match self.links.place(to) {
            Some(id) if self.links.at(id).is_some_and(|link| link.rtt.is_none()) => self.sample_rtt(id, us),
            _ => {
                let known = zone.map_or(self.rtt, |zone| self.far.get(zone).copied());
                // A probe may be answered late for other reasons than the network.
                let us_max = known.map_or(u64::MAX, |rtt| 4 * rtt.smooth_us());
                self.sample_zone(zone, us.min(us_max));
            }
        }
    }

    /// Sets the zone of a link's peer; `None`: the zone of this node.
    pub fn set_zone(&mut self, id: usize, zone: Option<&Arc<str>>) {
        if let Some(link) = self.links.at_mut(id)
            && (link.zone.is_some() || zone.is_some())
        {
            link.zone = zone.cloned();
        }
    }

    /// Takes the answer to a question on a link; `was_lost`: the part had been lost.
    pub fn note_answer(&mut self, id: usize, was_lost: bool) {
        self.lateness.note(was_lost);
        if let Some(link) = self.links.at_mut(id) {
            link.lateness.note(was_lost);
        }
    }

    /// Notes that a receipt came in time on a link.
    pub fn note_in_time(&mut self, id: usize) {
        self.lateness.fade();
        if let Some(link) = self.links.at_mut(id) {
            link.lateness.fade();
        }
    }

    /// Returns whether receipts on this link, or on most, are late rather than lost.
    pub fn is_late(&self, id: usize) -> bool {
        self.lateness.is_late() || self.links.at(id).is_some_and(|link| link.lateness.is_late())
    }

    /// Returns whether receipts on most links are late rather than lost.
    pub fn are_late(&self) -> bool {
        self.lateness.is_late()
    }

    /// The round trip of a link: its own, or that of its zone if none was measured.
    pub fn rtt(&self, id: usize) -> Rtt {
        let own = self.links.at(id).and_then(|link| link.rtt);
        own.unwrap_or_else(|| self.rtt_of_zone(id))
    }

    /// The usual round trip to the zone of a link's peer.
    fn rtt_of_zone(&self, id: usize) -> Rtt {
        match self.links.at(id).and_then(|link| link.zone.as_ref()) {
            Some(zone) => self.far.get(zone).copied().unwrap_or(Rtt::new(FAR_RTT_US)),
            None => self.typical_rtt(),
        }
    }

    /// The usual round trip inside this zone.
    pub fn typical_rtt(&self) -> Rtt {
        self.rtt.unwrap_or(self.default_rtt)
    }
}
