//! Members that have not answered at their own address so far, and pinging them until they do.
//!
//! A datagram proves nothing: anybody who knows the name of the cluster can say that a member is alive, or speak
//! in the name of one. So each node judges for itself. It pings every member that it hears of, at the address
//! which that member advertises, with a random number that nobody else sees. A member whose answer brings the
//! number back from that address takes part from then on. Until then it is *joining*: it is in the member list,
//! but not on the ring, its clock does not count, no answer waits for it, and no other member is told of it.
//!
//! A node that joins says in its answers that it does not know the other members yet, until it has got its first
//! list and has pinged all who are on it. On a ring before that, it would be handed records for members that it
//! does not know. Others are told of it as soon as it answers, so that all take it in at about the same time.
//!
//! A member is pinged as soon as it is heard of, so a newcomer takes part everywhere one round trip after the
//! news. A member of which another member tells that it reached it is *vouched for*. If it does not answer here,
//! members are asked to ping it as well, which shows that it lives (IPv4 and IPv6 that meet through a third node).
//!
//! What a stranger can cause is bounded: the number of joining members that nobody vouches for, the rate of pings,
//! and the pings to one address, since a member that nobody vouches for is pinged again only if it has been heard
//! of since the last ping.
//!
//! Rejected: to believe a member that reached it. One member that lies could bring any number of fakes into
//! every ring, while pings cost each node one datagram for each member it meets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::message::{Ack, Introduction, SwimMessage};
use super::slot::{ME, Slot};
use super::table::MemberTable;
use super::{Swim, SwimOutput};
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::stats::QueueGauge;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::record::{NodeName, Now};

/// Most joining members that nobody vouches for. One more takes the place of a random one of them, so that
/// fakes cannot keep out a member that answers at once.
const STRANGERS_MAX: usize = 256;
/// Number of pings in quick succession, so that one or two lost datagrams do not matter.
const QUICK_TRIES: u32 = 3;
/// Time to the first ping after the quick ones, in microseconds. It doubles each time.
const RETRY_US_MIN: u64 = 250_000;
/// Time after which a member is pinged again that does not know the other members yet, in microseconds.
const READY_US: u64 = 20_000;
/// Longest time between two pings of a joining member, in microseconds.
const RETRY_US_MAX: u64 = 30_000_000;
/// Time after which a joining member of which nothing is heard is forgotten, in microseconds.
const JOINING_US_MAX: u64 = 300_000_000;
/// Most pings to joining members in one go, those that nobody vouches for left out, so that their answers do not overflow the socket's buffer.
const PINGS_AT_ONCE: u32 = 64;
/// Time between two such goes, in microseconds.
const PINGS_PAUSE_US: u64 = 5_000;
/// Most pings to joining members that a quiet node may send in successive goes.
const PINGS_SAVED_MAX: u64 = 2_048;
/// Least time between two pings to joining members in the long run, in microseconds.
const PING_US: u64 = 1_000;
/// Greatest difference between the incarnation that a node knows of a member and one that others tell of it. A
/// greater one is believed only from the member itself.
pub(super) const INCARNATION_JUMP_MAX: u32 = 1_024;

/// The state of pinging one member that takes no part.
#[derive(Debug)]
struct Newcomer {
    /// [`life_key`](super::message::life_key) of its life.
    key: u64,
    /// Random number in all pings to it.
    sequence: u32,
    /// Number of pings since it was heard of first, or since somebody said that it is gone.
    tries: u32,
    /// When pinging it began, on the monotonic clock in microseconds.
    began_us: u64,
    /// When the last ping was sent, on the monotonic clock in microseconds.
    sent_us: u64,
    /// When it is to be looked at next, on the monotonic clock in microseconds.
    due_us: u64,
    /// When there was a sign of life last, on the monotonic clock in microseconds.
    heard_us: u64,
    /// Whether others are to be told of it once it takes part.
    is_news: bool,
    /// Whether the member has answered at its address, and said that it does not know the other members yet.
    is_reached: bool,
    /// Whether somebody said that it is gone, and nothing has been heard of it since.
    is_doubted: bool,
}

/// The members that are pinged until they take part.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    by_slot: BTreeMap<Slot, Newcomer>,
    by_due: BTreeSet<(u64, Slot)>,
    by_sequence: BTreeMap<u32, Slot>,
    /// Those that nobody vouches for.
    strangers: BTreeSet<Slot>,
    /// Instant up to which the allowed pings are used, on the monotonic clock in microseconds.
    used_us: u64,
    /// When the next pings may be sent, on the monotonic clock in microseconds.
    next_us: u64,
    /// Members whose last answer said that they cannot reach this node.
    deaf: BTreeSet<Slot>,
    /// Whether this node has got its first list of members, or needs none.
    is_joined: bool,
    /// Whether all members of that list have answered, or had time to.
    is_ready: bool,
}

impl Newcomers {
    /// Begins without newcomers. `is_joined`: this node needs no first list of members.
    pub fn new(is_joined: bool) -> Newcomers {
        Newcomers { is_joined, is_ready: is_joined, ..Newcomers::default() }
    }

    /// Notes that this node has got its first list of members.
    pub fn joined(&mut self) {
        self.is_joined = true;
        self.check_ready();
    }

    /// Returns whether this node knows the other members, so that it can take part. Once it does, that stays so.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn check_ready(&mut self) {
        let are_tried = || self.by_slot.values().all(|newcomer| newcomer.is_reached || newcomer.tries > 1);
        self.is_ready = self.is_ready || self.is_joined && are_tried();
    }

    /// Returns whether a member has answered at its address that it does not know the other members yet.
    pub fn is_reached(&self, slot: Slot) -> bool {
        self.by_slot.get(&slot).is_some_and(|newcomer| newcomer.is_reached)
    }

    /// Notes that a member answered that it does not know the other members yet: it is pinged again soon. Returns
    /// whether others are to be told of it now.
    fn put_off(&mut self, now: Now, slot: Slot) -> bool {
        let Some(newcomer) = self.by_slot.get_mut(&slot) else { return false };
        let is_first = !newcomer.is_reached;
        (newcomer.heard_us, newcomer.tries, newcomer.is_reached) = (now.mono_us, 1, true);
        let is_news = newcomer.is_news && is_first;
        self.set_due(slot, now.mono_us + READY_US);
        self.check_ready();
        is_news
    }

    /// When a member is to be looked at next, on the monotonic clock in microseconds; `u64::MAX` if there is
    /// none.
    pub fn due_us(&self) -> u64 {
        self.by_due.first().map_or(u64::MAX, |&(due_us, _)| due_us.max(self.next_us))
    }

    /// Calls `visit` with the number of members that nobody vouches for, and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("strangers", self.strangers.len(), STRANGERS_MAX));
    }

    /// The member to which a ping with this number was sent.
    pub fn find(&self, sequence: u32) -> Option<Slot> {
        self.by_sequence.get(&sequence).copied()
    }

    /// Notes a sign of life of a member.
    pub fn heard(&mut self, now: Now, slot: Slot) {
        if let Some(newcomer) = self.by_slot.get_mut(&slot) {
            (newcomer.heard_us, newcomer.is_doubted) = (now.mono_us, false);
        }
    }

    /// Lets a member that has been pinged, and that pings this node itself, be pinged again before all others: its
    /// answer seems to have been lost.
    pub fn hasten(&mut self, slot: Slot) {
        if self.by_slot.get(&slot).is_some_and(|newcomer| (1..QUICK_TRIES).contains(&newcomer.tries)) {
            self.set_due(slot, 0);
        }
    }

    /// Returns whether a member has left the first pings without an answer.
    pub fn is_silent(&self, slot: Slot) -> bool {
        self.by_slot.get(&slot).is_some_and(|newcomer| newcomer.tries >= QUICK_TRIES)
    }

    /// Notes whether a member said in its answer that it cannot reach this node. Returns whether that is news.
    pub fn note_reach(&mut self, slot: Slot, is_unreached: bool) -> bool {
        if is_unreached { self.deaf.insert(slot) } else { self.deaf.remove(&slot) }
    }

    /// Marks the members of the list that cannot reach this node. If no other member does, this node itself is
    /// shown as joining.
    pub fn mark(&self, table: &MemberTable, members: &mut [MemberInfo]) {
        let deaf = self.deaf.iter().filter_map(|&slot| table.get(slot));
        let deaf: Vec<&NodeName> =
            deaf.filter(|member| member.state.is_live()).map(|member| &member.identity.name).collect();
        let is_unreached = !deaf.is_empty() && deaf.len() + 1 >= table.ring().len();
        for member in members.iter_mut().filter(|_| !deaf.is_empty()) {
            member.cannot_reach_us = deaf.contains(&&member.identity.name);
            if is_unreached && member.identity.name == table.me().identity.name {
                member.state = State::Joining;
            }
        }
    }

    /// Ends pinging a member. Returns whether others are to be told of it; `None` if it was not pinged.
    pub fn remove(&mut self, slot: Slot) -> Option<bool> {
        let newcomer = self.by_slot.remove(&slot)?;
        self.by_due.remove(&(newcomer.due_us, slot));
        self.by_sequence.remove(&newcomer.sequence);
        self.strangers.remove(&slot);
        self.check_ready();
        Some(newcomer.is_news)
    }

    /// Forgets everything about a member.
    pub fn forget(&mut self, slot: Slot) {
        self.remove(slot);
        self.deaf.remove(&slot);
    }

    fn insert(&mut self, slot: Slot, newcomer: Newcomer, is_stranger: bool) {
        self.by_due.insert((newcomer.due_us, slot));
        self.by_sequence.insert(newcomer.sequence, slot);
        self.by_slot.insert(slot, newcomer);
        if is_stranger {
            self.strangers.insert(slot);
        }
    }

    fn set_due(&mut self, slot: Slot, due_us: u64) {
        if let Some(newcomer) = self.by_slot.get_mut(&slot) {
            self.by_due.remove(&(newcomer.due_us, slot));
            self.by_due.insert((due_us, slot));
            newcomer.due_us = due_us;
        }
    }

    /// The time of the only ping to a member that was pinged once; `None` if there were more.
    fn sent_us(&self, slot: Slot) -> Option<u64> {
        let newcomer = self.by_slot.get(&slot)?;
        (newcomer.tries == 1).then_some(newcomer.sent_us)
    }

    /// Counts one ping. Returns `false` if no ping is allowed now.
    fn take_ping(&mut self, now_us: u64) -> bool {
        let earliest_us = now_us.saturating_sub(PINGS_SAVED_MAX * PING_US);
        let used_us = self.used_us.max(earliest_us) + PING_US;
        if used_us > now_us {
            return false;
        }
        self.used_us = used_us;
        true
    }
}

impl Swim {
    /// Takes in a member that was not known. It is pinged at once. `None`: there is no room.
    pub(super) fn admit(
        &mut self,
        now: Now,
        said: Introduction,
        is_vouched: bool,
        is_news: bool,
    ) -> Option<Slot> {
        if !is_vouched && self.newcomers.strangers.len() >= STRANGERS_MAX {
            let at = self.random.index(STRANGERS_MAX);
            let evicted = self.newcomers.strangers.iter().nth(at).copied();
            evicted.into_iter().for_each(|slot| self.forget_member(slot));
        }
        let slot = self.table.insert(said, State::Joining, now.mono_us, &mut self.random)?;
        if is_vouched {
            self.table.vouch(slot);
        }
        self.is_changed = true;
        self.try_out(now, slot, is_news);
        Some(slot)
    }

    /// Notes that another member reached this one, which takes no part here so far.
    pub(super) fn vouch(&mut self, now: Now, slot: Slot) {
        self.table.vouch(slot);
        self.newcomers.strangers.remove(&slot);
        self.newcomers.heard(now, slot);
    }

    /// Begins to ping a member that takes no part, unless that is being done. `is_news`: the others are to be
    /// told if it answers.
    pub(super) fn try_out(&mut self, now: Now, slot: Slot, is_news: bool) {
        let Some(member) = self.table.get(slot) else { return };
        let (key, is_stranger) = (member.key(), member.state == State::Joining && !member.is_vouched());
        if let Some(newcomer) = self.newcomers.by_slot.get_mut(&slot).filter(|it| it.key == key) {
            newcomer.heard_us = now.mono_us;
            newcomer.is_news |= is_news;
            return;
        }
        self.newcomers.remove(slot);
        let newcomer = Newcomer {
            key,
            sequence: self.next_sequence(),
            tries: 0,
            began_us: now.mono_us,
            sent_us: 0,
            due_us: now.mono_us,
            heard_us: now.mono_us,
            is_news,
            is_reached: false,
            is_doubted: false,
        };
        self.newcomers.insert(slot, newcomer, is_stranger);
    }

    /// Notes that somebody said that a joining member is gone: it is pinged at once, and forgotten if it does
    /// not answer and nobody else reaches it.
    pub(super) fn doubt_newcomer(&mut self, now: Now, slot: Slot) {
        let Some(newcomer) = self.newcomers.by_slot.get_mut(&slot) else { return };
        if !newcomer.is_doubted {
            (newcomer.is_doubted, newcomer.tries) = (true, 0);
            self.newcomers.set_due(slot, now.mono_us);
        }
    }

    /// Lets a member take part that has answered at its own address with `ack`. A member that does not know the
    /// others yet could not pass records on to them: the others are told of it, and it is asked again.
    pub(super) fn promote(&mut self, now: Now, slot: Slot, ack: &Ack) {
        if ack.is_joining {
            self.table.vouch(slot);
            if self.newcomers.put_off(now, slot) {
                self.changed(now, slot);
            }
            return;
        }
        let sent_us = self.newcomers.sent_us(slot);
        let is_news = self.newcomers.remove(slot).unwrap_or(true);
        let Some(member) = self.table.get(slot) else { return };
        let said = Introduction { identity: member.identity.clone(), incarnation: member.incarnation };
        self.suspicions.remove(slot);
        self.table.set(slot, said, State::Alive, now.mono_us, &mut self.random);
        self.changed(now, slot);
        if !is_news {
            self.news.remove(slot);
        }
        if let Some(sent_us) = sent_us {
            self.measured(now, slot, ack.wall_us, now.mono_us.saturating_sub(sent_us));
        }
    }

    /// Takes in a measured round trip to a member that takes part, and its wall clock.
    pub(super) fn measured(&mut self, now: Now, slot: Slot, wall_us: u64, rtt_us: u64) {
        let Some(member) = self.table.get(slot).filter(|member| member.state.is_live()) else { return };
        let output = SwimOutput::Measured { member: member.identity.clone(), rtt_us };
        self.outputs.push_back(output);
        self.table.measured(slot, rtt_us);
        self.clocks.measured(now, slot, wall_us, rtt_us);
    }

    /// Pings the members whose turn it is, as many as are allowed, and forgets those that are given up.
    pub(super) fn newcomers_due(&mut self, now: Now) {
        let mut pings = 0;
        while let Some(&(due_us, slot)) = self.newcomers.by_due.first() {
            if now.mono_us < due_us.max(self.newcomers.next_us) {
                return;
            }
            if self.is_given_up(now, slot) {
                continue;
            }
            if !self.may_ping(slot) {
                self.newcomers.set_due(slot, now.mono_us + RETRY_US_MIN);
                continue;
            }
            // Strangers come one by one, and those that join at once are to be on each other's lists.
            let is_stranger = self.newcomers.strangers.contains(&slot);
            if pings == PINGS_AT_ONCE || !self.newcomers.take_ping(now.mono_us) {
                self.newcomers.next_us = now.mono_us + PINGS_PAUSE_US;
                return;
            }
            pings += u32::from(!is_stranger);
            self.ping_newcomer(now, slot);
        }
    }

    /// Ends pinging a member that is given up. Returns whether it was.
    fn is_given_up(&mut self, now: Now, slot: Slot) -> bool {
        let Some(newcomer) = self.newcomers.by_slot.get(&slot) else { return false };
        let member = self.table.get(slot).filter(|member| member.key() == newcomer.key);
        let state = member.map(|member| member.state);
        let is_tried = newcomer.tries >= QUICK_TRIES;
        let patience_us = self.timing.suspicion_min_us(self.table.ring().len());
        let is_over = newcomer.is_doubted && is_tried || now.mono_us >= newcomer.heard_us + JOINING_US_MAX;
        match state {
            Some(State::Joining) if is_over => self.forget_member(slot),
            Some(State::Joining) => return false,
            // Answers wait for it, and records are handed over to it: it gets as long as a suspect.
            Some(State::Alive | State::Suspect)
                if is_tried && now.mono_us >= newcomer.began_us + patience_us =>
            {
                self.demote(now, slot);
                return false;
            }
            Some(State::Alive | State::Suspect) => return false,
            // What was given up before stays in the member list.
            Some(State::Dead | State::Left) if !is_tried => return false,
            _ => {
                self.newcomers.remove(slot);
            }
        }
        true
    }

    /// Lets a member take no part any more that is alive by its own word, but does not answer at its address.
    fn demote(&mut self, now: Now, slot: Slot) {
        let Some(member) = self.table.get(slot) else { return };
        let said = Introduction { identity: member.identity.clone(), incarnation: member.incarnation };
        self.suspicions.remove(slot);
        self.news.remove(slot);
        self.table.set(slot, said, State::Joining, now.mono_us, &mut self.random);
        self.changed_us = now.mono_us;
        self.is_changed = true;
    }

    /// Lets an address be pinged that was told by a join target, or by a peer that has connected from the same
    /// host: neither can be somebody who never asked.
    pub(super) fn trust_address(&mut self, now: Now, address: SocketAddr) {
        self.credit.add(now.mono_us, address, DATAGRAM_BYTES_MAX);
    }

    /// Returns whether a member may be pinged now: a stranger only if it was heard of since the last ping.
    fn may_ping(&self, slot: Slot) -> bool {
        let is_stranger = self.newcomers.strangers.contains(&slot);
        let newcomer = self.newcomers.by_slot.get(&slot);
        newcomer.is_some_and(|it| !is_stranger || it.tries < QUICK_TRIES || it.heard_us > it.sent_us)
            && !self.leave.is_leaving()
    }

    fn ping_newcomer(&mut self, now: Now, slot: Slot) {
        let Some(member) = self.table.get(slot) else { return };
        let (address, is_vouched) = (member.identity.gossip(), member.is_vouched());
        let takes_part = member.state.is_live();
        let timeout_us = self.health.scaled_us(self.timing.probe_timeout_us);
        let Some(newcomer) = self.newcomers.by_slot.get_mut(&slot) else { return };
        newcomer.tries = newcomer.tries.saturating_add(1);
        newcomer.sent_us = now.mono_us;
        let (sequence, key) = (newcomer.sequence, newcomer.key);
        let wait_us = match newcomer.tries.checked_sub(QUICK_TRIES) {
            None => timeout_us,
            Some(_) if takes_part => timeout_us,
            Some(0) if newcomer.is_doubted => timeout_us,
            Some(further) => (RETRY_US_MIN << further.min(16)).min(RETRY_US_MAX),
        };
        let asks_others = is_vouched && (newcomer.is_doubted || newcomer.tries >= QUICK_TRIES);
        let due_us = now.mono_us + self.random.jitter_us(wait_us);
        self.newcomers.set_due(slot, due_us);
        self.newcomers.check_ready();
        if is_vouched {
            let ping = self.padded(Some(slot), self.ping(sequence, key, Some(self.table.me().clone())));
            self.outputs.push_back(SwimOutput::Datagram { to: address, message: ping, updates: Vec::new() });
        } else {
            // Only what has come from that address pays for this.
            self.answer(address, Some(slot), self.ping(sequence, key, None));
        }
        if asks_others {
            let sender: NodeName = self.my_name().clone();
            for asked in self.table.random_live(1, slot, &mut self.random) {
                let Some(to) = self.table.get(asked).map(|member| member.identity.gossip()) else { continue };
                let (target, sender) = (key, sender.clone());
                let request = SwimMessage::PingRequest { sequence, target, address, sender };
                self.send(to, Some(asked), request);
            }
        }
    }

    /// Ends pinging a member whose address another member or life has.
    pub(super) fn refused_newcomer(&mut self, slot: Slot) {
        match self.table.get(slot).map(|member| member.state) {
            Some(State::Joining) => self.forget_member(slot),
            _ => {
                self.newcomers.remove(slot);
            }
        }
    }

    /// Forgets a member that takes no part.
    pub(super) fn forget_member(&mut self, slot: Slot) {
        if slot == ME {
            return;
        }
        self.newcomers.forget(slot);
        self.news.remove(slot);
        self.alerts.remove(&slot);
        self.table.forget(slot);
        self.is_changed = true;
    }
}
