//! Subscribes at one node, and remembers what was received and how long it took.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::feed::COUNTER_PREFIX;
use crate::cli::client::{Event, NodeUrl, Subscription, WantedSources};
use crate::server::clock;

/// Most travel times that are kept to compute percentiles: about those of the last minute.
const TIMES_MAX: usize = 4_096;
/// Most sources that are kept for the screen.
const SOURCES_MAX: usize = 256;

/// The records received so far. One thread adds to it, another one draws it.
#[derive(Default)]
pub struct Seen(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    latest: BTreeMap<String, String>,
    /// The last number of each source that counts.
    numbers: BTreeMap<String, u64>,
    missing: u64,
    repeated: u64,
    times_us: VecDeque<u64>,
    count: u64,
    is_connected: bool,
}

/// The part of [`Seen`] that is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The newest data of every source, ordered by name.
    pub latest: Vec<(String, String)>,
    /// Number of records received so far.
    pub count: u64,
    /// Number of records that were published and not received.
    pub missing: u64,
    /// Number of records that were received more than once, or after a newer one.
    pub repeated: u64,
    /// Median and 99th percentile of the travel time, in microseconds; `None` before the first record.
    pub p50_p99_us: Option<(u64, u64)>,
    /// Whether the subscription is connected.
    pub is_connected: bool,
}

#[derive(Deserialize)]
struct ReceivedRecord<'a> {
    source: String,
    ts: u64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Seen {
    /// Adds a record that was received at `wall_us`. The accepting node stamped it with the clock of the same
    /// machine, so the difference is its travel time. With `is_live` unset, the record is from the snapshot
    /// and has no travel time.
    fn take(&self, record: &str, wall_us: u64, is_live: bool) {
        let Ok(ReceivedRecord { source, ts, data: Some(data) }) = serde_json::from_str(record) else {
            return;
        };
        let mut inner = self.0.lock();
        inner.count += 1;
        if source.starts_with(COUNTER_PREFIX) {
            inner.take_number(source, data.get());
            return;
        }
        if is_live {
            if inner.times_us.len() == TIMES_MAX {
                inner.times_us.pop_front();
            }
            inner.times_us.push_back(wall_us.saturating_sub(ts));
        }
        if inner.latest.len() < SOURCES_MAX || inner.latest.contains_key(&source) {
            inner.latest.insert(source, data.get().to_owned());
        }
    }

    /// Returns what was received so far.
    pub fn summary(&self) -> Summary {
        let inner = self.0.lock();
        let mut times_us: Vec<u64> = inner.times_us.iter().copied().collect();
        times_us.sort_unstable();
        let at = |percent: usize| times_us.get((times_us.len().saturating_sub(1)) * percent / 100).copied();
        Summary {
            latest: inner.latest.iter().map(|(source, data)| (source.clone(), data.clone())).collect(),
            count: inner.count,
            missing: inner.missing,
            repeated: inner.repeated,
            p50_p99_us: at(50).zip(at(99)),
            is_connected: inner.is_connected,
        }
    }
}

impl Inner {
    /// Compares the number of a record with the last one of its source.
    fn take_number(&mut self, source: String, data: &str) {
        let Ok(number) = data.trim().parse::<u64>() else { return };
        match self.numbers.insert(source.clone(), number) {
            Some(last) if number <= last => {
                self.repeated += 1;
                self.numbers.insert(source, last);
            }
            Some(last) => self.missing += number - last - 1,
            None => {}
        }
    }
}

/// Receives records until `ending` is set. If the subscription fails, a new one is opened.
pub fn run(endpoint: NodeUrl, seen: &Seen, ending: &AtomicBool) {
    let wanted = WantedSources {
        sources: vec!["host/**".into(), format!("{COUNTER_PREFIX}*")],
        has_snapshot: true,
        mode: "all".into(),
        filter: None,
    };
    while !ending.load(Relaxed) {
        watch(Subscription::new(endpoint.clone(), wanted.clone()), seen, ending);
    }
}

fn watch(mut subscription: Subscription, seen: &Seen, ending: &AtomicBool) {
    // The first records are the snapshot. They were published before, so their age is not their travel time.
    let opened_us = clock::now().wall_us;
    while !ending.load(Relaxed) {
        match subscription.next() {
            Ok(Event::Records(records)) => {
                let wall_us = clock::now().wall_us;
                let is_live = wall_us.saturating_sub(opened_us) > 1_000_000;
                for record in &records {
                    seen.take(record, wall_us, is_live);
                }
            }
            Ok(Event::Subscribed { .. }) => seen.0.lock().is_connected = true,
            Ok(Event::Lost(lost)) => {
                tracing::warn!(reason = lost.reason, "the subscriber lost its node");
                seen.0.lock().is_connected = false;
            }
            Ok(Event::Nothing) => {}
            Err(error) => return tracing::warn!(%error, "the subscriber begins anew"),
        }
    }
    subscription.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_repeated_records_are_counted() {
        let seen = Seen::default();
        let take = |source: &str, number: u64| {
            let record = format!(r#"{{"source":"demo/count/{source}","ts":1,"origin":"n","data":{number}}}"#);
            seen.take(&record, 1, true);
            let Summary { missing, repeated, .. } = seen.summary();
            (missing, repeated)
        };
        assert_eq!([take("01", 5), take("02", 9), take("01", 6)], [(0, 0); 3]);
        assert_eq!(take("01", 9), (2, 0));
        assert_eq!([take("01", 9), take("01", 8)], [(2, 1), (2, 2)]);
        assert_eq!(take("01", 10), (2, 2), "an old number is not counted from");
        assert!(seen.summary().latest.is_empty(), "they are not shown");
    }

    #[test]
    fn newest_data_and_percentiles() {
        let seen = Seen::default();
        for ts in 1..=100u64 {
            let record = format!(r#"{{"source":"host/a","ts":{ts},"origin":"n","data": {ts}}}"#);
            seen.take(&record, 1_000, true);
        }
        seen.take(r#"{"source":"host/b","ts":1,"origin":"n","data":"x"}"#, 9_000, false);
        seen.take(r#"{"source":"host/c","ts":1,"origin":"n","deleted":true}"#, 9_000, true);
        seen.take("nonsense", 1, true);
        let summary = seen.summary();
        assert_eq!(summary.latest, [("host/a".into(), "100".into()), ("host/b".into(), "\"x\"".into())]);
        assert_eq!((summary.count, summary.p50_p99_us), (101, Some((949, 998))));
        assert_eq!(Seen::default().summary().p50_p99_us, None);
    }
}
