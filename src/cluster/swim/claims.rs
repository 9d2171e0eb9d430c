//! Decides between two nodes that use one name.
//!
//! A node that contacts us under the name of a live member at another address may be that member's next
//! life (it moved), or a second node that was given the same name by mistake. Only the member that we know
//! can tell: it is pinged at its address. If it answers there, the newcomer is told that its name is
//! taken, and stops. If another node answers there, or nobody after a few tries, the newcomer is
//! the next life of the member, and takes its place.
//!
//! If both nodes live, after a healed partition for example, the older one stays, which is the one with the
//! smaller boot number. A member that finds its own name at another address decides by the same rule.

use std::net::SocketAddr;

use super::message::{Introduction, SwimMessage, life_key};
use super::slot::Slot;
use super::{Swim, SwimOutput};
use crate::record::Now;

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
}

/// All claims that are being looked into.
#[derive(Debug, Default)]
pub(super) struct Claims {
    open: Vec<NameClaim>,
    /// When a node with this node's name at another address was last told that the name is taken.
    told_us: Option<u64>,
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
}

impl Swim {
    /// Begins to look into the claim of `contender` to the name of the member in `slot`.
    pub(super) fn contend(&mut self, now: Now, slot: Slot, contender: Introduction) {
        let Some(known) = self.table.get(slot) else { return };
        let (key, boot, address) = (known.key(), known.identity.boot, known.identity.gossip());
        let is_open = self.claims.open.iter().any(|claim| claim.contender.as_ref() == Some(&contender));
        if !is_open {
            self.open_claim(now, Some(contender), slot, key, boot, address);
        }
    }

    /// Decides what to do about a node with our own name at another address.
    pub(super) fn contend_for_my_name(&mut self, now: Now, other: Introduction) {
        /// Least time between two messages that this name is taken, in microseconds.
        const TELL_INTERVAL_US: u64 = 500_000;
        let me = self.table.me().identity.clone();
        let other = other.identity;
        let is_older = (me.boot, me.gossip()) < (other.boot, other.gossip());
        if is_older {
            if self.claims.told_us.is_some_and(|told_us| now.mono_us < told_us + TELL_INTERVAL_US) {
                return;
            }
            self.claims.told_us = Some(now.mono_us);
            self.tell_taken(&other.name, other.boot, other.gossip(), me.gossip());
        } else {
            let is_open = self.claims.open.iter().any(|claim| claim.contender.is_none());
            if !is_open && self.claims.refuted != Some((other.gossip(), other.boot)) {
                let key = life_key(&other.name, other.boot);
                self.open_claim(now, None, super::slot::ME, key, other.boot, other.gossip());
            }
        }
    }

    /// Begins to look into a claim, unless too many are open.
    fn open_claim(
        &mut self,
        now: Now,
        contender: Option<Introduction>,
        slot: Slot,
        key: u64,
        boot: u64,
        address: SocketAddr,
    ) {
        if self.claims.open.len() >= CLAIMS_MAX {
            return;
        }
        let claim = NameClaim { contender, slot, key, boot, address, sequence: 0, tries: 0, due_us: 0 };
        self.ask_bearer(now, claim);
    }

    fn ask_bearer(&mut self, now: Now, mut claim: NameClaim) {
        claim.sequence = self.next_sequence();
        claim.tries += 1;
        claim.due_us = now.mono_us + 2 * self.timing.probe_timeout_us;
        let ping = self.ping(claim.sequence, claim.key, None);
        self.outputs.push_back(SwimOutput::Datagram {
            to: claim.address,
            message: ping,
            updates: Vec::new(),
        });
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
                let newcomer = contender.identity;
                self.tell_taken(&newcomer.name, newcomer.boot, newcomer.gossip(), claim.address);
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

    /// Tells the life `boot` of the node at `to` that its name is in use at the address `by`.
    fn tell_taken(&mut self, name: &crate::record::NodeName, boot: u64, to: SocketAddr, by: SocketAddr) {
        let message = SwimMessage::NameTaken { name: name.clone(), boot, by };
        self.outputs.push_back(SwimOutput::Datagram { to, message, updates: Vec::new() });
    }
}
