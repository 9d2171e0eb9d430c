//! Handles parts that were not acknowledged in time: they are tried again, moved or given up.
//!
//! After a loss a part is tried again, soon and without backoff, since that is where the tail of the delivery
//! time comes from. After silence another member gets it: after two timeouts in which nothing at all was
//! heard of the first member (one, if it was silent lately), the part is moved, long before membership has
//! decided whether that member is dead. The new member is told which member it stands in for, and cuts the
//! range as that member would have: if the first was alive after all, and only its receipts were lost, the
//! same delegates get the same parts twice, and custody stops the repeat there; a different cut would send
//! the whole subtree twice. Where one member was silent others may be, so below a stand-in one timeout is
//! enough.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Custody;
use crate::cluster::members::State;
use crate::cluster::ring::{Ring, RingEntry};
use crate::cluster::spread::batch::Batch;
use crate::cluster::spread::duty::Duty;
use crate::cluster::spread::env::{Base, Env};
use crate::cluster::spread::link::PartId;
use crate::cluster::spread::path::PathFate;
use crate::cluster::spread::replication::Replication;
use crate::cluster::spread::silence::SILENT_TRIES_MAX;
use crate::cluster::spread::unsettled::UnsettledPart;

/// Most tries of a part on one member, if it is heard or the part has other members.
const TRIES_MAX: u32 = 20;
/// Most members that a part is handed to before it is given up.
const HANDOVERS_MAX: u32 = 20;

/// The action for a part that was not acknowledged in time.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// The part is sent to the same member again. `feel`: other members are asked for a sign of life
    /// meanwhile.
    TryAgain { feel: bool },
    /// The part is moved to another member.
    MoveOn,
    /// The part is not sent from here any more.
    GiveUp,
}

impl Custody {
    /// Removes a part from the duties and from its link, and returns it.
    pub(super) fn withdraw(&mut self, base: &mut Base, id: usize) -> Option<Duty> {
        let duty = self.duties.remove(id)?;
        let link = base.links.get_mut(duty.link)?;
        for number in duty.first_number..duty.first_number + u64::from(duty.fragments) {
            if let Some(sent) = link.settle(number) {
                self.duties.note_unqueued(duty.part.is_own, &sent);
            }
        }
        // Parts that waited behind it for room in the window may be sent now.
        base.links.mark_ready(duty.link);
        Some(duty)
    }

    /// Withdraws all parts with a batch that was passed on before it was found to be damaged.
    pub fn recall(&mut self, base: &mut Base, replication: &mut Replication, batch: &Arc<Batch>) {
        for id in self.duties.with_batch(batch) {
            if let Some(duty) = self.withdraw(base, id) {
                replication.close_part(base, &duty);
            }
        }
    }

    /// Gives up a part that is no longer among the duties.
    pub(super) fn give_up(&mut self, base: &mut Base, replication: &mut Replication, duty: &Duty) {
        base.stats.given_up += 1;
        replication.close_part(base, duty);
    }

    /// Moves a part to another of its members.
    fn move_on(&mut self, env: &mut Env, replication: &mut Replication, id: usize) {
        let Some(mut duty) = self.withdraw(env.base, id) else { return };
        duty.tried.push(duty.delegate);
        duty.handovers += 1;
        if duty.is_repair || duty.handovers >= HANDOVERS_MAX {
            return self.give_up(env.base, replication, &duty);
        }
        duty.part.instead_of.get_or_insert(duty.delegate);
        duty.part.is_hurried = true;
        duty.part.age_us += env.base.now_us.saturating_sub(duty.since_us);
        duty.since_us = env.base.now_us;
        duty.ask_first = false;
        env.base.stats.redelegated += 1;
        self.assign(env, replication, duty);
    }

    /// Handles the timer of a link's parts, which was set for `at_us`: one part that is due is handled, and the
    /// timer is set for the next.
    pub fn handle_due(&mut self, env: &mut Env, replication: &mut Replication, link: usize, at_us: u64) {
        let due = env.base.links.get_mut(link).and_then(|link| link.pop_due(at_us));
        if let Some((number, due_us)) = due {
            self.handle_silence(env, replication, PartId { link, number }, due_us);
        }
        env.base.disarm_parts(link, at_us);
    }

    /// Handles a part that was not acknowledged by `at_us`, or has waited until then for budget to be sent
    /// again.
    fn handle_silence(&mut self, env: &mut Env, replication: &mut Replication, part: PartId, at_us: u64) {
        let PartId { link: link_id, number } = part;
        let link = env.base.links.get(link_id);
        let sent = link.and_then(|link| link.sent(number)).filter(|sent| sent.due_us == at_us);
        let Some(sent) = sent.cloned() else { return };
        if sent.flying == 0 {
            return self.try_again(env.base, part, &sent);
        }
        env.base.stats.timeouts += 1;
        let Some((remedy, falls_silent)) = self.remedy(env, link_id, &sent) else { return };
        if sent.is_large && self.handle_large_loss(env, replication, part) {
            return;
        }
        match remedy {
            Remedy::TryAgain { feel } => {
                self.try_again(env.base, part, &sent);
                if feel {
                    self.feel(env, sent.duty);
                }
            }
            Remedy::MoveOn => self.move_on(env, replication, sent.duty),
            Remedy::GiveUp => {
                if let Some(duty) = self.withdraw(env.base, sent.duty) {
                    self.give_up(env.base, replication, &duty);
                }
            }
        }
        if falls_silent {
            self.desert(env, replication, link_id);
        }
    }

    /// Notes that a part was not acknowledged in a datagram that is larger than every path carries. Returns whether the
    /// part is settled by that: it was cut anew for a path that carries less.
    fn handle_large_loss(&mut self, env: &mut Env, replication: &mut Replication, part: PartId) -> bool {
        let Some(link) = env.base.links.get_mut(part.link) else { return false };
        match link.path.handle_loss(env.base.now_us) {
            PathFate::Unknown => return false,
            PathFate::Checked => env.base.links.mark_ready(part.link),
            PathFate::Shrunk => self.cut_again(env, replication, part.link),
        }
        env.base.links.get(part.link).is_none_or(|link| link.sent(part.number).is_none())
    }

    /// Counts a timeout on the link of the part. Returns the action for the part, and whether the peer fell
    /// silent.
    fn remedy(&self, env: &mut Env, link_id: usize, sent: &UnsettledPart) -> Option<(Remedy, bool)> {
        let now_us = env.base.now_us;
        let rtt = env.base.links.rtt(link_id);
        let duty = self.duties.get(sent.duty)?;
        let link = env.base.links.get_mut(link_id)?;
        // The wait before a question is short: that it has passed proves nothing.
        if sent.tries > 1 || !duty.asks_second() {
            link.window_mut().handle_loss(now_us, rtt);
        }
        let timeout = link.silence.handle_timeout(now_us, sent.first_us, sent.tries);
        let entry = find(env.ring, duty.delegate, link.to);
        let is_gone = !duty.is_repair && entry.is_none();
        let remedy = if duty.members > 1 {
            let patience = if timeout.was_silent || duty.part.is_hurried { 1 } else { 2 };
            let is_over = sent.tries >= TRIES_MAX || (!timeout.is_heard && sent.tries >= patience);
            match is_gone || is_over {
                true => Remedy::MoveOn,
                false => Remedy::TryAgain { feel: !timeout.is_heard },
            }
        } else {
            let is_suspect = entry.is_some_and(|entry| entry.state != State::Alive);
            let tries_max = match (timeout.is_heard, timeout.is_given_up_on || is_suspect) {
                (true, _) => TRIES_MAX,
                (false, true) => 1,
                (false, false) => SILENT_TRIES_MAX,
            };
            match is_gone {
                // The member is dead, or has another address by now.
                true => Remedy::MoveOn,
                false if sent.tries >= tries_max => Remedy::GiveUp,
                false => Remedy::TryAgain { feel: false },
            }
        };
        Some((remedy, timeout.falls_silent))
    }

    /// Moves the parts that were never sent to a peer that fell silent, if they have other members.
    fn desert(&mut self, env: &mut Env, replication: &mut Replication, link_id: usize) {
        let Some(link) = env.base.links.get(link_id) else { return };
        let unsent = link.unsettled().iter().filter(|sent| sent.tries == 0);
        let mut waiting: Vec<usize> = unsent.map(|sent| sent.duty).collect();
        waiting.dedup();
        for id in waiting {
            if self.duties.get(id).is_some_and(|duty| duty.members > 1) {
                self.move_on(env, replication, id);
            }
        }
    }

    /// Sends a part to the same member again, or lets it wait if there is no budget for that.
    fn try_again(&mut self, base: &mut Base, part: PartId, sent: &UnsettledPart) {
        let Some(duty) = self.duties.get(sent.duty) else { return };
        let is_single = duty.members <= 1;
        let ask = match base.links.is_late(part.link) {
            true => duty.fragments == 1,
            false => sent.tries == 1 && duty.asks_second(),
        };
        let timeout_us = base.links.rtt(part.link).timeout_us(sent.tries);
        let must_wait = is_single && !ask && !self.budget.take(base.now_us, sent.bytes as usize);
        let Some(link) = base.links.get_mut(part.link) else { return };
        if must_wait {
            let due_us = base.now_us + timeout_us;
            link.wait(part.number, due_us);
            base.arm_parts(part.link);
        } else {
            link.push_again(part.number, ask);
            base.links.mark_ready(part.link);
        }
    }
}

/// The member at the place `place` of the ring, if its address is still `at`.
fn find(ring: &Ring, place: u64, at: SocketAddr) -> Option<&RingEntry> {
    let entries = ring.entries().get(ring.lower_bound(place)..)?;
    entries.iter().take_while(|entry| entry.hash == place).find(|entry| entry.gossip() == at)
}
