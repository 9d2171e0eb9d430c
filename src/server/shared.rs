//! What all threads of a node share: the map with the way into it, the store, the mailboxes, and what
//! worker 0 says about the cluster.
//!
//! Nothing here waits. Snapshots (members, heads) are replaced whole, so a reader holds a lock only
//! for as long as it takes to clone an `Arc`. The phases of a shutdown are one number that only grows.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

use parking_lot::{Condvar, Mutex, RwLock};

use super::acks::Acks;
use super::clock;
use super::mailbox::Mailbox;
use super::outlets::Outlets;
use crate::cluster::members::MemberInfo;
use crate::cluster::{Heads, Replicated};
use crate::config::Config;
use crate::ingest::{Downstream, Ingest};
use crate::limits::OUTBOX_BYTES_SOFT;
use crate::metrics::Metrics;
use crate::record::NodeName;
use crate::store::StoreHandle;

/// How far a node is in its life. Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The store's records are read into the map; nobody is served but the control plane.
    Loading,
    /// As usual.
    Serving,
    /// New publishes are refused; what is under way is finished.
    Draining,
    /// Clients are told to go elsewhere.
    Closing,
    /// The cluster is told.
    Leaving,
    /// The loops end.
    Stopped,
    /// The loops end at once: nothing is flushed, nobody is told.
    Killed,
}

impl ClusterState {
    /// Whether tombstones may be collected: nobody is away who could bring deleted data back.
    pub fn may_collect(&self) -> bool {
        !self.is_unreachable.load(Relaxed)
    }
}

const PHASES: [Phase; 7] = [
    Phase::Loading,
    Phase::Serving,
    Phase::Draining,
    Phase::Closing,
    Phase::Leaving,
    Phase::Stopped,
    Phase::Killed,
];

/// What worker 0 says about the cluster for `readyz`.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// The first reconciliation is done, or there is nobody to reconcile with.
    pub is_joined: AtomicBool,
    /// The wall clock is too far off the peers'.
    pub is_skewed: AtomicBool,
    /// A member is dead and not forgotten: it may bring deleted data back.
    pub is_unreachable: AtomicBool,
}

/// A failure that ends the node, by whoever notices it first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Another node has the name.
    #[error("the name {name} is taken: a node of that name is alive at {by}")]
    NameTaken {
        /// This node's name.
        name: String,
        /// Where the other one is.
        by: std::net::SocketAddr,
    },
    /// The store's records cannot be read.
    #[error("the store cannot be read: {0}")]
    Load(String),
    /// A loop's poll failed.
    #[error("an event loop failed: {0}")]
    Loop(String),
}

/// Shared by all threads of a node.
pub struct Shared {
    /// As checked.
    pub config: Config,
    /// This node.
    pub name: NodeName,
    /// This life.
    pub boot: u64,
    /// The map and the way into it.
    pub ingest: Ingest<Outlets>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `readyz` needs to know.
    pub cluster: ClusterState,
    /// Answers to publishers that wait, as far as threads share them.
    pub(super) acks: Acks,
    members: RwLock<Arc<[MemberInfo]>>,
    heads: RwLock<Arc<Heads>>,
    phase: AtomicU8,
    /// Connections of all workers, those that are still to say what they want included.
    pub connections: AtomicUsize,
    /// When each worker turned last, on the monotonic clock.
    pub turned_us: Vec<AtomicU64>,
    /// Workers that wait on their paused publishers, to be woken when there is room again.
    is_room_wanted: AtomicBool,
    progress: Mutex<Progress>,
    progressed: Condvar,
    on_fatal: Box<dyn Fn() + Send + Sync>,
}

/// What the one that stops the node waits for.
#[derive(Debug, Default)]
struct Progress {
    /// By worker: the last phase whose work it has done.
    done: Vec<Option<Phase>>,
    fatal: Option<Fatal>,
}

impl Shared {
    /// A node that is loading. `on_fatal` is called, at most a few times, when it must end.
    pub fn new(
        config: Config,
        (name, boot): (NodeName, u64),
        ingest: Ingest<Outlets>,
        metrics: Arc<Metrics>,
        on_fatal: Box<dyn Fn() + Send + Sync>,
    ) -> Shared {
        let workers = ingest.downstream().mailboxes.len();
        Shared {
            name,
            boot,
            metrics,
            ingest,
            cluster: ClusterState { is_joined: config.join.is_empty().into(), ..ClusterState::default() },
            config,
            acks: Acks::new(workers),
            members: RwLock::new(Arc::from(Vec::new())),
            heads: RwLock::default(),
            phase: AtomicU8::new(Phase::Loading as u8),
            connections: AtomicUsize::new(0),
            turned_us: (0..workers).map(|_| AtomicU64::new(clock::now().mono_us)).collect(),
            is_room_wanted: AtomicBool::new(false),
            progress: Mutex::new(Progress { done: vec![None; workers], fatal: None }),
            progressed: Condvar::new(),
            on_fatal,
        }
    }

    /// The store.
    pub fn store(&self) -> &StoreHandle {
        &self.ingest.downstream().store
    }

    /// The mailboxes, by worker.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.ingest.downstream().mailboxes
    }

    /// Wakes every worker that something was pushed to. At the end of a turn, and after a publish
    /// from elsewhere.
    pub fn wake_wanted(&self) {
        for mailbox in self.mailboxes() {
            mailbox.wake_if_wanted();
        }
    }

    /// Wakes every worker in any case.
    pub fn wake_all(&self) {
        for mailbox in self.mailboxes() {
            mailbox.wake();
        }
    }

    /// Worker 0 has records to take from the outbox.
    pub fn wake_gossip(&self) {
        if let Some(mailbox) = self.mailboxes().first() {
            mailbox.wake();
        }
    }

    /// An answer need not wait any longer.
    pub fn handle_replicated(&self, replicated: Replicated) {
        let worker = self.acks.handle_replicated(replicated, &self.metrics);
        if let Some(mailbox) = worker.and_then(|worker| self.mailboxes().get(worker)) {
            mailbox.wake();
        }
    }

    /// Whether publishers are to wait: for the cluster, for the store, or for a worker with a full
    /// mailbox. Who asks and is told so is woken when there is room.
    pub fn is_congested(&self) -> bool {
        let is_congested = self.is_over_soft();
        if is_congested {
            self.is_room_wanted.store(true, SeqCst);
            // There may have been room since; then nobody would come to tell.
            return self.is_over_soft();
        }
        false
    }

    /// To be called after something was taken from the outbox or a mailbox.
    pub fn handle_room(&self) {
        if self.is_room_wanted.load(SeqCst) && !self.is_over_soft() && self.is_room_wanted.swap(false, SeqCst)
        {
            self.wake_all();
        }
    }

    /// Whether anyone waits for room.
    pub fn is_room_awaited(&self) -> bool {
        self.is_room_wanted.load(SeqCst)
    }

    /// Whether peers that bring records in bulk are to wait. Likewise.
    pub fn is_store_lagging(&self) -> bool {
        let is_lagging = self.store().is_lagging();
        if is_lagging {
            self.is_room_wanted.store(true, SeqCst);
        }
        is_lagging
    }

    fn is_over_soft(&self) -> bool {
        self.store().is_lagging()
            || self.mailboxes().iter().any(Mailbox::is_over_soft)
            || self.ingest.outbox_bytes() > OUTBOX_BYTES_SOFT
    }

    /// Every member, sorted by name.
    pub fn members(&self) -> Arc<[MemberInfo]> {
        self.members.read().clone()
    }

    /// Replaces the member list.
    pub fn set_members(&self, members: Vec<MemberInfo>) {
        *self.members.write() = members.into();
    }

    /// What this node holds of every origin, without holes, its own life included. May lag a little,
    /// never lead.
    pub fn heads(&self) -> Arc<Heads> {
        let others = self.heads.read().clone();
        let own_seq = self.ingest.outbox().lock().last_seq();
        if own_seq == 0 {
            return others;
        }
        let mut heads = (*others).clone();
        heads.insert((self.name.clone(), self.boot), own_seq);
        Arc::new(heads)
    }

    /// Replaces the heads of the other origins.
    pub fn set_heads(&self, heads: Heads) {
        *self.heads.write() = Arc::new(heads);
    }

    /// How far the node is.
    pub fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(SeqCst))).copied().unwrap_or(Phase::Killed)
    }

    /// Goes on to `phase`, never back, and wakes everyone.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, SeqCst);
        if phase >= Phase::Draining {
            self.ingest.set_draining();
        }
        self.wake_all();
    }

    /// A worker has done what a phase asks of it.
    pub fn set_done(&self, worker: usize, phase: Phase) {
        let mut progress = self.progress.lock();
        if let Some(done) = progress.done.get_mut(worker)
            && done.is_none_or(|done| done < phase)
        {
            *done = Some(phase);
            self.progressed.notify_all();
        }
    }

    /// Waits until every worker has done what `phase` asks; `false`: not within `timeout_us`.
    pub fn wait_done(&self, phase: Phase, timeout_us: u64) -> bool {
        let deadline_us = clock::now().mono_us + timeout_us;
        let mut progress = self.progress.lock();
        while !progress.done.iter().all(|done| done.is_some_and(|done| done >= phase)) {
            let left_us = deadline_us.saturating_sub(clock::now().mono_us);
            if left_us == 0 {
                return false;
            }
            self.progressed.wait_for(&mut progress, std::time::Duration::from_micros(left_us));
        }
        true
    }

    /// The node must end; the first reason counts.
    pub fn fail(&self, fatal: Fatal) {
        self.progress.lock().fatal.get_or_insert(fatal);
        (self.on_fatal)();
    }

    /// Why the node must end.
    pub fn fatal(&self) -> Option<Fatal> {
        self.progress.lock().fatal.clone()
    }

    /// Whether clients should be sent here; if not, why.
    pub fn readiness(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Loading => return Err("the store is being loaded".into()),
            Phase::Serving => {}
            _ => return Err("draining".into()),
        }
        if let Err(reason) = self.ingest.downstream().store_health() {
            return Err(format!("the store fails: {reason}"));
        }
        if let Some(reason) = self.store().away() {
            return Err(format!("nothing can be stored: {reason}"));
        }
        if self.cluster.is_skewed.load(Relaxed) {
            return Err("this node's clock is off its peers'".into());
        }
        if !self.cluster.is_joined.load(Relaxed) {
            return Err("the first reconciliation with the cluster is not done".into());
        }
        Ok(())
    }
}
