//! A node as a process: it reads its sockets when it has time, sees to its timers, and tells what came of it.
//!
//! What it does depends on nothing but itself, what comes in and when: so nodes can be called side by side.
//! What is to be seen of it outside is an [`Act`], which the world sees to, one after the other.
//!
//! A process that is busy or paused keeps receiving into its sockets; when it goes on it gets all that
//! first, and its overdue timers after.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::accounts::Account;
use super::deliveries::{Accepted, Applying, Noted};
use super::nodes::{Hosts, NodeId, Place};
use super::queue::Event;
use super::replica::SimReplica;
use super::world::now_of;
use crate::cluster::outbox::Outbox;
use crate::cluster::{Effect, Machine, MachineConfig};
use crate::record::{HybridClock, Now};

/// Datagrams that a process's socket holds.
const SOCKET_DATAGRAMS_MAX: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    Paused,
    No,
}

/// A process, its machine and what stands around it.
pub(super) struct Node {
    pub id: NodeId,
    /// Which part of its share's work is its own, if it has one.
    pub part: Option<usize>,
    pub machine: Machine,
    pub replica: SimReplica,
    pub config: MachineConfig,
    pub address: SocketAddr,
    pub place: Place,
    pub running: Running,
    /// Counts its lives in the world.
    pub life: u32,
    /// What came in and was not read yet.
    pub waiting: VecDeque<Event>,
    /// Datagrams among it.
    pub datagrams_waiting: usize,
    /// A turn is scheduled.
    pub has_turn: bool,
    /// Its timeout came due while it was busy.
    pub is_overdue: bool,
    /// Until when it is busy.
    pub busy_us: u64,
    /// The valid wake-up.
    pub token: u64,
    pub wake_us: u64,
    pub wall_offset_us: i64,
    pub streams_accepted: u64,
    pub name_taken: Option<SocketAddr>,
    pub outbox: Outbox,
    pub clock: HybridClock,
    /// Of earlier lives.
    pub past: Account,
}

/// What came of calling a node.
#[derive(Debug)]
pub(super) enum Act {
    /// A place kept for another.
    Nothing,
    /// It read this from its sockets.
    Read(Event),
    /// A datagram found its socket full.
    Overflowed,
    /// A datagram from there brought so many copies of records.
    Copies { from: Place, count: u64 },
    /// Its replica took a record, or did not.
    Noted(Noted),
    /// It is to be woken.
    Wake { at_us: u64, token: u64 },
    /// It has work left for when it is free.
    Turn { at_us: u64 },
    /// It sends a datagram, which is ready then.
    Send { ready_us: u64, to: SocketAddr, bytes: Bytes },
    /// It wants something else done.
    Effect(Effect),
}

/// What a node sees of the world when it is called.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub now_us: u64,
    /// What a datagram costs each end of the processor's time.
    pub cpu_us: u64,
    pub hosts: &'a Hosts,
    pub accepted: &'a Accepted,
}

impl Node {
    /// Something comes in at its sockets; whether the machine was called.
    pub fn arrive(&mut self, world: &Surroundings, event: Event, acts: &mut VecDeque<Act>) -> bool {
        if self.running == Running::Yes && self.waiting.is_empty() && self.busy_us <= world.now_us {
            self.handle(world, event, acts);
            return true;
        }
        if self.running == Running::No {
            return false;
        }
        if let Event::Datagram { .. } = event {
            if self.datagrams_waiting >= SOCKET_DATAGRAMS_MAX {
                acts.push_back(Act::Overflowed);
                return false;
            }
            self.datagrams_waiting += 1;
        }
        self.waiting.push_back(event);
        self.come_back(world, acts);
        false
    }

    /// Its timeout is due; whether the machine was called.
    pub fn wake(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) -> bool {
        self.wake_us = u64::MAX;
        self.is_overdue = true;
        self.turn(world, acts)
    }

    /// It reads what waits, one thing after the other as it has time, and then sees to its timers; whether
    /// the machine was called.
    pub fn turn(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) -> bool {
        let mut is_called = false;
        while self.running == Running::Yes {
            if self.busy_us > world.now_us {
                self.come_back(world, acts);
                return is_called;
            }
            if let Some(event) = self.waiting.pop_front() {
                if let Event::Datagram { .. } = event {
                    self.datagrams_waiting -= 1;
                }
                self.handle(world, event, acts);
            } else if std::mem::take(&mut self.is_overdue) {
                self.call(world, acts, |machine, replica, now| machine.handle_timeout(now, replica));
            } else {
                return is_called;
            }
            is_called = true;
        }
        is_called
    }

    /// Sees to it that it has a turn when it is free.
    fn come_back(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) {
        let has_work = !self.waiting.is_empty() || self.is_overdue;
        if has_work && !self.has_turn && self.running == Running::Yes {
            self.has_turn = true;
            acts.push_back(Act::Turn { at_us: self.busy_us.max(world.now_us) });
        }
    }

    fn handle(&mut self, world: &Surroundings, event: Event, acts: &mut VecDeque<Act>) {
        self.busy_us = self.busy_us.max(world.now_us) + world.cpu_us;
        let read = acts.len();
        acts.push_back(Act::Nothing);
        match &event {
            Event::Datagram { from, bytes, .. } => {
                let address = world.hosts.address(*from);
                let before = self.copies_received();
                self.call(world, acts, |machine, replica, now| {
                    machine.handle_datagram(now, address, bytes, replica);
                });
                let count = self.copies_received() - before;
                if count > 0 {
                    acts.push_back(Act::Copies { from: *from, count });
                }
            }
            Event::Stream { stream, event, .. } => {
                let (stream, event) = (*stream, event.clone());
                self.call(world, acts, |machine, replica, now| {
                    machine.handle_stream(now, stream, event, replica);
                });
            }
            _ => {}
        }
        put(acts, read, Act::Read(event));
    }

    /// Copies of records that it received in this life.
    fn copies_received(&self) -> u64 {
        self.machine.spread_stats().data_copies_received
    }

    /// Calls its machine, and tells what that wants done and when it wants to be woken.
    pub fn call(
        &mut self,
        world: &Surroundings,
        acts: &mut VecDeque<Act>,
        call: impl FnOnce(&mut Machine, &mut Applying, Now),
    ) {
        let now = now_of(world.now_us, self.wall_offset_us);
        let mut applying = Applying {
            replica: &mut self.replica,
            accepted: world.accepted,
            at_us: world.now_us.max(self.busy_us),
            acts,
        };
        call(&mut self.machine, &mut applying, now);
        // It is to be woken before what it sends is sent: of two things at one time the first decided
        // happens first.
        let wake = acts.len();
        acts.push_back(Act::Nothing);
        let mut records = Vec::new();
        loop {
            while let Some(effect) = self.machine.poll_effect() {
                acts.push_back(self.act_of(world, effect));
            }
            let room_bytes = self.machine.room_bytes();
            if self.outbox.bytes() == 0 || room_bytes == 0 {
                break;
            }
            self.outbox.take(room_bytes, &mut records);
            self.machine.handle_published(now, &records);
            records.clear();
        }
        let due_us = self.machine.poll_timeout().unwrap_or(u64::MAX).max(world.now_us);
        if due_us != self.wake_us && due_us < u64::MAX && !self.is_overdue {
            self.token += 1;
            self.wake_us = due_us;
            put(acts, wake, Act::Wake { at_us: due_us, token: self.token });
        }
    }

    fn act_of(&mut self, world: &Surroundings, effect: Effect) -> Act {
        match effect {
            Effect::Datagram { to, bytes } => {
                self.busy_us = self.busy_us.max(world.now_us) + world.cpu_us;
                Act::Send { ready_us: self.busy_us, to, bytes }
            }
            Effect::NameTaken { by } => {
                self.name_taken = Some(by);
                Act::Nothing
            }
            Effect::MembersChanged => Act::Nothing,
            other => Act::Effect(other),
        }
    }
}

fn put(acts: &mut VecDeque<Act>, at: usize, act: Act) {
    if let Some(place) = acts.get_mut(at) {
        *place = act;
    }
}
