//! Tries out a definition where it is written: it is run once, and what it would publish is handed to the caller.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::definition::PullDefinition;
use super::feed::Feed;
use super::mapped::PullDraft;
use super::runner::run_kind;
use super::target::PullTarget;
use crate::extend::state::StateWriter;
use crate::ingest::Accepted;
use crate::metrics::PullCounters;
use crate::protocol::answer::Outcome;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

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
    now: fn() -> Now,
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

impl<F: FnMut(&PullDraft) -> io::Result<()>> PullTarget for TrialTarget<F, fn() -> Now> {
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
