//! How a client is told how far a piece of work on archives is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::ArchiveError;
use crate::extend::host::ExtendHost;

/// Time between two lines of progress, in microseconds.
const PROGRESS_US: u64 = 1_000_000;
/// How long a client may leave a line unread before the work ends, in microseconds.
const UNREAD_US_MAX: u64 = 60_000_000;

/// Tells a client how far a piece of work is: lines of JSON, one a second.
pub struct JobProgress {
    host: Arc<dyn ExtendHost>,
    lines: mpsc::Sender<Bytes>,
    told_us: u64,
}

impl JobProgress {
    /// Tells by these lines, the first time after a second.
    pub fn new(host: Arc<dyn ExtendHost>, lines: mpsc::Sender<Bytes>) -> JobProgress {
        let told_us = host.now().mono_us;
        JobProgress { host, lines, told_us }
    }

    /// Tells how far the work is, if a second has passed. An error means that nobody listens any longer.
    pub async fn tell(&mut self, progress: impl FnOnce() -> Value) -> Result<(), ArchiveError> {
        let now_us = self.host.now().mono_us;
        if now_us < self.told_us + PROGRESS_US {
            return if self.lines.is_closed() { Err(gone()) } else { Ok(()) };
        }
        self.told_us = now_us;
        self.send(&json!({"progress": progress()})).await
    }

    /// Tells one line.
    pub async fn send(&self, line: &Value) -> Result<(), ArchiveError> {
        let mut text = line.to_string().into_bytes();
        text.push(b'\n');
        let sent = timeout(Duration::from_micros(UNREAD_US_MAX), self.lines.send(text.into())).await;
        sent.map_err(|_| gone())?.map_err(|_| gone())
    }
}

fn gone() -> ArchiveError {
    ArchiveError::Node("nobody waits for it any longer".into())
}
