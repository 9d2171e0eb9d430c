//! The report of a run, as it is kept in a file: everything that is needed to understand it a year later.

pub mod compare;
pub mod html;
mod plot;
pub mod text;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::{Measured, Sample};
use crate::machine::Machine;
use crate::measure::Faults;
use crate::plan::Plan;

/// If a thread does not wait for more than this part of its time, it may be the bottleneck.
const BUSY_MAX: f64 = 0.9;
/// Greatest lateness of the generator at the 99th percentile with which it is no bottleneck, in microseconds.
const SEND_LAG_US_MAX: f64 = 1_000.0;
/// Names and values of the quantiles that are listed.
const QUANTILES: [(&str, f64); 10] = [
    ("p1", 0.01),
    ("p10", 0.1),
    ("p25", 0.25),
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// The report of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of anode-loadgen.
    pub version: String,
    /// Commit of anode-loadgen, if it was built in a repository.
    pub commit: Option<String>,
    /// When the run ended, in seconds since the Unix epoch.
    pub ended_unix_s: u64,
    /// Labels that the user gave: `--label KEY=VALUE`.
    pub labels: BTreeMap<String, String>,
    /// The machine on which the run was measured.
    pub machine: Machine,
    /// All parameters by name, including those left at their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Number and rate of the messages sent and delivered.
    pub throughput: Throughput,
    /// Times from when a message was due until it was delivered.
    pub latency: Option<Percentiles>,
    /// Times from when a message was due until it was answered.
    pub ack_latency: Option<Percentiles>,
    /// Check of whether everything was delivered as it was published.
    pub correctness: Correctness,
    /// CPU time and memory of the servers, if their processes were given.
    pub server: Option<Server>,
    /// CPU time and lateness of the load generator.
    pub generator: Generator,
    /// Rates over the time of the run.
    pub timeline: Vec<Moment>,
    /// Times until delivery, for each second of arrival since the first message.
    pub latency_by_second: Vec<Second>,
}

/// Number and rate of messages from the end of the warm-up until the last message was due.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// Length of the counted time, in seconds.
    pub seconds: f64,
    /// Number of messages sent.
    pub published: u64,
    /// Number of messages sent per second.
    pub published_per_s: f64,
    /// Number of messages per second that the schedule asked for; absent at saturation and in replays.
    pub offered_per_s: Option<f64>,
    /// Number of messages received by all subscribers.
    pub delivered: u64,
    /// Number of messages received per second by all subscribers.
    pub delivered_per_s: f64,
    /// Number of messages answered.
    pub acked: u64,
    /// MiB per second that all connections received.
    pub received_mib_per_s: f64,
}

/// The distribution of times, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Number of times in the distribution.
    pub count: u64,
    /// The shortest time.
    pub min_us: f64,
    /// The mean time.
    pub mean_us: f64,
    /// The longest time.
    pub max_us: f64,
    /// The listed quantiles by name, `p50` … `p99.99`.
    pub us: BTreeMap<String, f64>,
    /// Pairs of quantile and time, from which the curve is drawn.
    pub curve: Vec<(f64, f64)>,
}

impl Percentiles {
    /// Computes the percentiles from a histogram of nanoseconds; `None` if the histogram is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Percentiles> {
        if histogram.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1_000.0;
        let at = |(name, q): (&str, f64)| (name.to_owned(), us(histogram.value_at_quantile(q)));
        let curve = histogram
            .iter_quantiles(4)
            .map(|step| (step.quantile_iterated_to(), us(step.value_iterated_to().min(histogram.max()))));
        Some(Percentiles {
            count: histogram.len(),
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1_000.0,
            max_us: us(histogram.max()),
            us: QUANTILES.into_iter().map(at).collect(),
            curve: curve.collect(),
        })
    }

    /// Returns one of the listed quantiles by its name; not a number if there is none.
    pub fn at(&self, name: &str) -> f64 {
        self.us.get(name).copied().unwrap_or(f64::NAN)
    }
}

/// Numbers of deliveries that were expected, missing or wrong.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Correctness {
    /// Whether every payload, sequence and newest value was checked; if not, `missing` is a difference of
    /// counts and the fields below it are zero.
    pub is_verified: bool,
    /// Number of messages sent, the warm-up included.
    pub published: u64,
    /// Number of deliveries that the published messages must lead to.
    pub expected: u64,
    /// Number of expected deliveries that did not happen. With `mode=latest` this is no fault: a newer value
    /// replaced an older one.
    pub missing: u64,
    /// Whether missing deliveries are no fault, because newer values may replace older ones.
    pub may_conflate: bool,
    /// Number of pairs of a subscriber and a source whose newest value never arrived.
    pub newest_missing: u64,
    /// Number of messages that were never answered.
    pub unanswered: u64,
    /// Counts of all other faults.
    #[serde(flatten)]
    pub faults: Faults,
}

impl Correctness {
    /// Returns whether the run had no fault.
    pub fn is_fine(&self) -> bool {
        let missing = if self.may_conflate { 0 } else { self.missing };
        let Faults { duplicates, out_of_order, wrong, foreign: _, unsent, refused, closed } = &self.faults;
        let faults = missing + self.newest_missing + duplicates + out_of_order + wrong;
        faults + self.unanswered + unsent == 0 && refused.is_empty() && closed.is_empty()
    }
}

/// CPU time and memory that the processes of the servers used in the counted time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Server {
    /// User and system CPU time of the servers, in seconds.
    pub cpu_s: f64,
    /// CPU time divided by the counted time: how many cores were busy in the mean.
    pub cores: f64,
    /// Number of deliveries per second of CPU time.
    pub delivered_per_cpu_s: f64,
    /// Number of published messages per second of CPU time.
    pub published_per_cpu_s: f64,
    /// Resident bytes at the end of the counted time.
    pub resident_bytes: u64,
}

/// CPU time that the load generator used, and whether the generator was the bottleneck.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// For each thread, the part of the time in which it did not wait, 0 to 1.
    pub busy: Vec<f64>,
    /// CPU time of the generator in the counted time, in seconds.
    pub cpu_s: f64,
    /// Times from when a message was due until it was written, where the target did not delay it.
    pub send_lag: Option<Percentiles>,
    /// The reason why the figures may be limited by the generator rather than by the target; `None` if there
    /// is none.
    pub is_bottleneck: Option<String>,
}

/// The rates in a quarter of a second of the run, or in a longer part of a long run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// End of this part of the run, in seconds since the first message.
    pub at_s: f64,
    /// Number of messages sent per second.
    pub published_per_s: f64,
    /// Number of deliveries per second.
    pub delivered_per_s: f64,
}

/// A run has kept its rate if it has sent at least this fraction of it.
const RATE_SHARE_MIN: f64 = 0.99;

/// The times until delivery in one second of the run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Number of the second since the first message, from 0.
    pub second: u64,
    /// Number of deliveries.
    pub count: u64,
    /// The median time.
    pub p50_us: f64,
    /// The 99th percentile of the times.
    pub p99_us: f64,
    /// The longest time.
    pub max_us: f64,
}

impl Report {
    /// Returns why this run does not keep a bound on the 99th percentile; `None` if it does. The times until
    /// delivery count, or the times until the answer if nobody subscribes.
    pub fn exceeds(&self, p99_ms: f64) -> Option<String> {
        // Lost connections are told first: they may be why nothing arrived.
        if let Some(reason) = self.correctness.faults.reasons().next() {
            return Some(reason);
        }
        let Some(times) = self.latency.as_ref().or(self.ack_latency.as_ref()) else {
            return Some("nothing was delivered or answered".to_owned());
        };
        if !self.correctness.is_fine() {
            return Some("something was lost or wrong".to_owned());
        }
        let offered = self.throughput.offered_per_s.unwrap_or_default();
        if self.throughput.published_per_s < offered * RATE_SHARE_MIN {
            return Some(format!("only {:.0}/s were sent", self.throughput.published_per_s));
        }
        (times.at("p99") > p99_ms * 1_000.0).then(|| "too slow".to_owned())
    }

    /// Makes the report of a run.
    pub fn new(
        plan: &Plan,
        measured: &Measured,
        parameters: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        machine: Machine,
    ) -> Report {
        let throughput = throughput(plan, measured);
        let server = measured.server_cpu_s.map(|cpu_s| Server {
            cpu_s,
            cores: cpu_s / throughput.seconds.max(f64::EPSILON),
            delivered_per_cpu_s: throughput.delivered as f64 / cpu_s.max(0.01),
            published_per_cpu_s: throughput.published as f64 / cpu_s.max(0.01),
            resident_bytes: measured.server_resident_bytes.unwrap_or_default(),
        });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("ANODE_LOADGEN_COMMIT").map(str::to_owned),
            ended_unix_s: now.unwrap_or_default().as_secs(),
            labels,
            machine,
            parameters,
            throughput,
            latency: Percentiles::of(&measured.latency),
            ack_latency: Percentiles::of(&measured.ack_latency),
            correctness: correctness(plan, measured),
            generator: generator(measured, server.as_ref(), plan.is_saturating()),
            server,
            timeline: timeline(&measured.samples),
            latency_by_second: seconds(&measured.seconds),
        }
    }
}

fn throughput(plan: &Plan, measured: &Measured) -> Throughput {
    let first = measured.samples.first().copied().unwrap_or_default();
    let last = measured.samples.last().copied().unwrap_or_default();
    let seconds = (last.at_s - first.at_s).max(1e-9);
    let per_s = |count: u64| count as f64 / seconds;
    let (published, delivered) = (last.sent - first.sent, last.delivered - first.delivered);
    let has_rate = !plan.is_saturating() && plan.recording.is_none() && plan.records_max.is_none();
    Throughput {
        seconds,
        published,
        published_per_s: per_s(published),
        offered_per_s: has_rate.then(|| plan.mean_rate_per_s()),
        delivered,
        delivered_per_s: per_s(delivered),
        acked: last.acked - first.acked,
        received_mib_per_s: per_s(last.received_bytes - first.received_bytes) / 1_048_576.0,
    }
}

fn correctness(plan: &Plan, measured: &Measured) -> Correctness {
    Correctness {
        is_verified: plan.verify,
        published: measured.sent,
        expected: measured.missing.expected,
        missing: measured.missing.lost,
        may_conflate: plan.common.is_latest,
        newest_missing: measured.missing.stale,
        unanswered: measured.unanswered,
        faults: measured.faults.clone(),
    }
}

fn generator(measured: &Measured, server: Option<&Server>, is_saturating: bool) -> Generator {
    let send_lag = Percentiles::of(&measured.send_lag);
    let busiest = measured.busy.iter().copied().fold(0.0, f64::max);
    let lag_us = send_lag.as_ref().map_or(0.0, |lag| lag.at("p99"));
    // A saturated target keeps the generator busy, too; then the one without time to spare is the bottleneck.
    let is_target_full = is_saturating && server.is_some_and(|server| server.cores > BUSY_MAX);
    let is_bottleneck = if lag_us > SEND_LAG_US_MAX {
        Some(format!("1 % of the messages were sent {lag_us:.0} µs late or more, by no fault of the target"))
    } else if busiest > BUSY_MAX && !is_target_full {
        Some(format!("a thread of the generator was busy for {:.0} % of the time", busiest * 100.0))
    } else {
        None
    };
    Generator { busy: measured.busy.clone(), cpu_s: measured.own_cpu_s, send_lag, is_bottleneck }
}

fn timeline(samples: &[Sample]) -> Vec<Moment> {
    let mut moments = Vec::new();
    let Some(mut before) = samples.first().copied() else { return moments };
    // There are at most about 200 points, however long the run was.
    let step_s = (samples.last().map_or(0.0, |last| last.at_s) / 200.0).max(0.25);
    for now in &samples[1..] {
        let seconds = now.at_s - before.at_s;
        if seconds >= step_s {
            moments.push(Moment {
                at_s: now.at_s,
                published_per_s: (now.sent - before.sent) as f64 / seconds,
                delivered_per_s: (now.delivered - before.delivered) as f64 / seconds,
            });
            before = *now;
        }
    }
    moments
}

fn seconds(histograms: &[Histogram<u64>]) -> Vec<Second> {
    let us = |ns: u64| ns as f64 / 1_000.0;
    let of = |(second, times): (usize, &Histogram<u64>)| Second {
        second: second as u64,
        count: times.len(),
        p50_us: us(times.value_at_quantile(0.5)),
        p99_us: us(times.value_at_quantile(0.99)),
        max_us: us(times.max()),
    };
    histograms.iter().enumerate().filter(|(_, times)| !times.is_empty()).map(of).collect()
}
