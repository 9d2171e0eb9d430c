//! One record on its way, until it is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::AnodeError;
use crate::record::Ack;
use crate::roster::jitter;

/// The bound of the first wait before a record is sent again that was refused for a while.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
/// The bound of the longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// How far a record has come. The one who waits for its answer reads it when the time is over.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The timestamp; `None` if the node stamps the record.
    pub(crate) ts: Option<u64>,
    /// Whether the record was sent on the connection that is open now.
    pub(crate) is_sent: bool,
    /// Whether a node has applied the record; `None` if an answer was lost.
    pub(crate) applied: Option<bool>,
    /// The last refusal for a while.
    pub(crate) refused: Option<AnodeError>,
}

/// The progress, as the two sides share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    /// Starts the progress of a record.
    pub(crate) fn new(ts: u64) -> SharedProgress {
        let progress = Progress { ts: Some(ts), is_sent: false, applied: Some(false), refused: None };
        SharedProgress(Arc::new(Mutex::new(progress)))
    }

    /// Returns the progress, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error for a record that is not answered in time.
    pub(crate) fn overdue(&self, why: Option<&AnodeError>) -> AnodeError {
        let progress = self.lock();
        let applied = match progress.applied {
            Some(false) if progress.is_sent => None,
            applied => applied,
        };
        let mut error = progress.refused.clone().unwrap_or_else(|| {
            let why = why.map_or_else(String::new, |why| format!("; {why}"));
            AnodeError::new("timeout", format!("no answer in time{why}")).temporary()
        });
        error.applied = if error.applied == Some(true) { error.applied } else { applied };
        error.ts = progress.ts;
        error
    }
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) source: String,
    /// The fields of the frame but for id, source and ts.
    pub(crate) fields: String,
    /// Whether the timestamp was chosen by this client and not by the user.
    pub(crate) is_stamped_here: bool,
    pub(crate) deadline: Instant,
    pub(crate) progress: SharedProgress,
    pub(crate) answer: oneshot::Sender<Result<Ack, AnodeError>>,
    /// How often the record was refused for a while.
    pub(crate) refusals: u32,
    /// Whether the record waits for the time at which it is sent again.
    pub(crate) waits: bool,
}

impl Outgoing {
    /// Returns the frame.
    pub(crate) fn frame(&self, id: u64) -> String {
        let ts = self.progress.lock().ts.map_or_else(String::new, |ts| format!("\"ts\":{ts},"));
        let source = serde_json::Value::from(self.source.as_str());
        format!("{{\"id\":{id},\"source\":{source},{ts}{}}}", self.fields)
    }

    /// Whether an answer is about the only attempt that can have reached a node.
    pub(crate) fn is_certain(&self) -> bool {
        self.is_stamped_here && self.progress.lock().applied == Some(false)
    }

    /// Ends it with an error.
    pub(crate) fn fail(self, mut error: AnodeError) {
        let progress = self.progress.lock().clone();
        error.ts = error.ts.or(progress.ts);
        if error.applied == Some(false) {
            error.applied = progress.applied;
        }
        // The program may have stopped waiting.
        let _ = self.answer.send(Err(error));
    }

    /// Notes that it was refused for a while. Returns when to send it again; `None` if that is too late.
    pub(crate) fn handle_refusal(&mut self, error: &AnodeError) -> Option<Instant> {
        self.refusals += 1;
        self.progress.lock().refused = Some(error.clone());
        let wait = jitter(AGAIN_FIRST, self.refusals - 1, AGAIN_MAX);
        let wait = wait.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
        let at = Instant::now() + wait;
        (at < self.deadline).then_some(at)
    }
}
