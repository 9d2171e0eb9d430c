//! From suspected to dead: a suspicion waits for its refutation, the shorter the more members confirm it.
//!
//! News of a suspicion carries all accusers that the teller knows, so sets of accusers merge on the
//! way and no confirmation waits for another. That others gave the suspect up shortens the wait to its end. Shortly before the end the suspect gets the last word: it
//! is pinged a few times more, since one ping in five gets no answer where one datagram in ten is lost.
//! If it answers, it is not declared dead here, whatever others do, and the ping tells it what to refute.

use std::collections::{BTreeMap, BTreeSet};

use super::Swim;
use super::message::SwimMessage;
use super::slot::{ME, Slot};
use super::timing::{ACCUSERS_MAX, WITNESSES};
use crate::cluster::members::State;
use crate::record::{NodeName, Now};

/// Time for the refutation of a suspect that answered the last pings, in microseconds.
const REFUTATION_US: u64 = 500_000;

/// Number of pings before a suspect is declared dead. They are half a probe's timeout apart, and the last one
/// is given a whole timeout.
const LAST_PINGS: u64 = 3;

/// The suspicion of one member.
#[derive(Debug)]
struct Suspicion {
    started_us: u64,
    /// Time at which the next of the last pings is sent; after all of them, the time at which the suspicion
    /// ends in death.
    due_us: u64,
    /// Sequence number of the last pings, and how many of them are still to be sent; `None` before the first.
    last_word: Option<(u32, u64)>,
    /// The members that suspect this one: the first accuser, and those that confirmed the suspicion.
    accusers: Vec<NodeName>,
    /// State in which the suspicion ends if the suspect is silent: `Dead` or `Left`.
    end: State,
}

/// All suspicions of a node.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    by_slot: BTreeMap<Slot, Suspicion>,
    by_due: BTreeSet<(u64, Slot)>,
    by_last_word: BTreeMap<u32, Slot>,
}

impl Suspicions {
    /// When the first suspicion needs attention, on the monotonic clock in microseconds; `u64::MAX` if there
    /// is none.
    pub fn due_us(&self) -> u64 {
        self.by_due.first().map_or(u64::MAX, |&(due_us, _)| due_us)
    }

    /// Ends the suspicion of a member, if there is one.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(suspicion) = self.by_slot.remove(&slot) {
            self.by_due.remove(&(suspicion.due_us, slot));
            suspicion.last_word.map(|(sequence, _)| self.by_last_word.remove(&sequence));
        }
    }

    /// The members that suspect this one; empty if it is not suspected.
    pub fn accusers(&self, slot: Slot) -> &[NodeName] {
        self.by_slot.get(&slot).map_or(&[], |suspicion| &suspicion.accusers)
    }

    /// Postpones the end of all suspicions.
    pub fn postpone(&mut self, by_us: u64) {
        for suspicion in self.by_slot.values_mut() {
            suspicion.started_us += by_us;
            suspicion.due_us += by_us;
        }
        self.by_due = self.by_slot.iter().map(|(&slot, suspicion)| (suspicion.due_us, slot)).collect();
    }

    /// The suspect to which the ping of this number was sent.
    pub fn find(&self, sequence: u32) -> Option<Slot> {
        self.by_last_word.get(&sequence).copied()
    }

    /// Notes that a suspect answered one of the last pings: it gets time to refute the suspicion.
    pub fn answered(&mut self, now: Now, sequence: u32) {
        let Some(slot) = self.by_last_word.remove(&sequence) else { return };
        if let Some(suspicion) = self.by_slot.get_mut(&slot) {
            (suspicion.last_word, suspicion.started_us, suspicion.end) = (None, now.mono_us, State::Dead);
        }
        self.set_due(slot, now.mono_us + REFUTATION_US);
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
    /// Notes that a live member is suspected by `accusers`, of which this node may be one.
    pub(super) fn suspect(&mut self, now: Now, slot: Slot, incarnation: u32, accusers: &[NodeName]) {
        let Some(member) = self.table.get(slot) else { return };
        let to = member.identity.gossip();
        let is_known = member.state == State::Suspect && member.incarnation == incarnation;
        if !is_known {
            self.set_state(now, slot, incarnation, State::Suspect);
            self.suspicions.remove(slot);
            let (started_us, due_us) = (now.mono_us, u64::MAX);
            let (accusers, end) = (Vec::new(), State::Dead);
            let suspicion = Suspicion { started_us, due_us, last_word: None, accusers, end };
            self.suspicions.by_slot.insert(slot, suspicion);
        }
        let Some(suspicion) = self.suspicions.by_slot.get_mut(&slot) else { return };
        let before = suspicion.accusers.len();
        for accuser in accusers {
            // More accusers would change nothing, and no accuser counts twice.
            if suspicion.accusers.len() < ACCUSERS_MAX && !suspicion.accusers.contains(accuser) {
                suspicion.accusers.push(accuser.clone());
            }
        }
        if suspicion.accusers.len() > before || !is_known {
            self.news.push(slot);
            self.reckon(slot);
        }
        if accusers.contains(self.my_name()) {
            // The suspect is told by its accuser, which then gets the refutation.
            self.send(to, Some(slot), SwimMessage::Gossip);
        } else if !is_known && self.is_witness(slot) {
            self.probe(now, slot);
        }
    }

    /// Takes in that others gave up a live member, or that it left: it is suspected and pinged at once. `end` is
    /// its state from then on if it is silent. If this node itself has found it silent, that is enough.
    pub(super) fn check_gone(&mut self, now: Now, slot: Slot, incarnation: u32, end: State) {
        if self.suspicions.accusers(slot).contains(self.my_name()) {
            return self.set_state(now, slot, incarnation, end);
        }
        self.suspect(now, slot, incarnation, &[]);
        let Some(suspicion) = self.suspicions.by_slot.get_mut(&slot) else { return };
        if end == State::Left {
            suspicion.end = end;
        }
        if suspicion.last_word.is_none() {
            self.suspicions.set_due(slot, now.mono_us);
            self.suspicions_due(now);
        }
    }

    /// Schedules the last pings by the number of accusers known now.
    fn reckon(&mut self, slot: Slot) {
        let Some(suspicion) = self.suspicions.by_slot.get(&slot) else { return };
        if suspicion.last_word.is_some() {
            return;
        }
        let confirmations = suspicion.accusers.len().saturating_sub(1);
        let lasts_us = self.timing.suspicion_us(self.table.ring().len(), confirmations);
        let last_word_us = self.timing.probe_timeout_us * (LAST_PINGS + 1) / 2;
        let due_us = suspicion.started_us + lasts_us - last_word_us.min(lasts_us);
        self.suspicions.set_due(slot, due_us);
    }

    /// Handles the suspicions that are due: sends the next of the last pings, or declares the suspect dead.
    pub(super) fn suspicions_due(&mut self, now: Now) {
        while let Some(&(due_us, slot)) = self.suspicions.by_due.first() {
            if now.mono_us < due_us {
                return;
            }
            let last_word = self.suspicions.by_slot.get(&slot).and_then(|suspicion| suspicion.last_word);
            match last_word {
                Some((_, 0)) => {
                    let incarnation = self.table.get(slot).map_or(0, |member| member.incarnation);
                    let end = self.suspicions.by_slot.get(&slot).map_or(State::Dead, |it| it.end);
                    self.suspicions.remove(slot);
                    self.set_state(now, slot, incarnation, end);
                }
                Some((sequence, left)) => self.ask_last_word(now, slot, sequence, left),
                None => {
                    let sequence = self.next_sequence();
                    self.suspicions.by_last_word.insert(sequence, slot);
                    self.ask_last_word(now, slot, sequence, LAST_PINGS);
                }
            }
        }
    }

    /// Sends one of the last pings to a suspect; `left` is the number of pings to go, this one included.
    fn ask_last_word(&mut self, now: Now, slot: Slot, sequence: u32, left: u64) {
        let Some(member) = self.table.get(slot) else { return self.suspicions.remove(slot) };
        let (key, to) = (member.key(), member.identity.gossip());
        let left = left - 1;
        if let Some(suspicion) = self.suspicions.by_slot.get_mut(&slot) {
            suspicion.last_word = Some((sequence, left));
        }
        let wait_us = self.timing.probe_timeout_us;
        self.suspicions.set_due(slot, now.mono_us + if left == 0 { wait_us } else { wait_us / 2 });
        // The introduction asks for that of the suspect, with its own incarnation.
        let ping = self.ping(sequence, key, Some(self.table.me().clone()));
        self.send(to, Some(slot), ping);
    }

    /// Returns whether this node is one of the members that follow the suspect on the ring.
    fn is_witness(&self, slot: Slot) -> bool {
        let (Some(suspect), Some(me)) = (self.table.get(slot), self.table.get(ME)) else { return false };
        let entries = self.table.ring().entries();
        let start = self.table.ring().lower_bound(suspect.identity.ring_hash()) + 1;
        let mut followers =
            (start..start + WITNESSES).filter_map(|at| entries.get(at % entries.len().max(1)));
        followers.any(|entry| entry.identity.name == me.identity.name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixtures::{address, at, config, name};
    use super::super::message::{Introduction, Update};
    use super::super::news::Way;
    use super::*;
    use crate::cluster::Known;
    use crate::cluster::members::{Identity, MemberInfo};

    const MS: u64 = 1_000;

    fn other(member: &str, last: u8) -> Arc<Identity> {
        Arc::new(Identity::new(name(member), 1, address(last), "", "", "0.1.0"))
    }

    /// The membership of `c`, which knows `a` and `b`.
    fn swim() -> Swim {
        let mut swim = Swim::new(&config("c", 1, 3), at(0), 1_100, 0);
        let me = swim.identity().clone();
        swim.handle_known(at(0), &Known::new([me, other("a", 1), other("b", 2)]));
        swim
    }

    fn of_a(swim: &Swim) -> MemberInfo {
        swim.member("a").expect("it is known")
    }

    /// On a slow machine, a member refuted a suspicion and left the next three pings without an answer, which takes a third
    /// of a second. It took no part from then on until it answered, though nobody had given it up: answers at the level
    /// `replicated` that waited for it counted one node too few.
    #[test]
    fn a_member_that_refutes_gets_as_long_to_answer_as_a_suspect() {
        let mut swim = swim();
        let slot = swim.table.find("a").expect("it is known");
        let joined = of_a(&swim).joined;
        assert!(joined.is_some());
        swim.suspect(at(MS), slot, 0, &[name("c")]);
        let said = Introduction { identity: other("a", 1), incarnation: 1 };
        swim.hear(at(100 * MS), Update::alive(&said), Way::Gossip(address(2)));
        for ms in 100..1_000 {
            swim.handle_timeout(at(ms * MS));
            let info = of_a(&swim);
            assert!(info.state.is_live() && info.joined == joined, "{info:?} after {ms} ms");
        }
        for ms in 1_000..10_000 {
            swim.handle_timeout(at(ms * MS));
        }
        let info = of_a(&swim);
        assert!(!info.state.is_live() && info.joined.is_none(), "{info:?}");
    }
}
