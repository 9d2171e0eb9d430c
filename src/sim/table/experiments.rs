//! Worlds that are not scenarios: deaths, pauses, idling, and healing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::members::State;
use crate::cluster::random::Random;
use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp, wire};
use crate::sim::time::SECOND_US;
use crate::sim::{Account, Conditions, NodeId, Start, World};

/// The numbers that were measured, by name.
pub type Numbers = BTreeMap<&'static str, Vec<f64>>;

/// Time for which probes measure round trips before an experiment begins, in microseconds.
const WARM_UP_US: u64 = 3 * SECOND_US;

fn name(index: usize) -> String {
    format!("n{index}")
}

/// Makes a cluster whose nodes have known each other for a while.
fn cluster(nodes: usize, seed: u64) -> World {
    let mut world = World::new(seed, Conditions::figures());
    world.start_known((0..nodes).map(|index| Start::new(name(index), &[])).collect());
    world.run_us(WARM_UP_US);
    world
}

/// Lets nodes die one after the other. `first_s` and `all_s` are the seconds until the first and until all
/// of the others say so, one number for each death, and 60 if they do not. `others` is the number of nodes
/// that miss a living one at the end.
pub(super) fn deaths(nodes: usize, deaths: usize, seed: u64, progress: &mut dyn FnMut(f64)) -> Numbers {
    const PATIENCE_US: u64 = 60 * SECOND_US;
    let mut world = cluster(nodes, seed);
    let mut random = Random::new(seed);
    let mut living: Vec<usize> = (0..nodes).collect();
    let mut numbers = Numbers::new();
    for death in 0..deaths.min(nodes.saturating_sub(2)) {
        // A death must not always fall on the same time of the nodes' rounds of probes.
        world.run_us(2 * SECOND_US + random.below(SECOND_US));
        let victim = name(living.swap_remove(random.index(living.len())));
        let number = victim.trim_start_matches('n').parse().unwrap_or(0);
        world.kill(NodeId(number));
        let says = |world: &World, node: usize| world.state(NodeId(node), &victim) == Some(State::Dead);
        let first = world.run_until(PATIENCE_US, |world| living.iter().any(|node| says(world, *node)));
        let rest = world.run_until(PATIENCE_US, |world| living.iter().all(|node| says(world, *node)));
        let seconds = |us: Option<u64>| us.map_or(60.0, |us| us as f64 / 1e6);
        numbers.entry("first_s").or_default().push(seconds(first));
        numbers.entry("all_s").or_default().push((seconds(first) + seconds(rest)).min(60.0));
        progress((death + 1) as f64 / deaths as f64);
    }
    let others = living.iter().filter(|node| world.live(NodeId(**node)) != living.len()).count();
    numbers.insert("others", vec![others as f64]);
    numbers
}

/// Lets 4 % of the nodes at a time stand still for up to a second. `dead` is how often a node called
/// another one dead, looked at ten times per second.
pub(super) fn pauses(nodes: usize, seconds: u64, seed: u64, progress: &mut dyn FnMut(f64)) -> Numbers {
    let mut world = cluster(nodes, seed);
    let mut random = Random::new(seed);
    let mut dead = 0;
    let mut in_turn: Vec<usize> = Vec::new();
    for second in 0..seconds {
        for _ in 0..(nodes * 4).div_ceil(100) {
            if in_turn.is_empty() {
                in_turn = (0..nodes).collect();
                random.shuffle(&mut in_turn);
            }
            if let Some(node) = in_turn.pop() {
                world.pause(NodeId(node), random.below(SECOND_US) + 1);
            }
        }
        for _ in 0..10 {
            world.run_us(SECOND_US / 10);
            dead += (0..nodes).filter(|node| world.live(NodeId(*node)) < nodes).count();
        }
        progress((second + 1) as f64 / seconds as f64);
    }
    Numbers::from([("dead", vec![dead as f64])])
}

/// Lets a cluster idle. `bytes_per_s` and `datagrams_per_s` are what a node sends in the mean, headers
/// included.
pub(super) fn idle(nodes: usize, seconds: u64, seed: u64, progress: &mut dyn FnMut(f64)) -> Numbers {
    let mut world = cluster(nodes, seed);
    let before = world.accounts();
    for second in 0..seconds {
        world.run_us(SECOND_US);
        progress((second + 1) as f64 / seconds as f64);
    }
    let sent: Account = world.accounts().since(&before);
    let share = |count: u64| vec![count as f64 / (nodes as u64 * seconds).max(1) as f64];
    Numbers::from([
        ("bytes_per_s", share(sent.bytes_sent + sent.stream_bytes)),
        ("datagrams_per_s", share(sent.datagrams_sent)),
    ])
}

/// Lets two nodes meet that hold the same records but for `different` sources, half of which are newer at
/// each. `bytes` is what both sent until they were equal, less what idle nodes send in that time;
/// `over_records` is that divided by the encoded size of the records that differ; `seconds` is how long it
/// took.
pub(super) fn healing(records: usize, different: usize, seed: u64) -> Numbers {
    const WALL_US: u64 = 1_763_700_000_000_000;
    let Ok(origin) = NodeName::parse("before") else { return Numbers::new() };
    let make = |index: usize, version: u64| -> Option<SharedRecord> {
        let source = Source::parse(&format!("sensors/{}/{index}/value", index % 1_000)).ok()?;
        let payload = Payload::Json(format!("{{\"value\":{index},\"version\":{version}}}").into());
        let stamp = Stamp::of_data(WALL_US + version, payload.bytes());
        let birth = Birth { origin: origin.clone(), boot: 1 + version, seq: index as u64 + 1 };
        Some(Arc::new(Record::new(source, stamp, payload, birth, WALL_US + version, 0)))
    };
    let old: Vec<SharedRecord> = (0..records).filter_map(|index| make(index, 0)).collect();
    let mut sides = [old.clone(), old];
    let mut random = Random::new(seed);
    let mut changed: Vec<usize> = (0..records).collect();
    random.shuffle(&mut changed);
    let mut differ_bytes = 0;
    for (at, index) in changed.into_iter().take(different).enumerate() {
        let Some(newer) = make(index, 1) else { continue };
        differ_bytes += wire::encode(&newer).len();
        sides[at % 2][index] = newer;
    }
    let mut world = World::new(seed, Conditions::figures());
    let starts = sides.into_iter().enumerate();
    world.start_known(
        starts.map(|(node, records)| Start { records, ..Start::new(name(node), &[]) }).collect(),
    );
    let equal = |world: &World| world.replica(NodeId(0)).digest() == world.replica(NodeId(1)).digest();
    let took = world.run_until(60 * SECOND_US, equal);
    // Bytes that are still on their way count, too.
    world.run_us(SECOND_US);
    let took_us = took.map_or(f64::INFINITY, |us| us as f64);
    let during = world.accounts();
    world.run_us(10 * SECOND_US);
    let after = world.accounts().since(&during);
    let idle_us = (after.bytes_sent + after.stream_bytes) as f64 / 10.0 * (took_us / 1e6 + 1.0);
    let bytes = (during.bytes_sent + during.stream_bytes) as f64 - idle_us;
    Numbers::from([
        ("bytes", vec![if took.is_some() { bytes } else { f64::INFINITY }]),
        (
            "over_records",
            vec![if took.is_some() {
                bytes / f64::from(differ_bytes as u32).max(1.0)
            } else {
                f64::INFINITY
            }],
        ),
        ("seconds", vec![took_us / 1e6]),
    ])
}
