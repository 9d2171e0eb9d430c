//! The rules by which news about a member changes the table.
//!
//! Within one life, a greater incarnation beats a smaller one; at the same incarnation, dead beats suspect,
//! and suspect beats alive. Only the member itself raises its incarnation, so a member that was declared dead
//! comes back by its own word alone. `Left` is final for its life. A greater boot number beats all of that.

use std::net::SocketAddr;

use super::message::{Claim, Introduction, SwimMessage, Update};
use super::slot::{ME, Slot};
use super::{Swim, SwimOutput};
use crate::cluster::members::State;
use crate::record::{NodeName, Now};

/// The way by which news came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the member that it is about.
    FirstHand,
    /// On a datagram from this address.
    Gossip(SocketAddr),
    /// In a whole list, which may be old.
    List,
    /// In the first list that a joining node gets. Such news is not passed on: the others know it already,
    /// and a newcomer that told ten thousand members of each other would keep them busy for many minutes.
    FirstList,
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
        if member.identity.boot != boot {
            return;
        }
        let (state, is_news) = (member.state, incarnation >= member.incarnation);
        match claim {
            Claim::Suspect(accusers) if state.is_live() && is_news => {
                self.suspect(now, slot, incarnation, &accusers);
            }
            Claim::Dead if state.is_live() && is_news => match way {
                Way::List | Way::FirstList => {
                    self.alerts.insert(slot, incarnation);
                }
                _ => self.set_state(now, slot, incarnation, State::Dead),
            },
            Claim::Left if state != State::Left => {
                self.set_state(now, slot, incarnation.max(member.incarnation), State::Left);
            }
            _ => {}
        }
    }

    /// Takes in the news that a member is alive.
    fn hear_alive(&mut self, now: Now, said: Introduction, way: Way) {
        let Some(slot) = self.table.find(said.identity.name.as_str()) else {
            if let Some(slot) = self.table.insert(said, now.mono_us, &mut self.random) {
                self.changed(now, slot);
                if way == Way::FirstList {
                    self.news.remove(slot);
                }
            }
            return;
        };
        let Some(known) = self.table.get(slot) else { return };
        let is_same_address = known.identity.gossip() == said.identity.gossip();
        let is_first_hand = way == Way::FirstHand;
        let is_refutation = said.incarnation > known.incarnation;
        match said.identity.boot.cmp(&known.identity.boot) {
            // The name may be in use elsewhere. A node that contacts us is checked; what others tell, they
            // have checked already.
            std::cmp::Ordering::Greater if is_same_address || !known.state.is_live() || !is_first_hand => {
                self.replace(now, slot, said);
            }
            // memberlist#311, al8n/memberlist#197: after a member was given up, only a greater incarnation
            // counts; and a life that left does not come back.
            std::cmp::Ordering::Equal
                if is_same_address && (!is_refutation || known.state == State::Left) => {}
            std::cmp::Ordering::Equal if is_same_address => self.replace(now, slot, said),
            std::cmp::Ordering::Equal if !known.state.is_live() && is_first_hand => {
                self.replace(now, slot, said);
            }
            _ if is_first_hand => self.contend(now, slot, said),
            _ => {}
        }
    }

    /// Notes that a member is alive, in this life and at this incarnation.
    pub(super) fn replace(&mut self, now: Now, slot: Slot, said: Introduction) {
        self.suspicions.remove(slot);
        self.table.set(slot, said, State::Alive, now.mono_us, &mut self.random);
        self.changed(now, slot);
    }

    /// Changes the state of a member within its life.
    pub(super) fn set_state(&mut self, now: Now, slot: Slot, incarnation: u32, state: State) {
        let Some(member) = self.table.get(slot) else { return };
        let said = Introduction { identity: member.identity.clone(), incarnation };
        if state != State::Suspect {
            self.suspicions.remove(slot);
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
                self.contend_for_my_name(now, said);
            }
            return;
        }
        if update.boot != me.identity.boot || self.leave.is_leaving() {
            return;
        }
        if update.incarnation < me.incarnation {
            // This was refuted before. The sender missed the refutation, and would declare this node dead
            // after a few lost pings.
            if let Way::Gossip(from) = way {
                let (message, updates) = (SwimMessage::Gossip, vec![Update::alive(&me)]);
                self.outputs.push_back(SwimOutput::Datagram { to: from, message, updates });
            }
            return;
        }
        self.health.worsen(1);
        let incarnation = update.incarnation.saturating_add(1);
        let said = Introduction { identity: me.identity, incarnation };
        self.table.set(ME, said, State::Alive, now.mono_us, &mut self.random);
        self.changed(now, ME);
        // The sender is told of the refutation at once, without waiting for the next round.
        if let Way::Gossip(from) = way {
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
            State::Alive => None,
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
}
