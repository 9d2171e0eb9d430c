//! Runs the archives of a definition: looks what is in the store, writes the next one when it is due, and removes those
//! that are too many.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::chain::{ArchiveChain, ArchiveEntry};
use super::definition::ArchiveDefinition;
use super::error::ArchiveError;
use super::store::ArchiveStore;
use super::write::ArchiveWork;
use crate::extend::definition::Definition;
use crate::extend::host::ExtendHost;
use crate::extend::runner::{Run, RunContext, Runner};
use crate::extend::state::StateWriter;

/// Waiting time after the first failure, in microseconds. It doubles with each further one.
const FIRST_AGAIN_US: u64 = 2_000_000;
/// Longest waiting time after a failure, in microseconds.
const LONGEST_AGAIN_US: u64 = 300_000_000;
/// Longest sleep, in microseconds: the clock may be set meanwhile.
const SLEEP_US_MAX: u64 = 10_000_000;

/// Runs the definitions of archives at the member that is elected for each: it writes them at their intervals.
#[derive(Debug)]
pub struct ArchiveRunner;

impl Runner for ArchiveRunner {
    fn cannot(&self, definition: &Definition, _: &dyn ExtendHost) -> Option<String> {
        match ArchiveDefinition::read(&definition.body) {
            Ok(archive) => archive.lack(),
            Err(bad) => Some(bad.to_string()),
        }
    }

    fn run(&self, definition: Rc<Definition>, context: RunContext) -> Run {
        Box::pin(async move {
            let state = context.state.clone();
            if let Err(error) = run(&definition, context).await {
                state.set_error(Some(&error.to_string()));
            }
        })
    }
}

async fn run(definition: &Definition, context: RunContext) -> Result<(), ArchiveError> {
    let RunContext { host, state } = context;
    let read = ArchiveDefinition::read(&definition.body);
    let archive = read.map_err(|bad| ArchiveError::Node(bad.to_string()))?;
    let name = definition.name.as_str();
    let store = ArchiveStore::open(&host, name, &archive)?;
    let work = ArchiveWork { host: host.clone(), name, definition: &archive, store: &store };
    let (mut failures, mut has_looked) = (0u32, false);
    loop {
        let wait_us = match turn(&work, &state, &mut has_looked).await {
            Ok(due_us) => {
                failures = 0;
                state.set_error(None);
                state.set("next", due_us);
                due_us.saturating_sub(host.now().wall_us).min(SLEEP_US_MAX)
            }
            Err(error) => {
                tracing::warn!(archive = name, %error, "an archive cannot be written");
                host.metrics().archives.failures.increment();
                state.set_error(Some(&error.to_string()));
                let wait_us = (FIRST_AGAIN_US << failures.min(10)).min(LONGEST_AGAIN_US);
                failures = failures.saturating_add(1);
                wait_us
            }
        };
        state.set("failures", failures);
        sleep(Duration::from_micros(wait_us)).await;
    }
}

/// Writes an archive if one is due. Returns when the next one is, in microseconds since the Unix epoch.
async fn turn(
    work: &ArchiveWork<'_>,
    state: &StateWriter,
    has_looked: &mut bool,
) -> Result<u64, ArchiveError> {
    let now_us = work.host.now().wall_us;
    let due_us = due(work, &work.records().list());
    // What is in the store is looked at in the beginning, and when something is to be written.
    if due_us > now_us && *has_looked {
        return Ok(due_us);
    }
    let mut chain = work.look().await?;
    *has_looked = true;
    let due_us = due(work, &chain);
    if due_us > now_us {
        tell(state, &chain, None);
        return Ok(due_us);
    }
    let written = work.write(&mut chain).await?;
    let metrics = &work.host.metrics().archives;
    if let Some(entry) = &written {
        metrics.written.increment();
        metrics.records.add(entry.records);
        metrics.bytes.add(entry.stored_bytes);
        tracing::info!(archive = work.name, id = entry.id, records = entry.records, "an archive was written");
    }
    metrics.last_us.set(i64::try_from(work.host.now().wall_us).unwrap_or(i64::MAX));
    tell(state, &chain, written.as_ref());
    metrics.removed.add(work.thin_out(&mut chain).await?);
    tell(state, &chain, written.as_ref());
    Ok(due(work, &chain))
}

/// When the next archive is due, in microseconds since the Unix epoch: some time after it was last looked for changes.
fn due(work: &ArchiveWork<'_>, chain: &ArchiveChain) -> u64 {
    let Some(newest) = chain.newest() else { return 0 };
    let is_same = newest.pattern == work.definition.pattern.as_str();
    if !is_same {
        return 0;
    }
    let cursor = work.records().cursor().filter(|cursor| cursor.head == newest.id);
    let checked = cursor.map_or(newest.at, |cursor| cursor.checked.max(newest.at));
    checked.saturating_add(work.definition.every_us)
}

fn tell(state: &StateWriter, chain: &ArchiveChain, written: Option<&ArchiveEntry>) {
    state.set("archives", chain.newest_first().len());
    if let Some(newest) = chain.newest() {
        let ArchiveEntry { id, at, records, deletions, bytes, stored_bytes, depth, .. } = newest;
        state.set(
            "last",
            json!({
                "id": id, "at": at, "records": records, "deletions": deletions, "bytes": bytes,
                "stored_bytes": stored_bytes, "full": *depth == 0,
            }),
        );
    }
    if let Some(written) = written {
        state.set("last_success", written.at);
    }
}
