//! The time of load: clients publish and subscribe while the faults happen.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::cluster::Cluster;
use super::spec::Spec;
use super::summary::{Broken, Measured};
use crate::checker::{Name, Seen};
use crate::faults::Injector;
use crate::load::recorder::Recorder;
use crate::load::{Load, Plan};
use crate::processor::ProcessorWatch;
use crate::watch::{self, StartWatch, Watch};

/// Time between two looks at what is due.
const TURN: Duration = Duration::from_millis(10);
/// Time between two looks at the memory and the bytes of the nodes.
const WEIGH: Duration = Duration::from_secs(1);
/// Time for which subscribers are alone, before anything is published.
const CALM: Duration = Duration::from_millis(300);

/// A run whose faults are over, with clients that still listen.
pub struct Driven {
    pub load: Load,
    pub watches: Watches,
    pub broken: Vec<Broken>,
    pub measured: Measured,
}

/// The threads that watch the nodes.
pub struct Watches {
    _members: Watch,
    pub starts: StartWatch,
    pub processor: ProcessorWatch,
}

impl Watches {
    fn start(cluster: &Cluster, recorder: &Recorder) -> Outcome<Watches> {
        let processes = cluster.machines.iter().map(|machine| machine.node.process().clone());
        let starts = cluster.watched().into_iter().zip(processes.clone());
        let starts = starts.map(|((name, address), process)| (name, address, process));
        Ok(Watches {
            _members: Watch::start(cluster.watched(), recorder)?,
            starts: StartWatch::start(starts.collect(), recorder)?,
            processor: ProcessorWatch::start(processes.collect(), recorder)?,
        })
    }
}

/// Starts the cluster and the clients, and returns when the last fault is over and publishing has ended.
pub fn drive(
    spec: &Spec,
    cluster: &mut Cluster,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<Driven> {
    let run_s = spec.seconds as f64;
    let names: Vec<Name> = cluster.watched().into_iter().map(|(name, _)| name).collect();
    let (rules, events, keys) = (&cluster.rules, cluster.events.clone(), cluster.keys.clone());
    let seed = spec.arguments.seed;
    let mut injector = Injector::new(rules, events, names.clone(), run_s, keys, seed);
    cluster.start(&injector.absent(), recorder)?;
    let watches = Watches::start(cluster, recorder)?;
    let mut load = Load::start(plan(spec, cluster), recorder.clone())?;
    std::thread::sleep(CALM);
    load.publish()?;
    let begin = Instant::now();
    let mut driven = Driven { load, watches, broken: Vec::new(), measured: Measured::default() };
    let (mut weighed, mut told) = (begin, 0);
    let mut is_publishing = true;
    loop {
        let at_s = begin.elapsed().as_secs_f64();
        cluster.set_shapes(at_s)?;
        injector.turn(at_s, &mut cluster.machines, recorder)?;
        cluster.mark_bounded(&injector.bounded());
        mourn(cluster, &injector, recorder, &mut driven.broken, at_s)?;
        if weighed.elapsed() >= WEIGH {
            weighed = Instant::now();
            weigh(cluster, recorder);
        }
        if at_s as u64 > told {
            told = at_s as u64;
            tell(told, spec.seconds, &driven.load, &injector);
        }
        if is_publishing && at_s >= spec.profile.publish_until * run_s {
            is_publishing = false;
            driven.load.stop_publishing();
        }
        if is_interrupted.load(Relaxed) || (at_s >= run_s && injector.is_over()) {
            break;
        }
        std::thread::sleep(TURN);
    }
    driven.load.stop_publishing();
    driven.measured.load_s = begin.elapsed().as_secs_f64().min(spec.profile.publish_until * run_s);
    driven.measured.notes = std::mem::take(&mut injector.notes);
    weigh(cluster, recorder);
    Ok(driven)
}

fn plan(spec: &Spec, cluster: &Cluster) -> Plan {
    let nodes = cluster.machines.iter().map(|machine| {
        let node = &machine.node;
        (node.name().into(), node.clients_at(), node.watched_at())
    });
    Plan {
        nodes: nodes.collect(),
        rate: f64::from(spec.arguments.load),
        sources: spec.arguments.sources,
        data_bytes: spec.arguments.bytes as usize,
        seed: spec.arguments.seed,
    }
}

/// Notes nodes that have ended by themselves. Where a fault explains it, they are started again.
fn mourn(
    cluster: &mut Cluster,
    injector: &Injector,
    recorder: &Recorder,
    broken: &mut Vec<Broken>,
    at_s: f64,
) -> Outcome<()> {
    for index in 0..cluster.machines.len() {
        let node = &mut cluster.machines[index].node;
        let Some(how) = node.ended() else { continue };
        let name: Name = node.name().into();
        let said = crate::machine::last_line(node.log());
        recorder.see(Seen::NodeEnded { node: name.clone() });
        if !injector.may_end(index) {
            broken.push(Broken {
                promise: "nodes-run",
                detail: format!("{how} at {at_s:.1} s, saying: {said}"),
            });
        }
        node.start()?;
        recorder.see(Seen::NodeStarted { node: name });
    }
    Ok(())
}

/// Notes the memory of the nodes, and the bytes that they have sent each other.
fn weigh(cluster: &Cluster, recorder: &Recorder) {
    for machine in &cluster.machines {
        if let Some(bytes) = machine.node.resident_bytes() {
            recorder.see(Seen::Memory { node: machine.node.name().into(), bytes });
        }
    }
    let bytes = match cluster.world.fabric() {
        Some(fabric) => fabric.totals().bytes,
        None => {
            let sent = |(_, address): &(Name, std::net::SocketAddr)| {
                watch::metric(*address, "anode_gossip_bytes_sent_total").unwrap_or(0.0)
            };
            cluster.watched().iter().map(sent).sum::<f64>() as u64
        }
    };
    recorder.see(Seen::Wire { bytes });
}

fn tell(at_s: u64, of_s: u64, load: &Load, injector: &Injector) {
    let is_terminal = std::io::stderr().is_terminal();
    if !is_terminal && !at_s.is_multiple_of(10) {
        return;
    }
    let counts = load.counts();
    let active = injector.active();
    let faults = if active.is_empty() { "no fault".to_owned() } else { active.join(", ") };
    let line = format!(
        "  {at_s:>4} of {of_s} s: {} sent, {} reached, {} failed, {} held, {} delivered; {faults}",
        counts.sent.load(Relaxed),
        counts.acked.load(Relaxed),
        counts.failed.load(Relaxed),
        counts.held.load(Relaxed),
        counts.delivered.load(Relaxed),
    );
    if is_terminal {
        eprint!("\r\x1b[2K{}", line.chars().take(150).collect::<String>());
        if at_s >= of_s {
            eprintln!();
        }
    } else {
        eprintln!("{line}");
    }
}
