//! Faults that are drawn at random: the same seed, number of nodes and length make the same faults.

use anode_loadgen::random::Random;

use crate::link::shape::Bursts;
use crate::profile::Group;
use crate::profile::fault::{Event, Fault, Kind};
use crate::profile::rule::Rule;

/// Mean time between the begins of two faults, in seconds.
const BETWEEN_S: f64 = 4.0;
/// Part of the run in which faults may happen, so that the cluster can settle before the end.
const BEGIN: f64 = 0.08;
const END: f64 = 0.85;

/// Kinds of machine faults, each as often as it stands here.
const KINDS: [Kind; 12] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Kill,
    Kind::Restart,
    Kind::Stop,
    Kind::Stop,
    Kind::Clock,
    Kind::Cpu,
    Kind::DiskSlow,
    Kind::DiskFails,
    Kind::Files,
    Kind::DiskFull,
];

/// Draws faults of links and of machines for a run of `run_s` seconds. At any time, at least half of the nodes run
/// undisturbed, and each node has one fault at most.
pub fn draw(seed: u64, nodes: usize, run_s: f64) -> (Vec<Rule>, Vec<Event>) {
    let mut random = Random::new(seed, 0xc4a0);
    let (mut rules, mut events) = (Vec::new(), Vec::<Event>::new());
    let mut at_s = run_s * BEGIN;
    loop {
        at_s += -random.unit().ln() * BETWEEN_S;
        let end_s = at_s + 1.0 + random.unit() * (run_s / 12.0).clamp(1.0, 15.0);
        if end_s > run_s * END {
            return (rules, events);
        }
        if pick(&mut random, 2) == 0 {
            rules.push(link(&mut random, nodes, at_s / run_s, end_s / run_s));
            continue;
        }
        let node = pick(&mut random, nodes);
        let at_once = events.iter().filter(|event| event.end_s > at_s);
        let is_busy = at_once.clone().any(|event| event.node == node) || at_once.count() * 2 + 2 > nodes;
        let fault = machine(&mut random, node);
        if !is_busy {
            events.push(Event { fault, node, begin_s: at_s, end_s });
        }
    }
}

fn pick(random: &mut Random, of: usize) -> usize {
    (random.next_u64() % of as u64) as usize
}

fn machine(random: &mut Random, node: usize) -> Fault {
    let ahead_s = [-40.0, -7.0, 3.0, 8.0, 90.0];
    Fault {
        kind: KINDS[pick(random, KINDS.len())],
        node: Group::one(node),
        at: 0.0,
        lasts: 0.0,
        lasts_s: 0.0,
        stagger: 0.0,
        times: 1,
        every: 0.0,
        ahead_s: ahead_s[pick(random, ahead_s.len())],
        drift_ppm: 0.0,
        percent: 5 + pick(random, 30) as u32,
        mib: 512,
        more_files: pick(random, 3) as u64,
        disk_ms: 5 + pick(random, 60) as u64,
    }
}

fn link(random: &mut Random, nodes: usize, at: f64, until: f64) -> Rule {
    let mut rule = Rule { at, until, both: pick(random, 2) == 0, ..Rule::default() };
    match pick(random, 4) {
        0 => {}
        1 => rule.from = Group::one(pick(random, nodes)),
        2 => {
            rule.from = Group::one(pick(random, nodes));
            rule.to = Group::one(pick(random, nodes));
        }
        _ => {
            let parts = ["part 1/2", "part 2/2"].map(|part| Group::try_from(part.to_owned()));
            if let [Ok(from), Ok(to)] = parts {
                (rule.from, rule.to, rule.both) = (from, to, true);
            }
        }
    }
    let is_everywhere = rule.from == Group::all();
    match pick(random, 7) {
        // All links at the same time are not cut: that is a cluster that is not there.
        0 | 1 if !is_everywhere => rule.cut = Some(true),
        0 | 2 => rule.loss = Some(1.0 + random.unit() * 20.0),
        1 | 3 => rule.bursts = Some(Bursts { begin: 2.0, end: 10.0, loss_bad: 100.0, loss_good: 0.0 }),
        4 => {
            rule.delay_ms = Some(5.0 + random.unit() * 150.0);
            rule.jitter_ms = Some(random.unit() * 20.0);
        }
        5 => {
            rule.corrupt = Some(random.unit() * 2.0);
            rule.duplicate = Some(random.unit() * 5.0);
        }
        _ => {
            rule.delay_ms = Some(5.0);
            rule.reorder = Some(random.unit() * 30.0);
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_faults_and_half_of_the_nodes_stay_healthy() {
        for seed in 0..20 {
            let (rules, events) = draw(seed, 5, 300.0);
            let (again, events_again) = draw(seed, 5, 300.0);
            assert_eq!(format!("{rules:?}{events:?}"), format!("{again:?}{events_again:?}"));
            assert!(rules.len() > 10 && events.len() > 10, "{} {}", rules.len(), events.len());
            for rule in &rules {
                assert_eq!(rule.check(), Ok(()));
                assert!(rule.until <= END);
            }
            for event in &events {
                let at = event.begin_s;
                let same = events.iter().filter(|other| other.begin_s <= at && at < other.end_s);
                assert!(same.clone().count() <= 2);
                assert_eq!(same.filter(|other| other.node == event.node).count(), 1);
            }
        }
    }
}
