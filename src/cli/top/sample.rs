//! Asks all members of a cluster for their metrics, and computes rates from two answers.

use std::collections::BTreeMap;
use std::thread;

use serde::Serialize;

use crate::cli::CliError;
use crate::cli::client::{NodeUrl, Nodes, fetch_from};
use crate::cli::exposition::MetricsText;
use crate::cli::members::{self, Member};

/// Most members whose metrics are asked for.
const POLLED_MAX: usize = 128;
/// Number of members that are asked at the same time.
const POLLED_AT_ONCE: usize = 16;

/// What a member does, in units a second where it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Publishes of clients a second.
    pub published: f64,
    /// Records a second that became the newest of their source.
    pub applied: f64,
    /// Records a second that were written to subscribers.
    pub delivered: f64,
    /// Publishes a second that were refused.
    pub refused: f64,
    /// Processor time, in percent of one core.
    pub cpu_percent: f64,
}

/// A member, with its figures if its metrics could be read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeSample {
    pub id: String,
    pub state: String,
    pub zone: String,
    pub http: String,
    /// Round trip from the asked node, in microseconds.
    pub rtt_us: Option<u64>,
    pub figures: Option<NodeFigures>,
}

/// The figures of a member.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct NodeFigures {
    pub rates: Rates,
    /// Time from acceptance anywhere to here, in seconds: median and 99th percentile of the interval.
    pub propagation_p50: Option<f64>,
    pub propagation_p99: Option<f64>,
    /// Time until `stored` was answered, in seconds: 99th percentile of the interval.
    pub stored_p99: Option<f64>,
    pub connections: f64,
    pub sources: f64,
    pub resident_bytes: f64,
    pub queued_bytes: f64,
    pub store_pending: f64,
    pub shards_differing: f64,
    pub is_store_up: bool,
}

/// All members at one time.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ClusterSample {
    /// The node that told the members.
    pub asked: String,
    pub nodes: Vec<NodeSample>,
    /// Sums over all members.
    pub total: Rates,
    /// Sources in the largest map.
    pub sources: f64,
    /// The reason why there are no members.
    pub failure: Option<String>,
}

impl ClusterSample {
    /// A sample that could not be taken.
    pub(super) fn failed(reason: String) -> ClusterSample {
        ClusterSample { failure: Some(reason), ..ClusterSample::default() }
    }
}

/// Takes samples, and remembers the last metrics of each member for rates.
pub(super) struct Sampler {
    nodes: Nodes,
    before: BTreeMap<String, (u64, MetricsText)>,
}

impl Sampler {
    pub(super) fn new(nodes: Nodes) -> Sampler {
        Sampler { nodes, before: BTreeMap::new() }
    }

    /// Asks for the members and the metrics of each. Returns an error if no node tells the members.
    pub(super) fn sample(&mut self, now_us: u64) -> Result<ClusterSample, CliError> {
        let ask = |node: &NodeUrl| members::ask(node).map(|members| (node.clone(), members));
        let join = |one: CliError, next: CliError| CliError::Failed(format!("{one}; {next}"));
        let (asked, members) = self.nodes.try_each(ask, |_| false, join)?;
        let members: Vec<Member> = members.into_iter().filter(Member::is_live).collect();
        let polled = poll(&asked, &members);
        let mut sample = ClusterSample { asked: asked.to_string(), ..ClusterSample::default() };
        let mut before = std::mem::take(&mut self.before);
        for (member, metrics) in members.into_iter().zip(polled) {
            let figures = metrics.map(|metrics| {
                let last = before.remove(&member.id);
                let figures = figures(now_us, &metrics, last.as_ref());
                self.before.insert(member.id.clone(), (now_us, metrics));
                figures
            });
            if let Some(NodeFigures { rates, sources, .. }) = &figures {
                sample.total.published += rates.published;
                sample.total.applied += rates.applied;
                sample.total.delivered += rates.delivered;
                sample.total.refused += rates.refused;
                sample.total.cpu_percent += rates.cpu_percent;
                sample.sources = sample.sources.max(*sources);
            }
            let Member { id, state, zone, http, rtt_us, .. } = member;
            sample.nodes.push(NodeSample { id, state, zone, http, rtt_us, figures });
        }
        Ok(sample)
    }
}

/// Asks members for their metrics, some at a time. `None` for those that do not answer or do not tell, and for those that
/// share an address, whose figures would be anybody's.
fn poll(asked: &NodeUrl, members: &[Member]) -> Vec<Option<MetricsText>> {
    let read = |member: &Member| {
        if !members::is_of_one(members.iter().map(|other| other.http.as_str()), &member.http) {
            return None;
        }
        let answer = fetch_from(&asked.member(&member.http)?, "/metrics").ok()?;
        (answer.status == 200).then(|| MetricsText::parse(&answer.body))
    };
    let mut polled = Vec::with_capacity(members.len());
    for some in members.chunks(POLLED_AT_ONCE) {
        if polled.len() >= POLLED_MAX {
            polled.extend(some.iter().map(|_| None));
            continue;
        }
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|member| scope.spawn(move || read(member))).collect();
            polled.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_default()));
        });
    }
    polled
}

/// Computes the figures of a member from its metrics and those before, with the time at which they were read.
fn figures(now_us: u64, metrics: &MetricsText, last: Option<&(u64, MetricsText)>) -> NodeFigures {
    let value = |name: &str| metrics.get(name).unwrap_or(0.0);
    let mut figures = NodeFigures {
        connections: metrics.sum("anode_connections"),
        sources: value("anode_sources"),
        resident_bytes: value("process_resident_memory_bytes"),
        queued_bytes: metrics.sum("anode_queue_bytes"),
        store_pending: value("anode_store_pending_records"),
        shards_differing: value("anode_shards_differing"),
        is_store_up: metrics.get("anode_store_up").is_none_or(|up| up > 0.0),
        ..NodeFigures::default()
    };
    let Some((last_us, before)) = last else { return figures };
    let seconds = (now_us.saturating_sub(*last_us) as f64 / 1e6).max(0.001);
    // A member that was restarted counts from 0 again.
    let rate = |name: &str| ((metrics.sum(name) - before.sum(name)) / seconds).max(0.0);
    figures.rates = Rates {
        published: rate("anode_records_published_total"),
        applied: rate("anode_records_applied_total"),
        delivered: rate("anode_deliveries_total"),
        refused: rate("anode_refusals_total"),
        cpu_percent: rate("process_cpu_seconds_total") * 100.0,
    };
    let quantile = |name, labels, quantile| metrics.quantile(before, (name, labels), quantile);
    figures.propagation_p50 = quantile("anode_propagation_seconds", "", 0.5);
    figures.propagation_p99 = quantile("anode_propagation_seconds", "", 0.99);
    figures.stored_p99 = quantile("anode_ack_seconds", "level=\"stored\",", 0.99);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_computed_from_two_answers() {
        let text = |published: u64, cpu: f64| {
            MetricsText::parse(&format!(
                "anode_records_published_total {published}\nprocess_cpu_seconds_total {cpu}\nanode_store_up 1\n\
                 anode_queue_bytes{{queue=\"a\"}} 1\nanode_queue_bytes{{queue=\"b\"}} 2\n"
            ))
        };
        let first = figures(0, &text(100, 1.0), None);
        assert_eq!((first.rates.published, first.queued_bytes, first.is_store_up), (0.0, 3.0, true));
        let next = figures(2_000_000, &text(300, 1.5), Some(&(0, text(100, 1.0))));
        assert_eq!((next.rates.published, next.rates.cpu_percent), (100.0, 25.0));
        let restarted = figures(1_000_000, &text(3, 0.0), Some(&(0, text(100, 1.0))));
        assert_eq!(restarted.rates.published, 0.0);
    }
}
