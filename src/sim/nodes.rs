//! Nodes of a world: starting, stopping, pausing and restarting them, and what they accept from clients.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::accounts::Account;
use super::later::LaterBatches;
use super::place::{NodeId, default_address};
use super::process::{Running, SimNode};
use super::queue::SimEvent;
use super::replica::SimReplica;
use super::time::now_of;
use super::world::World;
use crate::cluster::outbox::Outbox;
use crate::cluster::seal::{KeyPhase, Keyring, LifeSecret, SealKeys};
use crate::cluster::{Known, Machine, MachineConfig, Profile};
use crate::record::{NodeName, Payload, Record, SharedRecord, Source, Stamp, next_ts};

/// The parameters with which a node is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The node's name.
    pub name: String,
    /// The boot number of the node's first life.
    pub boot: u64,
    /// The gossip address; `None`: the default address of a node with its number.
    pub address: Option<SocketAddr>,
    /// The zone of the node; empty: none.
    pub zone: String,
    /// Addresses of the members that it joins through.
    pub seeds: Vec<SocketAddr>,
    /// The profile, from which all intervals of the protocol follow.
    pub profile: Profile,
    /// Error of the node's wall clock, in microseconds.
    pub wall_offset_us: i64,
    /// Time at which the node last agreed with the cluster before this life (wall clock, microseconds).
    pub agreed_us: Option<u64>,
    /// Records that the node held when its last life ended.
    pub records: Vec<SharedRecord>,
    /// The keys of the cluster that the node has, and how far it has gone over to them; `None`: it has no key.
    pub keys: Option<(Keyring, KeyPhase)>,
}

impl Start {
    /// Describes a first life with the profile of a LAN that joins through these addresses.
    pub fn new(name: impl Into<String>, seeds: &[SocketAddr]) -> Start {
        Start {
            name: name.into(),
            boot: 1,
            address: None,
            zone: String::new(),
            seeds: seeds.to_vec(),
            profile: Profile::Lan,
            wall_offset_us: 0,
            agreed_us: None,
            records: Vec::new(),
            keys: None,
        }
    }
}

/// The state that a node keeps from its last life when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All records, and when it last agreed with the cluster.
    Everything,
    /// No more than its name and address.
    Nothing,
}

/// A publish of a client: a value, or the deletion of a source.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The source that gets the value.
    pub source: Source,
    /// The value, or the mark of a deletion.
    pub payload: Payload,
    /// For how many milliseconds readers see the value; 0: for ever.
    pub ttl_ms: u64,
}

impl World {
    /// Returns the address that a node gets unless another one is asked for.
    pub fn address_of(node: NodeId) -> SocketAddr {
        default_address(node)
    }

    /// Starts a node. The address of a stopped node may be used again.
    pub fn start(&mut self, start: Start) -> NodeId {
        let id = self.add(&start);
        self.join(id, &start.seeds);
        id
    }

    /// Starts nodes that know one another already, so that there is no storm of joins.
    pub fn start_known(&mut self, starts: Vec<Start>) -> Vec<NodeId> {
        self.start_known_partly(starts, 0)
    }

    /// Starts nodes that know one another already, but for a share of the others, drawn by chance, which
    /// each node does not know.
    pub fn start_known_partly(&mut self, starts: Vec<Start>, unknown_per_million: u32) -> Vec<NodeId> {
        let ids: Vec<NodeId> = starts.iter().map(|start| self.add(start)).collect();
        let known = Known::new(ids.iter().map(|&id| self.nodes[id].machine.identity().clone()));
        for (&id, start) in ids.iter().zip(&starts) {
            let me = self.nodes[id].machine.identity().clone();
            let some;
            let mut theirs = &known;
            if unknown_per_million > 0 {
                let random = &mut self.random;
                some = known.only(|it| it.name == me.name || !random.happens(unknown_per_million));
                theirs = &some;
            }
            self.with(id, |machine, _, now| machine.handle_known(now, theirs));
            self.join(id, &start.seeds);
        }
        ids
    }

    /// Starts a node again at its address, with the next boot number, joining through these addresses. If
    /// it still runs it is killed first.
    pub fn restart(&mut self, id: NodeId, keeps: Keeps, seeds: &[SocketAddr]) {
        if id.0 >= self.nodes.len() {
            return;
        }
        self.kill(id);
        let seed = self.random.next_u64();
        // A world without keys draws as many random numbers as before there were any.
        let secret = self.nodes[id].config.keys.is_some().then(|| self.life_secret());
        let node = &mut self.nodes[id];
        if let (Some(keys), Some(secret)) = (&mut node.config.keys, secret) {
            keys.secret = secret;
        }
        let now = now_of(self.now_us, node.wall_offset_us);
        let mut past = Account::of(&node.machine);
        past += node.past;
        node.past = past;
        node.config.boot += 1;
        node.config.seed = seed;
        node.config.has_seeds = !seeds.is_empty();
        let mut heads = None;
        match keeps {
            Keeps::Everything => {
                node.config.agreed_us = node.machine.agreed_us().or(node.config.agreed_us);
                heads = Some(node.machine.heads());
            }
            Keeps::Nothing => {
                node.config.agreed_us = None;
                node.replica = SimReplica::default();
            }
        }
        node.machine = Machine::new(node.config.clone(), now);
        node.outbox = Outbox::new(node.config.name.clone(), node.config.boot);
        node.life += 1;
        node.running = Running::Yes;
        (node.wake_us, node.busy_us) = (u64::MAX, self.now_us);
        (node.has_turn, node.is_overdue, node.name_taken) = (false, false, None);
        let place = node.place;
        Arc::make_mut(&mut self.hosts).set(place, Some(id));
        self.with(id, |machine, _, now| {
            if let Some(heads) = &heads {
                machine.handle_restored(now, heads);
            }
        });
        self.join(id, seeds);
    }

    /// Stops a node without telling anyone.
    pub fn kill(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.running = Running::No;
        node.waiting = VecDeque::new();
        node.later.clear();
        node.datagrams_waiting = 0;
        let place = node.place;
        if self.hosts.node_at(place) == Some(id) {
            Arc::make_mut(&mut self.hosts).set(place, None);
        }
        let (streams, world) = self.streams();
        streams.close_all(world, id);
    }

    /// Pauses a node for a while; its sockets go on receiving.
    pub fn pause(&mut self, id: NodeId, for_us: u64) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.running == Running::Yes {
            node.running = Running::Paused;
            let life = node.life;
            self.queue.push(self.now_us + for_us, SimEvent::Resume { node: id, life });
        }
    }

    /// Sets a node's wall clock forward, or back.
    pub fn jump_clock(&mut self, id: NodeId, by_us: i64) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.wall_offset_us = node.wall_offset_us.saturating_add(by_us);
        }
    }

    /// Makes a node tell the others that it leaves. It goes on running until it is killed.
    pub fn leave(&mut self, id: NodeId) {
        if self.is_running(id) {
            self.with(id, |machine, _, now| machine.handle_leave(now));
        }
    }

    /// Makes a running node accept values from a client as a server does: they are stamped, numbered, merged,
    /// and handed to the machine as far as it takes them. Returns the records; none if the node does not run.
    pub fn accept(&mut self, id: NodeId, values: Vec<Submission>) -> Vec<SharedRecord> {
        if !self.is_running(id) {
            return Vec::new();
        }
        let node = &mut self.nodes[id];
        let now = now_of(self.now_us, node.wall_offset_us);
        let mut records = Vec::with_capacity(values.len());
        for Submission { source, payload, ttl_ms } in values {
            let latest = node.replica.latest(source.as_str()).map(|record| record.stamp.ts);
            let Some(ts) = next_ts(now, latest) else { continue };
            let stamp = match payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                _ => Stamp::of_data(ts, payload.bytes()),
            };
            let build = |birth| Record::new(source, stamp, payload, birth, now.wall_us, ttl_ms);
            let record = node.outbox.accept(build);
            node.replica.merge(record.clone());
            self.deliveries.accept(self.now_us, &record, true);
            records.push(record);
        }
        self.with(id, |_, _, _| {});
        records
    }

    /// Returns whether a node is neither paused nor stopped.
    pub fn is_running(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.running == Running::Yes)
    }

    /// Returns what a node sent and received in all its lives.
    pub fn account(&self, id: NodeId) -> Account {
        let Some(node) = self.nodes.get(id) else { return Account::default() };
        let mut account = node.past;
        account += Account::of(&node.machine);
        account
    }

    /// Returns what all nodes sent and received.
    pub fn accounts(&self) -> Account {
        let mut all = Account::default();
        (0..self.nodes.len()).for_each(|id| all += self.account(NodeId(id)));
        all
    }

    /// Sets a node up. It knows no other node yet, and does not join.
    fn add(&mut self, start: &Start) -> NodeId {
        let id = NodeId(self.nodes.len());
        let address = start.address.unwrap_or_else(|| World::address_of(id));
        let name = NodeName::parse(&start.name).expect("a node's name");
        let config = MachineConfig {
            name: name.clone(),
            boot: start.boot,
            cluster_name: "sim".into(),
            gossip: address,
            http: format!("{}:7070", address.ip()),
            zone: start.zone.clone(),
            version: "0.1.0".into(),
            profile: start.profile,
            tombstones_us: 24 * 3600 * 1_000_000,
            agreed_us: start.agreed_us,
            has_seeds: !start.seeds.is_empty(),
            seed: self.random.next_u64(),
            keys: start.keys.clone().map(|(keyring, phase)| SealKeys {
                keyring,
                phase,
                secret: self.life_secret(),
            }),
        };
        let config_seed = config.seed;
        let mut replica = SimReplica::default();
        for record in &start.records {
            self.deliveries.accept(self.now_us, record, false);
            replica.merge(record.clone());
        }
        let place = self.place(address);
        self.nodes.push(SimNode {
            id,
            plan: None,
            machine: Machine::new(config.clone(), now_of(self.now_us, start.wall_offset_us)),
            replica,
            config,
            address,
            place,
            running: Running::Yes,
            life: 0,
            waiting: VecDeque::new(),
            datagrams_waiting: 0,
            has_turn: false,
            is_overdue: false,
            busy_us: self.now_us,
            token: 0,
            wake_us: u64::MAX,
            wall_offset_us: start.wall_offset_us,
            streams_accepted: 0,
            name_taken: None,
            outbox: Outbox::new(name, start.boot),
            later: LaterBatches::new(config_seed),
            past: Account::default(),
        });
        self.network.place(id, &start.zone);
        Arc::make_mut(&mut self.hosts).set(place, Some(id));
        id
    }

    /// Draws the random bits of a life of a node with keys.
    fn life_secret(&mut self) -> LifeSecret {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.random.next_u64().to_le_bytes()));
        LifeSecret(bytes)
    }

    fn join(&mut self, id: NodeId, seeds: &[SocketAddr]) {
        self.with(id, |machine, _, now| {
            if !seeds.is_empty() {
                machine.handle_seeds(now, seeds);
            }
        });
    }
}
