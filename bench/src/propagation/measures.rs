//! The figures of one run, of aNode or of memberlist, under the same names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use anode_loadgen::Outcome;

/// Percentiles of durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Percentiles {
    /// Computes the percentiles by nearest rank; all are 0 if there are no durations.
    pub fn of(mut ns: Vec<u64>) -> Percentiles {
        ns.sort_unstable();
        let at = |q: f64| {
            let rank = (q * ns.len() as f64).ceil().max(1.0) as usize;
            ns.get(rank - 1).map_or(0.0, |&ns| ns as f64 / 1e6)
        };
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// The figures of one run, or the medians of several. `bench/peers/memberlist` prints the same ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measures {
    /// The system: `anode` or `memberlist`.
    pub system: String,
    pub nodes: f64,
    pub records: f64,
    /// Number of expected deliveries: records × (nodes − 1).
    pub expected: f64,
    /// Number of expected deliveries that did not happen.
    pub missing: f64,
    /// Number of records that did not reach all nodes.
    pub partial: f64,
    /// Times from when a record was due until it was delivered at another node, for each node.
    pub one_ms: Percentiles,
    /// Times from when a record was due until it was delivered at the last node that got it.
    pub all_ms: Percentiles,
    /// Times from when a record was due until it was published: how late the driver was. The other times
    /// contain it.
    pub late_ms: Percentiles,
    /// Number of copies that nodes received, divided by the number that they needed.
    pub copies_per_delivery: f64,
    /// Number of datagrams sent, less the idle traffic.
    pub datagrams_per_record_per_node: f64,
    /// Bytes of the datagrams sent, less the idle traffic, with 28 bytes of headers for each datagram.
    pub bytes_per_record_per_node: f64,
    pub idle_datagrams_per_node_per_s: f64,
    pub idle_bytes_per_node_per_s: f64,
    /// Processor time of all nodes while idle, in percent of one core.
    pub idle_cpu_percent: f64,
    /// Processor time of all nodes while records are published, in percent of one core.
    pub busy_cpu_percent: f64,
    /// Processor time of the driver while records are published, in percent of one core.
    pub driver_cpu_percent: f64,
    /// From the nodes' own `anode_propagation_seconds`: bounds of the buckets that hold p50 and p99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_ms: Option<OwnPercentiles>,
}

/// Upper bounds of buckets of the nodes' histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OwnPercentiles {
    pub p50_at_most: f64,
    pub p99_at_most: f64,
}

/// Returns the median of every number over several runs of the same kind.
pub fn median(runs: &[&Measures]) -> Outcome<Measures> {
    let values = runs.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    let values: Vec<&Value> = values.iter().collect();
    Ok(serde_json::from_value(median_value(&values))?)
}

fn median_value(values: &[&Value]) -> Value {
    match values.first() {
        Some(Value::Object(first)) => first
            .keys()
            .map(|key| {
                let inner: Vec<&Value> = values.iter().filter_map(|value| value.get(key)).collect();
                (key.clone(), median_value(&inner))
            })
            .collect(),
        Some(Value::Number(_)) => {
            let mut numbers: Vec<f64> = values.iter().filter_map(|value| value.as_f64()).collect();
            numbers.sort_unstable_by(f64::total_cmp);
            Value::from(middle(&numbers))
        }
        other => other.copied().cloned().unwrap_or_default(),
    }
}

/// Returns the middle number, or the mean of the two middle ones.
fn middle(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { (at(half.saturating_sub(1)) + at(half)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let ms = |n: u64| n * 1_000_000;
        let seen = Percentiles::of((1..=1_000).rev().map(ms).collect());
        assert_eq!(seen, Percentiles { p50: 500.0, p90: 900.0, p99: 990.0, p999: 999.0, max: 1_000.0 });
        assert_eq!(Percentiles::of(vec![ms(7)]).p50, 7.0);
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn medians_are_taken_number_by_number() {
        let run = |p50: f64, missing: f64| Measures {
            system: "anode".into(),
            nodes: 4.0,
            records: 10.0,
            expected: 30.0,
            missing,
            partial: 0.0,
            one_ms: Percentiles { p50, ..Percentiles::default() },
            all_ms: Percentiles::default(),
            late_ms: Percentiles::default(),
            copies_per_delivery: 1.0,
            datagrams_per_record_per_node: 1.0,
            bytes_per_record_per_node: 1.0,
            idle_datagrams_per_node_per_s: 1.0,
            idle_bytes_per_node_per_s: 1.0,
            idle_cpu_percent: 1.0,
            busy_cpu_percent: 1.0,
            driver_cpu_percent: 1.0,
            own_ms: None,
        };
        let (a, b, c) = (run(3.0, 0.0), run(1.0, 9.0), run(2.0, 1.0));
        let middle = median(&[&a, &b, &c]).unwrap();
        assert_eq!((middle.one_ms.p50, middle.missing, middle.system.as_str()), (2.0, 1.0, "anode"));
        assert_eq!(median(&[&a, &b]).unwrap().one_ms.p50, 2.0, "of two the mean");
    }
}
