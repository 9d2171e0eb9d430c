//! Finding members that do not answer: direct, indirect and TCP probes, and their answers.
//!
//! A probe has three stages. *Direct*: a ping over UDP. After `probe_timeout_us` without an ack *indirect*:
//! the member is pinged once more, three others are asked to ping it, and a stream is opened to it, since it
//! may be UDP that fails. At `probe_total_us` it is *suspected*. Members that were asked and cannot reach it
//! either say so (nack); a nack that does not come casts doubt on this node's own links (Lifeguard).

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::message::{Ack, Introduction, Ping, SwimMessage};
use super::news::{Question, Way};
use super::slot::{ME, Slot};
use super::table::MemberEntry;
use super::timing::INDIRECT_PROBES;
use super::{Swim, SwimOutput};
use crate::cluster::members::State;
use crate::cluster::stats::QueueGauge;
use crate::cluster::streams::StreamId;
use crate::record::Now;

/// Most probes under way at a time. A probe lasts little longer than the interval between two.
const PROBES_MAX: usize = 64;
/// Every probe with a number divisible by this goes to the member before this node on the ring.
const NEIGHBOUR_EVERY: u32 = 4;
/// Most probes for other members under way at a time.
const RELAYS_MAX: usize = 256;

/// A probe of a member by this node.
#[derive(Debug)]
struct Probe {
    sequence: u32,
    slot: Slot,
    key: u64,
    started_us: u64,
    /// Sequence number of the second ping, and when it was sent. With a number of its own, each of the two
    /// pings measures a round trip.
    again: Option<(u32, u64)>,
    due_us: u64,
    is_indirect: bool,
    asked: u32,
    nacks: u32,
    stream: Option<StreamId>,
}

impl Probe {
    /// Returns when the ping of this sequence number was sent; `None` if it is not of this probe.
    fn sent_us(&self, sequence: u32) -> Option<u64> {
        match self.again {
            _ if sequence == self.sequence => Some(self.started_us),
            Some((again, sent_us)) if sequence == again => Some(sent_us),
            _ => None,
        }
    }
}

/// A probe that another member asked for.
#[derive(Debug)]
struct Relay {
    sequence: u32,
    asker: SocketAddr,
    asker_sequence: u32,
    nack_us: u64,
}

/// Probes of this node, and those that others asked for.
#[derive(Debug)]
pub(super) struct Probes {
    next_us: u64,
    started: u32,
    under_way: Vec<Probe>,
    relays: VecDeque<Relay>,
}

impl Probes {
    /// Begins without probes; the first one is due at `first_us`.
    pub fn new(first_us: u64) -> Probes {
        Probes { next_us: first_us, started: 0, under_way: Vec::new(), relays: VecDeque::new() }
    }

    /// Calls `visit` with the numbers of probes and their bounds.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("probes", self.under_way.len(), PROBES_MAX));
        visit(QueueGauge::new("probes for others", self.relays.len(), RELAYS_MAX));
    }

    /// Time at which the next probe begins or one under way needs attention, on the monotonic clock in
    /// microseconds.
    pub fn due_us(&self) -> u64 {
        let probes = self.under_way.iter().map(|probe| probe.due_us);
        let relays = self.relays.iter().map(|relay| relay.nack_us);
        probes.chain(relays).fold(self.next_us, u64::min)
    }

    /// Postpones the timeouts of all probes under way by `by_us` microseconds.
    pub fn postpone(&mut self, by_us: u64) {
        for probe in &mut self.under_way {
            probe.due_us += by_us;
        }
    }

    /// Notes that a member that was asked to probe another one got no answer.
    pub fn handle_nack(&mut self, sequence: u32) {
        if let Some(probe) = self.under_way.iter_mut().find(|probe| probe.sequence == sequence) {
            probe.nacks += 1;
        }
    }

    fn take(&mut self, sequence: u32) -> Option<Probe> {
        let at = self.under_way.iter().position(|probe| probe.sent_us(sequence).is_some())?;
        Some(self.under_way.swap_remove(at))
    }
}

impl Swim {
    /// Starts, deepens and ends probes that are due.
    pub(super) fn probe_due(&mut self, now: Now) {
        while let Some(at) = self.probes.under_way.iter().position(|probe| probe.due_us <= now.mono_us) {
            let probe = self.probes.under_way.swap_remove(at);
            if probe.is_indirect { self.fail_probe(now, probe) } else { self.deepen_probe(now, probe) }
        }
        while let Some(at) = self.probes.relays.iter().position(|relay| relay.nack_us <= now.mono_us) {
            let Some(relay) = self.probes.relays.remove(at) else { break };
            self.send(relay.asker, None, SwimMessage::Nack { sequence: relay.asker_sequence });
        }
        if now.mono_us >= self.probes.next_us {
            let interval_us = self.health.scaled_us(self.timing.probe_interval_us);
            self.probes.next_us = now.mono_us + self.random.jitter_us(interval_us);
            self.probes.started = self.probes.started.wrapping_add(1);
            let is_neighbours_turn = self.probes.started.is_multiple_of(NEIGHBOUR_EVERY);
            let neighbour = self.table.neighbour().filter(|_| is_neighbours_turn);
            if let Some(slot) = neighbour.or_else(|| self.table.next_probe(&mut self.random)) {
                self.probe(now, slot);
            }
        }
    }

    /// Begins to probe a live member, unless it is being probed already.
    pub(super) fn probe(&mut self, now: Now, slot: Slot) {
        let is_under_way = self.probes.under_way.iter().any(|probe| probe.slot == slot);
        if is_under_way || self.probes.under_way.len() >= PROBES_MAX || self.leave.is_leaving() {
            return;
        }
        let Some(member) = self.table.get(slot) else { return };
        let (key, to) = (member.key(), member.identity.gossip());
        let sequence = self.next_sequence();
        self.probes.under_way.push(Probe {
            sequence,
            slot,
            key,
            started_us: now.mono_us,
            again: None,
            due_us: now.mono_us + self.health.scaled_us(self.timing.probe_timeout_us),
            is_indirect: false,
            asked: 0,
            nacks: 0,
            stream: None,
        });
        let ping = self.ping(sequence, key, None);
        self.send(to, Some(slot), ping);
    }

    /// Begins the indirect stage of a probe.
    fn deepen_probe(&mut self, now: Now, mut probe: Probe) {
        let Some(member) = self.table.get(probe.slot).filter(|member| member.key() == probe.key) else {
            return;
        };
        let (address, sender) = (member.identity.gossip(), self.my_name().clone());
        let again = self.next_sequence();
        probe.again = Some((again, now.mono_us));
        let ping = self.ping(again, probe.key, None);
        self.send(address, Some(probe.slot), ping);
        for slot in self.table.random_live(INDIRECT_PROBES, probe.slot, &mut self.random) {
            let Some(to) = self.table.get(slot).map(|member| member.identity.gossip()) else { continue };
            let (sequence, target) = (probe.sequence, probe.key);
            let request = SwimMessage::PingRequest { sequence, target, address, sender: sender.clone() };
            self.send(to, Some(slot), request);
            probe.asked += 1;
        }
        let ping = Ping {
            sequence: probe.sequence,
            target: probe.key,
            sender,
            view: self.table.view(),
            introduction: None,
            padding: 0,
        };
        probe.stream = self.connect_probe(now, address, ping);
        probe.is_indirect = true;
        let total_us = self.health.scaled_us(self.timing.probe_total_us);
        probe.due_us = (probe.started_us + total_us).max(now.mono_us + self.timing.probe_timeout_us);
        self.probes.under_way.push(probe);
    }

    fn fail_probe(&mut self, now: Now, probe: Probe) {
        self.close_probe(probe.stream);
        // Without other members to ask, it is unknown whose fault the silence is: this node doubts itself a
        // little.
        let missing = if probe.asked == 0 { 1 } else { probe.asked.saturating_sub(probe.nacks) };
        self.health.worsen(missing);
        let Some(member) = self.table.get(probe.slot) else { return };
        if member.key() == probe.key && member.state.is_live() {
            let (incarnation, me) = (member.incarnation, self.my_name().clone());
            self.suspect(now, probe.slot, incarnation, &[me]);
        }
    }

    /// Answers a ping, or refuses it if it is meant for another life or member.
    pub(super) fn handle_ping(&mut self, now: Now, from: SocketAddr, boot: u64, ping: Ping) {
        let me = self.table.me().clone();
        if ping.sender == me.identity.name && boot == me.identity.boot && ping.introduction.is_none() {
            return;
        }
        if !self.is_for_me(ping.target) {
            let (sequence, target) = (ping.sequence, ping.target);
            let refusal = SwimMessage::Refusal { sequence, target, introduction: Some(me) };
            return self.answer(from, None, refusal);
        }
        // Whoever pings this node by its life knows it, and its ping may not pay for more.
        let is_member = self.has_answered_at(from);
        let wants_introduction = ping.target == 0 || (ping.introduction.is_some() && is_member);
        if let Some(said) = ping.introduction.filter(|said| said.identity.boot == boot) {
            let question = Question { from, sequence: ping.sequence };
            self.hear(now, said.into(), Way::Introduced(Some(question)));
        }
        let sender = self.find_life(ping.sender.as_str(), boot);
        let introduction = wants_introduction.then(|| self.table.me().clone());
        let mut ack = self.ack(now, ping.sequence, introduction);
        ack.is_unknown = sender.is_none();
        ack.is_unreached = sender.is_some_and(|slot| self.newcomers.is_silent(slot));
        self.answer(from, sender, SwimMessage::Ack(ack));
        let Some(slot) = sender else { return };
        self.newcomers.heard(now, slot);
        self.newcomers.hasten(slot);
        if self.has_answered_at(from) {
            self.compare_views(now, slot, ping.view);
        }
    }

    /// Returns whether a ping with this key is meant for this life of this node, or for any node.
    pub(super) fn is_for_me(&self, target: u64) -> bool {
        target == 0 || self.table.get(ME).is_some_and(|me| me.key() == target)
    }

    /// Returns the member of this name, if `boot` is of the life that is known.
    pub(super) fn find_life(&self, name: &str, boot: u64) -> Option<Slot> {
        let slot = self.table.find(name)?;
        self.table.get(slot).is_some_and(|member| member.identity.boot == boot).then_some(slot)
    }

    /// Handles the answer to a ping, which may belong to any part of membership.
    pub(super) fn handle_ack(&mut self, now: Now, from: SocketAddr, boot: u64, mut ack: Ack) {
        let asked = self.asked_at(ack.sequence);
        let is_own_word = asked == Some(from);
        let said = ack.introduction.take().filter(|said| asked.is_some() && said.identity.boot == boot);
        if let Some(said) = said.filter(|said| said.identity.name == ack.sender) {
            let is_at_home = is_own_word && said.identity.gossip() == from;
            if self.contacts.is_trusted(ack.sequence) {
                self.trust_address(now, said.identity.gossip());
                if said.identity.name == *self.my_name() {
                    self.contend_for_my_name(now, said.clone());
                }
            }
            self.hear(now, said.into(), if is_at_home { Way::Proven } else { Way::Introduced(None) });
        }
        let sender = self.find_life(ack.sender.as_str(), boot);
        if let Some(slot) = sender.filter(|_| is_own_word) {
            self.answered_at_home(now, slot, from, &ack);
        } else if let Some(slot) = self.newcomers.find(ack.sequence) {
            // Another member has reached it.
            self.newcomers.heard(now, slot);
        }
        let is_expected = self.answer_probe(now, sender, &ack);
        self.answer_relay(now, ack.sequence);
        self.claim_answered(ack.sequence);
        self.leave.answered(ack.sequence);
        self.suspicions.answered(now, ack.sequence);
        self.contact_answered(now, (ack.sequence, ack.wall_us), from, sender);
        let Some(slot) = sender else { return };
        if is_expected {
            self.compare_views(now, slot, ack.view);
        } else if self.accusation(slot).is_some() && self.has_answered_at(from) {
            // The answer came too late for its probe, but the member lives: it is told to refute.
            self.send(from, Some(slot), SwimMessage::Gossip);
        }
        // A member at which this node takes no part may ping it once more for the bytes of an introduction.
        if is_expected && (ack.is_unknown || ack.is_unreached) {
            let sequence = self.next_sequence();
            let target = if ack.is_unknown { 0 } else { self.table.get(slot).map_or(0, MemberEntry::key) };
            let ping = self.ping(sequence, target, Some(self.table.me().clone()));
            self.send(from, Some(slot), ping);
        }
    }

    /// The address to which the ping of this number was sent, if its answer is waited for.
    pub(super) fn asked_at(&self, sequence: u32) -> Option<SocketAddr> {
        let probe = self.probes.under_way.iter().find(|probe| probe.sent_us(sequence).is_some());
        let slot = probe.map(|probe| probe.slot);
        let slot = slot.or_else(|| self.newcomers.find(sequence));
        let slot = slot.or_else(|| self.suspicions.find(sequence)).or_else(|| self.leave.find(sequence));
        let address = slot.and_then(|slot| self.table.get(slot)).map(|member| member.identity.gossip());
        address.or_else(|| self.contacts.find(sequence)).or_else(|| self.claims.find(sequence))
    }

    /// Takes in that a member answered a ping which was sent to `at`.
    fn answered_at_home(&mut self, now: Now, slot: Slot, at: SocketAddr, ack: &Ack) {
        let Some(member) = self.table.get(slot).filter(|member| member.identity.gossip() == at) else {
            return;
        };
        let (state, incarnation, identity) = (member.state, member.incarnation, member.identity.clone());
        if slot == ME {
            return;
        }
        self.trust_address(now, at);
        if ack.is_leaving && !state.is_gone() {
            self.set_state(now, slot, incarnation, State::Left);
        } else if state == State::Joining {
            self.promote(now, slot, ack);
        } else if state.is_live() {
            self.newcomers.remove(slot);
        } else if !ack.is_leaving {
            // A life that was given up lives.
            self.replace(now, slot, Introduction { identity, incarnation });
        }
        self.is_changed |= self.newcomers.note_reach(slot, ack.is_unreached);
    }

    /// Ends the probe that this ack answers. Returns whether there was one.
    pub(super) fn answer_probe(&mut self, now: Now, sender: Option<Slot>, ack: &Ack) -> bool {
        let Some(probe) = self.probes.take(ack.sequence) else { return false };
        self.close_probe(probe.stream);
        if !probe.is_indirect {
            self.health.improve();
        }
        // An ack that another member passed on measures no round trip.
        if sender == Some(probe.slot) {
            let sent_us = probe.sent_us(ack.sequence).unwrap_or(probe.started_us);
            self.measured(now, probe.slot, ack.wall_us, now.mono_us.saturating_sub(sent_us));
        }
        true
    }

    /// Pings a member for another one that asked for it. Whoever has not answered at its own address could make
    /// this node ping anybody, so its requests are ignored. Of an address at which no member has answered here,
    /// the asking node is told at once that it does not answer.
    pub(super) fn handle_ping_request(
        &mut self,
        now: Now,
        asker: SocketAddr,
        asker_sequence: u32,
        target: u64,
        address: SocketAddr,
    ) {
        if !self.has_answered_at(asker) {
            return;
        }
        if !self.has_answered_at(address) {
            return self.send(asker, None, SwimMessage::Nack { sequence: asker_sequence });
        }
        if self.probes.relays.len() >= RELAYS_MAX {
            self.probes.relays.pop_front();
        }
        let sequence = self.next_sequence();
        // This is in time for the asker, which gives up at `probe_total_us`.
        let nack_us = now.mono_us + self.timing.probe_timeout_us;
        self.probes.relays.push_back(Relay { sequence, asker, asker_sequence, nack_us });
        let ping = self.ping(sequence, target, None);
        self.send(address, None, ping);
    }

    fn answer_relay(&mut self, now: Now, sequence: u32) {
        let Some(at) = self.probes.relays.iter().position(|relay| relay.sequence == sequence) else { return };
        let Some(relay) = self.probes.relays.remove(at) else { return };
        let ack = self.ack(now, relay.asker_sequence, None);
        self.send(relay.asker, None, SwimMessage::Ack(ack));
    }

    /// Handles the answer that another life or member is at the address of a ping.
    pub(super) fn handle_refusal(
        &mut self,
        now: Now,
        from: SocketAddr,
        (sequence, target): (u32, u64),
        introduction: Option<Introduction>,
    ) {
        let asked = self.asked_at(sequence);
        let probe = self.probes.take(sequence);
        let relay = self.probes.relays.iter().position(|relay| relay.sequence == sequence);
        let relay = relay.and_then(|at| self.probes.relays.remove(at));
        let is_contact = self.contacts.take(sequence).is_some();
        let claim = self.claims.take(sequence);
        let newcomer = self.newcomers.find(sequence).filter(|_| asked == Some(from));
        let is_gone = newcomer.and_then(|slot| self.table.get(slot)).is_some_and(|it| it.key() == target);
        if let Some(slot) = newcomer.filter(|_| is_gone) {
            self.refused_newcomer(slot);
        }
        if let Some(said) = introduction {
            let is_expected = probe.is_some() || is_contact || claim.is_some() || newcomer.is_some();
            let is_at_home = asked == Some(from) && said.identity.gossip() == from;
            if is_expected {
                self.hear(now, said.into(), if is_at_home { Way::Proven } else { Way::Introduced(None) });
            }
        }
        if let Some(claim) = claim {
            self.claim_granted(now, claim);
        }
        if let Some(relay) = relay {
            let refusal = SwimMessage::Refusal { sequence: relay.asker_sequence, target, introduction: None };
            self.outputs.push_back(SwimOutput::Datagram {
                to: relay.asker,
                message: refusal,
                updates: Vec::new(),
            });
        }
        let Some(probe) = probe else { return };
        self.close_probe(probe.stream);
        let Some(member) = self.table.get(probe.slot) else { return };
        // memberlist#241: another node uses the address now, so the life that was meant has ended.
        let is_it = member.key() == probe.key && probe.key == target;
        if is_it && asked == Some(from) && member.state.is_live() {
            self.set_state(now, probe.slot, member.incarnation, State::Dead);
        }
    }
}
