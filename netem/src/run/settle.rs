//! The end of a run: the nodes become ready and equal, their maps and stores are read, and the promises that need no
//! checker are judged.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::drive::{Driven, Watches};
use super::spec::Spec;
use super::summary::{Broken, Measured};
use crate::checker::{MemberState, Name, Place, Seen};
use crate::finals::{self, Comparison, Holdings};
use crate::load::recorder::Recorder;
use crate::target::Target;
use crate::testbed::{StoreAlone, Testbed};
use crate::watch;

/// How long the nodes have to become ready, even if the bound of the profile is passed before.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long the nodes have to become equal, even if the bound of the profile is passed before.
const EQUAL_MAX: Duration = Duration::from_secs(60);
/// How long subscribers have to get what is on its way to them.
const LAST_DELIVERIES: Duration = Duration::from_millis(1_500);
/// How long the nodes have to agree on the members.
const MEMBERS: Duration = Duration::from_secs(30);
/// How long it is waited for it, so that a busy machine can be told from members that never agree.
const MEMBERS_MAX: Duration = Duration::from_secs(120);
/// How long a node may take to serve its store when it is alone.
const ALONE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until the cluster has settled, and reads everything.
pub fn settle(
    spec: &Spec,
    testbed: &mut dyn Testbed,
    recorder: &Recorder,
    is_interrupted: &Arc<AtomicBool>,
    driven: Driven,
) -> Outcome<(Vec<Broken>, Measured)> {
    let Driven { mut load, watches, mut broken, mut measured } = driven;
    let healed_us = recorder.now_us();
    let since_s = || (recorder.now_us() - healed_us) as f64 / 1e6;
    match testbed.wait_ready(READY_MAX) {
        Ok(_) => measured.ready_s = since_s(),
        Err(error) => broken.push(Broken { promise: "ready-again", detail: error.to_string() }),
    }
    let nodes = testbed.watched();
    let go_on = || !is_interrupted.load(Relaxed);
    let compared = finals::wait_equal(&nodes, EQUAL_MAX, go_on)?;
    let is_scarce = || watches.processor.is_scarce(healed_us, recorder.now_us());
    match &compared.difference {
        Some(difference) => {
            let detail = format!("nodes differ {} s after the end: {difference}", EQUAL_MAX.as_secs());
            // A node without a processor does not answer, and nothing is known of what it holds.
            let is_unknown = compared.is_incomplete() && is_scarce();
            let to = if is_unknown { &mut measured.unjudged } else { &mut broken };
            to.push(Broken { promise: "equal", detail });
        }
        None => measured.equal_s = Some(since_s()),
    }
    load.clients.end_publishing();
    std::thread::sleep(LAST_DELIVERIES);
    // The answers that came late may have been of records that were applied late.
    let compared = finals::wait_equal(&nodes, EQUAL_MAX, go_on)?;
    let silent = see_finals(recorder, &nodes, compared);
    if is_scarce() { &mut measured.unjudged } else { &mut broken }.extend(silent);
    let asked_us = recorder.now_us();
    judge_members(&nodes, &mut broken);
    let members_s = (recorder.now_us() - asked_us) as f64 / 1e6;
    let mut times = times(spec, &measured, &watches, healed_us);
    times.push(Time {
        promise: "members-agree",
        from_us: asked_us,
        took_s: members_s,
        most_s: MEMBERS.as_secs_f64(),
    });
    for time in times {
        if let Some(late) = time.late() {
            let is_scarce = watches.processor.is_scarce(time.from_us, time.until_us());
            if is_scarce { &mut measured.unjudged } else { &mut broken }.push(late);
        }
    }
    broken.extend(load.clients.surprises().into_iter().map(|detail| Broken { promise: "protocol", detail }));
    let counts = load.clients.counts();
    measured.sent = counts.sent.load(Relaxed);
    measured.delivered = counts.delivered.load(Relaxed);
    measured.held = counts.held.load(Relaxed);
    measured.slowest_start_s = watches.starts.slowest().map(|start| start.took_us as f64 / 1e6);
    measured.links = testbed.link_totals();
    load.clients.end();
    drop(load);
    drop(watches);
    measured.notes.extend(testbed.notes());
    if testbed.has_stores() && go_on() {
        read_stores(testbed, recorder, &mut broken)?;
    }
    Ok((broken, measured))
}

/// A time with a bound.
struct Time {
    promise: &'static str,
    /// Time from which it counts, in microseconds since the begin of the run.
    from_us: u64,
    took_s: f64,
    most_s: f64,
}

impl Time {
    fn until_us(&self) -> u64 {
        self.from_us + (self.took_s * 1e6) as u64
    }

    /// Says that the bound was passed, if it was.
    fn late(&self) -> Option<Broken> {
        let Time { promise, took_s, most_s, .. } = self;
        let detail = || format!("it took {took_s:.1} s, and {most_s} s are allowed");
        (took_s > most_s).then(|| Broken { promise, detail: detail() })
    }
}

/// Returns the times that a profile bounds.
fn times(spec: &Spec, measured: &Measured, watches: &Watches, healed_us: u64) -> Vec<Time> {
    let (ready_s, equal_s) = (measured.ready_s, measured.equal_s.unwrap_or(0.0));
    let profile = &spec.profile;
    let mut times = vec![
        Time { promise: "ready-again", from_us: healed_us, took_s: ready_s, most_s: profile.ready_within_s },
        Time { promise: "equal", from_us: healed_us, took_s: equal_s, most_s: profile.equal_within_s },
    ];
    if let Some(slowest) = watches.starts.slowest()
        && let Some(most_s) = profile.start_within_s
    {
        let took_s = slowest.took_us as f64 / 1e6;
        times.push(Time { promise: "starts-in-time", from_us: slowest.began_us, took_s, most_s });
    }
    times
}

/// Notes what every node holds. Says which did not answer, if one did not.
fn see_finals(recorder: &Recorder, nodes: &[(Name, Target)], compared: Comparison) -> Option<Broken> {
    let is_incomplete = compared.is_incomplete();
    for ((name, _), holdings) in nodes.iter().zip(compared.holdings) {
        if let Some(holdings) = holdings {
            see_final(recorder, name, Place::Map, holdings);
        }
    }
    let detail = compared.difference.unwrap_or_default();
    is_incomplete.then_some(Broken { promise: "answers-at-the-end", detail })
}

fn see_final(recorder: &Recorder, node: &Name, place: Place, holdings: Holdings) {
    recorder.see(Seen::Final { node: node.clone(), place, records: holdings.into_iter().collect() });
}

/// Waits until every node takes every node for alive.
fn judge_members(nodes: &[(Name, Target)], broken: &mut Vec<Broken>) {
    let begin = Instant::now();
    loop {
        let lacking = nodes.iter().find_map(|(name, target)| {
            let members = watch::members(target).unwrap_or_default();
            let is_alive = |node: &Name| {
                members.iter().any(|member| member.node == *node && member.state == MemberState::Alive)
            };
            let missing = nodes.iter().find(|(node, _)| !is_alive(node))?;
            Some(format!("{name} does not take {} for alive", missing.0))
        });
        match lacking {
            None => return,
            Some(detail) if begin.elapsed() > MEMBERS_MAX => {
                broken.push(Broken { promise: "members-agree", detail });
                return;
            }
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Lets every node run alone with its store, after an orderly end or a kill, and reads it.
fn read_stores(testbed: &mut dyn Testbed, recorder: &Recorder, broken: &mut Vec<Broken>) -> Outcome<()> {
    let alone = testbed.start_alone(recorder, ALONE)?;
    broken.extend(alone.broken.into_iter().map(|(promise, detail)| Broken { promise, detail }));
    for StoreAlone { name, place, target } in alone.stores {
        match finals::read(&target) {
            Ok(holdings) => see_final(recorder, &name, place, holdings),
            Err(error) => broken.push(Broken { promise: "store-opens", detail: format!("{name}: {error}") }),
        }
    }
    Ok(())
}
