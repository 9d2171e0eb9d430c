//! A short run of three nodes on the loopback of this machine, one of which is killed and started again.
//!
//! It needs no rights and no network of its own. With a node in which a bug was planted, the checker must say which promise
//! it breaks: that is the test of the checker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anode_loadgen::Outcome;

use crate::checker::{Checker, Fault, Name, Place, Report, Seen, Settings};
use crate::finals;
use crate::load::recorder::Recorder;
use crate::load::{Load, Plan};
use crate::local::{LocalNode, LocalStart};
use crate::target::Target;
use crate::watch::Watch;

const NODES: [&str; 3] = ["a", "b", "c"];
/// Number of the only fault.
const FAULT: u32 = 1;
/// Time before the kill, and from the kill until publishing ends.
const PHASE: Duration = Duration::from_secs(4);
/// Longest time until all nodes hold the same.
const SETTLE: Duration = Duration::from_secs(20);
/// Time after that in which subscribers get the last records.
const LAST: Duration = Duration::from_secs(6);

/// A trial of three nodes.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Name for people.
    pub name: String,
    /// The program of the nodes.
    pub binary: PathBuf,
    /// Directory of the run.
    pub dir: PathBuf,
    /// Variables of the nodes' environment.
    pub variables: Vec<(String, String)>,
    /// Records a second.
    pub rate: f64,
    /// Seed of the records.
    pub seed: u64,
    /// The command that runs it again.
    pub command: String,
}

/// The nodes of a trial.
struct Nodes {
    starts: Vec<LocalStart>,
    running: Vec<Option<LocalNode>>,
    addresses: Vec<SocketAddr>,
}

impl Nodes {
    fn start(trial: &Trial, recorder: &Recorder) -> Outcome<Nodes> {
        let mut nodes = Nodes { starts: Vec::new(), running: Vec::new(), addresses: Vec::new() };
        let mut first_gossip = None;
        for name in NODES {
            let mut options = vec!["--profile".to_owned(), "local".to_owned()];
            if let Some(first) = first_gossip {
                options.extend(["--join".to_owned(), format!("{first}")]);
            }
            let mut start = LocalStart {
                binary: trial.binary.clone(),
                name: name.to_owned(),
                data_dir: trial.dir.join(name),
                options,
                variables: trial.variables.clone(),
                log: trial.dir.join(format!("{name}.log")),
            };
            let node = LocalNode::start(&start)?;
            recorder.see(Seen::NodeStarted { node: name.into() });
            first_gossip.get_or_insert(node.gossip);
            // After a kill the node comes back where clients and members know it.
            start.options.extend(["--http".to_owned(), node.http.to_string()]);
            start.options.extend(["--gossip".to_owned(), node.gossip.to_string()]);
            nodes.addresses.push(node.http);
            nodes.starts.push(start);
            nodes.running.push(Some(node));
        }
        Ok(nodes)
    }

    fn named(&self) -> Vec<(Name, Target)> {
        NODES.iter().zip(&self.addresses).map(|(name, address)| ((*name).into(), (*address).into())).collect()
    }

    fn kill(&mut self, index: usize) {
        if let Some(node) = self.running[index].take() {
            node.kill();
        }
    }

    fn restart(&mut self, index: usize) -> Outcome<()> {
        self.running[index] = Some(LocalNode::start(&self.starts[index])?);
        Ok(())
    }
}

/// Runs a trial and judges it.
pub fn run(trial: &Trial) -> Outcome<Report> {
    let wall_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
    let (recorder, seen) = Recorder::new();
    let settings = Settings::new(&trial.name, &trial.command, wall_us);
    let judging: JoinHandle<Report> =
        std::thread::Builder::new().name("checker".to_owned()).spawn(move || {
            let mut checker = Checker::new(settings);
            seen.into_iter().for_each(|observation| checker.observe(observation));
            checker.judge()
        })?;
    let ran = act(trial, &recorder);
    drop(recorder);
    let report = judging.join().map_err(|_| "the checker panicked")?;
    ran.map(|()| report)
}

fn act(trial: &Trial, recorder: &Recorder) -> Outcome<()> {
    let mut nodes = Nodes::start(trial, recorder)?;
    let named = nodes.named();
    let plan = Plan {
        nodes: named.iter().map(|(name, at)| (name.clone(), at.clone(), at.clone())).collect(),
        rate: trial.rate,
        sources: 3_000,
        data_bytes: 64,
        seed: trial.seed,
    };
    let watch = Watch::start(named.clone(), recorder)?;
    let mut load = Load::start(plan, recorder.clone())?;
    sleep(Duration::from_secs(1));
    load.publish()?;
    sleep(PHASE);
    let killed: Name = NODES[2].into();
    let fault = Fault { id: FAULT, name: "kill -9".into(), nodes: vec![killed.clone()], is_deadly: true };
    recorder.see(Seen::FaultBegan { fault });
    recorder.see(Seen::NodeEnded { node: killed.clone() });
    nodes.kill(2);
    sleep(PHASE);
    load.clients.end_publishing();
    nodes.restart(2)?;
    recorder.see(Seen::NodeStarted { node: killed });
    recorder.see(Seen::FaultEnded { fault: FAULT });
    let began = Instant::now();
    finals::wait_equal(&named, SETTLE, || began.elapsed() < SETTLE)?;
    sleep(LAST);
    for (node, target) in &named {
        let records = finals::read(target)?.into_iter().collect();
        recorder.see(Seen::Final { node: node.clone(), place: Place::Map, records });
    }
    load.clients.end();
    drop((load, watch));
    Ok(())
}

/// Says how a trial is run by hand.
pub fn command(binary: &Path, bug: Option<&str>) -> String {
    let variable = bug.map_or_else(String::new, |bug| format!("ANODE_PLANTED_BUG={bug} "));
    format!("{variable}target/debug/anode-netem trial --anode {}", binary.display())
}
