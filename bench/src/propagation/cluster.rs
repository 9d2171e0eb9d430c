//! N node processes that know each other, and their counters.

use std::path::Path;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::measures::OwnPercentiles;
use crate::node::Node;

/// How long the nodes may take to find each other.
const DEADLINE: Duration = Duration::from_secs(60);

/// Running nodes. They are killed when this is dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

/// Counters of the traffic between nodes, summed over all nodes: datagrams, bytes, copies and deliveries.
#[derive(Debug)]
pub struct Traffic {
    pub at: Instant,
    pub datagrams: f64,
    pub bytes: f64,
    pub copies: f64,
    /// For each bound in milliseconds, the number of deliveries that took at most this time.
    buckets: Vec<(f64, f64)>,
}

impl Cluster {
    /// Starts `count` nodes, each with one worker and a store in memory, and waits until each sees all others.
    pub fn start(anode: &Path, folder: &Path, count: usize) -> Outcome<Cluster> {
        Cluster::start_with(anode, folder, count, &[])
    }

    /// Starts such nodes that seal what they send each other with a new key.
    pub fn start_sealed(anode: &Path, folder: &Path, count: usize) -> Outcome<Cluster> {
        let key = std::process::Command::new(anode).args(["keys", "new"]).output()?;
        std::fs::create_dir_all(folder)?;
        let file = folder.join("keys");
        std::fs::write(&file, &key.stdout)?;
        Cluster::start_with(anode, folder, count, &["--cluster-key", &file.display().to_string()])
    }

    fn start_with(anode: &Path, folder: &Path, count: usize, more: &[&str]) -> Outcome<Cluster> {
        let options = ["--store", "memory", "--workers", "1", "--log-level", "warn"];
        let options = [&options[..], more].concat();
        let mut nodes = vec![Node::start(anode, &folder.join("0"), &options)?];
        let seed = nodes[0].gossip.clone();
        for number in 1..count {
            let options = [&options[..], &["--join", &seed]].concat();
            nodes.push(Node::start(anode, &folder.join(number.to_string()), &options)?);
        }
        for node in &nodes {
            node.wait_members(count, DEADLINE)?;
            node.wait_ready(DEADLINE)?;
        }
        Ok(Cluster { nodes })
    }

    /// Reads the counters of all nodes.
    pub fn traffic(&self) -> Outcome<Traffic> {
        let mut sum =
            Traffic { at: Instant::now(), datagrams: 0.0, bytes: 0.0, copies: 0.0, buckets: Vec::new() };
        for node in &self.nodes {
            sum.add(&node.get("/metrics")?);
        }
        Ok(sum)
    }

    /// Returns the processor time that all nodes have used, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.nodes.iter().map(|node| cpu_s(node.pid())).sum()
    }
}

/// Returns the processor time that the threads of a process have used, in seconds; 0 if it is gone.
fn cpu_s(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let used_ns = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    });
    used_ns.sum::<f64>() / 1e9
}

impl Traffic {
    /// Adds the counters in one node's metrics.
    fn add(&mut self, metrics: &str) {
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            match name {
                "anode_gossip_datagrams_sent_total" => self.datagrams += value,
                "anode_gossip_bytes_sent_total" => self.bytes += value,
                "anode_data_copies_received_total" => self.copies += value,
                _ => {
                    let bound = name.strip_prefix("anode_propagation_seconds_bucket{le=\"");
                    if let Some(bound) = bound.and_then(|rest| rest.strip_suffix("\"}")) {
                        self.add_bucket(bound.parse::<f64>().unwrap_or(f64::INFINITY) * 1e3, value);
                    }
                }
            }
        }
    }

    fn add_bucket(&mut self, bound_ms: f64, count: f64) {
        match self.buckets.iter_mut().find(|(bound, _)| *bound == bound_ms) {
            Some((_, sum)) => *sum += count,
            None => self.buckets.push((bound_ms, count)),
        }
    }

    /// Returns percentiles of the deliveries since `before`, by the nodes' own histogram. An infinite bound
    /// is given as −1.
    pub fn own_since(&self, before: &Traffic) -> OwnPercentiles {
        let since = |&(bound, count): &(f64, f64)| {
            let then = before.buckets.iter().find(|(other, _)| *other == bound);
            (bound, count - then.map_or(0.0, |(_, count)| *count))
        };
        let buckets: Vec<(f64, f64)> = self.buckets.iter().map(since).collect();
        let total = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let at = |q: f64| {
            let found = buckets.iter().find(|(_, count)| *count >= q * total);
            found.map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).unwrap_or(-1.0)
        };
        OwnPercentiles { p50_at_most: at(0.5), p99_at_most: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(metrics: &[&str]) -> Traffic {
        let mut sum =
            Traffic { at: Instant::now(), datagrams: 0.0, bytes: 0.0, copies: 0.0, buckets: Vec::new() };
        metrics.iter().for_each(|metrics| sum.add(metrics));
        sum
    }

    #[test]
    fn counters_of_all_nodes_are_summed() {
        let text = "# HELP x y\nanode_gossip_datagrams_sent_total 3\nanode_gossip_bytes_sent_total 300\n\
            anode_data_copies_received_total 2\nanode_gossip_bytes_received_total 7\n";
        let sum = traffic(&[text, text]);
        assert_eq!((sum.datagrams, sum.bytes, sum.copies), (6.0, 600.0, 4.0));
    }

    #[test]
    fn own_percentiles_are_bounds_of_buckets() {
        let text = |a: u32, b: u32, all: u32| {
            let name = "anode_propagation_seconds_bucket{le=";
            format!("{name}\"0.001\"}} {a}\n{name}\"0.005\"}} {b}\n{name}\"+Inf\"}} {all}\n")
        };
        let before = traffic(&[&text(100, 100, 100)]);
        let own = traffic(&[&text(160, 199, 200)]).own_since(&before);
        assert_eq!((own.p50_at_most, own.p99_at_most), (1.0, 5.0));
        let own = traffic(&[&text(100, 100, 200)]).own_since(&before);
        assert_eq!((own.p50_at_most, own.p99_at_most), (-1.0, -1.0), "beyond the last bound");
    }
}
