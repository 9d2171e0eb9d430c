//! The least rate at which a client must send its request, or take its answer.
//!
//! Time is counted only while the client is waited for, and in windows: a client that was fast at first and
//! then stops is noticed as soon as one that was slow from the beginning.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Length of a window.
pub(super) const PACE_WINDOW: Duration = Duration::from_secs(10);
/// Bytes that must move in each window: one KiB a second. Slower links have not been built for decades, and
/// ten times as much would shut out crowded radio links.
pub(super) const PACE_WINDOW_BYTES: usize = 10 * 1024;

/// The check that a client moves enough bytes in every window of time, [`PACE_WINDOW_BYTES`].
pub(super) struct Pace {
    window: Pin<Box<Sleep>>,
    moved_bytes: usize,
    /// Number of windows that have ended.
    windows: u32,
}

impl Pace {
    /// Begins the first window.
    pub(super) fn start() -> Pace {
        Pace { window: Box::pin(sleep(PACE_WINDOW)), moved_bytes: 0, windows: 0 }
    }

    /// Notes that bytes were moved.
    pub(super) fn handle_moved(&mut self, bytes: usize) {
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
    }

    /// Number of windows that have ended.
    pub(super) fn windows(&self) -> u32 {
        self.windows
    }

    /// Becomes ready when the client was too slow in a window. To be polled while the client is waited for.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.window.as_mut().poll(cx).is_ready() {
            if std::mem::take(&mut self.moved_bytes) < PACE_WINDOW_BYTES {
                return Poll::Ready(());
            }
            self.windows += 1;
            self.window = Box::pin(sleep(PACE_WINDOW));
        }
        Poll::Pending
    }
}
