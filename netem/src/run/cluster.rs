//! The nodes of a run on their machines, in their world.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::spec::Spec;
use crate::cassandra::Cassandra;
use crate::checker::{Name, Place, Seen};
use crate::clock::NodeClock;
use crate::link::counts::Totals;
use crate::load::recorder::Recorder;
use crate::machine::{Machine, NodeDisk, last_line};
use crate::node::{GOSSIP_PORT, HTTP_PORT, Node, Start};
use crate::peer;
use crate::profile::fault::{Event, Kind};
use crate::profile::rule::shapes_at;
use crate::target::Target;
use crate::testbed::{OwnEnd, Script, StoreAlone, StoresAlone, Testbed, Watched};
use crate::watch;
use crate::world::cgroup::Cgroup;
use crate::world::{Wanted, World};

/// How long a node may take to become ready at the start of a run.
const READY: Duration = Duration::from_secs(40);
/// Time between two looks at whether nodes are ready.
const LOOK: Duration = Duration::from_millis(20);
/// How long a node may take to answer whether it is ready.
const ANSWER: Duration = Duration::from_millis(300);
/// Kinds of faults for which a node needs a group of processes.
const BOUNDED: [Kind; 2] = [Kind::Cpu, Kind::Memory];

/// The machines, the links between them, and the faults that they will meet.
pub struct Cluster {
    // The order matters: disks are removed before their world.
    machines: Vec<Machine>,
    cassandra: Option<Cassandra>,
    world: World,
    script: Script,
    /// The old and the new key of the cluster; none if it is not sealed.
    keys: Vec<String>,
    has_stores: bool,
    /// Asks nodes for the bytes that they have sent each other, where the links do not count them.
    sent_bytes: fn(&[(Name, Target)]) -> u64,
    run_s: f64,
}

impl Cluster {
    /// Makes the world and the machines. No node runs.
    pub fn new(spec: &Spec) -> Outcome<Cluster> {
        let (profile, nodes, run_s) = (&spec.profile, spec.nodes, spec.seconds as f64);
        let script = spec.script();
        let world = World::new(Wanted {
            nodes,
            seed: spec.arguments.seed,
            mtu: profile.mtu,
            nat: profile.nat,
            clients_over_links: profile.clients_over_links,
            links: spec.arguments.links,
            needs_own_links: profile.needs_own_links(),
        })?;
        let is_sealed = spec.peer.is_none() && (profile.sealed || spec.arguments.sealed);
        let keys = if is_sealed { vec![key(&spec.binary)?, key(&spec.binary)?] } else { Vec::new() };
        let has_stores = spec.arguments.store != "memory";
        let sent_bytes = if spec.peer.is_some() { peer::sent_bytes } else { watch::sent_bytes };
        let cassandra = match spec.arguments.store.as_str() {
            "cassandra" => Some(Cassandra::reach(&spec.arguments.store_options, &world)?),
            _ => None,
        };
        let machines = Vec::new();
        let mut cluster = Cluster { machines, cassandra, world, script, keys, has_stores, sent_bytes, run_s };
        cluster.set_shapes(0.0)?;
        for node in 0..nodes {
            let machine = cluster.machine(spec, node)?;
            cluster.machines.push(machine);
        }
        Ok(cluster)
    }

    fn machine(&self, spec: &Spec, index: usize) -> Outcome<Machine> {
        let dir = self.world.node_dir(index);
        std::fs::create_dir_all(&dir)?;
        let data_dir = dir.join("data");
        let kinds: Vec<Kind> = self
            .script
            .events
            .iter()
            .filter(|event| event.node == index)
            .map(|event| event.fault.kind)
            .collect();
        let disk = NodeDisk::new(&data_dir, &kinds)?;
        let key_file = match self.keys.first() {
            Some(key) => {
                let file = dir.join("keys");
                std::fs::write(&file, format!("{key}\n"))?;
                Some(file)
            }
            None => None,
        };
        let name = format!("n{}", index + 1);
        let group = format!("{}-{}", self.world.run_name(), index + 1);
        let cgroup = match kinds.iter().any(|kind| BOUNDED.contains(kind)) {
            true => Some(Cgroup::new(&group)?),
            false => None,
        };
        let clock = if kinds.contains(&Kind::Clock) { Some(NodeClock::new(&dir)?) } else { None };
        let is_old = kinds.contains(&Kind::Upgrade);
        let previous = spec.arguments.previous.clone().filter(|_| is_old);
        let start = Start {
            namespace: self.world.namespace(index),
            binary: previous.unwrap_or_else(|| spec.binary.clone()),
            words: self.words(spec, index, &name, &data_dir, key_file.as_deref()),
            ready: "/readyz",
            log: dir.join("log"),
            watched_at: SocketAddrV4::new(self.world.watch_address(index), HTTP_PORT),
            clients_at: SocketAddrV4::new(self.world.client_address(index), HTTP_PORT),
            name,
        };
        let start = match &spec.peer {
            Some(server) => server.in_place_of(start, &self.world, index, &data_dir)?,
            None => start,
        };
        let node = Node::new(start, cgroup, clock);
        Ok(Machine { node, data_dir, key_file, disk, newest: spec.binary.clone() })
    }

    fn words(
        &self,
        spec: &Spec,
        index: usize,
        name: &str,
        data_dir: &Path,
        key_file: Option<&Path>,
    ) -> Vec<String> {
        let join: Vec<String> = (0..spec.nodes.min(3))
            .filter(|other| *other != index)
            .map(|other| format!("{}:{GOSSIP_PORT}", self.world.link_address(other)))
            .collect();
        let mut options: Vec<(&str, String)> = vec![
            ("--http", format!("0.0.0.0:{HTTP_PORT}")),
            ("--gossip", format!("{}:{GOSSIP_PORT}", self.world.own_address(index))),
            ("--join", join.join(",")),
            ("--node-name", name.to_owned()),
            ("--data-dir", data_dir.display().to_string()),
            ("--store", spec.arguments.store.clone()),
            ("--profile", spec.profile.timing.clone()),
            ("--workers", "2".to_owned()),
        ];
        if spec.profile.nat {
            options.push(("--advertise", format!("{}:{GOSSIP_PORT}", self.world.link_address(index))));
        }
        if spec.profile.zones > 0 {
            options.push(("--zone", format!("zone-{}", index % spec.profile.zones + 1)));
        }
        if let Some(file) = key_file {
            options.push(("--cluster-key", file.display().to_string()));
        }
        let mut words = vec!["serve".to_owned()];
        words.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        words.extend(spec.arguments.store_options.split_whitespace().map(str::to_owned));
        words.extend(self.cassandra.iter().flat_map(Cassandra::words).cloned());
        words
    }
}

impl Testbed for Cluster {
    fn how(&self) -> String {
        self.world.how().to_owned()
    }

    fn script(&self) -> &Script {
        &self.script
    }

    fn nodes(&self) -> Vec<Watched> {
        let watched = |machine: &Machine| Watched {
            name: machine.node.name().into(),
            clients_at: machine.node.clients_at().clone(),
            watched_at: machine.node.watched_at().clone(),
            process: machine.node.process().clone(),
        };
        self.machines.iter().map(watched).collect()
    }

    fn names(&self) -> Vec<Name> {
        self.machines.iter().map(|machine| machine.node.name().into()).collect()
    }

    fn start(&mut self, absent: &BTreeSet<usize>, recorder: &Recorder) -> Outcome<()> {
        for (index, machine) in self.machines.iter_mut().enumerate() {
            if !absent.contains(&index) {
                machine.node.start()?;
            }
        }
        self.wait_ready(READY)?;
        for machine in self.machines.iter().filter(|machine| machine.node.is_started()) {
            recorder.see(Seen::NodeStarted { node: machine.node.name().into() });
        }
        Ok(())
    }

    fn wait_ready(&mut self, most: Duration) -> Outcome<Duration> {
        let begin = Instant::now();
        for index in 0..self.machines.len() {
            let node = &mut self.machines[index].node;
            while node.is_started() && !node.is_ready(ANSWER) {
                if let Some(how) = node.ended() {
                    let said = last_line(node.log());
                    return Err(format!("{how}, saying: {said}").into());
                }
                if begin.elapsed() > most {
                    let why = node.readiness(ANSWER).map(|(_, body)| body);
                    let why = why.unwrap_or_else(|error| error.to_string());
                    return Err(format!(
                        "{} is not ready after {} s: {why}",
                        node.name(),
                        most.as_secs_f64()
                    )
                    .into());
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(begin.elapsed())
    }

    fn set_shapes(&mut self, at_s: f64) -> Outcome<()> {
        let nodes = self.world.nodes();
        self.world.set_shapes(shapes_at(&self.script.rules, nodes, at_s, self.run_s))
    }

    fn begin(&mut self, event: &Event) -> Outcome<()> {
        self.machines[event.node].begin(event)
    }

    fn go_on(&mut self, event: &Event, since_s: f64, part: f64) -> Outcome<()> {
        self.machines[event.node].go_on(event, since_s, part, &self.keys)
    }

    fn end(&mut self, event: &Event, seed: u64) -> Outcome<Option<String>> {
        self.machines[event.node].end(event, &self.keys, seed)
    }

    fn starts(&self, node: usize) -> u32 {
        self.machines[node].node.starts
    }

    fn mourn(&mut self, node: usize, recorder: &Recorder) -> Outcome<Option<OwnEnd>> {
        let node = &mut self.machines[node].node;
        let Some(how) = node.ended() else { return Ok(None) };
        let name: Name = node.name().into();
        let said = last_line(node.log());
        recorder.see(Seen::NodeEnded { node: name.clone() });
        node.start()?;
        recorder.see(Seen::NodeStarted { node: name });
        Ok(Some(OwnEnd { how, said }))
    }

    fn has_stores(&self) -> bool {
        self.has_stores
    }

    fn start_alone(&mut self, recorder: &Recorder, ready_within: Duration) -> Outcome<StoresAlone> {
        let mut alone = StoresAlone::default();
        for (index, machine) in self.machines.iter_mut().enumerate() {
            let name: Name = machine.node.name().into();
            recorder.see(Seen::NodeEnded { node: name.clone() });
            let place = if index % 2 == 0 { Place::OwnStore } else { Place::WholeStore };
            let ended = match place {
                Place::WholeStore => machine.node.end(),
                _ => {
                    machine.node.kill();
                    Ok(())
                }
            };
            if let Err(error) = ended {
                alone.broken.push(("ends-in-order", error.to_string()));
            }
            machine.node.join_nobody();
            alone.stores.push(StoreAlone { name, place, target: machine.node.watched_at().clone() });
        }
        for machine in &mut self.machines {
            machine.node.start()?;
        }
        if let Err(error) = self.wait_ready(ready_within) {
            alone.broken.push(("store-opens", error.to_string()));
        }
        Ok(alone)
    }

    fn keep_logs(&self, to: &Path) -> Outcome<()> {
        for machine in &self.machines {
            if machine.node.log().exists() {
                std::fs::copy(machine.node.log(), to.join(format!("{}.log", machine.node.name())))?;
            }
        }
        Ok(())
    }

    fn link_totals(&self) -> Option<Totals> {
        self.world.fabric().map(|fabric| fabric.totals())
    }

    fn wire_bytes(&self) -> u64 {
        match self.link_totals() {
            Some(totals) => totals.bytes,
            None => (self.sent_bytes)(&self.watched()),
        }
    }
}

impl Drop for Cluster {
    /// Every node has a copy of all mounts that were there when it was started, and keeps the disks of the others in
    /// use. So all nodes end before the first disk is removed.
    fn drop(&mut self) {
        self.machines.iter_mut().for_each(|machine| machine.node.kill());
    }
}

/// Makes a key for a cluster.
fn key(binary: &PathBuf) -> Outcome<String> {
    let output = Command::new(binary).args(["keys", "new"]).output()?;
    let key = String::from_utf8(output.stdout)?.trim().to_owned();
    if !output.status.success() || key.is_empty() {
        return Err(format!("{} keys new: {}", binary.display(), output.status).into());
    }
    Ok(key)
}
