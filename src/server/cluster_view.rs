//! What a node knows of its cluster. Worker 0 reports it, and all threads may read it.
//!
//! Members and heads are replaced as a whole, so a reader holds a lock only for as long as it takes to
//! clone an `Arc`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::RwLock;

use super::stream::TcpReach;
use crate::cluster::members::MemberInfo;
use crate::cluster::{Heads, SeedInfo};

/// The state of the cluster as worker 0 last reported it.
#[derive(Debug)]
pub struct ClusterView {
    members: RwLock<Arc<[MemberInfo]>>,
    /// Whether the last connection over TCP to each gossip address succeeded; addresses that were not tried are missing.
    reached: RwLock<Arc<TcpReach>>,
    /// For every origin but this node, the sequence number up to which this node holds all records.
    heads: RwLock<Arc<Heads>>,
    /// The addresses of the join targets.
    seeds: RwLock<Vec<SeedInfo>>,
    is_joined: AtomicBool,
    is_skewed: AtomicBool,
    is_clock_compared: AtomicBool,
    is_unreachable: AtomicBool,
}

impl ClusterView {
    /// Makes a view in which nothing is known yet. A node that has nobody to join is complete by itself, and
    /// counts as joined.
    pub fn new(has_seeds: bool) -> ClusterView {
        ClusterView {
            members: RwLock::new(Arc::from(Vec::new())),
            reached: RwLock::default(),
            heads: RwLock::default(),
            seeds: RwLock::default(),
            is_joined: AtomicBool::new(!has_seeds),
            is_skewed: AtomicBool::new(false),
            is_clock_compared: AtomicBool::new(!has_seeds),
            is_unreachable: AtomicBool::new(false),
        }
    }

    /// Every member, sorted by name.
    pub fn members(&self) -> Arc<[MemberInfo]> {
        self.members.read().clone()
    }

    /// Replaces the list of members, which must be sorted by name.
    pub fn set_members(&self, members: Vec<MemberInfo>) {
        debug_assert!(members.is_sorted_by(|one, next| one.identity.name <= next.identity.name));
        *self.members.write() = members.into();
    }

    /// Whether the last connection over TCP to each gossip address succeeded.
    pub fn reached(&self) -> Arc<TcpReach> {
        self.reached.read().clone()
    }

    /// Replaces what is known of connections over TCP.
    pub fn set_reached(&self, reached: TcpReach) {
        *self.reached.write() = Arc::new(reached);
    }

    /// For every other origin, the sequence number up to which this node holds all records. May lag behind,
    /// but is never ahead.
    pub fn heads_of_others(&self) -> Arc<Heads> {
        self.heads.read().clone()
    }

    /// Replaces the heads of the other origins.
    pub fn set_heads(&self, heads: Heads) {
        *self.heads.write() = Arc::new(heads);
    }

    /// The addresses of the join targets, and what came of trying them; empty until the first is tried.
    pub fn seeds(&self) -> Vec<SeedInfo> {
        self.seeds.read().clone()
    }

    /// Replaces the addresses of the join targets.
    pub fn set_seeds(&self, seeds: Vec<SeedInfo>) {
        *self.seeds.write() = seeds;
    }

    /// Returns whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn is_joined(&self) -> bool {
        self.is_joined.load(Relaxed)
    }

    /// Sets whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn set_joined(&self, is_joined: bool) {
        self.is_joined.store(is_joined, Relaxed);
    }

    /// Returns whether this node's wall clock is too far off its peers'.
    pub fn is_skewed(&self) -> bool {
        self.is_skewed.load(Relaxed)
    }

    /// Sets whether this node's wall clock is too far off its peers'.
    pub fn set_skewed(&self, is_skewed: bool) {
        self.is_skewed.store(is_skewed, Relaxed);
    }

    /// Returns whether this node's wall clock has been compared with a member's, or there is nobody to compare
    /// it with. Once it has been, it stays so.
    pub fn is_clock_compared(&self) -> bool {
        self.is_clock_compared.load(Relaxed)
    }

    /// Notes that this node's wall clock has been compared, or that there is nobody to compare it with.
    pub fn set_clock_compared(&self) {
        self.is_clock_compared.store(true, Relaxed);
    }

    /// Sets whether any member is dead and not yet forgotten: it may bring deleted data back.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.is_unreachable.store(is_unreachable, Relaxed);
    }

    /// Returns whether tombstones may be collected: no member is away that could bring deleted data back.
    pub fn may_collect(&self) -> bool {
        !self.is_unreachable.load(Relaxed)
    }
}
