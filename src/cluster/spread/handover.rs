//! Cuts ranges and hands their parts to members.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Spread;
use super::batch::{Announced, Batch};
use super::duty::{Duty, Task};
use super::link::Link;
use super::packet::batch_room;
use super::span::Span;
use super::tree::{Members, Turn, WITHOUT_MAX, Zones, cut};
use super::wire::PART_HEADER_BYTES;
use crate::cluster::members::State;
use crate::cluster::ring::{Ring, RingEntry};

/// Bytes that may wait for one peer. What exceeds it goes to another, or is left to gap repair.
const LINK_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often all members of a part are tried again, since two of a small part fail by chance.
const ROUNDS_MAX: u32 = 3;
/// How many further members are asked for a sign of life when the first timed out once, so that
/// the part goes to one that is there: where half of all died at once, one of six is alive 63 times
/// in 64.
const FEELERS: usize = 6;
/// A member heard this lately is there, in microseconds.
const HEARD_US: u64 = 50_000;
/// How many members are looked at for one that was not silent.
const CANDIDATES_MAX: usize = 64;

impl Spread {
    /// Cuts a range and hands its parts over.
    pub(super) fn serve(&mut self, ring: &Ring, batch: &Arc<Batch>, task: &Task) {
        // Standing in for somebody, this node is a member of the range like any other.
        let stands_in = task.instead_of.filter(|place| task.span.contains(*place));
        let holder = stands_in.unwrap_or(self.place);
        let without = task.without.iter().copied().chain([holder]);
        let members = Members::new(ring, &self.zones, &task.zone, task.span, without.clone());
        let turn = turn_of(batch, task.hops);
        let parts = cut(task.span, &members, turn);
        // The links of so many others are in no cache: they are read side by side before each is used.
        let mut first = 0;
        for part in &parts {
            let entry = members.get(first + turn.member(part.count));
            black_box(entry.map_or(0, |entry| self.warm_link(entry.gossip())));
            first += part.count;
        }
        for part in parts {
            let mut inside = task.clone();
            inside.without = without.clone().filter(|place| part.span.contains(*place)).collect();
            inside.without.truncate(WITHOUT_MAX);
            inside.span = part.span;
            inside.instead_of = None;
            inside.hops += 1;
            let mut duty = Duty::new(batch.clone(), inside, self.now_us);
            // Whom it stands in for may be late, and has served them.
            duty.ask_first = stands_in.is_some() && self.links.are_late();
            self.open_part(&mut duty);
            self.assign(ring, duty);
        }
        if let Some(place) = stands_in {
            let part = Task {
                span: Span::of_place(place),
                without: Vec::new(),
                instead_of: None,
                hops: task.hops + 1,
                ..task.clone()
            };
            let mut duty = Duty::new(batch.clone(), part, self.now_us);
            duty.ask_first = true;
            self.open_part(&mut duty);
            self.assign(ring, duty);
        }
    }

    /// Hands a batch to one member of another zone, which spreads it inside.
    pub(super) fn enter_zone(&mut self, ring: &Ring, batch: &Arc<Batch>, zone: Arc<str>) {
        let task = Task { hops: 1, ..Task::of_origin(Span::whole_after(self.place), zone) };
        self.hand_over(ring, batch, task);
    }

    /// Sends the batch to one member that a child did not know.
    pub(super) fn serve_member(&mut self, ring: &Ring, batch: &Arc<Batch>, parent: &Task, place: u64) {
        let part =
            Task { span: Span::of_place(place), without: Vec::new(), instead_of: None, ..parent.clone() };
        self.hand_over(ring, batch, part);
    }

    /// Sends a kept batch to a peer that asked for it.
    pub(super) fn repair(&mut self, ring: &Ring, batch: &Arc<Batch>, link: usize) {
        let part = Task { is_own: false, ..Task::of_origin(Span::of_place(self.place), self.zone.clone()) };
        let mut duty = Duty::new(batch.clone(), part, self.now_us);
        duty.is_repair = true;
        duty.members = 1;
        self.stats.repairs_sent += 1;
        self.queue(ring, duty, link);
    }

    fn hand_over(&mut self, ring: &Ring, batch: &Arc<Batch>, part: Task) {
        let mut duty = Duty::new(batch.clone(), part, self.now_us);
        self.open_part(&mut duty);
        self.assign(ring, duty);
    }

    /// Gives a duty to one of its members, or gives it up.
    pub(super) fn assign(&mut self, ring: &Ring, mut duty: Duty) {
        let members = duty_members(ring, &self.zones, &duty);
        duty.members = members.len();
        let mut chosen = self.choose(&duty, &members);
        if chosen.is_none() && !duty.tried.is_empty() && duty.rounds < ROUNDS_MAX {
            duty.rounds += 1;
            duty.tried.clear();
            chosen = self.choose(&duty, &members);
        }
        let Some(entry) = chosen else {
            self.stats.given_up += u64::from(duty.members > 0);
            return self.close_part(&duty);
        };
        if entry.hash == self.place {
            self.serve(ring, &duty.batch, &duty.part);
            return self.close_part(&duty);
        }
        duty.delegate = entry.hash;
        duty.other = match (members.get(0), members.get(1)) {
            (Some(first), Some(second)) if duty.members == 2 => {
                Some(if first.hash == entry.hash { second.hash } else { first.hash })
            }
            _ => None,
        };
        match self.open_link(entry.gossip()) {
            Some(link) => {
                let zone = &duty.part.zone;
                self.links.set_zone(link, (*zone != self.zone).then_some(zone));
                self.queue(ring, duty, link)
            }
            None => self.give_up(&duty),
        }
    }

    /// The member whose turn it is, or the next that was neither tried nor silent; failing that,
    /// one that was silent. After a failure, one that was heard just now if there is any.
    fn choose<'a>(&self, duty: &Duty, members: &Members<'a>) -> Option<&'a RingEntry> {
        let (mut next, mut doubtful) = (None, None);
        for entry in candidates(duty, members) {
            if entry.hash == self.place {
                return Some(entry);
            }
            let link = self.links.find(entry.gossip());
            if link.is_some_and(|link| link.queued_bytes > LINK_QUEUE_BYTES_MAX) {
                continue;
            }
            let is_silent = link.is_some_and(|link| link.silent_until_us > self.now_us);
            if is_silent || entry.state != State::Alive {
                doubtful = doubtful.or(Some(entry));
                continue;
            }
            if duty.tried.is_empty() || link.is_some_and(|link| link.heard_us + HEARD_US > self.now_us) {
                return Some(entry);
            }
            next = next.or(Some(entry));
        }
        next.or(doubtful)
    }

    /// Asks the members that would be next for a sign of life.
    pub(super) fn feel(&mut self, ring: &Ring, id: usize) {
        let Some(duty) = self.duties.get(id) else { return };
        let members = duty_members(ring, &self.zones, duty);
        let others =
            candidates(duty, &members).filter(|entry| ![duty.delegate, self.place].contains(&entry.hash));
        let peers: Vec<SocketAddr> = others.take(FEELERS).map(|entry| entry.gossip()).collect();
        for peer in peers {
            let is_heard = |link: &Link| link.heard_us > 0 && link.heard_us + HEARD_US / 2 > self.now_us;
            if !self.links.find(peer).is_some_and(is_heard)
                && let Some(link) = self.open_link(peer)
            {
                self.ask_sign_of_life(link);
            }
        }
    }

    /// Puts a duty's fragments on a link, or the announcement of its batch.
    fn queue(&mut self, ring: &Ring, mut duty: Duty, link_id: usize) {
        let Some(link) = self.links.get_mut(link_id) else { return };
        let room = batch_room(&duty.part);
        let is_announced = Announced::of(&duty.batch).is_some();
        let len = if is_announced { 0 } else { duty.batch.encoded.len() };
        if is_announced {
            self.bodies.announce(&duty.batch, duty.part.is_own);
        }
        duty.link = link_id;
        duty.first_number = link.next_number();
        duty.fragment_bytes = room;
        duty.fragments = len.div_ceil(room).max(1) as u32;
        duty.left = duty.fragments;
        let (is_own, ask, fragments) = (duty.part.is_own, duty.ask_first, duty.fragments);
        let is_doubtful = duty.part.is_hurried && duty.members > 1;
        self.duty_bytes += duty.batch.cost_bytes();
        if let Some(part) = duty.counted {
            let (to, first, tallies) = (link.to, duty.first_number, &mut self.replication.tallies);
            tallies.hand(duty.batch.id, part, to, first, fragments);
        }
        let id = self.duties.insert(duty);
        for fragment in 0..fragments {
            let bytes = len.saturating_sub(fragment as usize * room).min(room) + PART_HEADER_BYTES;
            link.push(id, fragment, bytes, ask && fragments == 1 && !is_announced);
            if is_own {
                self.own_waiting_bytes += bytes;
            }
        }
        self.mark_ready(link_id);
        if is_doubtful {
            self.feel(ring, id);
        }
    }
}

fn duty_members<'a>(ring: &'a Ring, zones: &'a Zones, duty: &Duty) -> Members<'a> {
    let Task { zone, span, without, .. } = &duty.part;
    Members::new(ring, zones, zone, *span, without.iter().copied())
}

/// Members of a part that were not tried, from the one whose turn it is.
fn candidates<'a>(duty: &Duty, members: &Members<'a>) -> impl Iterator<Item = &'a RingEntry> {
    let count = members.len();
    let first = turn_of(&duty.batch, duty.part.hops.saturating_sub(1)).member(count);
    (0..count.min(CANDIDATES_MAX))
        .filter_map(move |step| members.get((first + step) % count))
        .filter(|entry| !duty.tried.contains(&entry.hash))
}

fn turn_of(batch: &Batch, hops: u32) -> Turn {
    Turn { origin: batch.origin_place, epoch: batch.epoch, hops }
}
