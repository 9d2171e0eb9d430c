//! A run's progress on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::{Sample, Watcher};

/// One line on stderr; nothing where stderr is no terminal.
pub struct Progress {
    bar: ProgressBar,
    whole_s: f64,
}

impl Progress {
    /// Of a run that takes so long.
    pub fn new(whole_s: f64) -> Progress {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, whole_s }
    }
}

impl Watcher for Progress {
    fn opening(&mut self, ready: u64, of: u64) {
        self.bar.set_message(format!("{ready} of {of} connections"));
        if ready == of {
            self.bar.set_length((self.whole_s * 1_000.0) as u64);
            // The template is a constant that is tried by a test.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                self.bar.set_style(style);
            }
        }
    }

    fn running(&mut self, now: Sample, before: Sample) {
        let seconds = (now.at_s - before.at_s).max(1e-9);
        let per_s = |now: u64, before: u64| (now - before) as f64 / seconds;
        self.bar.set_position((now.at_s * 1_000.0) as u64);
        self.bar.set_message(format!(
            "{:.1} s: {:.0}/s published, {:.0}/s delivered",
            now.at_s,
            per_s(now.sent, before.sent),
            per_s(now.delivered, before.delivered)
        ));
    }

    fn draining(&mut self) {
        self.bar.set_message("waiting for what is missing");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{bar:30} {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
