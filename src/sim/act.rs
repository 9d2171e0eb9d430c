//! What a call of a node leads to outside of that node.
//!
//! Nodes may be called side by side, on several threads. None of them changes the world: each tells what
//! is to be done as a list of [`Act`]s, and the world does that in order.

use std::net::SocketAddr;

use bytes::Bytes;

use super::accepted::{AcceptedRecords, Noted};
use super::place::{Hosts, Place};
use super::queue::SimEvent;
use crate::cluster::Effect;

/// One thing that a call of a node leads to.
#[derive(Debug)]
pub(super) enum Act {
    /// Nothing: keeps the place of an act that is known only later.
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

/// What a node sees of the world while it is called.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub now_us: u64,
    /// Processor time that a datagram takes at each end, in microseconds.
    pub cpu_us: u64,
    pub hosts: &'a Hosts,
    pub accepted: &'a AcceptedRecords,
}
