//! Deliveries and their latency over time.

use serde::Serialize;

/// Part of the rate before the first fault at which throughput counts as recovered.
const RECOVERED: f64 = 0.9;
/// Least number of whole seconds before the first fault that make a rate to compare with.
const BASELINE_SECONDS_MIN: usize = 3;

/// One second of a run.
#[derive(Clone, Debug, Default)]
struct SecondOfRun {
    deliveries: u64,
    answers: u64,
    latencies_us: Vec<u32>,
    /// Latencies of records that came from and to nodes that no fault hit.
    healthy_us: Vec<u32>,
}

/// Counts of every second.
#[derive(Debug, Default)]
pub(super) struct Series {
    seconds: Vec<SecondOfRun>,
}

/// Latency from the publisher's sending to the subscriber's receiving, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Number of deliveries.
    pub count: u64,
    /// Half of the deliveries took at most this long.
    pub p50_us: u32,
    /// 99 of 100 deliveries took at most this long.
    pub p99_us: u32,
    /// The slowest delivery.
    pub max_us: u32,
}

/// One second of a run, as it is reported and drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Number of records delivered.
    pub deliveries: u64,
    /// Number of publishes answered.
    pub answers: u64,
    /// Latency of the live deliveries.
    pub latency: Latencies,
}

impl Series {
    fn at(&mut self, at_us: u64) -> &mut SecondOfRun {
        let second = (at_us / 1_000_000) as usize;
        if second >= self.seconds.len() {
            self.seconds.resize_with(second + 1, SecondOfRun::default);
        }
        &mut self.seconds[second]
    }

    /// Counts a delivery, and its latency if it is live and the time of its offer is known. `is_healthy` says that no
    /// fault hits the nodes of its publisher and of its subscriber.
    pub(super) fn handle_delivery(&mut self, at_us: u64, latency_us: Option<u64>, is_healthy: bool) {
        let second = self.at(at_us);
        second.deliveries += 1;
        let latency_us = latency_us.map(|us| u32::try_from(us).unwrap_or(u32::MAX));
        second.latencies_us.extend(latency_us);
        second.healthy_us.extend(latency_us.filter(|_| is_healthy));
    }

    /// Counts an answer to a publish.
    pub(super) fn handle_answer(&mut self, at_us: u64) {
        self.at(at_us).answers += 1;
    }

    /// Every second of the run.
    pub(super) fn seconds(&self) -> Vec<Second> {
        let second = |second: &SecondOfRun| Second {
            deliveries: second.deliveries,
            answers: second.answers,
            latency: latencies(second.latencies_us.clone()),
        };
        self.seconds.iter().map(second).collect()
    }

    /// Latency over the whole seconds within a time, in microseconds.
    pub(super) fn latency(&self, from_us: u64, until_us: u64) -> Latencies {
        let some = self.within(from_us, until_us);
        latencies(some.flat_map(|second| second.latencies_us.iter().copied()).collect())
    }

    /// The same for records that came from and to nodes that no fault hit.
    pub(super) fn latency_healthy(&self, from_us: u64, until_us: u64) -> Latencies {
        let some = self.within(from_us, until_us);
        latencies(some.flat_map(|second| second.healthy_us.iter().copied()).collect())
    }

    fn within(&self, from_us: u64, until_us: u64) -> impl Iterator<Item = &SecondOfRun> {
        let is_within = move |(second, _): &(usize, &SecondOfRun)| {
            let at_us = *second as u64 * 1_000_000;
            at_us >= from_us && at_us + 1_000_000 <= until_us
        };
        self.seconds.iter().enumerate().filter(is_within).map(|(_, second)| second)
    }

    /// The time from the end of the last fault to the end of the first second with nine tenths of the deliveries that
    /// were usual before the first fault, in microseconds. `None` if there was too little before, or no such second.
    pub(super) fn recovery_us(&self, (began_us, ended_us): (u64, u64)) -> Option<u64> {
        let whole = (began_us / 1_000_000) as usize;
        // The first second is left out, because the load only begins in it.
        let before = self.seconds.get(1..whole)?;
        if before.len() < BASELINE_SECONDS_MIN {
            return None;
        }
        let mut rates: Vec<u64> = before.iter().map(|second| second.deliveries).collect();
        rates.sort_unstable();
        let usual = rates[rates.len() / 2] as f64;
        let first = (ended_us / 1_000_000) as usize;
        let after = self.seconds.iter().enumerate().skip(first);
        let (second, _) =
            after.into_iter().find(|(_, second)| second.deliveries as f64 >= usual * RECOVERED)?;
        Some(((second as u64 + 1) * 1_000_000).saturating_sub(ended_us))
    }
}

fn latencies(mut all: Vec<u32>) -> Latencies {
    all.sort_unstable();
    let at =
        |part: f64| all.get(((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1))).copied();
    Latencies {
        count: all.len() as u64,
        p50_us: at(0.5).unwrap_or(0),
        p99_us: at(0.99).unwrap_or(0),
        max_us: all.last().copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_recovers_when_it_is_near_what_it_was() {
        let mut series = Series::default();
        for (second, deliveries) in [0, 100, 100, 100, 100, 5, 5, 60, 95, 100].into_iter().enumerate() {
            for _ in 0..deliveries {
                series.handle_delivery(second as u64 * 1_000_000 + 5, Some(second as u64), second < 8);
            }
        }
        assert_eq!(series.recovery_us((5_000_000, 7_000_000)), Some(2_000_000));
        assert_eq!(series.recovery_us((2_000_000, 7_000_000)), None);
        assert_eq!(series.latency(1_000_000, 5_000_000).p99_us, 4);
        assert_eq!(
            series.latency(8_000_000, u64::MAX),
            Latencies { count: 195, p50_us: 9, p99_us: 9, max_us: 9 }
        );
        assert_eq!(series.latency_healthy(7_000_000, u64::MAX).count, 60);
    }
}
