//! Reaching beyond the members that are alive here: join targets, and the dead.
//!
//! A node that is alone, or has not got a list of members, tries all of its join targets, for ever, at growing
//! intervals of up to two seconds. A node with other members still tries, once a second, one address at which it knows no live member: that of
//! a dead member or of a join target. So a partition heals even after days, though both sides gave each other
//! up (weaviate#10698, antrea#4491: the dead were forgotten, and the sides never merged). A node that answers
//! is asked for its member list.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Swim;
use super::slot::{ME, Slot};
use super::timing::{CONTACT_INTERVAL_US, JOIN_RETRY_US_MAX};
use crate::cluster::members::State;
use crate::config::canonical;
use crate::record::Now;

/// Most join targets: a name may resolve to many addresses, but not to a whole cluster of thousands.
const SEEDS_MAX: usize = 256;
/// Most tries whose answer is waited for.
const CONTACTS_WAITING_MAX: usize = 64;

/// A join target.
#[derive(Debug)]
struct Seed {
    address: SocketAddr,
    due_us: u64,
    retry_us: u64,
    /// The member that last answered at the address, and the [`life_key`](super::message::life_key) of its
    /// life.
    member: Option<(Slot, u64)>,
    is_me: bool,
    tries: u32,
    has_answered: bool,
}

/// One address of a join target, and the results of trying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedInfo {
    /// An address to which the name of the target resolves.
    pub address: SocketAddr,
    /// Number of times that the address was tried.
    pub tries: u32,
    /// Whether another node has ever answered at the address.
    pub has_answered: bool,
    /// Whether this node itself answered last at the address.
    pub is_me: bool,
}

/// Join targets, and tries under way.
#[derive(Debug)]
pub(super) struct Contacts {
    seeds: Vec<Seed>,
    has_seeds: bool,
    is_resolved: bool,
    next_us: u64,
    /// Tries whose answer is waited for.
    waiting: VecDeque<Try>,
    /// Numbers of the last tries of join targets, answered or not.
    made: VecDeque<u32>,
}

/// A try of an address.
#[derive(Clone, Copy, Debug)]
struct Try {
    sequence: u32,
    address: SocketAddr,
    /// Whether the address is that of a join target, or was told by one.
    is_trusted: bool,
    /// When it began, on the monotonic clock in microseconds.
    began_us: u64,
}

impl Contacts {
    /// Begins without addresses. `has_seeds`: join targets were configured.
    pub fn new(now_us: u64, has_seeds: bool) -> Contacts {
        let next_us = now_us + CONTACT_INTERVAL_US;
        Contacts {
            seeds: Vec::new(),
            has_seeds,
            is_resolved: false,
            next_us,
            waiting: VecDeque::new(),
            made: VecDeque::new(),
        }
    }

    /// Returns whether there are no join targets, or none but this node itself.
    pub fn is_alone_by_choice(&self) -> bool {
        !self.has_seeds || (self.is_resolved && self.seeds.iter().all(|seed| seed.is_me))
    }

    /// Returns whether a node has answered at this address, and it is that of a join target.
    pub fn has_answered(&self, address: SocketAddr) -> bool {
        self.seeds.iter().any(|seed| seed.address == address && seed.has_answered)
    }

    /// Ends the try with this sequence number, if it is under way, and returns when it began, on the monotonic
    /// clock in microseconds.
    pub fn take(&mut self, sequence: u32) -> Option<u64> {
        let at = self.waiting.iter().position(|it| it.sequence == sequence)?;
        self.waiting.remove(at).map(|it| it.began_us)
    }

    /// The address of the try with this sequence number, if its answer is waited for.
    pub fn find(&self, sequence: u32) -> Option<SocketAddr> {
        self.waiting.iter().find(|it| it.sequence == sequence).map(|it| it.address)
    }

    /// Returns whether one of the last tries of a join target had this sequence number, and forgets it.
    pub fn take_made(&mut self, sequence: u32) -> bool {
        let at = self.made.iter().position(|&made| made == sequence);
        at.and_then(|at| self.made.remove(at)).is_some()
    }

    /// Returns whether the try with this sequence number goes to an address that the user gave, or that was asked
    /// for at such an address.
    pub fn is_trusted(&self, sequence: u32) -> bool {
        self.waiting.iter().any(|it| it.sequence == sequence && it.is_trusted)
    }
}

impl Swim {
    /// Takes the whole list of join targets, as their names resolve now.
    pub fn handle_seeds(&mut self, now: Now, addresses: &[SocketAddr]) {
        self.clocks.set_now(now);
        let addresses: Vec<SocketAddr> = addresses.iter().copied().map(canonical).collect();
        let me = self.table.me().identity.gossip();
        self.contacts.has_seeds = true;
        self.contacts.is_resolved |= !addresses.is_empty();
        self.contacts.seeds.retain(|seed| addresses.contains(&seed.address));
        for address in addresses {
            let seeds = &mut self.contacts.seeds;
            let is_known = seeds.iter().any(|seed| seed.address == address);
            if address != me && !is_known && seeds.len() < SEEDS_MAX {
                let retry_us = self.timing.join_retry_us;
                seeds.push(Seed {
                    address,
                    due_us: now.mono_us,
                    retry_us,
                    member: None,
                    is_me: false,
                    tries: 0,
                    has_answered: false,
                });
            }
        }
    }

    /// Addresses of the join targets except this node's own, and the results of trying them.
    pub fn seeds(&self) -> Vec<SeedInfo> {
        let info = |&Seed { address, tries, has_answered, is_me, .. }: &Seed| SeedInfo {
            address,
            tries,
            has_answered,
            is_me,
        };
        self.contacts.seeds.iter().map(info).collect()
    }

    /// When the next try is due, on the monotonic clock in microseconds.
    pub(super) fn contacts_due_us(&self) -> u64 {
        if !self.is_searching() {
            return self.contacts.next_us;
        }
        let seeds = self.contacts.seeds.iter().map(|seed| seed.due_us);
        seeds.fold(self.contacts.next_us, u64::min)
    }

    /// Returns whether this node is alone, or has not got its first list of members.
    fn is_searching(&self) -> bool {
        self.table.ring().len() <= 1 || !self.lists.is_joined()
    }

    /// Makes the tries that are due.
    pub(super) fn contacts_due(&mut self, now: Now) {
        if self.leave.is_leaving() {
            self.contacts.next_us = now.mono_us + CONTACT_INTERVAL_US;
            return;
        }
        if self.is_searching() {
            self.try_seeds(now);
        }
        if now.mono_us >= self.contacts.next_us {
            self.contacts.next_us = now.mono_us + self.random.jitter_us(CONTACT_INTERVAL_US);
            self.try_one_lost(now);
        }
    }

    /// Contacts all join targets that are due.
    fn try_seeds(&mut self, now: Now) {
        let mut due = Vec::new();
        for seed in &mut self.contacts.seeds {
            // A target that led back to this node may be one address of many nodes: others may answer there
            // later.
            if seed.due_us <= now.mono_us {
                seed.due_us = now.mono_us + self.random.jitter_us(seed.retry_us);
                seed.retry_us = (seed.retry_us + seed.retry_us / 2).min(JOIN_RETRY_US_MAX);
                due.push(seed.address);
            }
        }
        for address in due {
            self.contact(now, address, None);
        }
    }

    /// Contacts a random one of the dead members and the join targets without a live member.
    fn try_one_lost(&mut self, now: Now) {
        let gone = self.table.gone().iter().copied();
        let mut lost: Vec<(SocketAddr, Option<Slot>)> = gone
            .filter_map(|slot| self.table.get(slot).map(|member| (slot, member)))
            .filter(|(_, member)| member.state == State::Dead)
            .map(|(slot, member)| (member.identity.gossip(), Some(slot)))
            .collect();
        // While this node searches, join targets have their own intervals.
        if !self.is_searching() {
            let seeds = self.contacts.seeds.iter();
            lost.extend(seeds.filter(|seed| !self.is_live_seed(seed)).map(|seed| (seed.address, None)));
        }
        if let Some(&(address, slot)) = lost.get(self.random.index(lost.len())) {
            self.contact(now, address, slot);
        }
        if !self.is_searching() {
            // If this node is alone again later, it begins to try without waiting.
            for seed in &mut self.contacts.seeds {
                (seed.due_us, seed.retry_us) = (now.mono_us, self.timing.join_retry_us);
            }
        }
    }

    fn is_live_seed(&self, seed: &Seed) -> bool {
        let member = seed.member.and_then(|(slot, key)| self.table.get(slot).filter(|it| it.key() == key));
        seed.is_me || member.is_some_and(|member| member.state.is_live())
    }

    /// Pings the node at `address`, which is said to have the name of this node.
    pub(super) fn contact_bearer(&mut self, now: Now, address: SocketAddr) {
        self.contact(now, address, None);
    }

    /// Pings the node at `address`, which must be the dead member in `slot` if one is given, and introduces
    /// this node.
    fn contact(&mut self, now: Now, address: SocketAddr, slot: Option<Slot>) {
        let sequence = self.next_sequence();
        for seed in self.contacts.seeds.iter_mut().filter(|seed| seed.address == address) {
            seed.tries = seed.tries.saturating_add(1);
        }
        if self.contacts.waiting.len() >= CONTACTS_WAITING_MAX {
            self.contacts.waiting.pop_front();
        }
        let is_trusted = slot.is_none();
        let began_us = now.mono_us;
        self.contacts.waiting.push_back(Try { sequence, address, is_trusted, began_us });
        if self.contacts.made.len() >= CONTACTS_WAITING_MAX {
            self.contacts.made.pop_front();
        }
        if is_trusted {
            self.contacts.made.push_back(sequence);
        }
        let target = slot.and_then(|slot| self.table.get(slot)).map_or(0, |member| member.key());
        let ping = self.ping(sequence, target, Some(self.table.me().clone()));
        self.send(address, slot, ping);
    }

    /// Handles the answer to a try: compares clocks and exchanges member lists with the node that answered.
    /// `wall_us` is its wall clock, in microseconds.
    pub(super) fn contact_answered(
        &mut self,
        now: Now,
        (sequence, wall_us): (u32, u64),
        from: SocketAddr,
        sender: Option<Slot>,
    ) {
        let Some(began_us) = self.contacts.take(sequence) else { return };
        let Some(slot) = sender else { return };
        let member = self.table.get(slot).map(|member| (slot, member.key()));
        for seed in self.contacts.seeds.iter_mut().filter(|seed| seed.address == from) {
            (seed.member, seed.is_me) = (member, slot == ME);
            seed.has_answered |= slot != ME;
        }
        if slot != ME {
            self.measured(now, slot, wall_us, now.mono_us.saturating_sub(began_us));
            // The member has answered there, and may not do so where it says that it is.
            self.exchange_lists_at(now, from);
        }
    }
}
