//! The figures of spreading, printed: `cargo test --release --lib spread::figures -- --ignored --nocapture`.
//! What they must be is said in the tests; these show how far from it they are, over many seeds.

use super::harness::{World, identity};

/// A network, and how much is published on it.
#[derive(Clone, Copy, Default)]
struct Case {
    count: usize,
    /// Of a thousand messages.
    loss: u64,
    /// Of a thousand spells of each link.
    bursts: u64,
    stalls: (u64, u64, u64),
    records: usize,
}

/// What came out.
struct Outcome {
    times: Vec<u64>,
    missing: usize,
    copies: f64,
    resent: f64,
    control: f64,
}

impl Outcome {
    fn quantile(&self, per_mille: usize) -> u64 {
        let at = (self.times.len() * per_mille / 1_000).min(self.times.len().saturating_sub(1));
        self.times.get(at).copied().unwrap_or(0)
    }
}

/// Publishes at random nodes, one record after another has had its time.
fn measure(case: Case, seed: u64) -> Outcome {
    let mut world = World::new(case.count, seed);
    world.cpu_us = 6;
    world.loss = case.loss;
    world.bursts = case.bursts;
    world.stalls = case.stalls;
    let mut published = Vec::new();
    for _ in 0..case.records {
        let origin = (world.random() % case.count as u64) as usize;
        let since_us = world.now_us;
        let seq = world.publish(origin, 1, 100);
        published.push((origin, seq, since_us));
        world.run(60_000);
    }
    world.run(1_000_000);
    let mut times = Vec::new();
    let mut missing = 0;
    for (origin, seq, since_us) in published {
        let (some, not) = world.delivery(origin, seq, since_us);
        times.extend(some);
        missing += not;
    }
    times.sort_unstable();
    let stats = |of: fn(&super::SpreadStats) -> u64| -> f64 {
        world.nodes.iter().map(|node| of(node.spread.stats())).sum::<u64>() as f64
    };
    let data = stats(|stats| stats.data_bytes_sent);
    Outcome {
        copies: world.copies() as f64 / (case.records * (case.count - 1)) as f64,
        resent: stats(|stats| stats.resent_bytes) / data,
        control: stats(|stats| stats.control_bytes_sent) / data,
        times,
        missing,
    }
}

fn show(name: &str, case: Case, seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let outcome = measure(case, seed);
        let (p50, p999) = (outcome.quantile(500), outcome.quantile(999));
        println!(
            "{name:<10} N={:<6} seed {seed} copies {:.4} resent {:.4} control {:.2} p50 {p50} p99 {} p99.9 {p999} max {} ratio {:.2} missing {}",
            case.count,
            outcome.copies,
            outcome.resent,
            outcome.control,
            outcome.quantile(990),
            outcome.times.last().copied().unwrap_or(0),
            p999 as f64 / p50 as f64,
            outcome.missing,
        );
    }
}

/// Enough records for a hundred thousand deliveries.
fn case(count: usize) -> Case {
    Case { count, records: (110_000 / count).max(12), ..Case::default() }
}

#[test]
#[ignore = "prints figures"]
fn loss() {
    for count in [1_000, 100, 10] {
        for loss in [0, 50, 100] {
            show(&format!("loss {loss}"), Case { loss, ..case(count) }, 1..=5);
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn bursts() {
    for count in [1_000, 100, 10] {
        for bursts in [100, 200] {
            show(&format!("bursts {bursts}"), Case { bursts, ..case(count) }, 1..=5);
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn many() {
    for (loss, bursts) in [(0, 0), (50, 0), (100, 0), (0, 100)] {
        show(&format!("many {loss}/{bursts}"), Case { loss, bursts, ..case(10_000) }, 1..=2);
    }
}

#[test]
#[ignore = "prints figures"]
fn starved() {
    for count in [5, 30, 300] {
        for per_mille in [2, 10, 50] {
            let stalls = (per_mille, 5_000, 50_000);
            let records = 10_000 / count;
            show(&format!("starved {per_mille}"), Case { stalls, records, ..case(count) }, 1..=2);
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn killed() {
    for seed in 1..=12 {
        let mut world = World::new(1_000, seed);
        world.cpu_us = 6;
        for _ in 0..5 {
            let origin = (world.random() % 1_000) as usize;
            world.publish(origin, 1, 100);
            world.run(20_000);
        }
        for index in 1..1_000 {
            world.nodes[index].is_up = world.random().is_multiple_of(2);
        }
        let since_us = world.now_us;
        let seq = world.publish(0, 1, 100);
        world.run(200_000);
        let (times, missing) = world.delivery(0, seq, since_us);
        let quantile = |per_mille: usize| times[times.len() * per_mille / 1_000];
        println!(
            "killed seed {seed} p50 {} p99 {} max {} missing {missing}",
            quantile(500),
            quantile(990),
            times.last().unwrap()
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn unknown() {
    let (count, records) = (1_000, 110);
    for seed in 1..=5 {
        let mut world = World::new(count, seed);
        world.cpu_us = 6;
        for index in 0..count {
            let mut ring = (*world.nodes[index].ring).clone();
            let me = identity(index).ring_hash();
            for entry in world.nodes[index].ring.clone().entries() {
                if world.random().is_multiple_of(50) && entry.hash != me {
                    ring.remove(entry.hash, entry.name().as_str());
                }
            }
            world.see(index, ring);
        }
        let mut missed = 0;
        for round in 0..records {
            let origin = (round * 23) % count;
            let seq = world.publish(origin, 1, 100);
            world.run(40_000);
            missed += world.delivery(origin, seq, 0).1;
        }
        let shares = (records * (count - 1)) as f64;
        println!(
            "unknown seed {seed} missed {:.4} % copies {:.4}",
            missed as f64 / shares * 100.0,
            world.copies() as f64 / shares
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn one_busy_origin() {
    for count in [100, 1_000] {
        for seed in 1..=5 {
            let mut world = World::new(count, seed);
            world.cpu_us = 6;
            let records = 500usize;
            for _ in 0..records {
                world.publish(0, 1, 100);
                world.run(10_000_000 / records as u64);
            }
            world.run(100_000);
            let parts: Vec<usize> = world.nodes.iter().map(|node| node.parts_sent).collect();
            let others: usize = parts[1..].iter().sum();
            let busiest = parts[1..].iter().max().copied().unwrap_or(0);
            println!(
                "busy N={count} seed {seed} origin {:.3} copies, busiest other / mean {:.3}",
                parts[0] as f64 / records as f64,
                busiest as f64 * (count - 1) as f64 / others as f64
            );
        }
    }
}
