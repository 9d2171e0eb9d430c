//! The rules by which news about a member changes the table.
//!
//! Within one life, a greater incarnation beats a smaller one, and at the same incarnation suspect beats alive.
//! Only the member itself raises its incarnation. A greater boot number beats all of that.
//!
//! Anybody can send a datagram, so news from others is a reason to look and no fact. That a member died or left
//! makes it suspected, and it is pinged at once: if it is silent, it is given up. That a member came back, that
//! it has another life or address, or that its incarnation jumped, is believed from its own answer to a ping
//! ([`Way::Proven`]). New members are learned from members that take part, and from their own introductions, and
//! take part themselves once they have answered (`newcomers`). So no number that a stranger can choose ends a
//! member for good: as long as it answers, its own answer puts right what others believe of it, and where no
//! greater incarnation is left for it, it takes a new boot number (`lives`).

use std::net::SocketAddr;

use super::message::{Claim, Introduction, SwimMessage, Update};
use super::newcomers::INCARNATION_JUMP_MAX;
use super::slot::{ME, Slot};
use super::timing::GOSSIP_FANOUT;
use super::{Swim, SwimOutput};
use crate::cluster::members::State;
use crate::record::{NodeName, Now};

/// The way by which news came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In the answer of the member that it is about to a ping of this node at the address that the member
    /// advertises.
    Proven,
    /// From a node that introduces itself, in this ping if it did so in one. It may be anybody.
    Introduced(Option<Question>),
    /// On a datagram from this address. Anybody can have written it.
    Gossip(SocketAddr),
    /// On the answer from this address to a ping of this node. The answer repeats the number of the ping, so the
    /// member at that address does believe it.
    Answer(SocketAddr),
    /// In a whole list of a member that takes part. It may be old.
    List,
    /// In the first list that a joining node gets. Such news is not passed on: the others know it already,
    /// and a newcomer that told ten thousand members of each other would keep them busy for many minutes.
    FirstList,
}

/// A ping in which a node introduced itself: where it came from, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Address that the ping came from.
    pub from: SocketAddr,
    /// Number of the ping.
    pub sequence: u32,
}

impl Way {
    /// The address of the datagram with the news, if it came on one.
    fn sender(self) -> Option<SocketAddr> {
        match self {
            Way::Gossip(from) | Way::Answer(from) => Some(from),
            Way::Proven | Way::Introduced(_) | Way::List | Way::FirstList => None,
        }
    }
}

impl Swim {
    /// Takes in one piece of news.
    pub(super) fn hear(&mut self, now: Now, update: Update, way: Way) {
        if update.name == *self.my_name() {
            return self.hear_of_myself(now, update, way);
        }
        let Update { name, boot, incarnation, claim } = update;
        if let Claim::Alive(identity) = claim {
            return self.hear_alive(now, Introduction { identity, incarnation }, way);
        }
        // News that an unknown life is not alive adds no member, so ghosts die out (piko#314, chitchat#155).
        let Some(slot) = self.table.find(name.as_str()) else { return };
        let Some(member) = self.table.get(slot) else { return };
        let (state, is_news) = (member.state, incarnation >= member.incarnation);
        if member.identity.boot != boot
            || incarnation > member.incarnation.saturating_add(INCARNATION_JUMP_MAX)
        {
            return;
        }
        let is_listed = matches!(way, Way::List | Way::FirstList);
        match claim {
            Claim::Dead | Claim::Left if state == State::Joining => self.doubt_newcomer(now, slot),
            Claim::Suspect(accusers) if state.is_live() && is_news => {
                self.suspect(now, slot, incarnation, &accusers);
            }
            Claim::Dead if state.is_live() && is_news && is_listed => {
                self.alerts.insert(slot, incarnation);
            }
            Claim::Dead if state.is_live() && is_news => {
                self.check_gone(now, slot, incarnation, State::Dead);
            }
            Claim::Left if state.is_live() => {
                self.check_gone(now, slot, incarnation.max(member.incarnation), State::Left);
            }
            // A node that is away must not be forgotten like one that left because a stranger says so.
            Claim::Left if state == State::Dead && is_listed => {
                self.set_state(now, slot, incarnation.max(member.incarnation), State::Left);
            }
            _ => {}
        }
    }

    /// Takes in the news that a member is alive.
    fn hear_alive(&mut self, now: Now, said: Introduction, way: Way) {
        let is_vouched = match way {
            Way::List | Way::FirstList => true,
            Way::Gossip(from) | Way::Answer(from) => self.has_answered_at(from),
            Way::Proven | Way::Introduced(_) => false,
        };
        let is_introduced = matches!(way, Way::Proven | Way::Introduced(_));
        let Some(slot) = self.table.find(said.identity.name.as_str()) else {
            if is_vouched || is_introduced {
                self.admit(now, said, is_vouched, way != Way::FirstList);
            }
            return;
        };
        let Some(known) = self.table.get(slot) else { return };
        let is_same_address = known.identity.gossip() == said.identity.gossip();
        match said.identity.boot.cmp(&known.identity.boot) {
            std::cmp::Ordering::Equal if is_same_address => {
                self.hear_same_life(now, slot, said, way, is_vouched)
            }
            std::cmp::Ordering::Greater if is_same_address && way == Way::Proven => {
                self.replace(now, slot, said)
            }
            std::cmp::Ordering::Greater if !known.state.is_live() => self.replace(now, slot, said),
            std::cmp::Ordering::Equal if !known.state.is_live() && is_introduced => {
                self.replace(now, slot, said)
            }
            // The name may be in use elsewhere, and anybody may say so: the life that is known is asked.
            std::cmp::Ordering::Greater => self.contend(now, slot, said, way),
            _ if is_introduced => self.contend(now, slot, said, way),
            _ => {}
        }
    }

    /// Takes in the news that a life which is known, at its known address, is alive.
    fn hear_same_life(&mut self, now: Now, slot: Slot, said: Introduction, way: Way, is_vouched: bool) {
        let Some(known) = self.table.get(slot) else { return };
        let (state, incarnation, is_proven) = (known.state, known.incarnation, way == Way::Proven);
        let is_refutation = said.incarnation > incarnation;
        let is_far = said.incarnation > incarnation.saturating_add(INCARNATION_JUMP_MAX);
        if is_far && !is_proven {
            return;
        }
        match state {
            State::Joining => {
                if is_vouched {
                    self.vouch(now, slot);
                }
                // A stranger may have told the incarnation that is known so far.
                let said = if is_proven { said } else { said.at_least(incarnation) };
                self.table.set(slot, said, state, now.mono_us, &mut self.random);
                self.try_out(now, slot, way != Way::FirstList);
            }
            // memberlist#311, al8n/memberlist#197: after a member was given up, only its own answer counts. It is
            // asked if somebody says so in its name, or tells of a greater incarnation.
            State::Dead | State::Left if is_proven => self.replace(now, slot, said),
            State::Dead | State::Left if is_refutation || matches!(way, Way::Introduced(_)) => {
                self.try_out(now, slot, true);
            }
            // What others told of it is put right by its own answer.
            State::Suspect if is_proven && said.incarnation < incarnation => {
                self.suspicions.remove(slot);
                self.table.set(slot, said, State::Alive, now.mono_us, &mut self.random);
                self.changed(now, slot);
            }
            State::Alive | State::Suspect if is_refutation => {
                // A member that did not answer this node must answer now, or it takes no part here any more.
                let must_answer = self.suspicions.accusers(slot).contains(self.my_name()) && !is_proven;
                self.suspicions.remove(slot);
                self.table.set(slot, said, State::Alive, now.mono_us, &mut self.random);
                self.changed(now, slot);
                if must_answer {
                    self.try_out(now, slot, true);
                }
            }
            _ => {}
        }
    }

    /// Replaces what was known of a member by this life and address. It takes part once it has answered there.
    pub(super) fn replace(&mut self, now: Now, slot: Slot, said: Introduction) {
        self.suspicions.remove(slot);
        self.news.remove(slot);
        self.table.set(slot, said, State::Joining, now.mono_us, &mut self.random);
        self.changed_us = now.mono_us;
        self.is_changed = true;
        self.try_out(now, slot, true);
    }
    /// Changes the state of a member within its life.
    pub(super) fn set_state(&mut self, now: Now, slot: Slot, incarnation: u32, state: State) {
        let Some(member) = self.table.get(slot) else { return };
        let said = Introduction { identity: member.identity.clone(), incarnation };
        if state != State::Suspect {
            self.suspicions.remove(slot);
        }
        if state.is_gone() {
            self.newcomers.forget(slot);
        }
        self.table.set(slot, said, state, now.mono_us, &mut self.random);
        self.changed(now, slot);
    }

    /// Notes that something about a member changed, and queues the news to be told.
    pub(super) fn changed(&mut self, now: Now, slot: Slot) {
        self.news.push(slot);
        self.changed_us = now.mono_us;
        self.is_changed = true;
    }

    /// Takes in news about this node: refutes it if it says that this node is not alive.
    fn hear_of_myself(&mut self, now: Now, update: Update, way: Way) {
        let me = self.table.me().clone();
        if let Claim::Alive(identity) = &update.claim {
            if identity.gossip() != me.identity.gossip() {
                let said = Introduction { identity: identity.clone(), incarnation: update.incarnation };
                match way {
                    Way::List | Way::FirstList => self.contend_for_my_name(now, said),
                    Way::Introduced(Some(asked)) => self.tell_my_name(&said, asked),
                    // Anybody could say the same in a datagram.
                    _ => {}
                }
            } else if update.boot == me.identity.boot && self.is_beyond_reason(update.incarnation) {
                self.hear_what_cannot_be_refuted(now, update.incarnation, way);
            }
            return;
        }
        if !self.is_of_this_run(&update) || self.leave.is_leaving() {
            return;
        }
        if update.boot < me.identity.boot || update.incarnation < me.incarnation {
            // This was refuted before. The sender missed the refutation, and would declare this node dead
            // after a few lost pings.
            if let Some(from) = way.sender() {
                let (message, updates) = (SwimMessage::Gossip, vec![Update::alive(&me)]);
                self.outputs.push_back(SwimOutput::Datagram { to: from, message, updates });
            }
            return;
        }
        let refutation = update.incarnation.checked_add(1);
        let Some(incarnation) = refutation.filter(|_| !self.is_beyond_reason(update.incarnation)) else {
            return self.hear_what_cannot_be_refuted(now, update.incarnation, way);
        };
        self.health.worsen(1);
        let said = Introduction { identity: me.identity, incarnation };
        self.table.set(ME, said, State::Alive, now.mono_us, &mut self.random);
        self.changed(now, ME);
        self.tell_refutation(now, way);
    }

    /// Tells the sender of news about this node at once what is true, without waiting for the next round, and the
    /// others soon.
    pub(super) fn tell_refutation(&mut self, now: Now, way: Way) {
        if let Some(from) = way.sender() {
            self.send(from, None, SwimMessage::Gossip);
        }
        self.next_gossip_us = self.next_gossip_us.min(now.mono_us);
    }

    /// Returns the news about a member as it is told now.
    pub(super) fn news_of(&self, slot: Slot) -> Option<Update> {
        let member = self.table.get(slot)?;
        let said = Introduction { identity: member.identity.clone(), incarnation: member.incarnation };
        if slot == ME && self.leave.is_leaving() {
            return Some(Update { claim: Claim::Left, ..Update::alive(&said) });
        }
        let claim = match member.state {
            // Others hear of it once it has answered here.
            State::Joining => return self.newcomers.is_reached(slot).then(|| Update::alive(&said)),
            State::Alive => return Some(Update::alive(&said)),
            State::Suspect => Claim::Suspect(self.suspicions.accusers(slot).to_vec()),
            State::Dead => Claim::Dead,
            State::Left => Claim::Left,
        };
        Some(Update { claim, ..Update::alive(&said) })
    }

    /// Returns what a member that is not believed to be alive must be told; `None` if it is believed to be
    /// alive.
    pub(super) fn accusation(&self, slot: Slot) -> Option<Update> {
        match self.table.get(slot)?.state {
            State::Joining | State::Alive => None,
            _ if slot == ME => None,
            _ => self.news_of(slot),
        }
    }

    /// Tells a member that others call it dead although this node does not.
    pub(super) fn send_alert(&mut self, slot: Slot, incarnation: u32) {
        let Some(member) = self.table.get(slot) else { return };
        if !member.state.is_live() || member.incarnation > incarnation {
            return;
        }
        let name: NodeName = member.identity.name.clone();
        let (boot, to) = (member.identity.boot, member.identity.gossip());
        let claim = Claim::Dead;
        let updates = vec![Update { name, boot, incarnation, claim }];
        self.outputs.push_back(SwimOutput::Datagram { to, message: SwimMessage::Gossip, updates });
    }

    /// Returns whether there is anything to tell other members.
    pub(super) fn has_news(&self) -> bool {
        !self.alerts.is_empty() || (!self.news.is_empty() && self.table.ring().len() > 1)
    }

    /// Tells a few members the news, and tells members that others call dead. After a quiet time this is done
    /// at once, else once in each interval, so that churn cannot use up the link (memberlist#299).
    pub(super) fn gossip_due(&mut self, now: Now) {
        const ALERTS_MAX: usize = 32;
        if now.mono_us < self.next_gossip_us || !self.has_news() {
            return;
        }
        self.next_gossip_us = now.mono_us + self.timing.gossip_interval_us;
        for _ in 0..ALERTS_MAX {
            let Some((slot, incarnation)) = self.alerts.pop_first() else { break };
            self.send_alert(slot, incarnation);
        }
        if !self.news.is_empty() {
            for slot in self.table.random_live(GOSSIP_FANOUT, ME, &mut self.random) {
                let Some(to) = self.table.get(slot).map(|member| member.identity.gossip()) else { continue };
                self.send(to, Some(slot), SwimMessage::Gossip);
            }
        }
    }
}
