//! A whole node in this process: how it is started, stopped in order, or killed.
//!
//! Its threads are the workers, the store's writer, the control plane, one that loads the store and then
//! sweeps what expires, and one that resolves join targets. They share [`Shared`] and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::acceptor::{self, Acceptor};
use super::address::{self, AddressError};
use super::affinity::on_processor;
use super::backend;
use super::clients::Clients;
use super::clock;
use super::control::Control;
use super::extend_host::ExtendNode;
use super::gossip::{Gossip, Sockets};
use super::host::WorkerHost;
use super::key_file::KeyFile;
use super::lifecycle::{Fatal, Phase};
use super::loader;
use super::mailbox::Mailbox;
use super::outlets::Outlets;
use super::reload::Reloader;
use super::resolver;
use super::shared::{Shared, SharedFiles};
use super::tls::{self, LAYER_BYTES_MAX};
use super::tokens;
use super::traces::{self, Traces};
use super::transport::Layer;
use super::warnings::{warn_of_open_gossip, warn_of_strangers};
use super::watches::Watches;
use super::worker::{StartGossip, Worker};
use crate::auth::{Auth, AuthFileError};
use crate::cluster::members::{Identity as MemberIdentity, MemberInfo, State};
use crate::cluster::outbox::Outbox;
use crate::cluster::reconcile::is_too_old;
use crate::cluster::{self, Heads};
use crate::config::{Config, ConfigError};
use crate::extend::Extend;
use crate::http::{GRACE_US, Http, HttpOptions};
use crate::ingest::{Bounds, Ingest};
use crate::limits::SHUTDOWN_US_MAX;
use crate::metrics::Metrics;
use crate::record::NodeName;
use crate::record::hash;
use crate::store::{NodeIdentity, OpenError, StoreHandle};

/// How long a stop waits until publishes under way are answered and passed on, in microseconds.
const STOP_DRAIN_US_MAX: u64 = 3_000_000;
/// How long a stop waits until the store holds what was accepted, in microseconds.
const FLUSH_US_MAX: u64 = 2_000_000;
/// How long a stop waits until clients are closed, in microseconds.
const STOP_CLOSE_US_MAX: u64 = 1_000_000;
/// How long a stop waits until the cluster is told, in microseconds.
const LEAVE_US_MAX: u64 = 1_000_000;
/// How long a stop waits for the store's last write, and the end of its file, in microseconds.
const STORE_US_MAX: u64 = 1_000_000;
/// How long the threads, and after them the last users of a stopped node, are waited for, in milliseconds.
const RELEASE_MS_MAX: u64 = 500;
/// How long the threads, and after them the last users of a killed node, are waited for, in milliseconds:
/// another node in this process may follow and needs the data directory.
const KILL_MS_MAX: u64 = 5_000;
/// Time for closing clients and telling the cluster, in microseconds. Requests to the control plane that
/// are under way are finished meanwhile.
const ENDING_US_MAX: u64 = max(STOP_CLOSE_US_MAX + LEAVE_US_MAX, GRACE_US);
const _: () = assert!(
    STOP_DRAIN_US_MAX + FLUSH_US_MAX + ENDING_US_MAX + STORE_US_MAX + 2 * RELEASE_MS_MAX * 1_000
        < SHUTDOWN_US_MAX - 500_000
);

const fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// The reason why a node does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The HTTP port cannot be bound.
    #[error("--http {address}: {source}")]
    Http {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why it cannot be bound.
        source: io::Error,
    },
    /// A file of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port for those who watch the node cannot be bound.
    #[error("--metrics {address}: {source}")]
    Metrics {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why it cannot be bound.
        source: io::Error,
    },
    /// The gossip port cannot be bound.
    #[error("--gossip {address}: {source}")]
    Gossip {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why it cannot be bound.
        source: io::Error,
    },
    /// The address that other members are to be told cannot be determined.
    #[error(transparent)]
    Advertise(#[from] AddressError),
    /// The file of rights cannot be used.
    #[error("--auth: {0}")]
    Auth(#[from] AuthFileError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The operating system gives no thread, poll or pipe.
    #[error("the operating system refused: {0}")]
    System(#[from] io::Error),
    /// The node was running, and could not go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl ServerError {
    /// The process's exit code: 2 for arguments that cannot be used, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServerError::Advertise(_) | ServerError::Auth(_) | ServerError::Config(_) => 2,
            _ => 1,
        }
    }
}

/// Starts nodes in this process.
#[derive(Debug)]
pub struct Node;

/// A running node. When the handle is dropped, the node is killed.
pub struct NodeHandle {
    /// The name of the node.
    pub name: NodeName,
    /// The address that clients connect to.
    pub http: SocketAddr,
    /// The address of the port for those who watch the node, if there is one.
    pub metrics: Option<SocketAddr>,
    /// The address that the cluster's datagrams and streams come to.
    pub gossip: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    control: Option<Http<Layer>>,
    extend: Option<Extend>,
    /// Dropped to end the threads that wait on the other side of the channel.
    alive: Option<Sender<()>>,
}

impl Node {
    /// Starts a node. It serves its control plane when this returns, and its clients as soon as the
    /// store is loaded ([`NodeHandle::wait_loaded`]).
    pub fn start(config: Config) -> Result<NodeHandle, ServerError> {
        Node::start_with(config, Reloader::default(), Box::new(|| {}))
    }

    /// Starts a node as [`Node::start`] does. `reloader` has what is to be read again besides the files of the node.
    /// `on_fatal` is called, from any thread, when the node can run no longer or is asked to stop; whoever runs it then
    /// stops it.
    pub fn start_with(
        config: Config,
        mut reloader: Reloader,
        on_fatal: Box<dyn Fn() + Send + Sync>,
    ) -> Result<NodeHandle, ServerError> {
        // A second node in this process has the seed of the first.
        hash::set_seed(clock::chance());
        let auth = config.access.auth.as_deref().map(|path| Auth::open(path, clock::now())).transpose()?;
        let bind_http = |source| ServerError::Http { address: config.http, source };
        let bind_gossip = |source| ServerError::Gossip { address: config.gossip, source };
        let tls = config.tls.clone().map(|files| tls::open(files, clock::now())).transpose()?;
        let (tls, tls_reload) = tls.unzip();
        // Ports first: a node that cannot have them must not use up a boot number of the data directory.
        let listeners = acceptor::bind(config.http, config.workers.get()).map_err(bind_http)?;
        let http = listeners.first().map(|first| first.local_addr()).transpose().map_err(bind_http)?;
        let http = http.unwrap_or(config.http);
        let watchers = config.metrics.map(bind_watchers).transpose()?;
        let (mut watchers, metrics) = watchers.unzip();
        let (sockets, gossip) = address::bind_gossip(config.gossip).map_err(bind_gossip)?;
        let advertised = address::advertised(&config, gossip)?;
        warn_of_open_gossip(&config);
        let (store, identity) = backend::open(&config)?;
        let told = Told { name: identity.node_name.clone(), http, gossip: advertised };
        let (polls, mailboxes) = polls(listeners.len())?;
        let (busy_poll_us, pins) = (config.busy_poll_us, config.pin_workers);
        let shared = share(config, (&identity, auth), store, mailboxes, on_fatal);
        warn_of_strangers(&shared.door, http);
        let gossip_config = gossip_config(&shared, &identity, &told);
        // A client that connects at once is told of this node already.
        shared.cluster.set_members(vec![myself(&gossip_config)]);
        shared.metrics.members.alive.set(1);
        let heads = if is_too_old(&gossip_config, clock::now()) { Heads::new() } else { identity.heads };
        let control = Http::start(Arc::new(Control(shared.clone())), http_options(&shared.config))?;
        let extend = ExtendNode::start(shared.clone())?;
        let (alive, ended) = bounded(0);
        let mut handle = NodeHandle {
            name: told.name.clone(),
            http,
            metrics,
            gossip,
            shared: shared.clone(),
            threads: Vec::new(),
            control: Some(control),
            extend: Some(extend),
            alive: Some(alive),
        };
        let seeds = resolver::start(&shared, ended.clone(), &mut handle.threads)?;
        traces::start(shared.traces(), ended.clone(), &mut handle.threads)?;
        let mut start_gossip = Some(gossip_starter(gossip_config, sockets, seeds, &polls)?);
        let last = polls.len().saturating_sub(1);
        for (id, (listener, poll)) in listeners.into_iter().zip(polls).enumerate() {
            let Some(control) = &handle.control else { break };
            let clients = Clients::new(WorkerHost::new(shared.clone(), id), control.hand_over(), tls.clone());
            let mut worker =
                Worker::new(id, poll, Acceptor::new(listener), clients, start_gossip.take(), busy_poll_us)?;
            // The first worker has the cluster to serve, too.
            if id == last
                && let Some(acceptor) = watchers.take()
            {
                worker.serve_watchers(acceptor)?;
            }
            handle.spawn(format!("worker-{id}"), on_processor(pins.then_some(id), move || worker.run()))?;
        }
        reloader.add(SharedFiles(shared.clone()));
        if let Some(files) = tls_reload {
            reloader.add(files.counted(shared.metrics.clone()));
        }
        handle.spawn("loader".into(), move || loader::run(&shared, heads, reloader, &ended))?;
        Ok(handle)
    }
}

impl NodeHandle {
    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Waits until the store is loaded and clients are served.
    pub fn wait_loaded(&self) -> Result<(), ServerError> {
        self.wait_loaded_unless(&|| false).map(|_| ())
    }

    /// Waits until the store is loaded and clients are served. Gives up, and returns `false`, once `is_ended`
    /// returns `true`.
    pub fn wait_loaded_unless(&self, is_ended: &dyn Fn() -> bool) -> Result<bool, ServerError> {
        loop {
            if let Some(fatal) = self.shared.lifecycle.fatal() {
                return Err(fatal.into());
            }
            if self.shared.lifecycle.phase() > Phase::Loading {
                return Ok(true);
            }
            if is_ended() {
                return Ok(false);
            }
            clock::sleep(1_000);
        }
    }

    /// The failure that the node cannot go on with, if there is one.
    pub fn fatal(&self) -> Option<Fatal> {
        self.shared.lifecycle.fatal()
    }

    /// Stops in order: publishes are refused, those under way are finished and stored, clients are closed,
    /// and the cluster is told. Takes at most [`SHUTDOWN_US_MAX`].
    pub fn stop(mut self) {
        // What it publishes last is passed on with the records of clients.
        self.extend = None;
        let shared = &self.shared;
        shared.advance(Phase::Draining);
        if !shared.lifecycle.wait_done(Phase::Draining, STOP_DRAIN_US_MAX) {
            tracing::warn!("stopping with work under way: it was not done in time");
        }
        if !shared.store().flush(Duration::from_micros(FLUSH_US_MAX)) {
            tracing::warn!("stopping with records that are not stored");
        }
        shared.advance(Phase::Closing);
        if let Some(control) = &self.control {
            control.drain();
        }
        shared.lifecycle.wait_done(Phase::Closing, STOP_CLOSE_US_MAX);
        shared.advance(Phase::Leaving);
        shared.lifecycle.wait_done(Phase::Leaving, LEAVE_US_MAX);
        shared.advance(Phase::Stopped);
        if let Some(control) = self.control.take() {
            control.stop();
        }
        let (store, heads) = (shared.store().clone(), shared.heads());
        // The records that heads count were numbered under the lock of a shard; behind the barrier they are
        // in the store's queue.
        shared.ingest.latest().barrier();
        store.keep_heads((*heads).clone());
        self.end(RELEASE_MS_MAX);
        store.close(Duration::from_micros(STORE_US_MAX));
    }

    /// Ends at once, as by a crash: sockets are dropped, nothing is flushed, and neither clients nor peers
    /// are told.
    pub fn kill(mut self) {
        self.shared.advance(Phase::Killed);
        self.end(KILL_MS_MAX);
    }

    /// Waits until the threads have ended, and then until no other thread uses the node's shared state, for
    /// at most `wait_ms` milliseconds each.
    fn end(&mut self, wait_ms: u64) {
        self.alive = None;
        self.extend = None;
        drop(self.control.take());
        // A thread that waits for a name server, or still reads a large store, is left behind.
        for _ in 0..wait_ms {
            if self.threads.iter().all(JoinHandle::is_finished) {
                break;
            }
            clock::sleep(1_000);
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("a thread of the node panicked");
            }
        }
        // The thread of a request, or of the store, may hold the node for a moment longer. The data
        // directory is free when the last of them has let go.
        for _ in 0..wait_ms {
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            clock::sleep(1_000);
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.shared.advance(Phase::Killed);
        self.end(KILL_MS_MAX);
    }
}

/// The name and the two addresses under which other nodes and clients reach this node.
struct Told {
    name: NodeName,
    http: SocketAddr,
    gossip: SocketAddr,
}

fn http_options(config: &Config) -> HttpOptions {
    HttpOptions {
        body_bytes_max: config.max_frame_bytes,
        record_bytes_max: config.max_record_bytes,
        layer_bytes_max: if config.tls.is_some() { LAYER_BYTES_MAX } else { 0 },
    }
}

/// Makes a poll, and a mailbox that wakes it, for each of `workers` workers.
fn polls(workers: usize) -> io::Result<(Vec<mio::Poll>, Vec<Mailbox>)> {
    let (mut polls, mut mailboxes) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let poll = mio::Poll::new()?;
        mailboxes.push(Mailbox::new(mio::Waker::new(poll.registry(), tokens::WAKER)?));
        polls.push(poll);
    }
    Ok((polls, mailboxes))
}

/// Binds the port for those who watch the node.
fn bind_watchers(address: SocketAddr) -> Result<(Acceptor, SocketAddr), ServerError> {
    let failed = |source| ServerError::Metrics { address, source };
    let listener = acceptor::bind(address, 1).map_err(failed)?.pop();
    let listener = listener.ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((Acceptor::new(listener), bound))
}

fn share(
    config: Config,
    (identity, auth): (&NodeIdentity, Option<Auth>),
    store: StoreHandle,
    mailboxes: Vec<Mailbox>,
    on_fatal: Box<dyn Fn() + Send + Sync>,
) -> Arc<Shared> {
    let bounds = Bounds {
        record_bytes_max: config.max_record_bytes,
        map_bytes_max: config.max_memory_bytes,
        tombstones_us: config.tombstones_us,
    };
    let metrics = Arc::new(Metrics::default());
    metrics.limits.connections.set(config.max_connections as i64);
    metrics.limits.map_bytes.set(config.max_memory_bytes as i64);
    metrics.limits.record_bytes.set(config.max_record_bytes as i64);
    metrics.limits.frame_bytes.set(config.max_frame_bytes as i64);
    metrics.limits.patterns.set(config.access.subscriptions_max as i64);
    let observed = metrics.clone();
    store.observe_commits(Box::new(move |took_us| observed.acks.commits.record_us(took_us)));
    let outbox = Outbox::new(identity.node_name.clone(), identity.boot);
    let (store_of_map, tombstones_us) = (store.clone(), config.tombstones_us);
    let who = (identity.node_name.clone(), identity.boot);
    let traces = config.traces.clone();
    let traces = traces.map(|traces| Arc::new(Traces::new(traces, who.clone(), metrics.clone())));
    let watches = if traces.is_some() { Watches::never_idle() } else { Watches::default() };
    let system_changes = Arc::default();
    let outlets = Outlets { mailboxes, watches, system_changes, traces, store: store_of_map, tombstones_us };
    let ingest = Ingest::new(bounds, outbox, metrics.clone(), outlets, clock::chance());
    let shared = Arc::new(Shared::new(config, who, auth, ingest, metrics, on_fatal));
    // The reference is weak, since the node's shared state owns the store, which keeps this callback.
    let woken = Arc::downgrade(&shared);
    store.subscribe(Box::new(move || {
        if let Some(shared) = woken.upgrade() {
            if let Some(traces) = shared.traces() {
                traces.handle_durable(shared.store().durable().0);
            }
            shared.wake_all();
        }
    }));
    shared
}

fn gossip_config(shared: &Shared, identity: &NodeIdentity, told: &Told) -> cluster::MachineConfig {
    cluster::MachineConfig {
        name: told.name.clone(),
        boot: identity.boot,
        cluster_name: shared.config.cluster_name.clone(),
        gossip: told.gossip,
        http: address::advertised_http(shared.config.advertise_http.as_ref(), told.http, told.gossip),
        zone: shared.config.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: shared.config.profile,
        tombstones_us: shared.config.tombstones_us,
        agreed_us: identity.agreed_us,
        has_seeds: !shared.config.join.is_empty(),
        seed: clock::chance(),
        keys: shared.key_file.as_ref().map(KeyFile::of_new_life),
    }
}

/// This node as a member, for the time before the cluster machine runs.
fn myself(config: &cluster::MachineConfig) -> MemberInfo {
    let cluster::MachineConfig { name, boot, gossip, http, zone, version, .. } = config;
    let identity = MemberIdentity::new(name.clone(), *boot, *gossip, http, zone, version);
    MemberInfo { joined: Some(0), ..MemberInfo::new(Arc::new(identity), State::Alive) }
}

fn gossip_starter(
    config: cluster::MachineConfig,
    sockets: Sockets,
    seeds: Receiver<Vec<SocketAddr>>,
    polls: &[mio::Poll],
) -> io::Result<StartGossip> {
    let first = polls.first().ok_or(io::ErrorKind::NotFound)?.registry();
    let (registries, workers) = ([first.try_clone()?, first.try_clone()?], polls.len());
    Ok(Box::new(move |now| Gossip::new(registries, sockets, seeds, config, workers, now)))
}
