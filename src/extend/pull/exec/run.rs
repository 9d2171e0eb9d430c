//! Runs a program again and again.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::ExecPull;
use super::program::run_once;
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::pace::PullBackoff;

/// First bound of the waits before a program that ended is run again, in microseconds.
const RERUN_US_MIN: u64 = 1_000_000;
/// Longest wait before that, in microseconds.
const RERUN_US_MAX: u64 = 60_000_000;
/// A program that ran for this long has its waits begin anew, in microseconds.
const STEADY_US: u64 = 60_000_000;

/// Runs a program for ever. With `is_once`, it is run once.
pub(in crate::extend::pull) async fn run(
    definition: &PullDefinition,
    settings: &ExecPull,
    folder: Option<&Path>,
    feed: &Feed,
    is_once: bool,
) {
    let now = feed.target().now();
    let mut backoff =
        PullBackoff::new(RERUN_US_MIN, RERUN_US_MAX.max(settings.every_us), now.mono_us ^ now.wall_us);
    loop {
        let started_us = feed.target().now().mono_us;
        let end = run_once(definition, settings, folder, feed).await;
        let ran_us = feed.target().now().mono_us.saturating_sub(started_us);
        let is_done = end.is_success && settings.every_us > 0;
        if !(is_done || is_once && end.is_success) {
            feed.fail(end.why);
        }
        if is_once {
            return;
        }
        if is_done || ran_us >= STEADY_US {
            backoff.reset();
        }
        let wait_us = match is_done {
            true => settings.every_us.saturating_sub(ran_us),
            false => backoff.next_us(),
        };
        sleep(Duration::from_micros(wait_us)).await;
    }
}
