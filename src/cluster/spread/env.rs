//! The state that the modules of spreading share: who this node is, the time, members, links and timers.
//!
//! Custody, gaps, replication, intake and packer each keep their own state to themselves. What they share is
//! in [`Base`]; a method that needs the members as well is called with an [`Env`], which adds the ring for
//! the time of one call.

use std::sync::Arc;

use super::batch::line_hash;
use super::duty::RangeTask;
use super::lines::Lines;
use super::link::Link;
use super::links::Links;
use super::path::PathUse;
use super::span::Span;
use super::stats::SpreadStats;
use super::timers::{Timer, Timers};
use super::tree::{SpanMembers, Zones};
use super::wire::packet_bytes_max;
use crate::cluster::MachineConfig;
use crate::cluster::members::Identity;
use crate::cluster::ring::Ring;
use crate::record::{NodeName, Now};

/// The identity of this node. Only `header_boot` may change while the node runs.
#[derive(Debug)]
pub(super) struct Me {
    /// The node's name.
    pub name: NodeName,
    /// Boot number with which the node started, which distinguishes its records from those of earlier starts.
    pub boot: u64,
    /// Boot number in the headers of this node's datagrams, by which peers know whose numbers they acknowledge.
    pub header_boot: u64,
    /// Hash of the name and of the boot number with which the node started.
    pub life: u64,
    /// Place on the ring.
    pub place: u64,
    /// Name of the zone; empty if the node has none.
    pub zone: Arc<str>,
    /// Most bytes of one encoded packet that every path carries.
    pub packet_bytes_max: usize,
}

impl Me {
    /// Takes the facts from the configuration. Datagrams have bodies of at most `body_bytes_max` bytes.
    pub fn new(config: &MachineConfig, body_bytes_max: usize) -> Me {
        let identity = Identity::new(config.name.clone(), config.boot, config.gossip, "", "", "");
        Me {
            name: config.name.clone(),
            boot: config.boot,
            header_boot: config.boot,
            life: line_hash(&config.name, config.boot),
            place: identity.ring_hash(),
            zone: config.zone.as_str().into(),
            packet_bytes_max: packet_bytes_max(body_bytes_max),
        }
    }
}

/// The state that custody, gaps, replication, intake and packer share.
#[derive(Debug)]
pub(super) struct Base {
    /// Time of the current call on the monotonic clock, in microseconds. It never goes back.
    pub now_us: u64,
    /// The identity of this node.
    pub me: Me,
    /// The members by zone, as of the last ring that was seen.
    pub zones: Zones,
    /// The lines: for each life of an origin, the numbers of the records that are held.
    pub lines: Lines,
    /// The links to peers.
    pub links: Links,
    /// The sizes of datagrams that the paths carry over which this node's own records go.
    pub paths: PathUse,
    /// Timers for actions that are due later.
    pub timers: Timers,
    /// Counts since the start.
    pub stats: SpreadStats,
}

impl Base {
    /// Begins a call at `now`, with the ring as it is now.
    pub fn begin(&mut self, now: Now, ring: &Ring) {
        self.now_us = self.now_us.max(now.mono_us);
        self.zones.refresh(ring, &self.me.zone, self.me.place);
    }

    /// Schedules a receipt to the peer of a link. One that is due at once goes with the timers that follow
    /// the datagrams of a turn, so that it acknowledges all that came in the turn.
    pub fn schedule_receipt(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        if let Some(at_us) = link.answers.schedule(self.now_us) {
            self.timers.push(at_us, Timer::Receipt { link: id });
        }
    }

    /// Sets the timer of a link's parts, unless it is set for early enough.
    pub fn arm_parts(&mut self, id: usize) {
        if let Some(at_us) = self.links.get_mut(id).and_then(Link::arm) {
            self.timers.push(at_us, Timer::Parts { link: id });
        }
    }

    /// Notes that the timer of a link's parts that was set for `at_us` is gone, and sets it for the next time.
    pub fn disarm_parts(&mut self, id: usize, at_us: u64) {
        if let Some(link) = self.links.get_mut(id) {
            link.disarm(at_us);
        }
        self.arm_parts(id);
    }
}

/// The shared state and the members, for the time of one call.
#[derive(Debug)]
pub(super) struct Env<'a> {
    /// The shared state, which outlasts the call.
    pub base: &'a mut Base,
    /// The live members.
    pub ring: &'a Ring,
}

impl Env<'_> {
    /// The members of `zone` in `span`, except those at the places `without`.
    pub fn members(&self, zone: &str, span: Span, without: impl IntoIterator<Item = u64>) -> SpanMembers<'_> {
        SpanMembers::new(self.ring, &self.base.zones, zone, span, without)
    }

    /// Number of members in a range besides this node, without those that are served already.
    pub fn members_below(&self, task: &RangeTask) -> usize {
        // Most ranges are those of leaves, which the neighbours of this node on the ring tell at once.
        if self.base.zones.is_alone(self.ring, &task.zone, task.span, &task.without) {
            return 0;
        }
        let without = task.without.iter().copied().chain([self.base.me.place]);
        self.members(&task.zone, task.span, without).len()
    }
}
