//! The nodes of a run on their machines, in their world.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::spec::Spec;
use crate::checker::{Name, Seen};
use crate::clock::NodeClock;
use crate::faults::chaos;
use crate::load::recorder::Recorder;
use crate::machine::{Machine, NodeDisk};
use crate::node::{GOSSIP_PORT, HTTP_PORT, Node, Start};
use crate::profile::fault::{Event, Kind};
use crate::profile::rule::{Rule, shapes_at};
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
    /// The machines of the run.
    pub machines: Vec<Machine>,
    /// The links and namespaces.
    pub world: World,
    /// Rules of the links, with those that were drawn at random.
    pub rules: Vec<Rule>,
    /// Faults of machines.
    pub events: Vec<Event>,
    /// The old and the new key of the cluster; none if it is not sealed.
    pub keys: Vec<String>,
    run_s: f64,
}

impl Cluster {
    /// Makes the world and the machines. No node runs.
    pub fn new(spec: &Spec) -> Outcome<Cluster> {
        let (profile, nodes, run_s) = (&spec.profile, spec.nodes, spec.seconds as f64);
        let mut rules = profile.links.clone();
        let mut events: Vec<Event> =
            profile.faults.iter().flat_map(|fault| fault.events(nodes, run_s)).collect();
        if profile.random {
            let (more_rules, more_events) = chaos::draw(spec.arguments.seed, nodes, run_s);
            rules.extend(more_rules);
            events.extend(more_events);
        }
        let world = World::new(Wanted {
            nodes,
            seed: spec.arguments.seed,
            mtu: profile.mtu,
            nat: profile.nat,
            clients_over_links: profile.clients_over_links,
            links: spec.arguments.links,
            needs_own_links: profile.needs_own_links(),
        })?;
        let is_sealed = profile.sealed || spec.arguments.sealed;
        let keys = if is_sealed { vec![key(&spec.binary)?, key(&spec.binary)?] } else { Vec::new() };
        let mut cluster = Cluster { machines: Vec::new(), world, rules, events, keys, run_s };
        cluster.set_shapes(0.0)?;
        for node in 0..nodes {
            let machine = cluster.machine(spec, node)?;
            cluster.machines.push(machine);
        }
        Ok(cluster)
    }

    /// Returns the sentence that says what plays the links.
    pub fn how(&self) -> &str {
        self.world.how()
    }

    /// Gives the links the shapes that they have `at_s` seconds after the begin of the run.
    pub fn set_shapes(&mut self, at_s: f64) -> Outcome<()> {
        let nodes = self.world.nodes();
        self.world.set_shapes(shapes_at(&self.rules, nodes, at_s, self.run_s))
    }

    /// Returns the names of the nodes with the addresses at which the runner reaches them.
    pub fn watched(&self) -> Vec<(Name, SocketAddr)> {
        self.machines.iter().map(|machine| (machine.node.name().into(), machine.node.watched_at())).collect()
    }

    /// Starts all nodes but those that are absent, and waits until they are ready.
    pub fn start(&mut self, absent: &BTreeSet<usize>, recorder: &Recorder) -> Outcome<()> {
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

    /// Waits until all nodes that are started are ready, and returns how long it took.
    pub fn wait_ready(&mut self, most: Duration) -> Outcome<Duration> {
        let begin = Instant::now();
        for index in 0..self.machines.len() {
            let node = &mut self.machines[index].node;
            while node.is_started() && !node.is_ready(ANSWER) {
                if let Some(how) = node.ended() {
                    let said = crate::machine::last_line(node.log());
                    return Err(format!("{how}, saying: {said}").into());
                }
                if begin.elapsed() > most {
                    let why = crate::http::get(node.watched_at(), "/readyz", ANSWER);
                    let why = why.map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
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

    /// Notes which nodes get less of the processor on purpose.
    pub fn mark_bounded(&self, bounded: &BTreeSet<usize>) {
        for (index, machine) in self.machines.iter().enumerate() {
            machine.node.process().is_bounded.store(bounded.contains(&index), Relaxed);
        }
    }

    /// Copies the logs of the nodes into a directory.
    pub fn keep_logs(&self, to: &Path) -> Outcome<()> {
        for machine in &self.machines {
            if machine.node.log().exists() {
                std::fs::copy(machine.node.log(), to.join(format!("{}.log", machine.node.name())))?;
            }
        }
        Ok(())
    }

    fn machine(&self, spec: &Spec, index: usize) -> Outcome<Machine> {
        let dir = self.world.node_dir(index);
        std::fs::create_dir_all(&dir)?;
        let data_dir = dir.join("data");
        let kinds: Vec<Kind> =
            self.events.iter().filter(|event| event.node == index).map(|event| event.fault.kind).collect();
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
            options: self.options(spec, index, &name, &data_dir, key_file.as_deref()),
            log: dir.join("log"),
            watched_at: SocketAddrV4::new(self.world.watch_address(index), HTTP_PORT),
            clients_at: SocketAddrV4::new(self.world.client_address(index), HTTP_PORT),
            name,
        };
        let node = Node::new(start, cgroup, clock);
        Ok(Machine { node, data_dir, key_file, disk, newest: spec.binary.clone() })
    }

    fn options(
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
        let mut words: Vec<String> =
            options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect();
        words.extend(spec.arguments.store_options.split_whitespace().map(str::to_owned));
        words
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
