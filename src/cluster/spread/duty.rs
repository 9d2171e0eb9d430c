//! Duties: parts handed to somebody, until they are acknowledged, moved on or given up.
//!
//! A loss is answered by trying again, soon and without backoff, since that is where the tail of
//! the delivery time comes from. Silence is answered by somebody else: after two timeouts in which
//! nothing at all was heard of the member (one, if it was silent lately), the part goes to another
//! of its members, long before membership has made up its mind. The new one is told whom it stands
//! in for and cuts the range as that one would have: if the first was alive after all, and only
//! its receipts were lost, the same delegates get the same parts twice, and custody stops them
//! there; a different cut would send the whole subtree twice. Where one member was silent others may
//! be, so below a stand-in one timeout is enough.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Spread;
use super::batch::Batch;
use super::link::{Link, Sent};
use super::pack;
use super::span::Span;
use super::timers::Timer;
use super::tree::{Members, Turn, WITHOUT_MAX, cut};
use crate::cluster::members::State;
use crate::cluster::ring::{Ring, RingEntry};

/// Memory of batches on duty beyond which no further custody is taken, in bytes.
pub(super) const DUTY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that may wait for one peer. What exceeds it goes to another, or is left to gap repair.
const LINK_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a silent member is remembered, in microseconds.
const SILENCE_US: u64 = 2_000_000;
/// A member silent for longer than this, and through as many tries as any gets, gets one try only,
/// in microseconds.
const PATIENCE_US: u64 = 100_000;
/// Tries on the only member of a part, if nothing is heard of it.
const SINGLE_TRIES_MAX: u32 = 7;
/// Tries on the only member of a part, if it is heard; and on a part of several.
const TRIES_MAX: u32 = 20;
/// How often a part is handed over before it is given up.
const HANDOVERS_MAX: u32 = 20;
/// How often all members of a part are tried again, since two of a small part fail by chance.
const ROUNDS_MAX: u32 = 3;
/// How many further members are asked for a sign of life when the first timed out once, so that
/// the part goes to one that is there.
const FEELERS: usize = 3;
/// A member heard this lately is there, in microseconds.
const HEARD_US: u64 = 50_000;
/// How many members are looked at for one that was not silent.
const CANDIDATES_MAX: usize = 64;

/// A range to be served: what a holder was asked for.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The range.
    pub span: Span,
    /// Members of this zone alone.
    pub zone: Arc<str>,
    /// Places in it that are served already.
    pub without: Vec<u64>,
    /// Whose place is taken after a failure.
    pub instead_of: Option<u64>,
    /// Hand-overs so far.
    pub hops: u32,
    /// Age of the batch just now, in microseconds.
    pub age_us: u64,
    /// Whether somebody above was found silent: then one timeout is enough here.
    pub is_hurried: bool,
    /// Whether the batch is this node's own.
    pub is_own: bool,
}

impl Task {
    /// What an origin asks of itself.
    pub fn of_origin(span: Span, zone: Arc<str>) -> Task {
        Task {
            span,
            zone,
            without: Vec::new(),
            instead_of: None,
            hops: 0,
            age_us: 0,
            is_hurried: false,
            is_own: true,
        }
    }
}

/// One part of a range, with one member.
#[derive(Debug)]
pub(super) struct Duty {
    /// What is handed over.
    pub batch: Arc<Batch>,
    /// The part: its range, and hops with this one counted; the age as it was at `since_us`.
    pub part: Task,
    /// When it was taken on.
    pub since_us: u64,
    /// An answer to a want: no range goes with it.
    pub is_repair: bool,
    /// How many members it has.
    pub members: usize,
    /// The other one, in a part of two.
    pub other: Option<u64>,
    /// Place of the member it is with.
    pub delegate: u64,
    /// Link to that member.
    pub link: usize,
    /// Number of its first fragment there.
    pub first_number: u64,
    /// Bytes of the batch in each fragment; all of it in one, if it fits.
    pub fragment_bytes: usize,
    /// How many fragments.
    pub fragments: u32,
    /// How many of them are not acknowledged.
    left: u32,
    /// Places of members tried in vain in this round.
    tried: Vec<u64>,
    /// How often all its members were tried, and how often it was handed over.
    rounds: u32,
    handovers: u32,
    /// The first question is whether it is there already.
    ask_first: bool,
}

/// Bytes that may be spent on further tries to single members: a quarter of what is sent anyway,
/// so that loss does not become collapse. Tries to larger parts are not counted: one left out
/// costs a subtree.
#[derive(Debug)]
pub(super) struct RetryBudget {
    bytes: usize,
    earned_us: u64,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { bytes: RetryBudget::BYTES_MAX, earned_us: 0 }
    }
}

impl RetryBudget {
    const BYTES_MAX: usize = 256 * 1024;
    /// What an otherwise silent node may spend, in bytes a second.
    const IDLE_BYTES_A_SECOND: u64 = 32 * 1024;

    /// Earns by sending something for the first time.
    pub fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes / 4).min(Self::BYTES_MAX);
    }

    fn take(&mut self, now_us: u64, bytes: usize) -> bool {
        let elapsed_us = now_us.saturating_sub(self.earned_us).min(10_000_000);
        let idle = (elapsed_us * Self::IDLE_BYTES_A_SECOND / 1_000_000) as usize;
        if idle > 0 {
            self.earned_us = now_us;
            self.bytes = (self.bytes + idle).min(Self::BYTES_MAX);
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}

impl Spread {
    /// Cuts a range and hands its parts over.
    pub(super) fn serve(&mut self, ring: &Ring, batch: &Arc<Batch>, task: &Task) {
        // Standing in for somebody, this node is a member of the range like any other.
        let stands_in = task.instead_of.filter(|place| task.span.contains(*place));
        let mut without = task.without.clone();
        without.push(stands_in.unwrap_or(self.place));
        let members = Members::new(ring, &self.zones, &task.zone, task.span, &without);
        for part in cut(task.span, &members, turn_of(batch, task.hops)) {
            let mut inside = task.clone();
            inside.without = without.iter().copied().filter(|place| part.span.contains(*place)).collect();
            inside.without.truncate(WITHOUT_MAX);
            inside.span = part.span;
            inside.instead_of = None;
            inside.hops += 1;
            self.hand_over(ring, batch, inside);
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
        self.assign(ring, Duty::new(batch.clone(), part, self.now_us));
    }

    /// Gives a duty to one of its members, or gives it up.
    fn assign(&mut self, ring: &Ring, mut duty: Duty) {
        let members = Members::new(ring, &self.zones, &duty.part.zone, duty.part.span, &duty.part.without);
        duty.members = members.len();
        let mut chosen = self.choose(&duty, &members);
        if chosen.is_none() && !duty.tried.is_empty() && duty.rounds < ROUNDS_MAX {
            duty.rounds += 1;
            duty.tried.clear();
            chosen = self.choose(&duty, &members);
        }
        let Some(entry) = chosen else {
            self.stats.given_up += u64::from(duty.members > 0);
            return;
        };
        if entry.hash == self.place {
            let (batch, task) = (duty.batch.clone(), duty.part);
            return self.serve(ring, &batch, &task);
        }
        duty.delegate = entry.hash;
        duty.other = match (members.get(0), members.get(1)) {
            (Some(first), Some(second)) if duty.members == 2 => {
                Some(if first.hash == entry.hash { second.hash } else { first.hash })
            }
            _ => None,
        };
        match self.links.open(entry.gossip(), self.now_us) {
            Some(link) => self.queue(ring, duty, link),
            None => self.stats.given_up += 1,
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
    fn feel(&mut self, ring: &Ring, id: usize) {
        let Some(duty) = self.duties.get(id) else { return };
        let members = Members::new(ring, &self.zones, &duty.part.zone, duty.part.span, &duty.part.without);
        let others =
            candidates(duty, &members).filter(|entry| ![duty.delegate, self.place].contains(&entry.hash));
        let peers: Vec<SocketAddr> = others.take(FEELERS).map(|entry| entry.gossip()).collect();
        for peer in peers {
            let is_heard = |link: &Link| link.heard_us > 0 && link.heard_us + HEARD_US / 2 > self.now_us;
            if !self.links.find(peer).is_some_and(is_heard)
                && let Some(link) = self.links.open(peer, self.now_us)
            {
                self.ask_sign_of_life(link);
            }
        }
    }

    /// Puts a duty's fragments on a link.
    fn queue(&mut self, ring: &Ring, mut duty: Duty, link_id: usize) {
        let Some(link) = self.links.get_mut(link_id) else { return };
        let room = pack::batch_room(&duty.part);
        let len = duty.batch.encoded.len();
        duty.link = link_id;
        duty.first_number = link.next_number();
        duty.fragment_bytes = room;
        duty.fragments = len.div_ceil(room).max(1) as u32;
        duty.left = duty.fragments;
        let (is_own, ask, fragments) = (duty.part.is_own, duty.ask_first, duty.fragments);
        let is_doubtful = duty.part.is_hurried && duty.members > 1;
        self.duty_bytes += duty.batch.cost_bytes();
        let id = self.duties.insert(duty);
        for fragment in 0..fragments {
            let bytes = len.saturating_sub(fragment as usize * room).min(room) + pack::PART_HEADER_BYTES;
            link.push(id, fragment, bytes, ask && fragments == 1);
            if is_own {
                self.own_waiting_bytes += bytes;
            }
        }
        self.mark_ready(link_id);
        if is_doubtful {
            self.feel(ring, id);
        }
    }

    /// A peer acknowledged one fragment of a duty.
    pub(super) fn settle(&mut self, sent: &Sent) {
        let Some(duty) = self.duties.get_mut(sent.duty) else { return };
        duty.left = duty.left.saturating_sub(1);
        if duty.left == 0 {
            self.duty_bytes = self.duty_bytes.saturating_sub(duty.batch.cost_bytes());
            self.duties.remove(sent.duty);
        }
    }

    /// Takes a duty and all that waits for it off its link.
    fn withdraw(&mut self, id: usize) -> Option<Duty> {
        let duty = self.duties.try_remove(id)?;
        self.duty_bytes = self.duty_bytes.saturating_sub(duty.batch.cost_bytes());
        let link = self.links.get_mut(duty.link)?;
        for number in duty.first_number..duty.first_number + u64::from(duty.fragments) {
            if let Some(sent) = link.settle(number)
                && sent.tries == 0
                && duty.part.is_own
            {
                self.own_waiting_bytes = self.own_waiting_bytes.saturating_sub(sent.bytes);
            }
        }
        // What waited behind it for room in the window may go now.
        self.mark_ready(duty.link);
        Some(duty)
    }

    /// Hands a duty to another of its members.
    fn move_on(&mut self, ring: &Ring, id: usize) {
        let Some(mut duty) = self.withdraw(id) else { return };
        duty.tried.push(duty.delegate);
        duty.handovers += 1;
        if duty.is_repair || duty.handovers >= HANDOVERS_MAX {
            self.stats.given_up += 1;
            return;
        }
        duty.part.instead_of.get_or_insert(duty.delegate);
        duty.part.is_hurried = true;
        duty.part.age_us += self.now_us.saturating_sub(duty.since_us);
        duty.since_us = self.now_us;
        duty.ask_first = false;
        self.stats.redelegated += 1;
        self.assign(ring, duty);
    }

    /// A try was not acknowledged in time.
    pub(super) fn handle_silence(&mut self, ring: &Ring, link_id: usize, number: u64, at_us: u64) {
        let now_us = self.now_us;
        let rtt = self.links.rtt(link_id);
        let Some(link) = self.links.get_mut(link_id) else { return };
        let Some(sent) = link.sent.get(&number).filter(|sent| sent.due_us == at_us).cloned() else { return };
        let Some(duty) = self.duties.get(sent.duty) else { return };
        if sent.flying == 0 {
            return self.try_again(link_id, number, &sent);
        }
        self.stats.timeouts += 1;
        // A first wait before a question is short: it proves nothing.
        if sent.tries > 1 || !duty.asks_second() {
            link.on_loss(now_us, rtt);
        }
        let is_heard = link.heard_us > sent.first_us;
        let was_silent = link.silent_until_us > now_us;
        let falls_silent = !is_heard && sent.tries >= 2 && !was_silent;
        link.unheard = if is_heard { 0 } else { link.unheard + 1 };
        if !is_heard && sent.tries >= 2 {
            link.silent_until_us = now_us + SILENCE_US;
            link.silent_since_us = if link.silent_since_us == 0 { now_us } else { link.silent_since_us };
        }
        let is_given_up_on = link.unheard > SINGLE_TRIES_MAX
            && link.silent_since_us > 0
            && now_us - link.silent_since_us > PATIENCE_US;
        let entry = find(ring, duty.delegate, link.to);
        let is_gone = !duty.is_repair && entry.is_none();
        if duty.members > 1 {
            let patience = if was_silent || duty.part.is_hurried { 1 } else { 2 };
            if is_gone || sent.tries >= TRIES_MAX || (!is_heard && sent.tries >= patience) {
                self.move_on(ring, sent.duty);
            } else {
                self.try_again(link_id, number, &sent);
                if !is_heard {
                    self.feel(ring, sent.duty);
                }
            }
        } else {
            let is_doubtful = is_given_up_on || entry.is_some_and(|entry| entry.state != State::Alive);
            let tries_max = match (is_heard, is_doubtful) {
                (true, _) => TRIES_MAX,
                (false, true) => 1,
                (false, false) => SINGLE_TRIES_MAX,
            };
            if is_gone || sent.tries >= tries_max {
                self.withdraw(sent.duty);
                self.stats.given_up += 1;
            } else {
                self.try_again(link_id, number, &sent);
            }
        }
        if falls_silent {
            self.desert(ring, link_id);
        }
    }

    /// Moves what only waits for a peer that fell silent, where it has somewhere else to go.
    fn desert(&mut self, ring: &Ring, link_id: usize) {
        let Some(link) = self.links.get(link_id) else { return };
        let unsent = link.sent.values().filter(|sent| sent.tries == 0);
        let mut waiting: Vec<usize> = unsent.map(|sent| sent.duty).collect();
        waiting.dedup();
        for id in waiting {
            if self.duties.get(id).is_some_and(|duty| duty.members > 1) {
                self.move_on(ring, id);
            }
        }
    }

    fn try_again(&mut self, link_id: usize, number: u64, sent: &Sent) {
        let Some(duty) = self.duties.get(sent.duty) else { return };
        let is_single = duty.members <= 1;
        let ask = sent.tries == 1 && duty.asks_second();
        let timeout_us = self.links.rtt(link_id).timeout_us(sent.tries);
        let must_wait = is_single && !ask && !self.retry_budget.take(self.now_us, sent.bytes);
        let Some(link) = self.links.get_mut(link_id) else { return };
        if must_wait {
            let due_us = self.now_us + timeout_us;
            link.wait(number, due_us);
            self.timers.push(due_us, Timer::Try { link: link_id, number });
        } else {
            link.push_again(number, ask);
            self.mark_ready(link_id);
        }
    }
}

impl Duty {
    /// Whether the second try asks "have you it?": cheaper than sending it again to a single member,
    /// where only the receipt may have been lost.
    pub fn asks_second(&self) -> bool {
        self.members <= 1 && self.fragments == 1 && !self.ask_first
    }

    fn new(batch: Arc<Batch>, part: Task, now_us: u64) -> Duty {
        Duty {
            batch,
            part,
            since_us: now_us,
            is_repair: false,
            members: 0,
            other: None,
            delegate: 0,
            link: 0,
            first_number: 0,
            fragment_bytes: 0,
            fragments: 0,
            left: 0,
            tried: Vec::new(),
            rounds: 0,
            handovers: 0,
            ask_first: false,
        }
    }
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

/// The member at this place, if it is still at this address.
fn find(ring: &Ring, place: u64, at: SocketAddr) -> Option<&RingEntry> {
    let entries = ring.entries().get(ring.lower_bound(place)..)?;
    entries.iter().take_while(|entry| entry.hash == place).find(|entry| entry.gossip() == at)
}
