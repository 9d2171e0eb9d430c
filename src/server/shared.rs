//! What all threads of a node share: the map with the way into it, the store, the mailboxes, the phase of the
//! node ([`Lifecycle`]), what it knows of its cluster ([`ClusterView`]), and the pressure on its queues
//! ([`Pressure`]).
//!
//! Nothing here waits. The functions of [`Shared`] are those that need more than one of its parts.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::acks::{Acks, AnswerState};
use super::clock;
use super::cluster_view::ClusterView;
use super::complaints::ClientComplaints;
use super::guests::{Guest, Guests, socket_pair};
use super::key_file::KeyFile;
use super::lifecycle::{Lifecycle, Phase};
use super::log_limit::LogLimit;
use super::mailbox::Mailbox;
use super::merge_queue::MergeQueues;
use super::outlets::Outlets;
use super::pressure::{Places, Pressure, Queues};
use super::reload::Reloadable;
use super::session::Session;
use super::traces::Traces;
use super::watches::Watches;
use crate::auth::{AddressPlaces, Auth, Door};
use crate::cluster::{Heads, Replicated};
use crate::config::Config;
use crate::ingest::{Downstream, Ingest};
use crate::limits::OUTBOX_BYTES_SOFT;
use crate::memory::{Budget, MemoryUse};
use crate::metrics::Metrics;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{NodeName, Now};
use crate::store::StoreHandle;

/// Shared by all threads of a node.
pub struct Shared {
    /// The configuration, checked.
    pub config: Config,
    /// The name of this node.
    pub name: NodeName,
    /// The boot number with which the node started: it grows with every start. The records of the node have it.
    pub boot: u64,
    /// The map and the way into it.
    pub ingest: Ingest<Outlets>,
    /// The counters and gauges of the node.
    pub metrics: Arc<Metrics>,
    /// The phase of the node.
    pub lifecycle: Lifecycle,
    /// The file with the keys of the cluster; `None`: the node has no key.
    pub key_file: Option<KeyFile>,
    /// The view of the cluster that this node has.
    pub cluster: ClusterView,
    /// The log of failures to accept connections.
    accept_failures: LogLimit,
    /// The log of clients that were refused for want of memory.
    memory_refusals: LogLimit,
    /// Keeps whether any publisher or peer waits for room in the queues.
    pub pressure: Pressure,
    /// The number of connections of all workers.
    pub places: Places,
    /// The numbers of connections of each address.
    pub address_places: Arc<AddressPlaces>,
    /// The door that every request of a client passes.
    pub door: Door,
    /// The batches of peers that workers are to merge.
    pub merging: MergeQueues,
    /// What is logged of clients that were refused or closed.
    pub complaints: ClientComplaints,
    /// The subscribers of the control plane that wait for an event loop.
    pub guests: Guests,
    /// The memory that clients may make the node hold.
    pub memory: Arc<Budget>,
    /// Answers to publishers that wait, as far as threads share them.
    pub(super) acks: Acks,
}

impl Shared {
    /// Makes the state of a node that is loading. `on_fatal` is called for each failure that the node cannot
    /// go on with, and when the node is asked to stop.
    pub fn new(
        config: Config,
        (name, boot): (NodeName, u64),
        auth: Option<Auth>,
        ingest: Ingest<Outlets>,
        metrics: Arc<Metrics>,
        on_fatal: Box<dyn Fn() + Send + Sync>,
    ) -> Shared {
        let workers = ingest.downstream().mailboxes.len();
        let cluster = ClusterView::new(!config.join.is_empty());
        ingest.set_clock_compared(cluster.is_clock_compared());
        Shared {
            name,
            boot,
            metrics,
            ingest,
            lifecycle: Lifecycle::new(clock::now(), workers, on_fatal),
            key_file: config.cluster_key.clone().map(KeyFile::new),
            cluster,
            accept_failures: LogLimit::default(),
            memory_refusals: LogLimit::default(),
            complaints: ClientComplaints::default(),
            pressure: Pressure::default(),
            places: Places::new(config.max_connections),
            address_places: AddressPlaces::new(config.access.connections_per_address_max),
            door: Door::new(config.access.clone(), auth),
            merging: MergeQueues::new(workers),
            guests: Guests::new(workers),
            memory: Arc::new(Budget::new(config.max_client_memory_bytes, config.client_memory_share_bytes())),
            acks: Acks::new(workers),
            config,
        }
    }

    /// Returns the handle of the store.
    pub fn store(&self) -> &StoreHandle {
        &self.ingest.downstream().store
    }

    /// The mailboxes, by worker.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.ingest.downstream().mailboxes
    }

    /// The requests that wait for a change of one source.
    pub fn watches(&self) -> &Watches {
        &self.ingest.downstream().watches
    }

    /// The traces of records; `None` if none are traced.
    pub fn traces(&self) -> Option<&Arc<Traces>> {
        self.ingest.downstream().traces.as_ref()
    }

    /// Wakes every worker into whose mailbox something was pushed, and the requests that waited for it. To be called at the end of a turn, and
    /// after a publish from elsewhere.
    pub fn wake_wanted(&self) {
        for mailbox in self.mailboxes() {
            mailbox.wake_if_wanted();
        }
        self.watches().wake_changed();
        self.ingest.downstream().system_changes.wake_if_changed();
    }

    /// Lets a session without a client of its own, which has been let in, wait for the worker whose turn its number says.
    /// Returns the socket from which the frames are read that a client on `/subscribe` would be sent.
    pub fn invite(&self, number: usize, session: Session, address: IpAddr) -> Result<UnixStream, Refusal> {
        let (socket, outer) = socket_pair().map_err(|error| {
            Refusal::new(Code::Overloaded, format!("no further subscription can be opened: {error}"))
        })?;
        let worker = self.guests.push(number, Guest { socket, session, address });
        if let Some(mailbox) = self.mailboxes().get(worker) {
            mailbox.wake();
        }
        Ok(outer)
    }

    /// Wakes every worker in any case.
    pub fn wake_all(&self) {
        for mailbox in self.mailboxes() {
            mailbox.wake();
        }
    }

    /// Wakes worker 0, which takes records from the outbox and drives the cluster.
    pub fn wake_gossip(&self) {
        if let Some(mailbox) = self.mailboxes().first() {
            mailbox.wake();
        }
    }

    /// Merges batches of peers that wait for a worker, for some time. Returns whether more wait.
    pub fn merge_waiting(&self, worker: usize) -> bool {
        let Some(has_more) = self.merging.work(worker, &self.ingest) else { return false };
        self.wake_gossip();
        has_more
    }

    /// Counts a failure to accept a connection, and logs it unless failures were logged within a minute.
    pub fn handle_accept_failure(&self, now_us: u64, error: &std::io::Error) {
        self.metrics.accept_failures.add(1);
        if let Some(failures) = self.accept_failures.count(now_us) {
            tracing::warn!(
                %error,
                failures,
                "connections wait, and cannot be accepted; this is tried again all the time and logged once \
                 a minute"
            );
        }
    }

    /// Takes the cluster's answer for a record that every member is to hold, and wakes the worker that waits
    /// for it.
    pub fn handle_replicated(&self, now_us: u64, replicated: Replicated) {
        let worker = self.acks.handle_replicated(now_us, replicated, &self.metrics);
        if let Some(mailbox) = worker.and_then(|worker| self.mailboxes().get(worker)) {
            mailbox.wake();
        }
    }

    /// Returns whether publishers are to wait. If so, their workers are woken when there is room.
    pub fn is_congested(&self) -> bool {
        self.pressure.holds_publishers(&self.ingest)
    }

    /// Returns whether peers that bring records in bulk are to wait. If so, worker 0 is woken when the
    /// store has room.
    pub fn is_store_lagging(&self) -> bool {
        self.pressure.holds_bulk(&self.ingest)
    }

    /// To be called after something was taken from the outbox or a mailbox: wakes those who wait for room,
    /// if there is some.
    pub fn handle_room(&self) {
        if self.pressure.take_room(&self.ingest) {
            self.wake_all();
        }
    }

    /// For every origin and boot number, this node's own included, the number up to which this node holds all
    /// records. May lag behind, but is never ahead.
    pub fn heads(&self) -> Arc<Heads> {
        let others = self.cluster.heads_of_others();
        let own_seq = self.ingest.outbox().lock().last_seq();
        if own_seq == 0 {
            return others;
        }
        let mut heads = (*others).clone();
        heads.insert((self.name.clone(), self.boot), own_seq);
        Arc::new(heads)
    }

    /// Goes on to `phase`, never back, and wakes everyone.
    pub fn advance(&self, phase: Phase) {
        self.lifecycle.advance(phase);
        if phase >= Phase::Draining {
            self.ingest.set_draining();
        }
        self.wake_all();
    }

    /// Returns whether clients should be sent to this node; an error gives the reason why not.
    pub fn readiness(&self) -> Result<(), String> {
        match self.lifecycle.phase() {
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
        if self.cluster.is_skewed() {
            return Err("this node's clock is off its peers'".into());
        }
        if !self.cluster.is_clock_compared() {
            return Err("this node's clock has not been compared with a member's".into());
        }
        if !self.cluster.is_joined() {
            return Err("the first reconciliation with the cluster is not done".into());
        }
        Ok(())
    }
}

impl AnswerState for Shared {
    fn memory_refused(&self, wanted: MemoryUse) {
        self.metrics.memory_refused(wanted);
        if let Some(refusals) = self.memory_refusals.count(clock::mono_us()) {
            tracing::warn!(
                refusals,
                last = wanted.as_str(),
                held_bytes = self.memory.taken(),
                limit_bytes = self.memory.limit(),
                "clients asked for more memory than they may hold (--max-client-memory), and were refused; this \
                 is logged once a minute"
            );
        }
    }

    fn durable(&self) -> u64 {
        self.store().durable().0
    }

    fn store_health(&self) -> Result<(), String> {
        self.ingest.downstream().store_health()
    }

    fn store_away(&self) -> Option<String> {
        self.store().away()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Queues for Ingest<Outlets> {
    fn is_store_lagging(&self) -> bool {
        self.downstream().store.is_lagging()
    }

    fn are_over_soft(&self) -> bool {
        let Outlets { mailboxes, store, .. } = self.downstream();
        store.is_lagging()
            || mailboxes.iter().any(Mailbox::is_over_soft)
            || self.outbox_bytes() > OUTBOX_BYTES_SOFT
    }
}

/// The files on which the state that all threads share depends: the keys of the cluster, and the rights of clients.
pub struct SharedFiles(pub Arc<Shared>);

impl Reloadable for SharedFiles {
    fn look(&mut self, now: Now, is_asked: bool) {
        if let Some(key_file) = &self.0.key_file {
            key_file.reload();
        }
        // Every worker judges its sessions by the new rights.
        if self.0.door.auth().is_some_and(|auth| auth.look(now, is_asked)) {
            self.0.wake_all();
        }
    }
}
