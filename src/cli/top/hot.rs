//! Counts the records of sources, to find those that change most often.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Deserialize;

use crate::cli::client::Event;

/// Most sources that are counted in a window. Records of further sources are not counted in it.
const COUNTED_SOURCES_MAX: usize = 20_000;
/// Length of a window, in microseconds. Rates are those of the last whole window and the one under way.
const WINDOW_US: u64 = 5_000_000;
/// Number of sources that are shown at most.
const HOTTEST_MAX: usize = 50;

/// The records of sources, counted by one thread and shown by another.
#[derive(Default)]
pub(super) struct HotSources(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// Number of records by source in the window under way and in the one before.
    now: BTreeMap<String, u64>,
    before: BTreeMap<String, u64>,
    /// When the windows began, in microseconds; `None` before the first record.
    began_us: Option<(u64, u64)>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct OnlySource<'a> {
    #[serde(borrow)]
    source: std::borrow::Cow<'a, str>,
}

impl HotSources {
    /// Takes what a subscription brings.
    pub(super) fn handle_event(&self, now_us: u64, event: &Event) {
        let Event::Records(records) = event else { return };
        let mut counted = self.0.lock();
        counted.turn(now_us);
        for record in records {
            let Ok(OnlySource { source }) = serde_json::from_str(record) else { continue };
            if let Some(count) = counted.now.get_mut(source.as_ref()) {
                *count += 1;
            } else if counted.now.len() < COUNTED_SOURCES_MAX {
                counted.now.insert(source.into_owned(), 1);
            }
        }
    }

    /// Notes that the subscription was refused.
    pub(super) fn set_refused(&self, reason: String) {
        self.0.lock().refusal = Some(reason);
    }

    /// The reason why no sources are counted, if there is one.
    pub(super) fn refusal(&self) -> Option<String> {
        self.0.lock().refusal.clone()
    }

    /// Returns the sources with the most records and their records a second, the hottest first.
    pub(super) fn hottest(&self, now_us: u64) -> Vec<(String, f64)> {
        let mut counted = self.0.lock();
        counted.turn(now_us);
        let Some((_, before_us)) = counted.began_us else { return Vec::new() };
        let seconds = (now_us.saturating_sub(before_us) as f64 / 1e6).max(0.5);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (source, count) in counted.now.iter().chain(&counted.before) {
            *sums.entry(source).or_default() += count;
        }
        let mut hottest: Vec<(&str, u64)> = sums.into_iter().collect();
        hottest.sort_by_key(|(source, count)| (std::cmp::Reverse(*count), *source));
        hottest.truncate(HOTTEST_MAX);
        hottest.into_iter().map(|(source, count)| (source.to_owned(), count as f64 / seconds)).collect()
    }
}

impl Counted {
    /// Begins a new window if the one under way has ended.
    fn turn(&mut self, now_us: u64) {
        let (now_began_us, _) = *self.began_us.get_or_insert((now_us, now_us));
        if now_us < now_began_us + WINDOW_US {
            return;
        }
        let is_recent = now_us < now_began_us + 2 * WINDOW_US;
        let ended = std::mem::take(&mut self.now);
        self.before = if is_recent { ended } else { BTreeMap::new() };
        self.began_us = Some((now_us, if is_recent { now_began_us } else { now_us }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_come_first_and_are_forgotten() {
        let hot = HotSources::default();
        let records = |source: &str, count: usize| {
            Event::Records(vec![format!("{{\"source\":\"{source}\",\"ts\":1,\"data\":1}}"); count])
        };
        hot.handle_event(0, &records("a", 5));
        hot.handle_event(0, &records("b", 10));
        hot.handle_event(0, &Event::Nothing);
        let of = |now_us| hot.hottest(now_us);
        assert_eq!(of(1_000_000), [("b".to_owned(), 10.0), ("a".to_owned(), 5.0)]);
        assert_eq!(of(WINDOW_US).first(), Some(&("b".to_owned(), 2.0)));
        assert!(of(3 * WINDOW_US).is_empty(), "two windows later");
    }
}
