//! What was handed over, until it is acknowledged, moved on or given up.
//!
//! A loss is answered by trying again, soon and without backoff, since that is where the tail of
//! the delivery time comes from. Silence is answered by somebody else: after two timeouts in which
//! nothing at all was heard of the member (one, if it was silent lately), the part goes to another
//! of its members, long before membership has made up its mind. The new one is told whom it stands
//! in for and cuts the range as that one would have: if the first was alive after all, and only
//! its receipts were lost, the same delegates get the same parts twice, and custody stops them
//! there; a different cut would send the whole subtree twice. Where one member was silent others may
//! be, so below a stand-in one timeout is enough.

use std::net::SocketAddr;

use super::Spread;
use super::duty::Duty;
use super::timers::Timer;
use super::unsettled::Sent;
use crate::cluster::members::State;
use crate::cluster::ring::{Ring, RingEntry};

/// How long a silent member is remembered, in microseconds.
const SILENCE_US: u64 = 2_000_000;
/// A member silent for longer than this, and through as many tries as any gets, gets one try only,
/// in microseconds.
const PATIENCE_US: u64 = 100_000;
/// Tries on the only member of a part, if nothing is heard of it.
const SINGLE_TRIES_MAX: u32 = 7;
/// Tries on the only member of a part, if it is heard; and on a part of several.
const TRIES_MAX: u32 = 20;
/// How often a part is handed over before it is given up.
const HANDOVERS_MAX: u32 = 20;

/// Bytes that may be spent on further tries to single members: a quarter of what is sent anyway,
/// so that loss does not become collapse. Tries to larger parts are not counted: one left out
/// costs a subtree.
#[derive(Debug)]
pub(super) struct RetryBudget {
    bytes: usize,
    earned_us: u64,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { bytes: RetryBudget::BYTES_MAX, earned_us: 0 }
    }
}

impl RetryBudget {
    const BYTES_MAX: usize = 256 * 1024;
    /// What an otherwise silent node may spend, in bytes a second.
    const IDLE_BYTES_A_SECOND: u64 = 32 * 1024;

    /// Earns by sending something for the first time.
    pub fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes / 4).min(Self::BYTES_MAX);
    }

    fn take(&mut self, now_us: u64, bytes: usize) -> bool {
        let elapsed_us = now_us.saturating_sub(self.earned_us).min(10_000_000);
        let idle = (elapsed_us * Self::IDLE_BYTES_A_SECOND / 1_000_000) as usize;
        if idle > 0 {
            self.earned_us = now_us;
            self.bytes = (self.bytes + idle).min(Self::BYTES_MAX);
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}

impl Spread {
    /// A peer acknowledged one fragment of a duty.
    pub(super) fn settle(&mut self, sent: &Sent) {
        let Some(duty) = self.duties.get_mut(sent.duty) else { return };
        duty.left = duty.left.saturating_sub(1);
        if duty.left == 0 {
            self.duty_bytes = self.duty_bytes.saturating_sub(duty.batch.cost_bytes());
            self.bodies.settle(&duty.batch);
            self.duties.remove(sent.duty);
        }
    }

    /// Takes a duty and all that waits for it off its link.
    fn withdraw(&mut self, id: usize) -> Option<Duty> {
        let duty = self.duties.try_remove(id)?;
        self.duty_bytes = self.duty_bytes.saturating_sub(duty.batch.cost_bytes());
        self.bodies.settle(&duty.batch);
        let link = self.links.get_mut(duty.link)?;
        for number in duty.first_number..duty.first_number + u64::from(duty.fragments) {
            if let Some(sent) = link.settle(number)
                && sent.tries == 0
                && duty.part.is_own
            {
                self.own_waiting_bytes = self.own_waiting_bytes.saturating_sub(sent.bytes);
            }
        }
        // What waited behind it for room in the window may go now.
        self.mark_ready(duty.link);
        Some(duty)
    }

    /// Nobody is to have it from here any more.
    pub(super) fn give_up(&mut self, duty: &Duty) {
        self.stats.given_up += 1;
        self.close_part(duty);
    }

    /// Hands a duty to another of its members.
    fn move_on(&mut self, ring: &Ring, id: usize) {
        let Some(mut duty) = self.withdraw(id) else { return };
        duty.tried.push(duty.delegate);
        duty.handovers += 1;
        if duty.is_repair || duty.handovers >= HANDOVERS_MAX {
            return self.give_up(&duty);
        }
        duty.part.instead_of.get_or_insert(duty.delegate);
        duty.part.is_hurried = true;
        duty.part.age_us += self.now_us.saturating_sub(duty.since_us);
        duty.since_us = self.now_us;
        duty.ask_first = false;
        self.stats.redelegated += 1;
        self.assign(ring, duty);
    }

    /// A try was not acknowledged in time.
    pub(super) fn handle_silence(&mut self, ring: &Ring, link_id: usize, number: u64, at_us: u64) {
        let now_us = self.now_us;
        let rtt = self.links.rtt(link_id);
        let Some(link) = self.links.get_mut(link_id) else { return };
        let Some(sent) = link.sent.get(number).filter(|sent| sent.due_us == at_us).cloned() else { return };
        let Some(duty) = self.duties.get(sent.duty) else { return };
        if sent.flying == 0 {
            return self.try_again(link_id, number, &sent);
        }
        self.stats.timeouts += 1;
        // A first wait before a question is short: it proves nothing.
        if sent.tries > 1 || !duty.asks_second() {
            link.on_loss(now_us, rtt);
        }
        let is_heard = link.heard_us > sent.first_us;
        let was_silent = link.silent_until_us > now_us;
        let falls_silent = !is_heard && sent.tries >= 2 && !was_silent;
        link.unheard = if is_heard { 0 } else { link.unheard + 1 };
        if !is_heard && sent.tries >= 2 {
            link.silent_until_us = now_us + SILENCE_US;
            link.silent_since_us = if link.silent_since_us == 0 { now_us } else { link.silent_since_us };
        }
        let is_given_up_on = link.unheard > SINGLE_TRIES_MAX
            && link.silent_since_us > 0
            && now_us - link.silent_since_us > PATIENCE_US;
        let entry = find(ring, duty.delegate, link.to);
        let is_gone = !duty.is_repair && entry.is_none();
        if duty.members > 1 {
            let patience = if was_silent || duty.part.is_hurried { 1 } else { 2 };
            if is_gone || sent.tries >= TRIES_MAX || (!is_heard && sent.tries >= patience) {
                self.move_on(ring, sent.duty);
            } else {
                self.try_again(link_id, number, &sent);
                if !is_heard {
                    self.feel(ring, sent.duty);
                }
            }
        } else {
            let is_doubtful = is_given_up_on || entry.is_some_and(|entry| entry.state != State::Alive);
            let tries_max = match (is_heard, is_doubtful) {
                (true, _) => TRIES_MAX,
                (false, true) => 1,
                (false, false) => SINGLE_TRIES_MAX,
            };
            if is_gone {
                // Dead, or at another address by now.
                self.move_on(ring, sent.duty);
            } else if sent.tries >= tries_max {
                if let Some(duty) = self.withdraw(sent.duty) {
                    self.give_up(&duty);
                }
            } else {
                self.try_again(link_id, number, &sent);
            }
        }
        if falls_silent {
            self.desert(ring, link_id);
        }
    }

    /// Moves what only waits for a peer that fell silent, where it has somewhere else to go.
    fn desert(&mut self, ring: &Ring, link_id: usize) {
        let Some(link) = self.links.get(link_id) else { return };
        let unsent = link.sent.iter().filter(|sent| sent.tries == 0);
        let mut waiting: Vec<usize> = unsent.map(|sent| sent.duty).collect();
        waiting.dedup();
        for id in waiting {
            if self.duties.get(id).is_some_and(|duty| duty.members > 1) {
                self.move_on(ring, id);
            }
        }
    }

    fn try_again(&mut self, link_id: usize, number: u64, sent: &Sent) {
        let Some(duty) = self.duties.get(sent.duty) else { return };
        let is_single = duty.members <= 1;
        let ask = match self.links.is_late(link_id) {
            true => duty.fragments == 1,
            false => sent.tries == 1 && duty.asks_second(),
        };
        let timeout_us = self.links.rtt(link_id).timeout_us(sent.tries);
        let must_wait = is_single && !ask && !self.retry_budget.take(self.now_us, sent.bytes);
        let Some(link) = self.links.get_mut(link_id) else { return };
        if must_wait {
            let due_us = self.now_us + timeout_us;
            link.wait(number, due_us);
            self.timers.push(due_us, Timer::Try { link: link_id, number });
        } else {
            link.push_again(number, ask);
            self.mark_ready(link_id);
        }
    }
}

/// The member at this place, if it is still at this address.
fn find(ring: &Ring, place: u64, at: SocketAddr) -> Option<&RingEntry> {
    let entries = ring.entries().get(ring.lower_bound(place)..)?;
    entries.iter().take_while(|entry| entry.hash == place).find(|entry| entry.gossip() == at)
}
