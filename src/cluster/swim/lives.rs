//! New boot numbers that this node takes while it runs.
//!
//! A node refutes what is said of it with a greater incarnation. There is none above the greatest number, and a
//! node that took any number which somebody names would soon be there. So where a member holds an incarnation of
//! this node that is further ahead than [`INCARNATION_JUMP_MAX`], or where this node's own incarnation cannot grow
//! any more, the node takes the next boot number. It begins with incarnation 0 there, and all that is said of
//! the boot number before touches it no more: the others see a new life of it, ping it, and let it take part
//! when it has answered.
//!
//! Others must be disturbed as little as possible by what a stranger writes. So a datagram by itself changes no
//! boot number: the member in whose name it came is pinged, and if that member does hold such an incarnation of
//! this node, it says so in its answer, which no stranger can write. And a boot number is taken at most once in
//! [`NEW_BOOT_US_MIN`]. Until then, the node's own answers keep it alive, as they do with those who hold
//! such an incarnation and are not heard of here.
//!
//! Only membership changes. The records of the node are numbered on under the boot number of its start, which it
//! tells with the new one (`Identity::start_boot`). So heads, gaps, custody of batches, resume tokens, answers that
//! wait for all members, and marks of what is stored stay as they are, and nothing is published, asked for or
//! stored again.
//!
//! Rejected: to begin a new line of records with the new boot number. Records with the old one may still wait
//! in the outbox, or be under way on a tree, and subscribers' tokens name them: for the sake of membership, all of
//! these would have to be ended and begun anew.

use std::sync::Arc;

use super::message::{Introduction, Update};
use super::newcomers::INCARNATION_JUMP_MAX;
use super::news::Way;
use super::slot::ME;
use super::{Swim, SwimOutput};
use crate::cluster::members::State;
use crate::record::{NodeName, Now};

/// Least time between two boot numbers that a node takes while it runs, in microseconds: at most one in a minute.
/// Each of them makes every member ping this node once more. Numbers that grow by one in a minute stay far below
/// those of later starts, which are milliseconds of the wall clock.
const NEW_BOOT_US_MIN: u64 = 60_000_000;

/// When this node may take a boot number.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Time from which the next boot number may be taken, on the monotonic clock in microseconds.
    next_us: u64,
}

impl Lives {
    /// Notes that a boot number is taken. Returns `false` if it is too early for one.
    fn take(&mut self, now_us: u64) -> bool {
        let is_time = now_us >= self.next_us;
        if is_time {
            self.next_us = now_us + NEW_BOOT_US_MIN;
        }
        is_time
    }
}

impl Swim {
    /// All members, this node included, with their boot numbers, and whether each has answered at its own address.
    pub fn boots(&self) -> impl Iterator<Item = (&NodeName, u64, bool)> {
        let members = self.table.slots().filter_map(|slot| self.table.get(slot));
        members.map(|member| (&member.identity.name, member.identity.boot, member.state != State::Joining))
    }

    /// Returns whether news is about this node under one of the boot numbers that it has had since its start.
    pub(super) fn is_of_this_run(&self, update: &Update) -> bool {
        let me = &self.table.me().identity;
        (me.start_boot()..=me.boot).contains(&update.boot)
    }

    /// Returns whether an incarnation is further ahead of this node's own than it can have come by refutations.
    pub(super) fn is_beyond_reason(&self, incarnation: u32) -> bool {
        incarnation > self.table.me().incarnation.saturating_add(INCARNATION_JUMP_MAX)
    }

    /// Takes in news about this node with an incarnation for which it has no greater one. If the member from which
    /// it came is sure to hold it, or it follows from this node's own incarnation, this node takes a new boot
    /// number. Else that member is pinged, so that it says so if it does.
    pub(super) fn hear_what_cannot_be_refuted(&mut self, now: Now, incarnation: u32, way: Way) {
        let is_held = match way {
            Way::Answer(_) | Way::List | Way::FirstList => true,
            Way::Gossip(_) | Way::Proven | Way::Introduced(_) => !self.is_beyond_reason(incarnation),
        };
        if is_held {
            self.take_new_boot(now, way);
        } else if let Way::Gossip(from) = way
            && let Some(slot) = self.table.live_at(from)
        {
            self.probe(now, slot);
        }
    }

    /// Takes the next boot number, unless the last one was taken too short a time ago.
    fn take_new_boot(&mut self, now: Now, way: Way) {
        let Some(identity) = self.table.me().identity.renewed() else { return };
        if self.leave.is_leaving() || !self.lives.take(now.mono_us) {
            return;
        }
        let boot = identity.boot;
        debug_assert!(boot > self.table.me().identity.boot, "boot numbers grow");
        let said = Introduction { identity: Arc::new(identity), incarnation: 0 };
        self.table.set(ME, said, State::Alive, now.mono_us, &mut self.random);
        self.outputs.push_back(SwimOutput::NewBoot { boot });
        self.changed(now, ME);
        self.tell_refutation(now, way);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{address, at, config, name};
    use super::super::message::Claim;
    use super::*;
    use crate::cluster::Known;
    use crate::cluster::members::Identity;
    use crate::record::NodeName;

    const MINUTE_US: u64 = 60_000_000;

    /// The membership of `c`, which started with this boot number, has this incarnation, and knows `a`.
    fn swim(boot: u64, incarnation: u32) -> Swim {
        let mut swim = Swim::new(&config("c", boot, 3), at(0), 1_100, 0);
        let a = Identity::new(name("a"), 1, address(1), "10.0.0.1:7070", "", "0.1.0");
        swim.handle_known(at(0), &Known::new([swim.identity().clone(), Arc::new(a)]));
        let said = Introduction { incarnation, ..swim.table.me().clone() };
        swim.table.set(ME, said, State::Alive, 0, &mut swim.random);
        swim
    }

    /// Tells the node that it is suspected. Returns its boot number and its incarnation afterwards.
    fn accuse(swim: &mut Swim, now_us: u64, boot: u64, incarnation: u32, way: Way) -> (u64, u32) {
        let name = swim.identity().name.clone();
        let claim = Claim::Suspect(vec![NodeName::parse("a").expect("a name")]);
        swim.hear(at(now_us), Update { name, boot, incarnation, claim }, way);
        let me = swim.table.me();
        (me.identity.boot, me.incarnation)
    }

    /// The greatest incarnation has none after it: a node that was suspected there could never refute that.
    #[test]
    fn a_node_at_the_greatest_incarnation_goes_on_with_a_new_boot_number() {
        for way in [Way::Gossip(address(1)), Way::Answer(address(1)), Way::List] {
            let mut swim = swim(5, u32::MAX - 1);
            assert_eq!(accuse(&mut swim, 1, 5, u32::MAX - 2, way), (5, u32::MAX - 1));
            assert_eq!(accuse(&mut swim, 2, 5, u32::MAX - 1, way), (5, u32::MAX));
            assert_eq!(accuse(&mut swim, 3, 5, u32::MAX, way), (6, 0));
            let outputs: Vec<SwimOutput> = std::iter::from_fn(|| swim.poll_output()).collect();
            let is_taken = |output: &&SwimOutput| matches!(output, SwimOutput::NewBoot { boot: 6 });
            assert_eq!(outputs.iter().filter(is_taken).count(), 1);
            assert_eq!((swim.identity().start_boot(), swim.ring().len()), (5, 2));
            // What is said of the boot number before does not touch it any more.
            assert_eq!(accuse(&mut swim, 4, 5, u32::MAX, way), (6, 0));
            assert_eq!(accuse(&mut swim, 5, 6, 0, way), (6, 1));
            assert_eq!(accuse(&mut swim, 6, 4, 7, way), (6, 1), "that is another start");
        }
    }

    #[test]
    fn what_is_far_ahead_counts_if_the_member_holds_it_and_once_a_minute() {
        let far = INCARNATION_JUMP_MAX + 1;
        let (gossip, answer) = (Way::Gossip(address(1)), Way::Answer(address(1)));
        let mut swim = swim(5, 0);
        assert_eq!(accuse(&mut swim, 1, 5, far, gossip), (5, 0));
        let is_ping = |output: &SwimOutput| {
            let SwimOutput::Datagram { to, message: crate::cluster::swim::SwimMessage::Ping(_), .. } = output
            else {
                return false;
            };
            *to == address(1)
        };
        assert!(std::iter::from_fn(|| swim.poll_output()).any(|output| is_ping(&output)), "it is asked");
        assert_eq!(accuse(&mut swim, 2, 5, far, answer), (6, 0));
        for now_us in [3, MINUTE_US / 2, MINUTE_US + 1] {
            assert_eq!(accuse(&mut swim, now_us, 6, u32::MAX, answer), (6, 0));
        }
        assert_eq!(accuse(&mut swim, MINUTE_US + 2, 6, u32::MAX, answer), (7, 0));
        assert_eq!(accuse(&mut swim, MINUTE_US + 3, 7, far - 1, gossip), (7, far), "that can be refuted");
    }

    /// There is no boot number after the greatest one. The node's own answers keep it alive then.
    #[test]
    fn the_greatest_boot_number_is_the_last() {
        let mut swim = swim(u64::MAX, 0);
        assert_eq!(accuse(&mut swim, 1, u64::MAX, u32::MAX, Way::Answer(address(1))), (u64::MAX, 0));
    }
}
