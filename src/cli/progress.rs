//! Progress of long work: a line on the terminal while it runs, and a summary at its end.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format;
use crate::server::clock;

/// Number of redraws a second.
const REDRAWS_HZ: u8 = 5;
/// Least time between two changes of the line, in microseconds.
const REDRAW_US: u64 = 200_000;

/// The progress of one piece of work. The line is shown only if stderr is a terminal.
pub struct Progress {
    bar: ProgressBar,
    started_us: u64,
    /// Monotonic time from which the line may change again, in microseconds.
    due_us: u64,
    records: u64,
    bytes: u64,
}

impl Progress {
    /// Begins to show progress of what `verb` says, for example `exported`.
    pub fn new(verb: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ));
        let style = ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_message(verb);
        Progress { bar, started_us: clock::mono_us(), due_us: 0, records: 0, bytes: 0 }
    }

    /// Counts what is done, and shows nothing while it goes on.
    pub fn hidden() -> Progress {
        let mut progress = Progress::new("");
        progress.bar = ProgressBar::hidden();
        progress
    }

    /// Adds to what is done.
    pub fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        let now_us = clock::mono_us();
        if now_us >= self.due_us && !self.bar.is_hidden() {
            self.due_us = now_us + REDRAW_US;
            self.bar.set_message(self.said());
            self.bar.tick();
        }
    }

    /// Ends the line on the terminal, and returns what was done, how long it took and how fast it was.
    pub fn finish(&self) -> String {
        self.bar.finish_and_clear();
        self.said()
    }

    fn said(&self) -> String {
        let took_us = (clock::mono_us() - self.started_us).max(1);
        let rate = (self.records as f64 * 1e6 / took_us as f64) as u64;
        format!(
            "{} records, {}, in {} ({} records/s)",
            format::grouped(self.records),
            format::bytes(self.bytes),
            format::duration(took_us),
            format::grouped(rate)
        )
    }
}
