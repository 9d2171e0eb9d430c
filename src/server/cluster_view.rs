//! What a node knows of its cluster. Worker 0 reports it, and all threads may read it.
//!
//! Members and heads are replaced as a whole, so a reader holds a lock only for as long as it takes to
//! clone an `Arc`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::RwLock;

use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;

/// The state of the cluster as worker 0 last reported it.
#[derive(Debug)]
pub struct ClusterView {
    members: RwLock<Arc<[MemberInfo]>>,
    /// What this node holds of every origin but itself.
    heads: RwLock<Arc<Heads>>,
    is_joined: AtomicBool,
    is_skewed: AtomicBool,
    is_clock_compared: AtomicBool,
    is_unreachable: AtomicBool,
}

impl ClusterView {
    /// Nothing is known yet. A node that has nobody to join is complete by itself, and counts as joined.
    pub fn new(has_seeds: bool) -> ClusterView {
        ClusterView {
            members: RwLock::new(Arc::from(Vec::new())),
            heads: RwLock::default(),
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

    /// What this node holds of every other origin, without holes. May be a little behind, and is never
    /// ahead.
    pub fn heads_of_others(&self) -> Arc<Heads> {
        self.heads.read().clone()
    }

    /// Replaces the heads of the other origins.
    pub fn set_heads(&self, heads: Heads) {
        *self.heads.write() = Arc::new(heads);
    }

    /// Returns whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn is_joined(&self) -> bool {
        self.is_joined.load(Relaxed)
    }

    /// Says whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn set_joined(&self, is_joined: bool) {
        self.is_joined.store(is_joined, Relaxed);
    }

    /// Returns whether this node's wall clock is too far off its peers'.
    pub fn is_skewed(&self) -> bool {
        self.is_skewed.load(Relaxed)
    }

    /// Says whether this node's wall clock is too far off its peers'.
    pub fn set_skewed(&self, is_skewed: bool) {
        self.is_skewed.store(is_skewed, Relaxed);
    }

    /// Returns whether this node's wall clock has been compared with a member's, or there is nobody to compare
    /// it with. Once it has been, it stays so.
    pub fn is_clock_compared(&self) -> bool {
        self.is_clock_compared.load(Relaxed)
    }

    /// Says that this node's wall clock has been compared, or that there is nobody to compare it with.
    pub fn set_clock_compared(&self) {
        self.is_clock_compared.store(true, Relaxed);
    }

    /// Says whether a member is dead and not forgotten: it may bring deleted data back.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.is_unreachable.store(is_unreachable, Relaxed);
    }

    /// Returns whether tombstones may be collected: nobody is away who could bring deleted data back.
    pub fn may_collect(&self) -> bool {
        !self.is_unreachable.load(Relaxed)
    }
}
