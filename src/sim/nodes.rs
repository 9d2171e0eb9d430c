//! Nodes: how they are started, stopped, paused and started again, and what they accept.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::accounts::Account;
use super::process::{Node, Running};
use super::queue::Event;
use super::replica::SimReplica;
use super::world::{WALL_US, World, now_of};
use crate::cluster::outbox::Outbox;
use crate::cluster::{Known, Machine, MachineConfig, Profile};
use crate::record::{HybridClock, NodeName, Payload, Record, SharedRecord, Source, Stamp};

/// Which node of the world, from 0: one name at one address, through all its lives. A node that moves
/// is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// Which of its lives.
    pub boot: u64,
    /// Its address; `None`: one of its own.
    pub address: Option<SocketAddr>,
    /// Its zone; empty: none.
    pub zone: String,
    /// Join targets.
    pub seeds: Vec<SocketAddr>,
    /// Its intervals.
    pub profile: Profile,
    /// How far its wall clock is off, in microseconds.
    pub wall_offset_us: i64,
    /// When it last agreed with the cluster before this life (wall clock, microseconds).
    pub agreed_us: Option<u64>,
    /// What it held at its end.
    pub records: Vec<SharedRecord>,
}

impl Start {
    /// A first life on a LAN, with these join targets.
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
        }
    }
}

/// What a node has left of its last life when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All it held.
    Everything,
    /// Its name and address.
    Nothing,
}

/// What a client publishes.
#[derive(Clone, Debug)]
pub struct Value {
    /// Whose value it is.
    pub source: Source,
    /// The value, or that it is deleted.
    pub payload: Payload,
    /// How long readers see it; 0: for ever.
    pub ttl_ms: u64,
}

/// An address, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Who is at which address.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// By the number of an address of [`World::address_of`].
    numbered: Vec<Option<NodeId>>,
    others: Vec<(SocketAddr, Option<NodeId>)>,
    by_address: BTreeMap<SocketAddr, Place>,
}

const NUMBERED_MAX: u32 = 1 << 24;
const PORT: u16 = 7946;

impl Hosts {
    /// The place of an address; `None`: it has none yet.
    pub fn find(&self, address: SocketAddr) -> Option<Place> {
        number_of(address).map(Place).or_else(|| self.by_address.get(&address).copied())
    }

    /// The place of an address; made if there is none.
    pub fn place(&mut self, address: SocketAddr) -> Place {
        if let Some(place) = self.find(address) {
            return place;
        }
        let Hosts { others, by_address, .. } = self;
        *by_address.entry(address).or_insert_with(|| {
            others.push((address, None));
            Place(NUMBERED_MAX + others.len() as u32 - 1)
        })
    }

    pub fn address(&self, place: Place) -> SocketAddr {
        let other = place.0.checked_sub(NUMBERED_MAX).and_then(|other| self.others.get(other as usize));
        other.map_or_else(|| address_of(place.0), |other| other.0)
    }

    /// Who is there now.
    pub fn node_at(&self, place: Place) -> Option<NodeId> {
        match place.0.checked_sub(NUMBERED_MAX) {
            None => self.numbered.get(place.0 as usize).copied().flatten(),
            Some(other) => self.others.get(other as usize).and_then(|other| other.1),
        }
    }

    pub fn set(&mut self, place: Place, node: Option<NodeId>) {
        match place.0.checked_sub(NUMBERED_MAX) {
            None => {
                if self.numbered.len() <= place.0 as usize {
                    self.numbered.resize(place.0 as usize + 1, None);
                }
                self.numbered[place.0 as usize] = node;
            }
            Some(other) => {
                if let Some(other) = self.others.get_mut(other as usize) {
                    other.1 = node;
                }
            }
        }
    }
}

fn address_of(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], PORT))
}

fn number_of(address: SocketAddr) -> Option<u32> {
    match address.ip() {
        IpAddr::V4(ip) if address.port() == PORT && ip.octets()[0] == 10 => {
            Some(u32::from(ip) - u32::from(Ipv4Addr::new(10, 0, 0, 0)))
        }
        _ => None,
    }
}

impl World {
    /// The address that a node gets unless another is asked for.
    pub fn address_of(node: NodeId) -> SocketAddr {
        address_of(node.0 as u32 + 1)
    }

    /// Starts a node. An address that a stopped node had may be used again.
    pub fn start(&mut self, start: Start) -> NodeId {
        let id = self.add(&start);
        self.join(id, &start.seeds);
        id
    }

    /// Starts nodes that have known one another from before: no storm of joins.
    pub fn start_known(&mut self, starts: Vec<Start>) -> Vec<NodeId> {
        self.start_known_partly(starts, 0)
    }

    /// Starts nodes that have known one another from before, but for this share of the others, which
    /// each does not know.
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

    /// Starts a node again at its address, with the next boot number and these join targets; if it
    /// runs it is killed first.
    pub fn restart(&mut self, id: NodeId, keeps: Keeps, seeds: &[SocketAddr]) {
        if id.0 >= self.nodes.len() {
            return;
        }
        self.kill(id);
        let seed = self.random.next_u64();
        let node = &mut self.nodes[id];
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
                node.clock = HybridClock::default();
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

    /// A node stops without a word.
    pub fn kill(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.running = Running::No;
        node.waiting = VecDeque::new();
        node.datagrams_waiting = 0;
        let place = node.place;
        if self.hosts.node_at(place) == Some(id) {
            Arc::make_mut(&mut self.hosts).set(place, None);
        }
        self.close_all(id);
    }

    /// A node stands still for a while; its sockets go on receiving.
    pub fn pause(&mut self, id: NodeId, for_us: u64) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.running == Running::Yes {
            node.running = Running::Paused;
            let life = node.life;
            self.queue.push(self.now_us + for_us, Event::Resume { node: id, life });
        }
    }

    /// A node's wall clock is set forward, or back.
    pub fn jump_clock(&mut self, id: NodeId, by_us: i64) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.wall_offset_us = node.wall_offset_us.saturating_add(by_us);
        }
    }

    /// A node tells the others that it goes. It goes on running until it is killed.
    pub fn leave(&mut self, id: NodeId) {
        if self.is_running(id) {
            self.with(id, |machine, _, now| machine.handle_leave(now));
        }
    }

    /// A running node accepts values from a client as a server does: stamped, numbered, merged, and
    /// handed to the machine as far as it takes them. What it made of them; nothing if it does not
    /// run.
    pub fn accept(&mut self, id: NodeId, values: Vec<Value>) -> Vec<SharedRecord> {
        if !self.is_running(id) {
            return Vec::new();
        }
        let node = &mut self.nodes[id];
        let now = now_of(self.now_us, node.wall_offset_us);
        let mut records = Vec::with_capacity(values.len());
        for Value { source, payload, ttl_ms } in values {
            let latest = node.replica.latest(source.as_str()).map(|record| record.stamp.ts);
            let ts = node.clock.issue(now, latest);
            let stamp = match payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                _ => Stamp::of_data(ts, payload.bytes()),
            };
            let build = |birth| Record::new(source, stamp, payload, birth, now.wall_us, ttl_ms);
            let record = node.outbox.accept(build);
            node.replica.merge(record.clone());
            self.deliveries.accept(self.now_us, id, &record, true);
            records.push(record);
        }
        self.with(id, |_, _, _| {});
        records
    }

    /// Publishes records that this node is said to have accepted: their stamps, births and numbers
    /// are the caller's. Nothing happens unless it runs.
    pub fn publish(&mut self, id: NodeId, records: &[SharedRecord]) {
        if !self.is_running(id) {
            return;
        }
        for record in records {
            self.nodes[id].replica.merge(record.clone());
            self.deliveries.accept(self.now_us, id, record, true);
        }
        self.with(id, |machine, _, now| machine.handle_published(now, records));
    }

    /// Whether a node is neither paused nor stopped.
    pub fn is_running(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.running == Running::Yes)
    }

    /// Whether a node was not stopped; it may be paused.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.running != Running::No)
    }

    /// The nodes that were not stopped.
    pub fn up(&self) -> impl Iterator<Item = NodeId> {
        (0..self.nodes.len()).map(NodeId).filter(|&id| self.is_up(id))
    }

    /// A node's wall clock now, in microseconds since the Unix epoch.
    pub fn wall_us(&self, id: NodeId) -> u64 {
        let offset_us = self.nodes.get(id).map_or(0, |node| node.wall_offset_us);
        (WALL_US + self.now_us).saturating_add_signed(offset_us)
    }

    /// What a node sent and received in all its lives.
    pub fn account(&self, id: NodeId) -> Account {
        let Some(node) = self.nodes.get(id) else { return Account::default() };
        let mut account = node.past;
        account += Account::of(&node.machine);
        account
    }

    /// What all nodes sent and received.
    pub fn accounts(&self) -> Account {
        let mut all = Account::default();
        (0..self.nodes.len()).for_each(|id| all += self.account(NodeId(id)));
        all
    }

    pub(super) fn life(&self, id: NodeId) -> u32 {
        self.nodes.get(id).map_or(0, |node| node.life)
    }

    /// Sets a node up; it knows nobody and was told nothing so far.
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
        };
        let mut replica = SimReplica::default();
        for record in &start.records {
            self.deliveries.accept(self.now_us, id, record, false);
            replica.merge(record.clone());
        }
        let place = self.place(address);
        self.nodes.push(Node {
            id,
            part: None,
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
            clock: HybridClock::default(),
            past: Account::default(),
        });
        self.network.place(id, &start.zone);
        Arc::make_mut(&mut self.hosts).set(place, Some(id));
        id
    }

    fn join(&mut self, id: NodeId, seeds: &[SocketAddr]) {
        self.with(id, |machine, _, now| {
            if !seeds.is_empty() {
                machine.handle_seeds(now, seeds);
            }
        });
    }
}
