//! Decides between two nodes that use one name.
//!
//! A node that contacts us under the name of a live member at another address may be that member's next
//! life (it moved), or a second node that was given the same name by mistake. Only the member that we know
//! can tell: it is pinged at its address. If it answers there, the newcomer is told that its name is
//! taken, and stops. If another node answers there, or nobody after a few tries, the newcomer is
//! the next life of the member, and takes its place.
//!
//! If both nodes live, after a healed partition for example, the older one stays, which is the one with the
//! smaller boot number. A member that finds its own name at another address in a list that it asked for decides
//! by the same rule, and asks the node at that address before it stops.

use std::net::SocketAddr;

use super::message::{Introduction, SwimMessage, life_key};
use super::news::{Question, Way};
use super::slot::Slot;
use super::table::MemberEntry;
use super::{Swim, SwimOutput};
use crate::cluster::members::Identity;
use crate::record::{NodeName, Now};

/// Most claims that are looked into at a time.
const CLAIMS_MAX: usize = 32;
/// Number of pings to the known member before it counts as gone.
const CLAIM_TRIES_MAX: u32 = 3;

/// A claim of a node to the name of a known member.
#[derive(Debug)]
pub(super) struct NameClaim {
    /// The node that claims the name; `None`: this node itself, against another node that uses its name.
    contender: Option<Introduction>,
    /// The known member of this name.
    slot: Slot,
    /// [`life_key`] of the life of the known member.
    key: u64,
    boot: u64,
    address: SocketAddr,
    sequence: u32,
    tries: u32,
    due_us: u64,
    /// The ping in which the contender introduced itself, if it was one.
    asked: Option<Question>,
}

impl NameClaim {
    /// A claim that was not looked into so far, against the life with this key and boot number at `address`.
    fn new(
        contender: Option<Introduction>,
        slot: Slot,
        (key, boot): (u64, u64),
        address: SocketAddr,
    ) -> NameClaim {
        NameClaim { contender, slot, key, boot, address, sequence: 0, tries: 0, due_us: 0, asked: None }
    }
}

/// All claims that are being looked into.
#[derive(Debug, Default)]
pub(super) struct Claims {
    open: Vec<NameClaim>,
    /// Address and boot number of a node with our name that was pinged in vain.
    refuted: Option<(SocketAddr, u64)>,
}

impl Claims {
    /// When the first claim needs attention, on the monotonic clock in microseconds; `u64::MAX` if there is
    /// no claim.
    pub fn due_us(&self) -> u64 {
        self.open.iter().map(|claim| claim.due_us).min().unwrap_or(u64::MAX)
    }

    /// Postpones all claims by `by_us` microseconds.
    pub fn postpone(&mut self, by_us: u64) {
        for claim in &mut self.open {
            claim.due_us += by_us;
        }
    }

    /// Takes out the claim whose ping had this sequence number.
    pub fn take(&mut self, sequence: u32) -> Option<NameClaim> {
        let at = self.open.iter().position(|claim| claim.sequence == sequence)?;
        Some(self.open.remove(at))
    }

    /// The address to which the ping of this number was sent.
    pub fn find(&self, sequence: u32) -> Option<SocketAddr> {
        self.open.iter().find(|claim| claim.sequence == sequence).map(|claim| claim.address)
    }
}

impl Swim {
    /// Begins to look into the claim of `contender` to the name of the member in `slot`.
    pub(super) fn contend(&mut self, now: Now, slot: Slot, contender: Introduction, way: Way) {
        let Some(known) = self.table.get(slot) else { return };
        let (key, boot, address) = (known.key(), known.identity.boot, known.identity.gossip());
        let asked = if let Way::Introduced(asked) = way { asked } else { None };
        let mut open = self.claims.open.iter_mut();
        if let Some(claim) = open.find(|claim| claim.contender.as_ref() == Some(&contender)) {
            claim.asked = asked.or(claim.asked);
            return;
        }
        let contender = Some(contender);
        self.open_claim(now, NameClaim { asked, ..NameClaim::new(contender, slot, (key, boot), address) });
    }

    /// Decides what to do about a node with our own name at another address.
    pub(super) fn contend_for_my_name(&mut self, now: Now, other: Introduction) {
        let other = other.identity;
        let is_open = self.claims.open.iter().any(|claim| claim.contender.is_none());
        let is_refuted = self.claims.refuted == Some((other.gossip(), other.boot));
        if !self.is_older_than(&other) && !is_open && !is_refuted {
            let life = (life_key(&other.name, other.boot), other.boot);
            self.open_claim(now, NameClaim::new(None, super::slot::ME, life, other.gossip()));
        }
    }

    /// Tells a node that introduced itself with our own name in the ping `asked` that the name is taken, if it
    /// is the younger one.
    pub(super) fn tell_my_name(&mut self, other: &Introduction, asked: Question) {
        let other = &other.identity;
        if self.is_older_than(other) {
            self.tell_taken(&other.name, other.boot, asked, self.table.me().identity.gossip());
        }
    }

    fn is_older_than(&self, other: &Identity) -> bool {
        let me = &self.table.me().identity;
        (me.boot, me.gossip()) < (other.boot, other.gossip())
    }

    /// Begins to look into a claim, unless too many are open.
    fn open_claim(&mut self, now: Now, claim: NameClaim) {
        if self.claims.open.len() < CLAIMS_MAX {
            self.ask_bearer(now, claim);
        }
    }

    /// Handles the message that this node's name is in use at the address `by`. It counts only if it repeats the
    /// number of a ping to a join target, and it ends only a node that has not joined so far. One that has joined
    /// asks at that address.
    pub(super) fn handle_name_taken(
        &mut self,
        now: Now,
        (name, boot): (&NodeName, u64),
        by: SocketAddr,
        sequence: u32,
    ) {
        let me = &self.table.me().identity;
        let is_me = me.name == *name && me.boot == boot && me.gossip() != by;
        if !is_me || !self.contacts.take_made(sequence) {
            return;
        }
        if self.lists.is_joined() {
            self.contact_bearer(now, by);
        } else {
            self.outputs.push_back(SwimOutput::NameTaken { by });
        }
    }

    fn ask_bearer(&mut self, now: Now, mut claim: NameClaim) {
        claim.sequence = self.next_sequence();
        claim.tries += 1;
        claim.due_us = now.mono_us + 2 * self.timing.probe_timeout_us;
        let ping = self.ping(claim.sequence, claim.key, None);
        if self.table.get(claim.slot).is_some_and(MemberEntry::is_vouched) {
            let (to, message) = (claim.address, self.padded(Some(claim.slot), ping));
            self.outputs.push_back(SwimOutput::Datagram { to, message, updates: Vec::new() });
        } else {
            self.answer(claim.address, Some(claim.slot), ping);
        }
        self.claims.open.push(claim);
    }

    /// Handles the claims that are due: pings the known member again, or grants the claim.
    pub(super) fn claims_due(&mut self, now: Now) {
        while let Some(at) = self.claims.open.iter().position(|claim| claim.due_us <= now.mono_us) {
            let claim = self.claims.open.remove(at);
            if claim.tries < CLAIM_TRIES_MAX {
                self.ask_bearer(now, claim);
            } else {
                self.claim_granted(now, claim);
            }
        }
    }

    /// Rejects the claim whose ping was answered: the known member of that name lives.
    pub(super) fn claim_answered(&mut self, sequence: u32) {
        let Some(claim) = self.claims.take(sequence) else { return };
        match claim.contender {
            None => self.outputs.push_back(SwimOutput::NameTaken { by: claim.address }),
            // A contender with a smaller boot number was contacted by a datagram that was long on its way.
            Some(contender) if contender.identity.boot >= claim.boot => {
                if let Some(asked) = claim.asked {
                    let newcomer = contender.identity;
                    self.tell_taken(&newcomer.name, newcomer.boot, asked, claim.address);
                }
            }
            Some(_) => {}
        }
    }

    /// Grants a claim: the known member of that name is gone.
    pub(super) fn claim_granted(&mut self, now: Now, claim: NameClaim) {
        let Some(contender) = claim.contender else {
            self.claims.refuted = Some((claim.address, claim.boot));
            return;
        };
        // Nothing happens if a newer life of the member became known meanwhile.
        if self.table.get(claim.slot).is_some_and(|known| known.key() == claim.key) {
            self.replace(now, claim.slot, contender);
        }
    }

    /// Tells the life `boot` of a node that introduced itself in the ping `asked` that its name is in use at the
    /// address `by`. The message is smaller than that ping.
    fn tell_taken(&mut self, name: &NodeName, boot: u64, asked: Question, by: SocketAddr) {
        let Question { from, sequence } = asked;
        let message = SwimMessage::NameTaken { name: name.clone(), boot, by, sequence };
        self.answer(from, None, message);
    }
}
