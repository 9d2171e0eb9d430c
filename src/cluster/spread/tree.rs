//! How a range is cut into parts, and who serves each: the tree itself.
//!
//! The holder of a batch cuts the members of its range, itself left out, into [`FANOUT`] runs of
//! equal length and hands each to one member of it. A run may span the holder's own place: were the
//! members left and right of it cut apart, a few trees would be one hop deeper than they need be
//! (585 and 4,369 members at a fanout of 8). The places of earlier holders that lie inside a part
//! travel with it.
//!
//! Who serves a part turns with the epoch in steps of the golden ratio, from a phase that differs
//! by origin and depth: every member of a part gets its turn before any gets a second, so the load
//! of one busy origin is even, and two origins do not press on the same relays. Rejected: a fresh
//! hash in every epoch, which leaves the busiest node at 1.7 times the mean over ten seconds;
//! "the first of the part", whose relays are the same in every epoch.

use std::sync::Arc;

use super::span::Span;
use crate::cluster::ring::{Ring, RingEntry};

/// Into how many parts a range is cut.
pub(super) const FANOUT: usize = 8;
/// Most places left out of a part: as many as the tree can be deep, with room.
pub(super) const WITHOUT_MAX: usize = 16;
/// 2^64 divided by the golden ratio: its multiples are spread evenly over the ring.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The members of each zone, in the ring's order; nothing where all are in one zone.
#[derive(Debug, Default)]
pub(super) struct Zones {
    version: Option<u64>,
    groups: Vec<(Arc<str>, Vec<u32>)>,
}

impl Zones {
    /// Brings the groups up to date with the ring.
    pub fn refresh(&mut self, ring: &Ring) {
        if self.version == Some(ring.version()) {
            return;
        }
        self.version = Some(ring.version());
        self.groups.clear();
        let entries = ring.entries();
        if entries.windows(2).all(|pair| pair[0].zone() == pair[1].zone()) {
            return;
        }
        for (index, entry) in entries.iter().enumerate() {
            let found = self.groups.binary_search_by(|group| (*group.0).cmp(entry.zone()));
            let at = found.unwrap_or_else(|at| {
                self.groups.insert(at, (entry.zone().into(), Vec::new()));
                at
            });
            self.groups[at].1.push(index as u32);
        }
    }

    /// Names of the zones, where there is more than one.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.iter().map(|group| &group.0)
    }

    fn order(&self, zone: &str) -> Option<&[u32]> {
        if self.groups.is_empty() {
            return None;
        }
        let found = self.groups.binary_search_by(|group| (*group.0).cmp(zone));
        Some(found.ok().and_then(|at| self.groups.get(at)).map_or(&[], |group| group.1.as_slice()))
    }
}

/// The members of one zone in one span, some left out. Counts and finds them without listing them.
pub(super) struct Members<'a> {
    entries: &'a [RingEntry],
    order: Option<&'a [u32]>,
    start: usize,
    /// How many there would be, were none left out.
    count: usize,
    /// Offsets from `start` of those left out, ascending.
    left_out: Vec<usize>,
}

impl<'a> Members<'a> {
    /// The members of `zone` in `span`, but those at the places `without`.
    pub fn new(ring: &'a Ring, zones: &'a Zones, zone: &str, span: Span, without: &[u64]) -> Members<'a> {
        let mut members = Members {
            entries: ring.entries(),
            order: zones.order(zone),
            start: 0,
            count: 0,
            left_out: Vec::new(),
        };
        let total = members.total();
        if zones.groups.is_empty() && ring.entries().first().is_none_or(|entry| entry.zone() != zone) {
            return members;
        }
        members.start = members.lower_bound(span.from);
        let end = members.lower_bound(span.to);
        members.count = match span.from.cmp(&span.to) {
            std::cmp::Ordering::Less => end - members.start,
            std::cmp::Ordering::Equal => total,
            std::cmp::Ordering::Greater => total - members.start + end,
        };
        for place in without.iter().filter(|place| span.contains(**place)) {
            let at = members.lower_bound(*place);
            if at < total && members.at(at).hash == *place {
                members.left_out.push((at + total - members.start) % total);
            }
        }
        members.left_out.sort_unstable();
        members.left_out.dedup();
        members
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.saturating_sub(self.left_out.len())
    }

    /// The `index`-th from the start of the span.
    pub fn get(&self, index: usize) -> Option<&'a RingEntry> {
        let mut offset = index;
        for left_out in &self.left_out {
            if *left_out <= offset {
                offset += 1;
            }
        }
        (offset < self.count).then(|| self.at((self.start + offset) % self.total()))
    }

    fn total(&self) -> usize {
        self.order.map_or(self.entries.len(), <[u32]>::len)
    }

    fn at(&self, index: usize) -> &'a RingEntry {
        match self.order {
            Some(order) => &self.entries[order[index] as usize],
            None => &self.entries[index],
        }
    }

    fn lower_bound(&self, place: u64) -> usize {
        match self.order {
            Some(order) => order.partition_point(|index| self.entries[*index as usize].hash < place),
            None => self.entries.partition_point(|entry| entry.hash < place),
        }
    }
}

/// One part of a range that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The places of the part, the empty ones up to its neighbours included: members that only
    /// its holder knows are served by it.
    pub span: Span,
    /// Index of its first member, among those that were cut.
    pub first: usize,
    /// How many members it has, at least one.
    pub count: usize,
}

/// Cuts `span`, which holds `members`, into at most [`FANOUT`] parts with equally many members.
pub(super) fn cut(span: Span, members: &Members) -> Vec<Cut> {
    let parts = members.len().min(FANOUT);
    let first_of = |part: usize| part * members.len() / parts;
    let border = |part: usize| match part {
        0 => span.from,
        _ if part == parts => span.to,
        _ => members.get(first_of(part)).map_or(span.to, |entry| entry.hash),
    };
    (0..parts)
        .map(|part| Cut {
            span: Span { from: border(part), to: border(part + 1) },
            first: first_of(part),
            count: first_of(part + 1) - first_of(part),
        })
        .collect()
}

/// Which of the `count` members of a part serves it.
pub(super) fn turn(origin: u64, hops: u32, epoch: u64, count: usize) -> usize {
    let phase = mix(origin ^ u64::from(hops).wrapping_mul(GOLDEN));
    let point = phase.wrapping_add(epoch.wrapping_mul(GOLDEN));
    ((u128::from(point) * count as u128) >> 64) as usize
}

/// A finalizer that spreads every bit (Stafford's variant 13, as in SplitMix64).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::harness::ring_of;
    use super::*;

    /// Serves a range as the protocol does, and returns messages sent and the deepest hop.
    fn serve(ring: &Ring, zones: &Zones, holder: u64, span: Span, without: &[u64], hops: u32, epoch: u64) -> (usize, u32) {
        let mut without = without.to_vec();
        without.push(holder);
        let members = Members::new(ring, zones, "", span, &without);
        let (mut sent, mut deepest) = (0, hops);
        for part in cut(span, &members) {
            let index = part.first + turn(holder, hops, epoch, part.count);
            let member = members.get(index).expect("in the part");
            assert!(part.span.contains(member.hash));
            let below = serve(ring, zones, member.hash, part.span, &without, hops + 1, epoch);
            sent += below.0 + 1;
            deepest = deepest.max(below.1);
        }
        (sent, deepest)
    }

    #[test]
    fn one_message_a_member_and_no_deeper_than_a_full_tree() {
        let sizes = (1..=1000usize).chain([585, 586, 4369, 4681, 4682]);
        for n in sizes {
            let ring = ring_of(n);
            let mut zones = Zones::default();
            zones.refresh(&ring);
            let origin = ring.entries()[n / 3].hash;
            let (sent, deepest) = serve(&ring, &zones, origin, Span::whole_after(origin), &[], 0, n as u64);
            assert_eq!(sent, n - 1, "messages among {n}");
            let (mut depth, mut full, mut layer) = (0, 1, 1);
            while full < n {
                layer *= FANOUT;
                full += layer;
                depth += 1;
            }
            assert!(deepest <= depth, "{deepest} hops among {n}, at most {depth}");
        }
    }

    #[test]
    fn everyone_gets_a_turn_before_anyone_gets_two() {
        for count in [1, 2, 13, 125] {
            let mut turns = vec![0; count];
            for epoch in 0..4 * count as u64 {
                turns[turn(99, 1, epoch, count)] += 1;
            }
            assert!(turns.iter().all(|turns| (2..=6).contains(turns)), "{turns:?}");
        }
    }
}
