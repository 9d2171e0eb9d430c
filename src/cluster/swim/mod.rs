//! Membership: which nodes are in the cluster, by SWIM with the extensions of Lifeguard.
//!
//! Every node pings the others in turn. A member that does not answer is pinged by three others and over
//! TCP, then *suspected*. Suspicion spreads like all news, on the pings themselves, and unless the
//! suspect refutes it in time (with a greater *incarnation*), it is *dead*. Detection time and the load of
//! each node do not depend on the size of the cluster (Das, Gupta, Motivala, DSN 2002). Lifeguard
//! (Dadgar, Phillips, Currey, 2018) adds: a node that misses answers which it should have got doubts itself
//! first (`timing::LocalHealth`); a suspicion that few members confirm lasts longer (`suspicion`); a
//! suspect is the first to be told (`news`).
//!
//! What this implementation adds:
//! - **Proof.** A member takes part once it has answered this node at the address it advertises, and what a
//!   datagram says of another member is looked into and not believed (`newcomers`, `news`).
//! - **Lives.** A member's boot number grows at every start. News of a life never touches another one; a
//!   greater boot replaces a smaller one whatever was believed of it, so a node that comes back needs no
//!   memory of its old incarnation. Pings name the life that they are meant for. Another life or node at the
//!   address refuses them, which is proof enough that the old life has ended.
//! - **Views.** Each ping and ack carries a hash of the live members. Where hashes go on differing
//!   after the news has died down, the two exchange whole lists over TCP (`lists`). So lost
//!   gossip is found out in a round of probing, and nothing is exchanged while all agree.
//! - **The last word.** Before a suspicion ends in death, the suspect is pinged a few more times by every
//!   node that is about to give it up. If it answers, it is not declared dead because of news that was late.
//! - **Neighbours.** One probe in four goes to the member before the prober on the ring. So every member is
//!   probed by another within a second, while chance alone would let one in a hundred wait for longer.
//! - **Witnesses.** The four followers of a suspect on the ring probe it at once, so that the
//!   confirmations which shorten a suspicion do not wait for chance.
//! - **Suspects** may be gone. They are told what they are accused of, and pinged; but others are chosen to be told
//!   news and to be asked for probes, and news that a suspect was sent does not count as told. So a side of a
//!   partition does not spend the news of its deaths on the members that are cut off.
//! - **News about the dead in lists** is not believed but passed to the member concerned, which refutes
//!   it if it is alive: so a healed partition does not declare live members dead.
//! - **Ghosts** die out: news about dead and left members never adds a member, and only
//!   news that changed something here is passed on.
//!
//! By file: `table` has the members, `news` the rules by which they change, `newcomers` pings those that do not
//! take part yet, `probe` finds members that do not
//! answer, `suspicion` gives them up, `contacts` tries join targets and dead members, `claims` decides
//! between two nodes with one name, `lives` takes a new boot number where no incarnation refutes what is said, `lists` exchanges whole lists on streams, `known` takes members from
//! before, `leave` leaves in an orderly way.
//!
//! Rejected: exchanging whole lists periodically (memberlist: every 30 s, N entries each, for nothing while
//! all agree); choosing whom to probe by epochs of the clock (it finds the dead sooner than chance, but only
//! as long as clocks agree).

mod broadcasts;
mod claims;
mod clocks;
mod contacts;
mod credit;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
pub(super) mod forgery_tests;
mod known;
mod leave;
mod lists;
mod lives;
pub(super) mod message;
mod newcomers;
mod news;
mod probe;
mod slot;
mod suspicion;
mod table;
#[cfg(test)]
mod tests;
mod timing;
pub(super) mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::broadcasts::Broadcasts;
use self::claims::Claims;
pub use self::clocks::ClockVerdict;
use self::clocks::Clocks;
use self::contacts::Contacts;
pub use self::contacts::SeedInfo;
use self::credit::Credit;
pub use self::known::Known;
use self::leave::Leave;
use self::lists::Lists;
use self::lives::Lives;
use self::message::{Ack, Introduction, Ping, SwimMessage, Update};
use self::newcomers::Newcomers;
use self::news::Way;
use self::probe::Probes;
use self::slot::Slot;
use self::suspicion::Suspicions;
use self::table::{MemberEntry, MemberTable};
use self::timing::{FORGET_INTERVAL_US, LocalHealth, RETRANSMIT_FACTOR, RETRANSMIT_LOG_MIN, Timing};
use super::MachineConfig;
use super::members::{Identity, MemberInfo, State};
use super::random::Random;
use super::ring::Ring;
use super::stats::QueueGauge;
use super::streams::StreamOutput;
use crate::limits::{
    DATAGRAM_BYTES_MAX, HTTP_ADDRESS_BYTES_MAX, NODE_NAME_BYTES_MAX, VERSION_BYTES_MAX, ZONE_BYTES_MAX,
};
use crate::record::{NodeName, Now};

/// Bytes of a datagram that membership leaves free for the heads that ride on it.
const RIDERS_BYTES: usize = 220;

/// Something that membership wants done.
#[derive(Debug)]
pub(super) enum SwimOutput {
    /// Send a datagram with a message and the updates that ride on it.
    Datagram { to: SocketAddr, message: SwimMessage, updates: Vec<Update> },
    /// Do something with a stream of membership.
    Stream(StreamOutput),
    /// Stop this node: its name is alive at the address `by`.
    NameTaken { by: SocketAddr },
    /// Say from now on, in the headers of all messages, that this node has this boot number, and keep it.
    NewBoot { boot: u64 },
    /// Learn that a member answered a probe after `rtt_us` microseconds.
    Measured { member: Arc<Identity>, rtt_us: u64 },
}

/// The membership of one node.
///
/// Call any `handle_*`, then `poll_output` until it is empty, then `poll_timeout`, which returns when
/// `handle_timeout` must be called.
#[derive(Debug)]
pub(super) struct Swim {
    timing: Timing,
    /// Most bytes of a message with the updates and heads that ride on it.
    body_bytes_max: usize,
    /// By how many bytes the seal of an answer may be larger than that of the question.
    answer_excess_bytes: usize,
    random: Random,
    table: MemberTable,
    news: Broadcasts,
    health: LocalHealth,
    probes: Probes,
    suspicions: Suspicions,
    contacts: Contacts,
    claims: Claims,
    lives: Lives,
    newcomers: Newcomers,
    lists: Lists,
    leave: Leave,
    clocks: Clocks,
    credit: Credit,
    outputs: VecDeque<SwimOutput>,
    /// Members that others call dead, to be told so, with the incarnation that is called dead.
    alerts: BTreeMap<Slot, u32>,
    next_gossip_us: u64,
    next_forget_us: u64,
    /// When the table last changed, on the monotonic clock in microseconds: views may differ for a while
    /// after that.
    changed_us: u64,
    is_changed: bool,
}

impl Swim {
    /// The membership of a node that knows no other member, and whose datagrams have bodies of at most
    /// `body_bytes_max` bytes.
    pub fn new(config: &MachineConfig, now: Now, body_bytes_max: usize, answer_excess_bytes: usize) -> Swim {
        let mut random = Random::new(config.seed);
        let timing = Timing::of(config.profile);
        let identity = Arc::new(Identity::new(
            config.name.clone(),
            config.boot,
            config.gossip,
            shortened(&config.http, HTTP_ADDRESS_BYTES_MAX),
            shortened(&config.zone, ZONE_BYTES_MAX),
            shortened(&config.version, VERSION_BYTES_MAX),
        ));
        let first_probe_us = now.mono_us + random.below(timing.probe_interval_us);
        Swim {
            table: MemberTable::new(identity, now.mono_us),
            news: Broadcasts::default(),
            health: LocalHealth::default(),
            probes: Probes::new(first_probe_us),
            suspicions: Suspicions::default(),
            contacts: Contacts::new(now.mono_us, config.has_seeds),
            claims: Claims::default(),
            lives: Lives::default(),
            newcomers: Newcomers::new(!config.has_seeds),
            lists: Lists::new(now.mono_us, !config.has_seeds),
            leave: Leave::default(),
            clocks: Clocks::default(),
            credit: Credit::default(),
            outputs: VecDeque::new(),
            alerts: BTreeMap::new(),
            next_gossip_us: now.mono_us,
            next_forget_us: now.mono_us + FORGET_INTERVAL_US,
            changed_us: now.mono_us,
            is_changed: false,
            timing,
            body_bytes_max,
            answer_excess_bytes,
            random,
        }
    }

    /// Handles a datagram of membership, which came from the life `boot` of the node at `from`.
    pub fn handle_message(
        &mut self,
        now: Now,
        from: SocketAddr,
        boot: u64,
        message: SwimMessage,
        updates: Vec<Update>,
    ) {
        self.clocks.set_now(now);
        let is_answer =
            matches!(&message, SwimMessage::Ack(ack) if self.asked_at(ack.sequence) == Some(from));
        match message {
            SwimMessage::Ping(ping) => self.handle_ping(now, from, boot, ping),
            SwimMessage::Ack(ack) => self.handle_ack(now, from, boot, ack),
            SwimMessage::PingRequest { sequence, target, address, .. } => {
                self.handle_ping_request(now, from, sequence, target, address);
            }
            SwimMessage::Nack { sequence } => self.probes.handle_nack(sequence),
            SwimMessage::Refusal { sequence, target, introduction } => {
                self.handle_refusal(now, from, (sequence, target), introduction);
            }
            SwimMessage::NameTaken { name, boot, by, sequence } => {
                self.handle_name_taken(now, (&name, boot), by, sequence);
            }
            SwimMessage::Gossip => {}
        }
        for update in updates {
            self.hear(now, update, if is_answer { Way::Answer(from) } else { Way::Gossip(from) });
        }
    }

    /// Handles a datagram of membership of `datagram_bytes` bytes from an address at which no member has answered.
    /// The news that ride on it are not heard, and the answer is not larger.
    pub fn handle_stranger(
        &mut self,
        now: Now,
        from: SocketAddr,
        boot: u64,
        message: SwimMessage,
        datagram_bytes: usize,
    ) {
        let introduced_at = match &message {
            SwimMessage::Ping(ping) => ping.introduction.as_ref().map(|said| said.identity.gossip()),
            _ => None,
        };
        self.credit.add(now.mono_us, from, datagram_bytes);
        self.handle_message(now, from, boot, message, Vec::new());
        if let Some(to) = introduced_at {
            self.credit.pass_on(from, to);
        }
    }

    /// Does what is due. To be called at the time that `poll_timeout` returns.
    pub fn handle_timeout(&mut self, now: Now) {
        self.clocks.set_now(now);
        self.forgive_own_pause(now);
        self.probe_due(now);
        self.suspicions_due(now);
        self.claims_due(now);
        self.newcomers_due(now);
        self.contacts_due(now);
        self.lists_due(now);
        self.leave_due(now);
        self.gossip_due(now);
        if now.mono_us >= self.next_forget_us {
            self.next_forget_us = now.mono_us + FORGET_INTERVAL_US;
            self.forget(now);
        }
    }

    /// Latest time at which `handle_timeout` must be called, on the monotonic clock in microseconds.
    pub fn poll_timeout(&self) -> u64 {
        let gossip = if self.has_news() { self.next_gossip_us } else { u64::MAX };
        [
            gossip,
            self.next_forget_us,
            self.probes.due_us(),
            self.suspicions.due_us(),
            self.claims.due_us(),
            self.newcomers.due_us(),
            self.contacts_due_us(),
            self.lists.due_us(),
            self.leave.due_us(),
        ]
        .into_iter()
        .min()
        .unwrap_or(u64::MAX)
    }

    /// Calls `visit` with the size and bound of every bounded queue and table.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        self.table.visit_gauges(visit);
        self.probes.visit_gauges(visit);
        self.newcomers.visit_gauges(visit);
        self.lists.visit_gauges(visit);
    }

    /// Takes the next thing that is to be done; `None` if there is nothing left.
    pub fn poll_output(&mut self) -> Option<SwimOutput> {
        self.outputs.pop_front()
    }

    /// Returns whether members changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Identity of this node.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.table.me().identity
    }

    /// The live members, this node included.
    pub fn ring(&self) -> &Arc<Ring> {
        self.table.ring()
    }

    /// Returns whether this address belongs to a member that has answered there, or is that of a join target which
    /// has. Nothing that is larger than its question may be sent to any other address.
    pub fn has_answered_at(&self, address: SocketAddr) -> bool {
        self.table.has_live_at(address) || self.contacts.has_answered(address)
    }

    /// All members, this node included, by name.
    pub fn members(&self) -> Vec<MemberInfo> {
        let members = self.table.slots().filter_map(|slot| self.table.get(slot));
        let mut members: Vec<MemberInfo> = members.map(|member| member.info(self.table.ring())).collect();
        self.newcomers.mark(&self.table, &mut members);
        members.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
        members
    }

    /// Returns the member of this name.
    pub fn member(&self, name: &str) -> Option<MemberInfo> {
        self.table.get(self.table.find(name)?).map(|member| member.info(self.table.ring()))
    }

    /// Returns whether the life `boot` of a live member has its gossip address at this IP address. Streams come
    /// from other ports than that of the gossip address.
    pub fn is_member_from(&self, address: IpAddr, boot: u64) -> bool {
        let mut entries = self.table.ring().entries().iter();
        entries.any(|entry| entry.boot() == boot && entry.gossip().ip() == address)
    }

    /// Returns whether there is nobody to join: no join targets were given, or none but this node itself.
    pub fn is_alone_by_choice(&self) -> bool {
        self.contacts.is_alone_by_choice()
    }

    /// The verdict on this node's wall clock, by comparison with the peers' clocks. Where there is nobody to
    /// join, the clock counts as compared.
    pub fn clock(&self) -> ClockVerdict {
        let peers = self.table.ring().len().saturating_sub(1);
        ClockVerdict {
            offset_us: self.clocks.offset_us(),
            is_skewed: self.clocks.is_skewed(),
            is_compared: self.is_alone_by_choice() || self.clocks.is_compared(peers),
        }
    }

    /// Wall clock, in microseconds, when the member that has been dead for longest was given up; `None` if no
    /// remembered member is dead.
    pub fn unreachable_since_us(&self) -> Option<u64> {
        let gone = self.table.gone().iter().filter_map(|&slot| self.table.get(slot));
        let dead = gone.filter(|member| member.state == State::Dead).map(MemberEntry::changed_us);
        dead.min().map(|mono_us| self.clocks.wall_us(mono_us))
    }

    /// Postpones all timeouts if this node stood still (a paused machine, a debugger): it must not take its
    /// own silence for that of others.
    fn forgive_own_pause(&mut self, now: Now) {
        // Only probes show that: they are always scheduled for later, while news may be due at once.
        let late_us = now.mono_us.saturating_sub(self.probes.due_us());
        if late_us > self.timing.probe_timeout_us {
            self.health.worsen(1);
            self.probes.postpone(late_us);
            self.suspicions.postpone(late_us);
            self.claims.postpone(late_us);
        }
    }

    /// Returns a number for a ping, which nobody can guess: an answer that repeats it comes from a node that got
    /// the ping.
    fn next_sequence(&mut self) -> u32 {
        self.random.next_u64() as u32
    }

    fn my_name(&self) -> &NodeName {
        &self.table.me().identity.name
    }

    fn ping(&self, sequence: u32, target: u64, introduction: Option<Introduction>) -> SwimMessage {
        let (sender, view) = (self.my_name().clone(), self.table.view());
        SwimMessage::Ping(Ping { sequence, target, sender, view, introduction, padding: 0 })
    }

    fn ack(&self, now: Now, sequence: u32, introduction: Option<Introduction>) -> Ack {
        Ack {
            sequence,
            sender: self.my_name().clone(),
            wall_us: now.wall_us,
            view: self.table.view(),
            is_unknown: false,
            is_unreached: false,
            is_leaving: self.leave.is_leaving(),
            is_joining: !self.newcomers.is_ready(),
            introduction,
        }
    }

    /// Sends a message with as much news as fits. A receiver that is suspected is told so first
    /// (Lifeguard's buddy system).
    fn send(&mut self, to: SocketAddr, receiver: Option<Slot>, message: SwimMessage) {
        let room = self.body_bytes_max - RIDERS_BYTES;
        let message = self.padded(receiver, message);
        let mut bytes = wire::message_bytes(&message);
        let mut updates = Vec::new();
        if let Some(update) = receiver.and_then(|slot| self.accusation(slot)) {
            bytes += wire::update_bytes(&update);
            updates.push(update);
        }
        debug_assert!(bytes <= self.body_bytes_max, "{bytes} bytes of a message and an accusation");
        let mut told = Vec::new();
        for slot in self.news.iter() {
            if receiver == Some(slot) {
                continue;
            }
            let Some(update) = self.news_of(slot) else { continue };
            bytes += wire::update_bytes(&update);
            if bytes > room {
                break;
            }
            updates.push(update);
            told.push(slot);
        }
        let size_log = (self.table.ring().len() as f64 + 1.0).log10().ceil() as u32;
        let times_max = RETRANSMIT_FACTOR * size_log.max(RETRANSMIT_LOG_MIN);
        // What is told to a suspect may reach nobody.
        let may_be_lost = receiver.is_some_and(|slot| self.table.is_suspect(slot));
        for slot in told.into_iter().filter(|_| !may_be_lost) {
            self.news.told(slot, times_max);
        }
        self.outputs.push_back(SwimOutput::Datagram { to, message, updates });
    }

    /// Fills a ping up, so that a receiver at which this node is no member may answer.
    fn padded(&self, receiver: Option<Slot>, message: SwimMessage) -> SwimMessage {
        let SwimMessage::Ping(ping) = message else { return message };
        let receiver = receiver.and_then(|slot| self.table.get(slot));
        let receiver_bytes =
            receiver.map_or(NODE_NAME_BYTES_MAX, |member| member.identity.name.as_str().len());
        // The receiver may answer, and ping this node as well.
        let excess_bytes = 2 * self.answer_excess_bytes;
        let least = credit::ping_bytes_min(&ping, receiver_bytes, self.overhead_bytes()) + excess_bytes;
        let plain = SwimMessage::Ping(Ping { padding: 0, ..ping.clone() });
        let missing = least.saturating_sub(wire::message_bytes(&plain));
        // The field that is added has two bytes before its content, which must not be empty.
        let padding = if missing > 0 { missing.saturating_sub(2).max(1) } else { 0 };
        SwimMessage::Ping(Ping { padding, ..ping })
    }

    /// Bytes of a datagram besides its message.
    fn overhead_bytes(&self) -> usize {
        DATAGRAM_BYTES_MAX - self.body_bytes_max
    }

    /// Sends a message to an address at which no member may have answered. A member gets as much news with it as
    /// fits. Any other address gets what it has credit for: the message without news, without its introduction if
    /// that is too much, or nothing.
    fn answer(&mut self, to: SocketAddr, receiver: Option<Slot>, message: SwimMessage) {
        if self.has_answered_at(to) {
            return self.send(to, receiver, message);
        }
        let message = self.padded(receiver, message);
        for message in [message.clone(), message.without_introduction()] {
            if self.credit.take(to, wire::message_bytes(&message) + self.overhead_bytes()) {
                return self.outputs.push_back(SwimOutput::Datagram { to, message, updates: Vec::new() });
            }
        }
    }

    /// Forgets members that have been dead for three days or left an hour ago, and those that went longest
    /// ago if there are too many.
    fn forget(&mut self, now: Now) {
        let forgettable = self.table.forgettable(|member| {
            let kept_us = if member.state == State::Left { timing::LEFT_US } else { timing::DEAD_US };
            now.mono_us.saturating_sub(member.changed_us()) > kept_us
        });
        for slot in forgettable {
            self.forget_member(slot);
        }
    }
}

/// Returns at most the first `bytes_max` bytes of `text`, cut between characters.
fn shortened(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
