//! Shows the progress of a run on the terminal, and handles the key that ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Outcome;
use crate::engine::{Sample, Watcher};

/// Whether Ctrl-C was pressed. It ends a run early; pressed again, it ends the program.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles Ctrl-C, and the signal to terminate, from now on.
    pub fn listen() -> Outcome<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag not set yet, and sets it.
            flag::register_conditional_shutdown(signal, 1, interrupt.0.clone())?;
            flag::register(signal, interrupt.0.clone())?;
        }
        Ok(interrupt)
    }

    /// Returns whether the run is to end early.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Progress in one line on stderr. Nothing is shown if stderr is not a terminal.
pub struct Progress {
    bar: ProgressBar,
    whole_s: f64,
    interrupt: Interrupt,
}

impl Progress {
    /// Shows the progress of a run of so many seconds, which may be interrupted.
    pub fn new(whole_s: f64, interrupt: Interrupt) -> Progress {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, whole_s, interrupt }
    }

    /// Shows nothing, but lets the run be interrupted.
    pub fn hidden(interrupt: Interrupt) -> Progress {
        Progress { bar: ProgressBar::hidden(), whole_s: 0.0, interrupt }
    }
}

impl Watcher for Progress {
    fn opening(&mut self, ready: u64, of: u64) {
        self.bar.set_message(format!("{ready} of {of} connections"));
        if ready == of {
            self.bar.set_length((self.whole_s * 1_000.0) as u64);
            // It cannot fail: the template is a constant that a test tries.
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

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
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
