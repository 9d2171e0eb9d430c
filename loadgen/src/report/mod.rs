//! What came of a run, as it is kept in a file: everything that is needed to read it a year later.

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

/// A thread that waits for less than this share of its time is in the way.
const BUSY_MAX: f64 = 0.9;
/// So late may the generator's own sends be, at the 99th percentile.
const SEND_LAG_US_MAX: f64 = 1_000.0;
/// Quantiles that are listed.
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

/// A run's report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Of anode-loadgen.
    pub version: String,
    /// Its commit, if it was built in a repository.
    pub commit: Option<String>,
    /// Seconds since the Unix epoch at which it ended.
    pub ended_unix_s: u64,
    /// What the user wants to remember: `--label KEY=VALUE`.
    pub labels: BTreeMap<String, String>,
    /// What was measured on.
    pub machine: Machine,
    /// Every parameter, the defaults too.
    pub parameters: BTreeMap<String, String>,
    /// What was sent and delivered.
    pub throughput: Throughput,
    /// From due to delivered.
    pub latency: Option<Percentiles>,
    /// From due to answered.
    pub ack_latency: Option<Percentiles>,
    /// Whether it was right.
    pub correctness: Correctness,
    /// What it cost the servers, where their processes were named.
    pub server: Option<Server>,
    /// What it cost here.
    pub generator: Generator,
    /// Rates over time.
    pub timeline: Vec<Moment>,
    /// From due to delivered, by second of the arrival, from the first message on.
    pub latency_by_second: Vec<Second>,
}

/// Counted after the warm-up, until the last message was due.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// How long that was.
    pub seconds: f64,
    /// Messages sent.
    pub published: u64,
    /// The same by second.
    pub published_per_s: f64,
    /// What the schedule wanted; absent at saturation and in replays.
    pub offered_per_s: Option<f64>,
    /// Messages received by all subscribers.
    pub delivered: u64,
    /// The same by second.
    pub delivered_per_s: f64,
    /// Answers.
    pub acked: u64,
    /// Bytes that all connections received.
    pub received_mib_per_s: f64,
}

/// A histogram of times, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// The least.
    pub min_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// The greatest.
    pub max_us: f64,
    /// By name, `p50` … `p99.99`.
    pub us: BTreeMap<String, f64>,
    /// Pairs of quantile and time: the whole curve.
    pub curve: Vec<(f64, f64)>,
}

impl Percentiles {
    /// Of a histogram of nanoseconds; `None` if it is empty.
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

    /// One of the listed ones.
    pub fn at(&self, name: &str) -> f64 {
        self.us.get(name).copied().unwrap_or(f64::NAN)
    }
}

/// What came and what did not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Correctness {
    /// Whether every payload, sequence and newest value was checked; if not, `lost` is a difference of
    /// counts and the fields below it are zero.
    pub is_verified: bool,
    /// Messages sent, warm-up and all.
    pub published: u64,
    /// Deliveries that they must make.
    pub expected: u64,
    /// Of these, never made. With `mode=latest` no fault: an older value gave way to a newer.
    pub missing: u64,
    /// Whether missing ones are a fault.
    pub may_conflate: bool,
    /// Subscribers' sources whose newest value never came.
    pub newest_missing: u64,
    /// Messages that were never answered.
    pub unanswered: u64,
    /// What else went wrong.
    #[serde(flatten)]
    pub faults: Faults,
}

impl Correctness {
    /// Whether anything is wrong.
    pub fn is_fine(&self) -> bool {
        let missing = if self.may_conflate { 0 } else { self.missing };
        let Faults { duplicates, out_of_order, wrong, foreign: _, unsent, refused, closed } = &self.faults;
        let faults = missing + self.newest_missing + duplicates + out_of_order + wrong;
        faults + self.unanswered + unsent == 0 && refused.is_empty() && closed.is_empty()
    }
}

/// What the servers' processes used while it counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Server {
    /// User and system time.
    pub cpu_s: f64,
    /// Cores' worth of it.
    pub cores: f64,
    /// Deliveries for each second of it.
    pub delivered_per_cpu_s: f64,
    /// Messages for each second of it.
    pub published_per_cpu_s: f64,
    /// At the end.
    pub resident_bytes: u64,
}

/// Whether the generator itself was in the way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Of each thread: share of the time in which it did not wait.
    pub busy: Vec<f64>,
    /// CPU seconds while it counted.
    pub cpu_s: f64,
    /// From due to written where the target did not hold it up.
    pub send_lag: Option<Percentiles>,
    /// Why the figures may be the generator's rather than the target's.
    pub is_bottleneck: Option<String>,
}

/// A quarter of a second of the run, or more where it took long.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// When it ends, from the first message on.
    pub at_s: f64,
    /// Messages sent, by second.
    pub published_per_s: f64,
    /// Deliveries, by second.
    pub delivered_per_s: f64,
}

/// A run that falls short of its rate by more than this share has not kept it.
const RATE_SHARE_MIN: f64 = 0.99;

/// The latencies of a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Its number, from 0.
    pub second: u64,
    /// Deliveries.
    pub count: u64,
    /// Their median.
    pub p50_us: f64,
    /// Their 99th percentile.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Report {
    /// Why this run does not hold a bound on the 99th percentile; `None` if it does. Deliveries count,
    /// or answers where nobody subscribes.
    pub fn exceeds(&self, p99_ms: f64) -> Option<String> {
        // Told first: it may be why nothing came.
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

    /// Of what was measured.
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
    // A saturated target keeps its generator busy too; then what counts is who has time to spare.
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
    // At most about 200 points, however long it ran.
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
