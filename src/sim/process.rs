//! A node as a process: it reads its sockets when it has time, calls its machine, and returns what is to be
//! done outside.
//!
//! What a process does depends on nothing but its own state, what arrives, and when. So nodes can be called
//! side by side. Everything that others can see of it is an [`Act`], which the world carries out in order.
//!
//! A process that is busy or paused keeps receiving into its sockets; when it goes on, it reads all of that
//! first, and handles its overdue timers afterwards.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::accounts::Account;
use super::act::{Act, Surroundings};
use super::applying::Applying;
use super::later::LaterBatches;
use super::place::{NodeId, Place};
use super::queue::SimEvent;
use super::replica::SimReplica;
use super::time::now_of;
use crate::cluster::outbox::Outbox;
use crate::cluster::{AppliedBatch, Effect, Machine, MachineConfig};
use crate::record::Now;

/// Number of datagrams that a process's socket holds at most.
const SOCKET_DATAGRAMS_MAX: usize = 2_000;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    Paused,
    No,
}

/// A process: the machine, its map, its sockets, and the state around them.
pub(super) struct SimNode {
    /// Number of the node.
    pub id: NodeId,
    /// Index of the node's plan in its share, while it is called ahead of time.
    pub plan: Option<usize>,
    /// The cluster machine.
    pub machine: Machine,
    /// The map of the latest records.
    pub replica: SimReplica,
    /// Configuration of the machine.
    pub config: MachineConfig,
    /// Address at which the node listens.
    pub address: SocketAddr,
    /// Place of the address.
    pub place: Place,
    /// Whether the process runs.
    pub running: Running,
    /// Number of restarts in this world: events for an earlier life are void.
    pub life: u32,
    /// Events that arrived at the sockets and were not read yet, in order.
    pub waiting: VecDeque<SimEvent>,
    /// Number of datagrams in `waiting`.
    pub datagrams_waiting: usize,
    /// Whether a turn is scheduled for when the process is free.
    pub has_turn: bool,
    /// Whether the machine's timeout came due and was not handled yet.
    pub is_overdue: bool,
    /// Until when the process is busy, in microseconds of the world.
    pub busy_us: u64,
    /// Token of the wake-up that is valid; earlier ones are ignored.
    pub token: u64,
    /// Time of the valid wake-up, in microseconds of the world; `u64::MAX`: there is none.
    pub wake_us: u64,
    /// How far the node's wall clock is off, in microseconds.
    pub wall_offset_us: i64,
    /// Number of connections that were accepted so far.
    pub streams_accepted: u64,
    /// Address of another node that has this node's name, if the machine reported one.
    pub name_taken: Option<SocketAddr>,
    /// Records that clients published here and the machine has not taken yet.
    pub outbox: Outbox,
    /// Batches that other threads of the process merge.
    pub later: LaterBatches,
    /// Counts of what earlier lives sent and received.
    pub past: Account,
}

impl SimNode {
    /// Returns whether the process has not been stopped; it may be paused.
    pub fn is_up(&self) -> bool {
        self.running != Running::No
    }

    /// Handles an event that arrives at the sockets. Returns whether the machine was called.
    pub fn arrive(&mut self, world: &Surroundings, event: SimEvent, acts: &mut VecDeque<Act>) -> bool {
        if self.running == Running::Yes && self.waiting.is_empty() && self.busy_us <= world.now_us {
            self.handle(world, event, acts);
            return true;
        }
        if self.running == Running::No {
            return false;
        }
        if let SimEvent::Datagram { .. } = event {
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

    /// Handles the machine's timeout, which is due. Returns whether the machine was called.
    pub fn wake(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) -> bool {
        self.wake_us = u64::MAX;
        self.is_overdue = true;
        self.turn(world, acts)
    }

    /// Reads what waits in the sockets as far as the process has time, and handles the timers afterwards.
    /// Returns whether the machine was called.
    pub fn turn(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) -> bool {
        let mut is_called = false;
        while self.running == Running::Yes {
            if self.busy_us > world.now_us {
                self.come_back(world, acts);
                return is_called;
            }
            if let Some(event) = self.waiting.pop_front() {
                if let SimEvent::Datagram { .. } = event {
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

    /// Schedules a turn for when the process is free, if any work is left and none is scheduled yet.
    fn come_back(&mut self, world: &Surroundings, acts: &mut VecDeque<Act>) {
        let has_work = !self.waiting.is_empty() || self.is_overdue;
        if has_work && !self.has_turn && self.running == Running::Yes {
            self.has_turn = true;
            acts.push_back(Act::Turn { at_us: self.busy_us.max(world.now_us) });
        }
    }

    /// Calls the machine with an event that was read from the sockets.
    fn handle(&mut self, world: &Surroundings, event: SimEvent, acts: &mut VecDeque<Act>) {
        self.busy_us = self.busy_us.max(world.now_us) + world.cpu_us;
        let read = acts.len();
        acts.push_back(Act::Nothing);
        match &event {
            SimEvent::Datagram { from, bytes, .. } => {
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
            SimEvent::Stream { stream, event, .. } => {
                let (stream, event) = (*stream, event.clone());
                self.call(world, acts, |machine, replica, now| {
                    machine.handle_stream(now, stream, event, replica);
                });
            }
            _ => {}
        }
        put(acts, read, Act::Read(event));
    }

    /// Returns how many copies of records arrived in this life.
    fn copies_received(&self) -> u64 {
        self.machine.spread_stats().data_copies_received
    }

    /// Calls the machine, and adds its effects and the time at which it is to be woken to the acts.
    pub fn call(
        &mut self,
        world: &Surroundings,
        acts: &mut VecDeque<Act>,
        call: impl FnOnce(&mut Machine, &mut Applying, Now),
    ) {
        let now = now_of(world.now_us, self.wall_offset_us);
        let merged = self.later.take_due(world.now_us);
        let mut applying = Applying {
            replica: &mut self.replica,
            accepted: world.accepted,
            at_us: world.now_us.max(self.busy_us),
            merge_us: world.merge_us,
            later: &mut self.later,
            acts,
        };
        for batch in merged {
            let outcome = batch.apply_to(now, &mut applying);
            let applied = AppliedBatch { ticket: batch.ticket(), outcome };
            self.machine.handle_applied(now, &[applied], &mut applying);
        }
        call(&mut self.machine, &mut applying, now);
        // The wake-up goes before all that the machine sends: of two events at one time, the one that was
        // decided first happens first.
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
        let due_us = [self.machine.poll_timeout(), self.later.due_us()].into_iter().flatten().min();
        let due_us = due_us.unwrap_or(u64::MAX).max(world.now_us);
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
            // What a node keeps of its boot number is in its configuration.
            Effect::NewBoot { boot } => {
                self.config.boot = boot;
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
