//! The member list, kept small: one simulated world holds ten thousand machines with ten thousand members
//! each.
//!
//! A member is 24 bytes in a vector of slots and 24 in the ring, 2 in the order of probing, 4 to 7 in each of the
//! indexes by name and by address, and 56 of [`Identity`] with its counts (64 as allocators hand them out). The
//! vectors grow by a sixteenth instead of doubling. [`MemberTable::set`] is the only place that changes
//! a state, so that the ring, the view and the list of the gone always agree with it.
//!
//! This node itself is a member too, in slot [`ME`].

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::known::Known;
use super::message::{Introduction, life_key};
use super::slot::{ME, Slot};
use crate::cluster::members::{Common, Identity, MemberInfo, State, address_hash, grow_a_little};
use crate::cluster::random::Random;
use crate::cluster::ring::Ring;
use crate::cluster::stats::QueueGauge;

/// Most members, dead ones included: more than the design is for. It bounds the memory that forged news can
/// take, and a [`Slot`] can number one more.
const MEMBERS_MAX: usize = Slot::MAX as usize - 1;

/// Number of dead and left members that are remembered in any case. More are remembered if there are as many
/// live ones.
const GONE_MAX: usize = 1_024;

/// One member as this node sees it.
#[derive(Clone, Debug)]
pub(super) struct MemberEntry {
    /// Identity of the member.
    pub identity: Arc<Identity>,
    /// When the state last changed, on the monotonic clock in whole seconds.
    changed_s: u32,
    /// Number of suspicions that the member has refuted in this life.
    pub incarnation: u32,
    /// Smoothed round trip in microseconds; 0 if it was not measured.
    pub rtt_us: u32,
    /// State that the member is believed to be in.
    pub state: State,
    /// Whether this node has reached the member in this life, or another member has told that it did.
    is_vouched: bool,
}

impl MemberEntry {
    fn new(identity: Arc<Identity>, incarnation: u32, state: State, now_us: u64) -> MemberEntry {
        let changed_s = whole_seconds(now_us);
        MemberEntry { identity, changed_s, incarnation, rtt_us: 0, state, is_vouched: state.is_live() }
    }

    /// When the state last changed, on the monotonic clock in microseconds. It may be up to a second too
    /// early.
    pub fn changed_us(&self) -> u64 {
        u64::from(self.changed_s) * 1_000_000
    }

    /// [`life_key`] of the member's life.
    pub fn key(&self) -> u64 {
        life_key(&self.identity.name, self.identity.boot)
    }

    /// Returns whether this node has reached the member in this life, or another member has told that it did.
    pub fn is_vouched(&self) -> bool {
        self.is_vouched
    }

    /// Returns whether the member counts in [`MemberTable::view`].
    fn is_in_view(&self) -> bool {
        self.state.is_live() || self.state == State::Joining && self.is_vouched
    }

    /// The member as it is shown to readers, with its entry on the ring.
    pub fn info(&self, ring: &Ring) -> MemberInfo {
        let entry = ring.get(self.identity.ring_hash(), self.identity.name.as_str());
        MemberInfo {
            incarnation: self.incarnation,
            joined: entry.map(|entry| entry.joined),
            rtt_us: (self.rtt_us > 0).then_some(self.rtt_us),
            ..MemberInfo::new(self.identity.clone(), self.state)
        }
    }
}

/// All members that this node knows.
#[derive(Debug)]
pub(super) struct MemberTable {
    me: Introduction,
    slots: Vec<Option<MemberEntry>>,
    free: Vec<Slot>,
    /// All members, by [`Identity::ring_hash`].
    index: HashTable<Slot>,
    /// The members on the ring except this node, by [`address_hash`].
    by_address: HashTable<Slot>,
    ring: Arc<Ring>,
    view: u64,
    /// Dead and left members; those that went longest ago come first.
    gone: VecDeque<Slot>,
    /// Other members in the order in which they are probed. Some may have gone since the order was made.
    order: Vec<Slot>,
    next: usize,
    /// Fields that members have in common.
    common: Vec<Arc<Common>>,
}

impl MemberTable {
    /// A table of this node alone.
    pub fn new(me: Arc<Identity>, now_us: u64) -> MemberTable {
        let me = Introduction { identity: me, incarnation: 0 };
        let mut table = MemberTable {
            me: me.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            by_address: HashTable::new(),
            ring: Arc::new(Ring::default()),
            view: 0,
            gone: VecDeque::new(),
            order: Vec::new(),
            next: 0,
            common: Vec::new(),
        };
        table.insert(me, State::Alive, now_us, &mut Random::new(0));
        table
    }

    /// Calls `visit` with the number of members and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("members", self.index.len(), MEMBERS_MAX));
    }

    /// The member in this slot, if there is one.
    pub fn get(&self, slot: Slot) -> Option<&MemberEntry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Identity and incarnation of this node itself.
    pub fn me(&self) -> &Introduction {
        &self.me
    }

    /// Slot of the member of this name.
    pub fn find(&self, name: &str) -> Option<Slot> {
        let is_it = |&slot: &Slot| self.get(slot).is_some_and(|member| member.identity.name.as_str() == name);
        self.index.find(xxh3_64(name.as_bytes()), is_it).copied()
    }

    /// Returns whether a member that takes part, other than this node, has this address.
    pub fn has_live_at(&self, address: SocketAddr) -> bool {
        self.live_at(address).is_some()
    }

    /// The member that takes part, other than this node, at this address.
    pub fn live_at(&self, address: SocketAddr) -> Option<Slot> {
        let is_it = |&slot: &Slot| self.get(slot).is_some_and(|member| member.identity.gossip() == address);
        self.by_address.find(address_hash(address), is_it).copied()
    }

    /// The live members, this node included.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// XOR of the [`life_key`]s of all members that this node or another member has reached, and that are not
    /// gone. It is equal on nodes that know of the same lives, even if not every node reaches every other.
    pub fn view(&self) -> u64 {
        self.view
    }

    /// Slots of the dead and left members; those that went longest ago come first.
    pub fn gone(&self) -> &VecDeque<Slot> {
        &self.gone
    }

    /// The range of all slots, of which some are empty.
    pub fn slots(&self) -> std::ops::Range<Slot> {
        0..self.slots.len() as Slot
    }

    /// Adds a member that is not in the table yet, in this state. `None`: the table is full.
    pub fn insert(
        &mut self,
        introduction: Introduction,
        state: State,
        now_us: u64,
        random: &mut Random,
    ) -> Option<Slot> {
        if self.index.len() >= MEMBERS_MAX {
            return None;
        }
        let Introduction { mut identity, incarnation } = introduction;
        identity.share(&mut self.common);
        let hash = identity.ring_hash();
        // The member is entered as left and then changed, so that the accounting is done in one place.
        let member = MemberEntry::new(identity.clone(), incarnation, State::Left, now_us);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                grow_a_little(&mut self.slots);
                self.slots.push(None);
                self.slots.len() as Slot - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(member);
        }
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |&slot| hash_of(slots, slot));
        self.set(slot, Introduction { identity, incarnation }, state, now_us, random);
        Some(slot)
    }

    /// Adds members that are known from before, all alive. If nobody is known so far, this is done in one go,
    /// and the ring is shared with the other nodes that were given the same members.
    pub fn fill(&mut self, known: &Known, now_us: u64, random: &mut Random) {
        let entries = known.ring.entries();
        let me = self.me.identity.clone();
        let is_one_of_them =
            known.ring.get(me.ring_hash(), me.name.as_str()).is_some_and(|entry| entry.identity == me);
        if self.index.len() > 1 || !is_one_of_them || entries.len() >= MEMBERS_MAX {
            for entry in entries.iter().filter(|entry| *entry.name() != me.name) {
                let (identity, slot) = (entry.identity.clone(), self.find(entry.name().as_str()));
                let incarnation = slot.and_then(|slot| self.get(slot)).map_or(0, |member| member.incarnation);
                let said = Introduction { identity, incarnation };
                match slot {
                    Some(slot) => self.set(slot, said, State::Alive, now_us, random),
                    None => {
                        self.insert(said, State::Alive, now_us, random);
                    }
                }
            }
            return;
        }
        let member = |identity: &Arc<Identity>| MemberEntry::new(identity.clone(), 0, State::Alive, now_us);
        let first = known.ring.lower_bound(me.ring_hash());
        let mine = entries.iter().skip(first).position(|entry| entry.identity == me);
        let Some(mine) = mine.map(|after| first + after) else { return };
        // Every member but this node itself has the slot after its index on the ring.
        let hole = mine + 1;
        let mut slots = Vec::with_capacity(entries.len() + 1);
        slots.push(None);
        slots.extend(entries.iter().map(|entry| Some(member(&entry.identity))));
        slots.swap(ME as usize, hole);
        self.free = vec![hole as Slot];
        let mut index = known.index.clone();
        if let Some(slot) = index.find_mut(me.ring_hash(), |&slot| slot == hole as Slot) {
            *slot = ME;
        }
        self.me.identity = known.ring.entries().get(mine).map_or(me, |entry| entry.identity.clone());
        self.order = (1..slots.len() as Slot).filter(|&slot| slot != hole as Slot).collect();
        random.shuffle(&mut self.order);
        self.by_address = known.by_address.clone();
        if let Ok(own) =
            self.by_address.find_entry(address_hash(self.me.identity.gossip()), |&slot| slot == hole as Slot)
        {
            own.remove();
        }
        (self.slots, self.index, self.next) = (slots, index, 0);
        (self.ring, self.view) = (known.ring.clone(), known.view);
    }

    /// Changes identity, incarnation and state of a member.
    pub fn set(
        &mut self,
        slot: Slot,
        introduction: Introduction,
        state: State,
        now_us: u64,
        random: &mut Random,
    ) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let (was, was_state, was_in_view) = (member.identity.clone(), member.state, member.is_in_view());
        let Introduction { mut identity, incarnation } = introduction;
        let is_same_life = was.boot == identity.boot && was.gossip() == identity.gossip();
        identity.share(&mut self.common);
        if was_state != state || was.boot != identity.boot {
            member.changed_s = whole_seconds(now_us);
        }
        if !is_same_life {
            (member.rtt_us, member.is_vouched) = (0, false);
        }
        member.is_vouched |= state.is_live();
        member.identity = identity.clone();
        member.incarnation = incarnation;
        member.state = state;
        if was_in_view {
            self.view ^= view_of(&was);
        }
        if member.is_in_view() {
            self.view ^= view_of(&identity);
        }
        if slot == ME {
            self.me = Introduction { identity: identity.clone(), incarnation };
        }
        if state.is_gone() && !was_state.is_gone() {
            self.gone.push_back(slot);
        } else if was_state.is_gone() && !state.is_gone() {
            self.gone.retain(|&gone| gone != slot);
        }
        if state.is_live() && !was_state.is_live() && slot != ME {
            self.take_into_order(slot, random);
        }
        if was_state == state && Arc::ptr_eq(&was, &identity) || !(was_state.is_live() || state.is_live()) {
            return;
        }
        if was_state.is_live() {
            self.unlist(slot, was.gossip());
        }
        let ring = Arc::make_mut(&mut self.ring);
        if state.is_live() {
            let address = identity.gossip();
            ring.insert(identity, state);
            self.list(slot, address);
        } else {
            ring.remove(identity.ring_hash(), identity.name.as_str());
        }
    }

    /// Puts a member somewhere in the rest of this round of probes, so that a newcomer is probed as soon as any
    /// other member.
    fn take_into_order(&mut self, slot: Slot, random: &mut Random) {
        let in_order = self.order.len();
        grow_a_little(&mut self.order);
        self.order.push(slot);
        let place = self.next.min(in_order);
        self.order.swap(place + random.index(in_order + 1 - place), in_order);
    }

    /// Notes that another member has told that it reached this one.
    pub fn vouch(&mut self, slot: Slot) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let was_in_view = member.is_in_view();
        member.is_vouched = true;
        if member.is_in_view() != was_in_view {
            self.view ^= member.key();
        }
    }

    /// Adds a member to the index by address.
    fn list(&mut self, slot: Slot, address: SocketAddr) {
        let slots = &self.slots;
        if slot != ME {
            let hash = |&slot: &Slot| address_hash(address_in(slots, slot));
            self.by_address.insert_unique(address_hash(address), slot, hash);
        }
    }

    /// Removes a member from the index by address.
    fn unlist(&mut self, slot: Slot, address: SocketAddr) {
        if let Ok(entry) = self.by_address.find_entry(address_hash(address), |&other| other == slot) {
            entry.remove();
        }
    }

    /// Takes in a measured round trip.
    pub fn measured(&mut self, slot: Slot, rtt_us: u64) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX).max(1);
        member.rtt_us = match member.rtt_us {
            0 => rtt_us,
            smoothed => smoothed - smoothed / 8 + rtt_us / 8,
        };
    }

    /// Forgets a member that takes no part.
    pub fn forget(&mut self, slot: Slot) {
        let Some(member) = self.get(slot) else { return };
        if slot == ME || member.state.is_live() {
            return;
        }
        let hash = member.identity.ring_hash();
        if member.is_in_view() {
            self.view ^= member.key();
        }
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        self.gone.retain(|&gone| gone != slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = None;
        }
        self.free.push(slot);
    }

    /// Returns the dead and left members for which `is_over` returns true, and those that went longest ago if
    /// there are too many.
    pub fn forgettable(&self, is_over: impl Fn(&MemberEntry) -> bool) -> Vec<Slot> {
        let surplus = self.gone.len().saturating_sub(GONE_MAX.max(self.ring.len()));
        let by_age = self.gone.iter().enumerate();
        let chosen = by_age.filter(|&(age, &slot)| age < surplus || self.get(slot).is_some_and(&is_over));
        chosen.map(|(_, &slot)| slot).collect()
    }

    /// The live member before this node on the ring; `None` if there is no other.
    pub fn neighbour(&self) -> Option<Slot> {
        let entries = self.ring.entries();
        let before = self.ring.lower_bound(self.me.identity.ring_hash()).checked_sub(1);
        let entry = before.map_or(entries.last(), |before| entries.get(before))?;
        self.find(entry.name().as_str()).filter(|&slot| slot != ME)
    }

    /// Returns the member to probe next: each once in a round, and each round in another random order.
    pub fn next_probe(&mut self, random: &mut Random) -> Option<Slot> {
        loop {
            if self.next >= self.order.len() {
                self.trim_order();
                random.shuffle(&mut self.order);
                self.next = 0;
                if self.order.is_empty() {
                    return None;
                }
            }
            let slot = *self.order.get(self.next)?;
            self.next += 1;
            if self.is_live_other(slot) {
                return Some(slot);
            }
        }
    }

    /// Returns up to `count` different random live members, but neither this node nor `but`. They are members that are
    /// not suspected, unless none of these was found.
    pub fn random_live(&mut self, count: usize, but: Slot, random: &mut Random) -> Vec<Slot> {
        let live_others = self.ring.len().saturating_sub(1);
        if self.order.len() > 2 * live_others {
            self.trim_order();
        }
        let (mut chosen, mut suspects) = (Vec::with_capacity(count), Vec::new());
        for _ in 0..8 * count {
            if chosen.len() == count {
                break;
            }
            let Some(&slot) = self.order.get(random.index(self.order.len())) else { break };
            let found = if self.is_suspect(slot) { &mut suspects } else { &mut chosen };
            if slot != but && self.is_live_other(slot) && found.len() < count && !found.contains(&slot) {
                found.push(slot);
            }
        }
        if chosen.is_empty() { suspects } else { chosen }
    }

    /// Returns whether this member is suspected.
    pub fn is_suspect(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|member| member.state == State::Suspect)
    }

    fn is_live_other(&self, slot: Slot) -> bool {
        slot != ME && self.get(slot).is_some_and(|member| member.state.is_live())
    }

    /// Removes those that have gone from the order in which members are probed. The round goes on where it is.
    fn trim_order(&mut self) {
        let order = std::mem::take(&mut self.order);
        let (mut kept, mut seen) = (Vec::with_capacity(order.len()), BTreeSet::new());
        let mut next = None;
        for (at, slot) in order.into_iter().enumerate() {
            if at == self.next {
                next = Some(kept.len());
            }
            // A member that was gone and came back is in the order twice.
            if self.is_live_other(slot) && seen.insert(slot) {
                kept.push(slot);
            }
        }
        self.next = next.unwrap_or(kept.len());
        self.order = kept;
    }
}

fn whole_seconds(us: u64) -> u32 {
    u32::try_from(us / 1_000_000).unwrap_or(u32::MAX)
}

fn hash_of(slots: &[Option<MemberEntry>], slot: Slot) -> u64 {
    slots.get(slot as usize).and_then(Option::as_ref).map_or(0, |member| member.identity.ring_hash())
}

fn address_in(slots: &[Option<MemberEntry>], slot: Slot) -> SocketAddr {
    let member = slots.get(slot as usize).and_then(Option::as_ref);
    member.map_or(SocketAddr::from(([0; 4], 0)), |member| member.identity.gossip())
}

fn view_of(identity: &Identity) -> u64 {
    life_key(&identity.name, identity.boot)
}

#[cfg(test)]
mod tests;
