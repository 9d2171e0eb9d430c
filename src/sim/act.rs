//! The consequences that a call of a node has outside of that node.
//!
//! Nodes may be called side by side, on several threads. None of them changes the world: each returns a list
//! of [`Act`]s, which the world carries out in order.

use std::net::SocketAddr;

use bytes::Bytes;

use super::accepted::{AcceptedRecords, Noted};
use super::place::{Hosts, Place};
use super::queue::SimEvent;
use crate::cluster::Effect;

/// One consequence of a call of a node.
#[derive(Debug)]
pub(super) enum Act {
    /// Nothing is to be done: it keeps the place of an act that is known only later.
    Nothing,
    /// The node has read this from its sockets.
    Read(SimEvent),
    /// A datagram was dropped because the node's socket was full.
    Overflowed,
    /// A datagram from `from` brought `count` copies of records.
    Copies { from: Place, count: u64 },
    /// The node has merged a record, or found it stale or against the rules.
    Noted(Noted),
    /// The node's machine is to be woken at `at_us`, unless a newer token has been given out by then.
    Wake { at_us: u64, token: u64 },
    /// The node is busy until `at_us` and has work left for then.
    Turn { at_us: u64 },
    /// The node sends a datagram that is ready at `ready_us`.
    Send { ready_us: u64, to: SocketAddr, bytes: Bytes },
    /// The node's machine asks for something else.
    Effect(Effect),
}

/// The part of the world that a node sees while it is called.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Time of the world, in microseconds.
    pub now_us: u64,
    /// Processor time that a datagram takes at each end, in microseconds.
    pub cpu_us: u64,
    /// Longest time until another thread of a node has merged a batch, in microseconds; 0: it is merged at once.
    pub merge_us: u64,
    /// The nodes that listen at each address.
    pub hosts: &'a Hosts,
    /// The records that were accepted so far.
    pub accepted: &'a AcceptedRecords,
}
