//! The end of a run: the nodes become ready and equal, their maps and stores are read, and the promises that need no
//! checker are judged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::cluster::Cluster;
use super::drive::Driven;
use super::spec::Spec;
use super::summary::{Broken, Measured};
use crate::checker::{MemberState, Name, Place, Seen};
use crate::finals::{self, Holdings};
use crate::load::recorder::Recorder;
use crate::watch;

/// How long the nodes have to become equal, even if the promise is broken before.
const EQUAL_MAX: Duration = Duration::from_secs(60);
/// How long subscribers have to get what is on its way to them.
const LAST_DELIVERIES: Duration = Duration::from_millis(1_500);
/// How long the nodes have to agree on the members.
const MEMBERS: Duration = Duration::from_secs(30);
/// How long a node may take to serve its store when it is alone.
const ALONE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until the cluster has settled, and reads everything.
pub fn settle(
    spec: &Spec,
    cluster: &mut Cluster,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
    driven: Driven,
) -> Outcome<(Vec<Broken>, Measured)> {
    let Driven { mut load, watch, mut broken, mut measured } = driven;
    let healed = Instant::now();
    let most = Duration::from_secs_f64(spec.profile.ready_within_s);
    match cluster.wait_ready(most) {
        Ok(_) => measured.ready_s = healed.elapsed().as_secs_f64(),
        Err(error) => broken.push(Broken { promise: "ready-again", detail: error.to_string() }),
    }
    let nodes = cluster.watched();
    let go_on = || !is_interrupted.load(Relaxed);
    let compared = finals::wait_equal(&nodes, EQUAL_MAX, go_on)?;
    measured.equal_s = compared.difference.is_none().then(|| healed.elapsed().as_secs_f64());
    judge_equal(spec, &compared.difference, &mut measured, &mut broken);
    load.end_publishing();
    std::thread::sleep(LAST_DELIVERIES);
    // The answers that came late may have been of records that were applied late.
    let compared = finals::wait_equal(&nodes, EQUAL_MAX, go_on)?;
    for ((name, _), holdings) in nodes.iter().zip(compared.holdings) {
        see_final(recorder, name, Place::Map, holdings);
    }
    judge_members(&nodes, &mut broken);
    broken.extend(load.surprises().into_iter().map(|detail| Broken { promise: "protocol", detail }));
    let counts = load.counts();
    measured.sent = counts.sent.load(Relaxed);
    measured.delivered = counts.delivered.load(Relaxed);
    measured.held = counts.held.load(Relaxed);
    measured.links = cluster.world.fabric().map(|fabric| fabric.totals());
    load.end();
    drop(load);
    drop(watch);
    if spec.arguments.store == "embedded" && go_on() {
        read_stores(cluster, recorder, &mut broken)?;
    }
    Ok((broken, measured))
}

fn judge_equal(spec: &Spec, difference: &Option<String>, measured: &mut Measured, broken: &mut Vec<Broken>) {
    let most_s = spec.profile.equal_within_s;
    let detail = match (difference, measured.equal_s) {
        (Some(difference), _) => {
            format!("nodes differ {} s after the end: {difference}", EQUAL_MAX.as_secs())
        }
        (None, Some(took_s)) if took_s > most_s => {
            format!("nodes were equal after {took_s:.1} s, and {most_s} s are allowed")
        }
        _ => return,
    };
    broken.push(Broken { promise: "equal", detail });
}

fn see_final(recorder: &Recorder, node: &Name, place: Place, holdings: Holdings) {
    recorder.see(Seen::Final { node: node.clone(), place, records: holdings.into_iter().collect() });
}

/// Waits until every node takes every node for alive.
fn judge_members(nodes: &[(Name, SocketAddr)], broken: &mut Vec<Broken>) {
    let begin = Instant::now();
    loop {
        let lacking = nodes.iter().find_map(|(name, address)| {
            let members = watch::members(*address).unwrap_or_default();
            let is_alive = |node: &Name| {
                members.iter().any(|member| member.node == *node && member.state == MemberState::Alive)
            };
            let missing = nodes.iter().find(|(node, _)| !is_alive(node))?;
            Some(format!("{name} does not take {} for alive", missing.0))
        });
        match lacking {
            None => return,
            Some(detail) if begin.elapsed() > MEMBERS => {
                broken.push(Broken { promise: "members-agree", detail });
                return;
            }
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Ends every second node in good order and kills the others, starts each alone with its store, and reads it.
fn read_stores(cluster: &mut Cluster, recorder: &Recorder, broken: &mut Vec<Broken>) -> Outcome<()> {
    let mut places = Vec::new();
    for (index, machine) in cluster.machines.iter_mut().enumerate() {
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
            broken.push(Broken { promise: "ends-in-order", detail: error.to_string() });
        }
        machine.node.join_nobody();
        places.push((name, place));
    }
    for machine in &mut cluster.machines {
        machine.node.start()?;
    }
    if let Err(error) = cluster.wait_ready(ALONE) {
        broken.push(Broken { promise: "store-opens", detail: error.to_string() });
    }
    for ((name, place), machine) in places.into_iter().zip(&cluster.machines) {
        match finals::read(machine.node.watched_at()) {
            Ok(holdings) => see_final(recorder, &name, place, holdings),
            Err(error) => broken.push(Broken { promise: "store-opens", detail: format!("{name}: {error}") }),
        }
    }
    Ok(())
}
