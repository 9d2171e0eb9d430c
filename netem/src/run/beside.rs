//! A run of a profile with another system in place of aNode: the same world, faults and load, and figures instead of a
//! verdict.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::machine::Machine;

use super::cluster::Cluster;
use super::drive::{self, CALM};
use super::spec::Spec;
use crate::checker::{Checker, Report};
use crate::load::recorder::Recorder;
use crate::load::shared::source_name;
use crate::peer::{self, Accounting, Api, Comparison, Contents, Ending, Mapping, PeerLoad, Server};
use crate::processor::{CHECKER, ProcessorWatch};
use crate::target::Target;
use crate::testbed::Testbed;

/// How long the servers may take to make the bucket.
const MADE: Duration = Duration::from_secs(40);
/// How long the servers have to become ready again.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long the replicas have to become equal.
const EQUAL_MAX: Duration = Duration::from_secs(60);
/// How long the bucket may take to answer at the end.
const READ_MAX: Duration = Duration::from_secs(60);
/// How long subscribers have to get what they lack: longer than they wait for a sign of life of what feeds them.
const SUBSCRIBERS_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a run with `server` in place of aNode. Everything that the run has made is removed, however it ends.
pub fn run_beside(
    spec: &Spec,
    server: &Server,
    mapping: &Mapping,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<Comparison> {
    let out = spec.out();
    std::fs::create_dir_all(&out)?;
    let machine = Machine::look();
    let (recorder, observations) = Recorder::new();
    let settings = spec.settings();
    // The checker has the figures that runs of aNode have, by the same rules; what it says of promises is not asked.
    let watching = std::thread::Builder::new().name(CHECKER.to_owned()).spawn(move || {
        let (mut checker, mut accounting) = (Checker::new(settings), Accounting::default());
        for observation in observations {
            accounting.observe(&observation);
            checker.observe(observation);
        }
        (checker.judge(), accounting)
    })?;
    let done = drive_and_end(spec, recorder, is_interrupted);
    let (report, accounting): (Report, Accounting) = watching.join().map_err(|_| "the checker panicked")?;
    let (ending, bucket) = done?;
    let comparison = Comparison {
        profile: spec.name.clone(),
        peer: format!("jetstream ({})", server.version),
        nodes: spec.nodes,
        seconds: spec.seconds,
        seed: spec.arguments.seed,
        rate: spec.arguments.load,
        sources: spec.arguments.sources,
        bytes: spec.arguments.bytes,
        again: spec.again(),
        machine,
        commit: commit(),
        applied: mapping.applied.clone(),
        left_out: mapping.left_out.clone(),
        account: accounting.judge(bucket.as_ref()),
        ending,
        figures: report.figures,
        faults: report.faults,
        timeline: report.seconds,
    };
    comparison.write(&out)?;
    Ok(comparison)
}

fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    described.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn drive_and_end(
    spec: &Spec,
    recorder: Recorder,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<(Ending, Option<Contents>)> {
    let mut cluster = Cluster::new(spec)?;
    println!("  {}", cluster.how());
    let done = drive_servers(spec, &mut cluster, &recorder, is_interrupted);
    // The logs say why, also if the run failed.
    cluster.keep_logs(&spec.out())?;
    if is_interrupted.load(Relaxed) {
        return Err("interrupted".into());
    }
    done
}

fn drive_servers(
    spec: &Spec,
    cluster: &mut Cluster,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<(Ending, Option<Contents>)> {
    let mut injector = drive::injector(spec, cluster);
    cluster.start(&injector.absent(), recorder)?;
    let nodes = cluster.nodes();
    let targets: Vec<Target> = nodes.iter().map(|node| node.clients_at.clone()).collect();
    peer::wait_made(&targets[0], MADE)?;
    let _waits = ProcessorWatch::start(nodes.into_iter().map(|node| node.process).collect(), recorder)?;
    let mut load = PeerLoad::start(drive::plan(spec, cluster), recorder.clone())?;
    std::thread::sleep(CALM);
    load.publish()?;
    let (ended, measured) =
        drive::let_faults_happen(spec, cluster, recorder, is_interrupted, &mut injector, &load.clients)?;
    let mut ending = Ending { load_s: measured.load_s, notes: measured.notes, ..Ending::default() };
    ending.notes.extend(ended.into_iter().map(|end| end.detail));
    let bucket = end(spec, cluster, &targets, &mut load, &mut ending, is_interrupted);
    ending.links = cluster.link_totals();
    let counts = load.clients.counts();
    ending.held = counts.held.load(Relaxed);
    ending.delivered = counts.delivered.load(Relaxed);
    ending.older_after_newer = load.older();
    ending.notes.extend(load.clients.surprises());
    load.clients.end();
    Ok((ending, bucket))
}

/// Waits until servers, replicas and subscribers have what they lack, and reads the bucket.
fn end(
    spec: &Spec,
    cluster: &mut Cluster,
    targets: &[Target],
    load: &mut PeerLoad,
    ending: &mut Ending,
    is_interrupted: &AtomicBool,
) -> Option<Contents> {
    let healed = Instant::now();
    if let Err(error) = cluster.wait_ready(READY_MAX) {
        ending.notes.push(error.to_string());
    }
    ending.equal_s = wait_whole(targets, healed, is_interrupted).then(|| healed.elapsed().as_secs_f64());
    load.clients.end_publishing();
    if ending.equal_s.is_some() {
        // The answers that came late may have been of values that were stored late.
        wait_whole(targets, Instant::now(), is_interrupted);
    }
    let began = Instant::now();
    let keys = (0..spec.arguments.sources).map(source_name);
    let bucket = match peer::read_all(targets, keys, READ_MAX) {
        Ok(bucket) => bucket,
        Err(error) => {
            ending.notes.push(error.to_string());
            return None;
        }
    };
    ending.keys = Some(bucket.len());
    loop {
        ending.subscribers_lacked = load.lacking(&bucket);
        if ending.subscribers_lacked.iter().all(|lacked| *lacked == 0) {
            ending.subscribers_s = Some(began.elapsed().as_secs_f64());
            return Some(bucket);
        }
        if began.elapsed() > SUBSCRIBERS_MAX || is_interrupted.load(Relaxed) {
            return Some(bucket);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until all replicas of the bucket have the same. Returns false if they had not in time.
fn wait_whole(targets: &[Target], since: Instant, is_interrupted: &AtomicBool) -> bool {
    while since.elapsed() < EQUAL_MAX && !is_interrupted.load(Relaxed) {
        for target in targets {
            match Api::open(target).and_then(|mut api| api.replication()) {
                Ok(replication) if replication.is_whole() => return true,
                // The leader has answered, so no other server needs to be asked.
                Ok(_) => break,
                Err(_) => {}
            }
        }
        std::thread::sleep(PAUSE);
    }
    false
}
