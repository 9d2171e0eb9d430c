//! Leaving in an orderly way: a node that goes tells the others, so that they do not have to find it dead.
//!
//! A few members are pinged with the news and acknowledge it; they pass it on. Leaving is done when two
//! members have acknowledged (or the only one there is). It is given up after a second; then the others find
//! out by probing.

use super::Swim;
use super::slot::{ME, Slot};
use crate::record::{NodeName, Now};

/// Number of members that must have acknowledged the news.
const TOLD_MIN: usize = 2;
/// Number of members that are told in one round.
const LEAVE_FANOUT: usize = 5;
/// Longest time that leaving may take, in microseconds.
const LEAVE_US_MAX: u64 = 1_000_000;

/// The progress of this node in leaving.
#[derive(Debug, Default)]
pub(super) struct Leave {
    started_us: Option<u64>,
    next_us: u64,
    asked: Vec<(u32, Slot)>,
    told: Vec<Slot>,
    needed: usize,
    is_over: bool,
}

impl Leave {
    /// Returns whether this node has begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.started_us.is_some()
    }

    /// When the next round of news is due, on the monotonic clock in microseconds; `u64::MAX` unless this
    /// node is leaving.
    pub fn due_us(&self) -> u64 {
        if self.is_leaving() && !self.is_left() { self.next_us } else { u64::MAX }
    }

    /// The member to which the ping of this number was sent.
    pub fn find(&self, sequence: u32) -> Option<Slot> {
        self.asked.iter().find(|(asked, _)| *asked == sequence).map(|&(_, slot)| slot)
    }

    /// Notes the answer to a ping with the news.
    pub fn answered(&mut self, sequence: u32) {
        let Some(&(_, slot)) = self.asked.iter().find(|(asked, _)| *asked == sequence) else { return };
        if !self.told.contains(&slot) {
            self.told.push(slot);
        }
    }

    fn is_left(&self) -> bool {
        self.is_leaving() && (self.is_over || self.told.len() >= self.needed)
    }
}

impl Swim {
    /// Begins to leave: from now on this node tells the others that it goes.
    pub fn handle_leave(&mut self, now: Now) {
        if self.leave.is_leaving() {
            return;
        }
        self.clocks.set_now(now);
        self.leave.started_us = Some(now.mono_us);
        self.leave.needed = TOLD_MIN.min(self.table.ring().len().saturating_sub(1));
        self.leave.next_us = now.mono_us;
        self.leave_due(now);
    }

    /// Forgets a member that is dead or has left, before its time. Does nothing if the member takes part.
    pub fn forget_gone(&mut self, name: &NodeName) {
        let slot = self.table.find(name.as_str());
        let is_gone = |slot: &Slot| self.table.get(*slot).is_some_and(|member| member.state.is_gone());
        if let Some(slot) = slot.filter(is_gone) {
            self.forget_member(slot);
        }
    }

    /// Returns whether enough members know that this node goes, or could not be told in time.
    pub fn is_left(&self) -> bool {
        self.leave.is_left()
    }

    /// Sends the next round of news if it is due, or gives leaving up after its longest time.
    pub(super) fn leave_due(&mut self, now: Now) {
        if now.mono_us < self.leave.due_us() {
            return;
        }
        let started_us = self.leave.started_us.unwrap_or(now.mono_us);
        if now.mono_us >= started_us + LEAVE_US_MAX {
            self.leave.is_over = true;
            return;
        }
        self.leave.next_us = now.mono_us + self.timing.probe_timeout_us;
        self.news.push(ME);
        for slot in self.table.random_live(LEAVE_FANOUT, ME, &mut self.random) {
            let Some((key, to)) = self.table.get(slot).map(|member| (member.key(), member.identity.gossip()))
            else {
                continue;
            };
            let sequence = self.next_sequence();
            self.leave.asked.push((sequence, slot));
            let ping = self.ping(sequence, key, None);
            self.send(to, Some(slot), ping);
        }
    }
}
