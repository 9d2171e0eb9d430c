//! Tries out a definition without keeping it: it is run once, in the terminal of who has written it or at a node, and what it
//! would publish is handed to the caller.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use super::definition::PullDefinition;
use super::feed::Feed;
use super::mapped::PullDraft;
use super::runner::run_kind;
use super::target::PullTarget;
use crate::extend::host::ExtendHost;
use crate::extend::state::StateWriter;
use crate::ingest::Accepted;
use crate::metrics::PullCounters;
use crate::protocol::answer::Outcome;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Most records that the answer to a trial at a node has.
const TRIAL_RECORDS_MAX: usize = 1_000;
/// Most bytes of these records.
const TRIAL_BYTES_MAX: usize = 1 << 20;
/// Longest time of a trial at a node, in microseconds, however long the definition may wait.
const PULL_TRIAL_US_MAX: u64 = 30_000_000;
/// Most trials of a node at a time. Each has a thread.
const TRIALS_MAX: usize = 4;

/// How a trial went.
#[derive(Debug)]
pub(crate) struct Trial {
    /// Number of records that would have been published.
    pub records: u64,
    /// The last thing that went wrong.
    pub error: Option<String>,
}

/// Takes the records of a trial.
struct TrialTarget<F, N> {
    take: RefCell<F>,
    now: N,
    counters: PullCounters,
}

/// Runs a definition once, for no longer than its timeout, and calls `take` for each record. The records are those that a
/// node would be given: rights and middlewares have not seen them.
pub(crate) fn try_once(
    definition: &PullDefinition,
    exec_folder: Option<&Path>,
    now: impl Fn() -> Now + 'static,
    take: impl FnMut(&PullDraft) -> io::Result<()> + 'static,
) -> io::Result<Trial> {
    let target = Rc::new(TrialTarget { take: RefCell::new(take), now, counters: PullCounters::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let feed = Feed::new(target.clone(), None, definition.records_per_s_max, definition.is_always);
    runtime.block_on(async {
        // What is connected for ever ends with the timeout, and that is no mistake.
        let limit = Duration::from_micros(definition.timeout_us) + Duration::from_millis(500);
        let _ = timeout(limit, run_kind(definition, "test", &feed, exec_folder, None, true)).await;
    });
    runtime.shutdown_background();
    Ok(Trial { records: target.counters.published.get(), error: feed.last_error() })
}

/// One of the trials that a node runs.
struct RunningTrial;

impl RunningTrial {
    fn begin() -> Result<RunningTrial, Refusal> {
        let is_free = |running: usize| (running < TRIALS_MAX).then_some(running + 1);
        match TRIALS.fetch_update(Relaxed, Relaxed, is_free) {
            Ok(_) => Ok(RunningTrial),
            Err(running) => {
                let message =
                    format!("{running} definitions are being tried at this node, which is the most");
                Err(Refusal::new(Code::Overloaded, message))
            }
        }
    }
}

impl Drop for RunningTrial {
    fn drop(&mut self) {
        TRIALS.fetch_sub(1, Relaxed);
    }
}

/// Trials that run in this process.
static TRIALS: AtomicUsize = AtomicUsize::new(0);

/// Tries out a definition at a node, which publishes nothing. Returns a JSON object with the publish objects of the `records`,
/// the number of further ones as `more`, and what went wrong as `error`. Takes up to [`PULL_TRIAL_US_MAX`], on the caller's thread.
pub(crate) fn try_at_node(host: Arc<dyn ExtendHost>, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let unusable = |why: String| Refusal::new(Code::BadRequest, why);
    let failed = |why: String| Refusal::new(Code::Internal, why);
    let body = serde_json::from_slice(body).map_err(|error| unusable(error.to_string()))?;
    let mut definition = PullDefinition::read(&body).map_err(|bad| unusable(bad.to_string()))?;
    if let Some(reason) = definition.cannot(&*host) {
        return Err(unusable(format!("this node cannot run it: {reason}; ask a node that can")));
    }
    let _running = RunningTrial::begin()?;
    definition.timeout_us = definition.timeout_us.min(PULL_TRIAL_US_MAX);
    let told = Rc::new(RefCell::new(TrialRecords::default()));
    let (taken, clock) = (told.clone(), host.clone());
    let take = move |draft: &PullDraft| {
        taken.borrow_mut().take(draft);
        Ok(())
    };
    let trial = try_once(&definition, host.exec_folder(), move || clock.now(), take);
    let trial = trial.map_err(|error| failed(error.to_string()))?;
    let (told, error) = (told.take(), serde_json::Value::from(trial.error));
    let records = told.objects.join(",");
    Ok(format!("{{\"records\":[{records}],\"more\":{},\"error\":{error}}}", told.more).into_bytes())
}

/// What a trial would publish, as far as there is room for it.
#[derive(Default)]
struct TrialRecords {
    objects: Vec<String>,
    bytes: usize,
    /// Records without room.
    more: u64,
}

impl TrialRecords {
    fn take(&mut self, draft: &PullDraft) {
        let bytes = self.bytes + draft.source.len() + draft.data_bytes();
        if self.more > 0 || self.objects.len() >= TRIAL_RECORDS_MAX || bytes > TRIAL_BYTES_MAX {
            self.more += 1;
            return;
        }
        self.bytes = bytes;
        self.objects.push(draft.publish_object());
    }
}

impl<F: FnMut(&PullDraft) -> io::Result<()>, N: Fn() -> Now> PullTarget for TrialTarget<F, N> {
    fn now(&self) -> Now {
        (self.now)()
    }

    fn node(&self) -> Option<&str> {
        None
    }

    fn publish(&self, draft: &PullDraft) -> Result<Accepted, Refusal> {
        let taken = (self.take.borrow_mut())(draft);
        taken.map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))?;
        let ts = draft.ts.unwrap_or(self.now().wall_us);
        Ok(Accepted { ts, outcome: Outcome::Applied, ticket: 0 })
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn is_latest(&self, _draft: &PullDraft) -> bool {
        false
    }

    fn tell_state(&self, _state: &StateWriter) -> Result<(), String> {
        Ok(())
    }

    fn counters(&self) -> &PullCounters {
        &self.counters
    }
}
