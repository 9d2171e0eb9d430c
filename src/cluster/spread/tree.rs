//! Cuts a range into parts, and chooses the member that serves each: the tree itself.
//!
//! The holder of a batch cuts the members of its range, itself left out, into at most [`FANOUT`] parts and
//! hands each to one member of it. A part may lie on both sides of the holder's own place: were the members
//! before and after it cut apart, a few trees would be one hop deeper than necessary (with 585 and 4,369
//! members at a fanout of 8). The places of earlier holders that lie inside a part travel with it.
//!
//! Each part has as many members as a full tree of the least sufficient depth, and the members that are left
//! over go to as few parts as can take them. The tree is as shallow as with parts of equal size, and has the
//! fewest relays: of a thousand members 125 hand something on, where equal parts make it 490, most of them
//! for one other member. Loss hurts a relay most, since its part cannot be asked about first.
//!
//! Which parts are large and who serves them changes with the epoch, in steps of square roots of primes:
//! every member gets its turn before any gets many, so the load of one busy origin is even, and origins,
//! whose phases differ, do not load the same relays. Rejected: a fresh hash in every epoch, which is uneven
//! by chance; "the first member of the part", whose relays are the same in every epoch.

use std::sync::Arc;

use super::span::Span;
pub(super) use crate::cluster::random::mix;
use crate::cluster::ring::{Ring, RingEntry};

/// Most parts into which a range is cut.
pub(super) const FANOUT: usize = 8;
/// Most places that a part leaves out: as many as the tree can be deep, with some to spare.
pub(super) const WITHOUT_MAX: usize = 16;
/// Fractional parts of the square roots of the first primes, times 2^64. The multiples of one of them are
/// spread evenly over the ring, and those of several together over the cube that these span.
const ROOTS: [u64; 8] = [
    0x6A09_E667_F3BC_C908,
    0xBB67_AE85_84CA_A73B,
    0x3C6E_F372_FE94_F82B,
    0xA54F_F53A_5F1D_36F1,
    0x510E_527F_ADE6_82D1,
    0x9B05_688C_2B3E_6C1F,
    0x1F83_D9AB_FB41_BD6B,
    0x5BE0_CD19_137E_2179,
];

/// The members of each zone, in the ring's order. Empty if all members are in one zone.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// Version of the ring that the groups are made of.
    version: Option<u64>,
    /// Zones in the order of their names, with the indices of their members in the ring.
    groups: Vec<(Arc<str>, Vec<u32>)>,
    /// The zone of this node, if it is on the ring.
    own: Option<OwnZone>,
}

/// The facts about this node's zone that most parts need.
#[derive(Debug)]
struct OwnZone {
    zone: Arc<str>,
    /// Index of the zone in [`Zones::groups`]; `None`: all members are in this zone.
    group: Option<usize>,
    /// Place of this node.
    place: u64,
    /// Index of this node among the members of its zone.
    at: usize,
}

impl Zones {
    /// Brings the groups up to date with the ring. This node is in `zone`, at `place`.
    pub fn refresh(&mut self, ring: &Ring, zone: &Arc<str>, place: u64) {
        if self.version == Some(ring.version()) {
            return;
        }
        self.version = Some(ring.version());
        self.group(ring.entries());
        self.own = self.find_own(ring, zone, place);
    }

    /// Makes the groups of these members.
    fn group(&mut self, entries: &[RingEntry]) {
        self.groups.clear();
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

    /// The facts about this node's zone. `None`: this node is not on the ring.
    fn find_own(&self, ring: &Ring, zone: &Arc<str>, place: u64) -> Option<OwnZone> {
        let entries = ring.entries();
        let group = self.groups.binary_search_by(|group| (*group.0).cmp(zone)).ok();
        if group.is_none() && (!self.groups.is_empty() || entries.first()?.zone() != &**zone) {
            return None;
        }
        let order = group.and_then(|group| self.groups.get(group)).map(|group| group.1.as_slice());
        let members = SpanMembers { order, ..SpanMembers::none(entries) };
        let (at, total) = (members.lower_bound(place), members.total());
        if at >= total || members.at(at).hash != place {
            return None;
        }
        Some(OwnZone { zone: zone.clone(), group, place, at })
    }

    /// This node's zone, if `zone` is that one. Of an equal name elsewhere in memory it is not known.
    fn own_zone(&self, zone: &str) -> Option<&OwnZone> {
        self.own.as_ref().filter(|own| std::ptr::eq(&*own.zone, zone))
    }

    /// Returns whether this node is known to be the only member of `zone` in `span` except those at the places
    /// `without`. It may be so too if this is not known.
    pub fn is_alone(&self, ring: &Ring, zone: &str, span: Span, without: &[u64]) -> bool {
        let Some(own) = self.own_zone(zone).filter(|own| span.contains(own.place)) else { return false };
        let (entries, order) = (ring.entries(), self.order(zone));
        let total = order.map_or(entries.len(), <[u32]>::len);
        let hash_at = |index: usize| match order {
            Some(order) => order.get(index).and_then(|index| entries.get(*index as usize)),
            None => entries.get(index),
        };
        let hash_at = |index: usize| hash_at(index).map_or(own.place, |entry| entry.hash);
        let mut steps = 0..=without.len();
        // The members after this node, and those before it, up to the first that is not left out.
        let mut next = own.at;
        let is_end_after = steps.clone().find_map(|_| {
            next = if next + 1 < total { next + 1 } else { 0 };
            is_end(own, span, without, hash_at(next))
        });
        let mut next = own.at;
        let is_end_before = steps.find_map(|_| {
            next = if next > 0 { next - 1 } else { total.saturating_sub(1) };
            is_end(own, span, without, hash_at(next))
        });
        is_end_after == Some(true) && is_end_before == Some(true)
    }

    /// Names of the zones, if there is more than one.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.iter().map(|group| &group.0)
    }

    /// Indices of the members of a zone in the ring. `None`: all members are in one zone.
    fn order(&self, zone: &str) -> Option<&[u32]> {
        if self.groups.is_empty() {
            return None;
        }
        let found = match self.own_zone(zone) {
            Some(own) => own.group,
            None => self.groups.binary_search_by(|group| (*group.0).cmp(zone)).ok(),
        };
        Some(found.and_then(|at| self.groups.get(at)).map_or(&[], |group| group.1.as_slice()))
    }
}

/// Returns whether the member at `place`, next to members that are left out, shows that there are no others on
/// its side of this node: the member is outside of the span, or is this node again. `None`: the member is left
/// out too, and the one after it decides.
fn is_end(own: &OwnZone, span: Span, without: &[u64], place: u64) -> Option<bool> {
    match place == own.place || !span.contains(place) {
        true => Some(true),
        false => (!without.contains(&place)).then_some(false),
    }
}

/// The members of one zone in one span, except some. They are counted and found without being listed.
pub(super) struct SpanMembers<'a> {
    /// All members, of all zones.
    entries: &'a [RingEntry],
    /// Indices of the zone's members in `entries`; `None`: all entries are of one zone.
    order: Option<&'a [u32]>,
    /// Index of the first member of the span among those of the zone.
    start: usize,
    /// Number of members in the span, those that are left out included.
    count: usize,
    /// Offsets from `start` of the members that are left out, ascending; the first `left_out_count` count.
    left_out: [u32; LEFT_OUT_MAX],
    left_out_count: usize,
}

/// Most members that are left out: all holders nearer to the origin, and the one that asks.
const LEFT_OUT_MAX: usize = WITHOUT_MAX + 1;

impl<'a> SpanMembers<'a> {
    /// The members of `zone` in `span`, except those at the places `without`.
    pub fn new(
        ring: &'a Ring,
        zones: &'a Zones,
        zone: &str,
        span: Span,
        without: impl IntoIterator<Item = u64>,
    ) -> SpanMembers<'a> {
        let mut members = SpanMembers { order: zones.order(zone), ..SpanMembers::none(ring.entries()) };
        let total = members.total();
        let is_other = || ring.entries().first().is_none_or(|entry| entry.zone() != zone);
        if zones.groups.is_empty() && zones.own_zone(zone).is_none() && is_other() {
            return members;
        }
        members.start = members.lower_bound(span.from);
        let end = members.lower_bound(span.to);
        members.count = match span.from.cmp(&span.to) {
            std::cmp::Ordering::Less => end - members.start,
            std::cmp::Ordering::Equal => total,
            std::cmp::Ordering::Greater => total - members.start + end,
        };
        for place in without.into_iter().filter(|place| span.contains(*place)) {
            let at = members.lower_bound(place);
            if at < total && members.at(at).hash == place {
                members.leave_out(members.around(at + total - members.start) as u32);
            }
        }
        members
    }

    /// No members, among these of one zone.
    fn none(entries: &'a [RingEntry]) -> SpanMembers<'a> {
        SpanMembers {
            entries,
            order: None,
            start: 0,
            count: 0,
            left_out: [0; LEFT_OUT_MAX],
            left_out_count: 0,
        }
    }

    /// The index that this one, which is at most one round too great, stands for on the round ring.
    fn around(&self, index: usize) -> usize {
        let total = self.total();
        if index < total { index } else { index - total }
    }

    /// Leaves out the member at this offset from `start`.
    fn leave_out(&mut self, offset: u32) {
        let count = self.left_out_count;
        let Err(at) = self.left_out().binary_search(&offset) else { return };
        if let Some(moved) = self.left_out.get_mut(at..=count) {
            moved.rotate_right(1);
            self.left_out[at] = offset;
            self.left_out_count += 1;
        }
    }

    /// Offsets from `start` of the members that are left out, ascending.
    fn left_out(&self) -> &[u32] {
        self.left_out.get(..self.left_out_count).unwrap_or_default()
    }

    /// Number of members, without those that are left out.
    pub fn len(&self) -> usize {
        self.count.saturating_sub(self.left_out_count)
    }

    /// The member of this index, counted from the start of the span without those that are left out.
    pub fn get(&self, index: usize) -> Option<&'a RingEntry> {
        let mut offset = index;
        for left_out in self.left_out() {
            if *left_out as usize <= offset {
                offset += 1;
            }
        }
        (offset < self.count).then(|| self.at(self.around(self.start + offset)))
    }

    /// Number of members of the zone.
    fn total(&self) -> usize {
        self.order.map_or(self.entries.len(), <[u32]>::len)
    }

    /// The zone's member of this index.
    fn at(&self, index: usize) -> &'a RingEntry {
        match self.order {
            Some(order) => &self.entries[order[index] as usize],
            None => &self.entries[index],
        }
    }

    /// Index of the zone's first member at `place` or after it.
    fn lower_bound(&self, place: u64) -> usize {
        match self.order {
            Some(order) => order.partition_point(|index| self.entries[*index as usize].hash < place),
            None => self.entries.partition_point(|entry| entry.hash < place),
        }
    }
}

/// A part that was cut out of a range, and is handed to one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The places of the part. They reach up to the next part, so that its holder also serves members in
    /// between that only it knows.
    pub span: Span,
    /// Index of the part's first member among those of the range.
    pub first: usize,
    /// Number of members in the part, at least one.
    pub count: usize,
}

/// The parts that a range is cut into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cuts {
    parts: [Cut; FANOUT],
    count: usize,
}

impl Cuts {
    /// The parts, in the order of the ring from the start of the range on.
    pub fn as_slice(&self) -> &[Cut] {
        self.parts.get(..self.count).unwrap_or_default()
    }
}

/// The facts that decide which member serves a part: the batch's origin and epoch, and the depth in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct DelegateTurn {
    /// The origin's place on the ring.
    pub origin: u64,
    /// The epoch in which the origin packed the batch.
    pub epoch: u64,
    /// Number of hand-overs from the origin.
    pub hops: u32,
}

impl DelegateTurn {
    /// Index of the member that serves a part of `count` members.
    pub fn member(self, count: usize) -> usize {
        self.draw(1, count)
    }

    /// Index of the first of the large parts among `count` parts.
    fn part(self, count: usize) -> usize {
        self.draw(0, count)
    }

    /// A number below `count` that changes evenly with the epoch; `what` distinguishes the uses at one depth.
    fn draw(self, what: u64, count: usize) -> usize {
        let dimension = 2 * u64::from(self.hops) + what;
        let phase = mix(self.origin ^ mix(dimension));
        let point = match ROOTS.get(dimension as usize) {
            Some(root) => phase.wrapping_add(self.epoch.wrapping_mul(*root)),
            None => mix(phase ^ self.epoch),
        };
        ((u128::from(point) * count as u128) >> 64) as usize
    }
}

/// Cuts `span`, which holds `members`, into at most [`FANOUT`] parts.
pub(super) fn cut(span: Span, members: &SpanMembers, turn: DelegateTurn) -> Cuts {
    let counts = counts(members.len(), turn);
    let (mut cuts, mut first, mut from) = (Cuts::default(), 0, span.from);
    for (part, count) in cuts.parts.iter_mut().zip(counts).take_while(|(_, count)| *count > 0) {
        let next = first + count;
        let to = if next < members.len() { members.get(next).map(|entry| entry.hash) } else { None };
        let to = to.unwrap_or(span.to);
        *part = Cut { span: Span { from, to }, first, count };
        (first, from) = (next, to);
        cuts.count += 1;
    }
    debug_assert_eq!(first, members.len(), "every member is in one part");
    debug_assert!(cuts.as_slice().last().is_none_or(|last| last.span.to == span.to), "not the whole range");
    cuts
}

/// Numbers of members in the parts that `count` members are cut into; those of no members come last.
fn counts(count: usize, turn: DelegateTurn) -> [usize; FANOUT] {
    let mut counts = [0; FANOUT];
    if count <= FANOUT {
        counts.iter_mut().take(count).for_each(|count| *count = 1);
        return counts;
    }
    // The sizes of a full tree, and of one that is a layer deeper: every part has at least the one, and as
    // few parts as possible have up to the other.
    let (mut least, mut most) = (1, 1 + FANOUT);
    while FANOUT * most < count {
        (least, most) = (most, 1 + FANOUT * most);
    }
    counts = [least; FANOUT];
    let mut rest = count - FANOUT * least;
    let first = turn.part(FANOUT);
    for step in 0..FANOUT {
        let more = rest.min(most - least);
        counts[(first + step) % FANOUT] += more;
        rest -= more;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::harness::ring_of;
    use super::*;

    /// Serves a range as the protocol does; returns the number of messages and the deepest hop. `sent` counts
    /// the messages by the place of their sender.
    fn serve(
        ring: &Ring,
        holder: u64,
        span: Span,
        without: &[u64],
        turn: DelegateTurn,
        sent: &mut BTreeMap<u64, usize>,
    ) -> (usize, u32) {
        let zones = Zones::default();
        let mut without = without.to_vec();
        without.push(holder);
        let members = SpanMembers::new(ring, &zones, "", span, without.iter().copied());
        let (mut count, mut deepest) = (0, turn.hops);
        for part in cut(span, &members, turn).as_slice() {
            let inside = SpanMembers::new(ring, &zones, "", part.span, without.iter().copied());
            assert_eq!(inside.len(), part.count);
            let member = inside.get(turn.member(part.count)).expect("in the part");
            assert!(part.span.contains(member.hash));
            *sent.entry(holder).or_default() += 1;
            let below = DelegateTurn { hops: turn.hops + 1, ..turn };
            let below = serve(ring, member.hash, part.span, &without, below, sent);
            count += below.0 + 1;
            deepest = deepest.max(below.1);
        }
        (count, deepest)
    }

    /// The neighbours of a node on the ring tell whether it has a range for itself; they say so of no range in
    /// which there are others.
    #[test]
    fn a_node_is_alone_in_a_range_if_nobody_else_is_counted_there() {
        let zone: Arc<str> = "".into();
        for n in 1..=7 {
            let ring = ring_of(n);
            let places: Vec<u64> = ring.entries().iter().map(|entry| entry.hash).collect();
            let ends = places.iter().flat_map(|place| [*place, place.wrapping_add(1)]);
            let ends: Vec<u64> = ends.collect();
            let mut zones = Zones::default();
            zones.refresh(&ring, &zone, places[n / 2]);
            let mut alone = 0;
            for (from, to) in ends.iter().flat_map(|from| ends.iter().map(|to| (*from, *to))) {
                for left_out in [&[][..], &places[..1], &places[n - 1..], &places[..n / 2]] {
                    let span = Span { from, to };
                    let without = left_out.iter().copied().chain([places[n / 2]]);
                    let count = SpanMembers::new(&ring, &zones, &zone, span, without).len();
                    let is_alone = zones.is_alone(&ring, &zone, span, left_out);
                    assert_eq!(is_alone, count == 0 && span.contains(places[n / 2]), "{n} {span:?}");
                    alone += usize::from(is_alone);
                }
            }
            assert!(alone > 0);
            assert!(!zones.is_alone(&ring, "", Span::whole_after(0), &[]), "another text than this node's");
        }
    }

    #[test]
    fn one_message_a_member_and_no_deeper_than_a_full_tree() {
        let sizes = (1..=1000usize).chain([585, 586, 4369, 4681, 4682]);
        for n in sizes {
            let ring = ring_of(n);
            let origin = ring.entries()[n / 3].hash;
            let turn = DelegateTurn { origin, epoch: n as u64, hops: 0 };
            let (sent, deepest) =
                serve(&ring, origin, Span::whole_after(origin), &[], turn, &mut BTreeMap::new());
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

    /// In ten seconds of one busy origin, the origin sends at most a fanout of copies of each record, and no
    /// other node more than twice the mean.
    #[test]
    fn the_load_of_one_origin_is_even() {
        for n in [100, 128, 300, 1_000, 3_000] {
            let ring = ring_of(n);
            let mut worst: f64 = 0.0;
            for origin in [0, n / 2, n - 1] {
                let origin = ring.entries()[origin].hash;
                let mut sent = BTreeMap::new();
                for epoch in 0..100 {
                    let turn = DelegateTurn { origin, epoch, hops: 0 };
                    serve(&ring, origin, Span::whole_after(origin), &[], turn, &mut sent);
                }
                assert!(sent.remove(&origin).is_some_and(|sent| sent <= FANOUT * 100));
                let busiest = sent.values().max().copied().unwrap_or(0);
                worst = worst.max(busiest as f64 / 100.0);
            }
            println!("N={n}: busiest / mean {worst:.2}");
            assert!(worst <= 2.0, "N={n}: busiest / mean {worst:.2}");
        }
    }
}
