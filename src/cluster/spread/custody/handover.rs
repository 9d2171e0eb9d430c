//! Cuts ranges into parts, and hands each to a member.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Custody;
use crate::cluster::members::State;
use crate::cluster::ring::RingEntry;
use crate::cluster::spread::batch::{Announced, Batch};
use crate::cluster::spread::duty::{Duty, RangeTask};
use crate::cluster::spread::env::{Base, Env};
use crate::cluster::spread::link::Link;
use crate::cluster::spread::packet::batch_room;
use crate::cluster::spread::places::Places;
use crate::cluster::spread::replication::Replication;
use crate::cluster::spread::span::Span;
use crate::cluster::spread::tree::{Cut, DelegateTurn, FANOUT, SpanMembers, WITHOUT_MAX, cut};
use crate::cluster::spread::unsettled::UnsettledPart;
use crate::cluster::spread::wire::PART_HEADER_BYTES;

/// Most bytes that wait for one peer. Further parts go to other members, or are left to gap repair.
const LINK_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Number of times that all members of a part are tried again: with loss, both members of a small part may
/// fail by chance.
const ROUNDS_MAX: u32 = 3;
/// Number of further members that are asked for a sign of life after the first timeout of a part, so that the
/// part is moved to one that is alive: if half of all members died at once, one of six is alive 63 times in
/// 64.
const FEELERS: usize = 6;
/// A member that was heard at most this long ago is taken to be alive, in microseconds.
const HEARD_US: u64 = 50_000;
/// Most members that are looked at for one that is not silent.
const HANDOVER_CANDIDATES_MAX: usize = 64;

/// The member that a part is handed to.
#[derive(Clone, Copy, Debug)]
struct Delegate {
    /// Place of the member.
    place: u64,
    /// Address of the member.
    to: SocketAddr,
    /// Number of the link to the member, if there was one when the member was chosen.
    link: Option<usize>,
    /// In a part of two members, the place of the other one.
    other: Option<u64>,
}

impl Custody {
    /// Serves a range with a batch: cuts it into parts, and hands each to a member.
    pub fn serve(
        &mut self,
        env: &mut Env,
        replication: &mut Replication,
        batch: &Arc<Batch>,
        task: &RangeTask,
    ) {
        // If this node stands in for another one, it is a member of the range like any other.
        let stands_in = task.instead_of.filter(|place| task.span.contains(*place));
        let holder = stands_in.unwrap_or(env.base.me.place);
        let without = task.without.iter().copied().chain([holder]);
        let members = env.members(&task.zone, task.span, without.clone());
        let turn = turn_of(batch, task.hops);
        let parts = cut(task.span, &members, turn);
        // The links are in no processor cache: they are all read before the first is used, so that the misses
        // overlap.
        let mut delegates = [None; FANOUT];
        for (delegate, part) in delegates.iter_mut().zip(parts.as_slice()) {
            *delegate = first_choice(env.base, &members, part, turn);
        }
        for (delegate, part) in delegates.iter().zip(parts.as_slice()) {
            debug_assert!(task.span.includes(part.span), "a part lies outside of its range");
            let inside = RangeTask {
                span: part.span,
                without: without
                    .clone()
                    .filter(|place| part.span.contains(*place))
                    .take(WITHOUT_MAX)
                    .collect(),
                instead_of: None,
                hops: task.hops + 1,
                zone: task.zone.clone(),
                ..*task
            };
            let mut duty = Duty::new(batch.clone(), inside, env.base.now_us);
            // The member that this node stands in for may only be late, and have served these members
            // already.
            duty.ask_first = stands_in.is_some() && env.base.links.are_late();
            let Some(delegate) = delegate else {
                self.take_on(env, replication, duty);
                continue;
            };
            duty.members = part.count;
            replication.open_part(&mut duty);
            self.hand(env, replication, duty, *delegate);
        }
        if let Some(place) = stands_in {
            let part = RangeTask {
                span: Span::of_place(place),
                without: Places::None,
                instead_of: None,
                hops: task.hops + 1,
                ..task.clone()
            };
            let mut duty = Duty::new(batch.clone(), part, env.base.now_us);
            duty.ask_first = true;
            self.take_on(env, replication, duty);
        }
    }

    /// Hands a batch to one member of another zone, which spreads it there.
    pub fn enter_zone(
        &mut self,
        env: &mut Env,
        replication: &mut Replication,
        batch: &Arc<Batch>,
        zone: Arc<str>,
    ) {
        let task = RangeTask { hops: 1, ..RangeTask::of_origin(Span::whole_after(env.base.me.place), zone) };
        let duty = Duty::new(batch.clone(), task, env.base.now_us);
        self.take_on(env, replication, duty);
    }

    /// Sends the batch of the part `parent` to the member at `place`, which the holder of the part does not
    /// know.
    pub(super) fn serve_member(
        &mut self,
        env: &mut Env,
        replication: &mut Replication,
        batch: &Arc<Batch>,
        parent: RangeTask,
        place: u64,
    ) {
        let part =
            RangeTask { span: Span::of_place(place), without: Places::None, instead_of: None, ..parent };
        let duty = Duty::new(batch.clone(), part, env.base.now_us);
        self.take_on(env, replication, duty);
    }

    /// Sends a kept batch to the peer of a link, which asked for it.
    pub fn repair(&mut self, env: &mut Env, batch: &Arc<Batch>, link: usize) {
        let me = &env.base.me;
        let part =
            RangeTask { is_own: false, ..RangeTask::of_origin(Span::of_place(me.place), me.zone.clone()) };
        let mut duty = Duty::new(batch.clone(), part, env.base.now_us);
        duty.is_repair = true;
        duty.members = 1;
        env.base.stats.repairs_sent += 1;
        self.queue(env, duty, link);
    }

    /// Takes on a new part, and hands it to a member. The part is counted if its batch is.
    fn take_on(&mut self, env: &mut Env, replication: &mut Replication, mut duty: Duty) {
        replication.open_part(&mut duty);
        self.assign(env, replication, duty);
    }

    /// Hands a part to one of its members, or gives it up if no member is left to try.
    pub(super) fn assign(&mut self, env: &mut Env, replication: &mut Replication, mut duty: Duty) {
        let members = duty_members(env, &duty);
        duty.members = members.len();
        let mut chosen = choose(env.base, &duty, &members);
        if chosen.is_none() && !duty.tried.is_empty() && duty.rounds < ROUNDS_MAX {
            duty.rounds += 1;
            duty.tried.clear();
            chosen = choose(env.base, &duty, &members);
        }
        let Some(entry) = chosen else {
            env.base.stats.given_up += u64::from(duty.members > 0);
            return replication.close_part(env.base, &duty);
        };
        if entry.hash == env.base.me.place {
            self.serve(env, replication, &duty.batch, &duty.part);
            return replication.close_part(env.base, &duty);
        }
        let other = other_of_two(&members, 0, duty.members, entry.hash);
        let delegate = Delegate { place: entry.hash, to: entry.gossip(), link: None, other };
        self.hand(env, replication, duty, delegate);
    }

    /// Hands a part to this member.
    fn hand(&mut self, env: &mut Env, replication: &mut Replication, mut duty: Duty, delegate: Delegate) {
        let Delegate { place, to, link, other } = delegate;
        (duty.delegate, duty.other) = (place, other);
        let links = &mut env.base.links;
        // The link may have been closed since, and its number be that of another.
        let known = link.filter(|id| links.get(*id).is_some_and(|link| link.to == to));
        let Some(link) = known.or_else(|| links.open(to, env.base.now_us)) else {
            return self.give_up(env.base, replication, &duty);
        };
        let (zone, own_zone) = (&duty.part.zone, &env.base.me.zone);
        let is_far = !Arc::ptr_eq(zone, own_zone) && zone != own_zone;
        env.base.links.set_zone(link, is_far.then_some(zone));
        self.queue_counted(env, replication, duty, link);
    }

    /// Puts a part on a link. If its batch is counted, the count goes on with the numbers that the part has there.
    fn queue_counted(&mut self, env: &mut Env, replication: &mut Replication, duty: Duty, link: usize) {
        let Some(to) = env.base.links.get(link).map(|link| link.to) else { return };
        if let Some(id) = self.queue(env, duty, link)
            && let Some(duty) = self.duties.get(id)
            && duty.counted.is_some()
        {
            replication.hand(duty, to);
        }
    }

    /// Cuts the parts of a link anew that were cut for larger datagrams than its path carries now.
    pub(super) fn cut_again(&mut self, env: &mut Env, replication: &mut Replication, link_id: usize) {
        let Some(link) = env.base.links.get(link_id) else { return };
        let mut ids: Vec<usize> = link.unsettled().iter().map(|sent| sent.duty).collect();
        ids.dedup();
        let bytes_max = env.base.me.packet_bytes_max + link.path.extra_bytes();
        for id in ids {
            let is_too_large = |duty: &Duty| {
                duty.fragment_bytes.min(duty.batch.encoded.len()) > batch_room(bytes_max, &duty.part)
                    && Announced::of(&duty.batch).is_none()
            };
            if self.duties.get(id).is_some_and(is_too_large)
                && let Some(mut duty) = self.withdraw(env.base, id)
            {
                duty.part.age_us += env.base.now_us.saturating_sub(duty.since_us);
                duty.since_us = env.base.now_us;
                self.queue_counted(env, replication, duty, link_id);
            }
        }
    }

    /// Asks the members of a part that would be next for a sign of life.
    pub(super) fn feel(&mut self, env: &mut Env, id: usize) {
        let Some(duty) = self.duties.get(id) else { return };
        let members = duty_members(env, duty);
        let known = [duty.delegate, env.base.me.place];
        let others = candidates(duty, &members).filter(|entry| !known.contains(&entry.hash));
        let peers: Vec<SocketAddr> = others.take(FEELERS).map(|entry| entry.gossip()).collect();
        let now_us = env.base.now_us;
        for peer in peers {
            let links = &mut env.base.links;
            let is_heard = |link: &Link| link.silence.is_heard_within(HEARD_US / 2, now_us);
            if !links.find(peer).is_some_and(is_heard)
                && let Some(link) = links.open(peer, now_us)
            {
                links.ask_sign_of_life(link);
            }
        }
    }

    /// Puts the fragments of a part on a link, or the announcement of its batch; returns the part's number
    /// among the duties.
    fn queue(&mut self, env: &mut Env, mut duty: Duty, link_id: usize) -> Option<usize> {
        let link = env.base.links.get_mut(link_id)?;
        let room = batch_room(env.base.me.packet_bytes_max + link.path.extra_bytes(), &duty.part);
        let is_announced = Announced::of(&duty.batch).is_some();
        let len = if is_announced { 0 } else { duty.batch.encoded.len() };
        duty.link = link_id;
        duty.first_number = link.next_number();
        duty.fragment_bytes = room;
        duty.fragments = len.div_ceil(room).max(1) as u32;
        duty.left = duty.fragments;
        let (is_own, ask, fragments) = (duty.part.is_own, duty.ask_first, duty.fragments);
        let is_doubtful = duty.part.is_hurried && duty.members > 1;
        let id = self.duties.insert(duty);
        for fragment in 0..fragments {
            let bytes = len.saturating_sub(fragment as usize * room).min(room) + PART_HEADER_BYTES;
            link.push(UnsettledPart::new(id, fragment, bytes, ask && fragments == 1 && !is_announced));
            self.duties.note_queued(is_own, bytes);
        }
        env.base.links.mark_ready(link_id);
        if is_doubtful {
            self.feel(env, id);
        }
        Some(id)
    }
}

/// The member whose turn it is to serve a part that no member has so far. `None`: it is this node, or there is
/// a reason to look for another one.
fn first_choice(base: &Base, members: &SpanMembers, part: &Cut, turn: DelegateTurn) -> Option<Delegate> {
    let entry = members.get(part.first + turn.member(part.count))?;
    let to = entry.gossip();
    let link = base.links.place(to);
    if let Some(link) = link.and_then(|link| base.links.get(link)) {
        black_box(link.warm());
        if link.queued_bytes() > LINK_QUEUE_BYTES_MAX || link.silence.is_silent(base.now_us) {
            return None;
        }
    }
    let other = other_of_two(members, part.first, part.count, entry.hash);
    let is_fit = entry.hash != base.me.place && entry.state == State::Alive;
    is_fit.then_some(Delegate { place: entry.hash, to, link, other })
}

/// In a part of two members, of which `first` is the index of the first one, the place of the member other than
/// the one at `place`.
fn other_of_two(members: &SpanMembers, first: usize, count: usize, place: u64) -> Option<u64> {
    if count != 2 {
        return None;
    }
    let (one, two) = (members.get(first)?.hash, members.get(first + 1)?.hash);
    Some(if one == place { two } else { one })
}

/// The member to hand a part to: the one whose turn it is, or the next one that was neither tried nor silent,
/// or else one that is silent or suspected. After a failure, a member that was heard just now is preferred.
fn choose<'a>(base: &Base, duty: &Duty, members: &SpanMembers<'a>) -> Option<&'a RingEntry> {
    let (mut next, mut doubtful) = (None, None);
    for entry in candidates(duty, members) {
        if entry.hash == base.me.place {
            return Some(entry);
        }
        let link = base.links.find(entry.gossip());
        if link.is_some_and(|link| link.queued_bytes() > LINK_QUEUE_BYTES_MAX) {
            continue;
        }
        let is_silent = link.is_some_and(|link| link.silence.is_silent(base.now_us));
        if is_silent || entry.state != State::Alive {
            doubtful = doubtful.or(Some(entry));
            continue;
        }
        let is_heard = || link.is_some_and(|link| link.silence.is_heard_within(HEARD_US, base.now_us));
        if duty.tried.is_empty() || is_heard() {
            return Some(entry);
        }
        next = next.or(Some(entry));
    }
    next.or(doubtful)
}

/// The members of a part.
fn duty_members<'a>(env: &'a Env, duty: &Duty) -> SpanMembers<'a> {
    let RangeTask { zone, span, without, .. } = &duty.part;
    env.members(zone, *span, without.iter().copied())
}

/// The members of a part that were not tried yet, beginning with the one that is to be tried next.
fn candidates<'a>(duty: &Duty, members: &SpanMembers<'a>) -> impl Iterator<Item = &'a RingEntry> {
    let count = members.len();
    let first = turn_of(&duty.batch, duty.part.hops.saturating_sub(1)).member(count);
    (0..count.min(HANDOVER_CANDIDATES_MAX))
        .filter_map(move |step| members.get((first + step) % count))
        .filter(|entry| !duty.tried.contains(&entry.hash))
}

/// Decides which members get the parts of this batch after `hops` hand-overs.
fn turn_of(batch: &Batch, hops: u32) -> DelegateTurn {
    DelegateTurn { origin: batch.origin_place, epoch: batch.epoch, hops }
}
