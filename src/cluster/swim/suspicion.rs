//! From suspected to dead: a suspicion waits for its refutation, the shorter the more confirm it.

use std::collections::{BTreeMap, BTreeSet};

use super::Swim;
use super::message::Message;
use super::table::{ME, Slot};
use super::timing::{CONFIRMATIONS, WITNESSES};
use crate::cluster::members::State;
use crate::record::{NodeName, Now};

#[derive(Debug)]
struct Suspicion {
    started_us: u64,
    due_us: u64,
    /// Different members that say so: the first, and those that confirmed it.
    accusers: Vec<NodeName>,
}

/// All suspicions of a node.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    by_slot: BTreeMap<Slot, Suspicion>,
    by_due: BTreeSet<(u64, Slot)>,
}

impl Suspicions {
    pub fn due_us(&self) -> u64 {
        self.by_due.first().map_or(u64::MAX, |&(due_us, _)| due_us)
    }

    pub fn remove(&mut self, slot: Slot) {
        if let Some(suspicion) = self.by_slot.remove(&slot) {
            self.by_due.remove(&(suspicion.due_us, slot));
        }
    }

    /// One of the accusers, in turn.
    pub fn accuser(&self, slot: Slot, turn: usize) -> Option<&NodeName> {
        let accusers = &self.by_slot.get(&slot)?.accusers;
        // The latest first: the others have been told of longer.
        accusers.iter().rev().nth(turn % accusers.len().max(1))
    }

    /// Everything waits this much longer.
    pub fn postpone(&mut self, by_us: u64) {
        for suspicion in self.by_slot.values_mut() {
            suspicion.started_us += by_us;
            suspicion.due_us += by_us;
        }
        self.by_due = self.by_slot.iter().map(|(&slot, suspicion)| (suspicion.due_us, slot)).collect();
    }

    fn set_due(&mut self, slot: Slot, due_us: u64) {
        if let Some(suspicion) = self.by_slot.get_mut(&slot) {
            self.by_due.remove(&(suspicion.due_us, slot));
            self.by_due.insert((due_us, slot));
            suspicion.due_us = due_us;
        }
    }
}

impl Swim {
    /// A live member is doubted by `accuser`, who may be this node.
    pub(super) fn suspect(&mut self, now: Now, slot: Slot, incarnation: u32, accuser: NodeName) {
        let Some(member) = self.table.get(slot) else { return };
        let to = member.identity.gossip;
        let is_mine = accuser == *self.my_name();
        let is_known = member.state == State::Suspect && member.incarnation == incarnation;
        if is_known {
            let Some(suspicion) = self.suspicions.by_slot.get_mut(&slot) else { return };
            // Enough is enough; and nobody counts twice.
            if suspicion.accusers.len() > CONFIRMATIONS || suspicion.accusers.contains(&accuser) {
                return;
            }
            suspicion.accusers.push(accuser);
            self.news.push(slot);
        } else {
            self.set_state(now, slot, incarnation, State::Suspect);
            self.suspicions.remove(slot);
            let suspicion = Suspicion { started_us: now.mono_us, due_us: 0, accusers: vec![accuser] };
            self.suspicions.by_slot.insert(slot, suspicion);
        }
        self.reckon(slot);
        if is_mine {
            // The suspect should hear it from its accuser, who then hears the refutation.
            self.send(to, Some(slot), Message::Gossip);
        } else if !is_known && self.is_witness(slot) {
            self.probe(now, slot);
        }
    }

    fn reckon(&mut self, slot: Slot) {
        let Some(suspicion) = self.suspicions.by_slot.get(&slot) else { return };
        let confirmations = suspicion.accusers.len().saturating_sub(1);
        let lasts_us = self.timing.suspicion_us(self.table.ring().len(), confirmations);
        let due_us = suspicion.started_us + lasts_us;
        self.suspicions.set_due(slot, due_us);
    }

    pub(super) fn suspicions_due(&mut self, now: Now) {
        while let Some(&(due_us, slot)) = self.suspicions.by_due.first() {
            if now.mono_us < due_us {
                return;
            }
            let incarnation = self.table.get(slot).map_or(0, |member| member.incarnation);
            self.suspicions.remove(slot);
            self.set_state(now, slot, incarnation, State::Dead);
        }
    }

    /// Whether this node is one of the suspect's next followers on the ring.
    fn is_witness(&self, slot: Slot) -> bool {
        let (Some(suspect), Some(me)) = (self.table.get(slot), self.table.get(ME)) else { return false };
        let entries = self.table.ring().entries();
        let start = self.table.ring().lower_bound(suspect.identity.ring_hash()) + 1;
        let mut followers =
            (start..start + WITNESSES).filter_map(|at| entries.get(at % entries.len().max(1)));
        followers.any(|entry| entry.identity.name == me.identity.name)
    }
}
