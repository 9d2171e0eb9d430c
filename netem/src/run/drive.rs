//! The time of load: clients publish and subscribe while the faults happen.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::spec::Spec;
use super::summary::{Broken, Measured};
use crate::checker::Seen;
use crate::faults::Injector;
use crate::load::recorder::Recorder;
use crate::load::{Clients, Counts, Load, Plan};
use crate::processor::ProcessorWatch;
use crate::testbed::{OwnEnd, Testbed};
use crate::watch::{StartWatch, Watch};

/// Time between two looks at what is due.
const TURN: Duration = Duration::from_millis(10);
/// Time between two looks at the memory and the bytes of the nodes.
const WEIGH: Duration = Duration::from_secs(1);
/// Time for which subscribers are alone, before anything is published.
pub const CALM: Duration = Duration::from_millis(300);

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
    fn start(testbed: &dyn Testbed, recorder: &Recorder) -> Outcome<Watches> {
        let nodes = testbed.nodes();
        let processes = nodes.iter().map(|node| node.process.clone()).collect();
        let starts = nodes.into_iter().map(|node| (node.name, node.watched_at, node.process)).collect();
        Ok(Watches {
            _members: Watch::start(testbed.watched(), recorder)?,
            starts: StartWatch::start(starts, recorder)?,
            processor: ProcessorWatch::start(processes, recorder)?,
        })
    }
}

/// Starts the cluster and the clients, and returns when the last fault is over and publishing has ended.
pub fn drive(
    spec: &Spec,
    testbed: &mut dyn Testbed,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<Driven> {
    let mut injector = injector(spec, testbed);
    testbed.start(&injector.absent(), recorder)?;
    let watches = Watches::start(testbed, recorder)?;
    let mut load = Load::start(plan(spec, testbed), recorder.clone())?;
    std::thread::sleep(CALM);
    load.publish()?;
    let (broken, measured) =
        let_faults_happen(spec, testbed, recorder, is_interrupted, &mut injector, &load.clients)?;
    Ok(Driven { load, watches, broken, measured })
}

/// Makes the faults of a run.
pub fn injector(spec: &Spec, testbed: &dyn Testbed) -> Injector {
    Injector::new(testbed.script(), &testbed.names(), spec.seconds as f64, spec.arguments.seed)
}

/// Lets the faults begin and end when it is their time, and publishing end when the profile says so. Returns when all of it
/// is over.
pub fn let_faults_happen(
    spec: &Spec,
    testbed: &mut dyn Testbed,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
    injector: &mut Injector,
    clients: &Clients,
) -> Outcome<(Vec<Broken>, Measured)> {
    let run_s = spec.seconds as f64;
    let begin = Instant::now();
    let (mut weighed, mut told) = (begin, 0);
    let mut is_publishing = true;
    let (mut broken, mut measured) = (Vec::new(), Measured::default());
    loop {
        let at_s = begin.elapsed().as_secs_f64();
        testbed.set_shapes(at_s)?;
        injector.turn(at_s, testbed, recorder)?;
        testbed.mark_bounded(&injector.bounded());
        mourn(testbed, injector, recorder, &mut broken, at_s)?;
        if weighed.elapsed() >= WEIGH {
            weighed = Instant::now();
            weigh(testbed, recorder);
        }
        if at_s as u64 > told {
            told = at_s as u64;
            tell(told, spec.seconds, clients.counts(), injector);
        }
        if is_publishing && at_s >= spec.profile.publish_until * run_s {
            is_publishing = false;
            clients.stop_publishing();
        }
        if is_interrupted.load(Relaxed) || (at_s >= run_s && injector.is_over()) {
            break;
        }
        std::thread::sleep(TURN);
    }
    clients.stop_publishing();
    measured.load_s = begin.elapsed().as_secs_f64().min(spec.profile.publish_until * run_s);
    measured.notes = std::mem::take(&mut injector.notes);
    weigh(testbed, recorder);
    Ok((broken, measured))
}

/// Makes the plan of the clients.
pub fn plan(spec: &Spec, testbed: &dyn Testbed) -> Plan {
    let nodes = testbed.nodes().into_iter();
    Plan {
        nodes: nodes.map(|node| (node.name, node.clients_at, node.watched_at)).collect(),
        rate: f64::from(spec.arguments.load),
        sources: spec.arguments.sources,
        data_bytes: spec.arguments.bytes as usize,
        seed: spec.arguments.seed,
    }
}

/// Notes nodes that have ended by themselves. Where a fault explains it, they are started again.
fn mourn(
    testbed: &mut dyn Testbed,
    injector: &Injector,
    recorder: &Recorder,
    broken: &mut Vec<Broken>,
    at_s: f64,
) -> Outcome<()> {
    for index in 0..testbed.names().len() {
        let Some(OwnEnd { how, said }) = testbed.mourn(index, recorder)? else { continue };
        if !injector.may_end(index) {
            broken.push(Broken {
                promise: "nodes-run",
                detail: format!("{how} at {at_s:.1} s, saying: {said}"),
            });
        }
    }
    Ok(())
}

/// Notes the memory of the nodes, and the bytes that they have sent each other.
fn weigh(testbed: &dyn Testbed, recorder: &Recorder) {
    for (node, bytes) in testbed.resident_bytes() {
        recorder.see(Seen::Memory { node, bytes });
    }
    recorder.see(Seen::Wire { bytes: testbed.wire_bytes() });
}

fn tell(at_s: u64, of_s: u64, counts: &Counts, injector: &Injector) {
    let is_terminal = std::io::stderr().is_terminal();
    if !is_terminal && !at_s.is_multiple_of(10) {
        return;
    }
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
