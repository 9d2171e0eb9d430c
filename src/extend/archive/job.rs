//! Work on archives that an admin asks for, and that tells how far it is: to verify archives, and to restore one.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::chain::ArchiveChain;
use super::definition::ArchiveDefinition;
use super::error::{ArchiveError, PlaceError};
use super::manifest::is_archive_id;
use super::progress::JobProgress;
use super::records::ArchiveRecords;
use super::restore::{RestoreAsked, restore};
use super::store::ArchiveStore;
use super::verify::verify;
use crate::extend::definition::Definition;
use crate::extend::host::ExtendHost;
use crate::protocol::extension::{ArchiveAsked, ExtensionKind, ExtensionName};
use crate::protocol::refusal::{Code, Refusal};

/// Lines of progress that wait for a client at most.
const LINES_WAITING_MAX: usize = 16;
/// The archives of a definition as the cluster was told of them, the newest first: a JSON object.
pub fn listed_archives(host: &dyn ExtendHost, name: &ExtensionName) -> Result<Vec<u8>, Refusal> {
    definition_of(host, name)?;
    let chain = ArchiveRecords::of(host, name.as_str()).list();
    let text = serde_json::to_vec(&json!({"archives": chain.newest_first()}));
    text.map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

/// Begins a piece of work. Returns the lines that tell how far it is; the last one has `done` or `error`. The work ends
/// when they are dropped. To be called inside of a runtime, in which the work goes on.
pub fn begin_job(
    host: Arc<dyn ExtendHost>,
    name: &ExtensionName,
    asked: ArchiveAsked,
) -> Result<mpsc::Receiver<Bytes>, Refusal> {
    let body = definition_of(&*host, name)?.body;
    let read = ArchiveDefinition::read(&body);
    let definition = read.map_err(|bad| Refusal::new(Code::BadRequest, bad.to_string()))?;
    if let Some(lack) = definition.lack() {
        let message = format!("this node cannot reach the archive: {lack}; ask a node that can");
        return Err(Refusal::new(Code::BadRequest, message));
    }
    let opened = ArchiveStore::open(&host, name.as_str(), &definition);
    let store = opened.map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))?;
    let chain = ArchiveRecords::of(&*host, name.as_str()).list();
    let work = resolve(&chain, asked)?;
    let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
    let mut progress = JobProgress::new(host.clone(), lines);
    let name = name.clone();
    tokio::spawn(async move {
        let records = ArchiveRecords::of(&*host, name.as_str());
        let done = match work {
            Work::Verify(ids) => verify(&store, &records, &ids, &mut progress).await,
            Work::Restore(asked) => restore(&host, &store, &chain, &asked, &mut progress).await,
        };
        let line = match done {
            Ok(done) => json!({"done": done}),
            Err(error) => json!({"error": {"code": code_of(&error), "message": error.to_string()}}),
        };
        // Whoever has gone needs no last line.
        let _ = progress.send(&line).await;
    });
    Ok(receiver)
}

/// What is to be done, with the archives it is about.
enum Work {
    Verify(Vec<String>),
    Restore(RestoreAsked),
}

/// Finds the archives that a request is about.
fn resolve(chain: &ArchiveChain, asked: ArchiveAsked) -> Result<Work, Refusal> {
    let none = || Refusal::new(Code::NotFound, "there is no archive yet");
    let checked = |id: String| match is_archive_id(&id) {
        true => Ok(id),
        false => Err(Refusal::new(Code::BadRequest, format!("id {id:?} is that of no archive"))),
    };
    match asked {
        ArchiveAsked::Verify { id: Some(id) } => Ok(Work::Verify(vec![checked(id)?])),
        ArchiveAsked::Verify { id: None } => {
            let ids: Vec<String> = chain.newest_first().iter().map(|entry| entry.id.clone()).collect();
            if ids.is_empty() { Err(none()) } else { Ok(Work::Verify(ids)) }
        }
        ArchiveAsked::Restore { id, pattern, at, as_new } => {
            let id = match id {
                Some(id) => checked(id)?,
                None => chosen(chain, at).ok_or_else(none)?,
            };
            Ok(Work::Restore(RestoreAsked { id, pattern, at, as_new }))
        }
    }
}

/// The archive to restore where none is named: the newest one, or the first that was made at that moment or after it.
fn chosen(chain: &ArchiveChain, at: Option<u64>) -> Option<String> {
    let all = chain.newest_first();
    let first_after = at.and_then(|at| all.iter().rev().find(|entry| entry.at >= at));
    first_after.or_else(|| all.first()).map(|entry| entry.id.clone())
}

fn definition_of(host: &dyn ExtendHost, name: &ExtensionName) -> Result<Definition, Refusal> {
    let kind = ExtensionKind::Archive;
    let record = host.get(&kind.record_name(name)).filter(|record| record.is_visible(host.now().wall_us));
    let definition = record.and_then(|record| Definition::of_record(&record));
    definition.ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no archive {name}")))
}

fn code_of(error: &ArchiveError) -> &'static str {
    match error {
        ArchiveError::Damaged { .. } => "damaged",
        ArchiveError::Store(PlaceError::NotFound(_)) => "not_found",
        ArchiveError::Store(_) => "store_unavailable",
        ArchiveError::Node(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extend::archive::chain::ArchiveEntry;
    use crate::extend::archive::manifest::Manifest;

    #[test]
    fn the_archive_of_a_moment() {
        let entry = |id: &str, at| ArchiveEntry::new(id, &Manifest::new("x", "n", at, "**"), String::new());
        let chain: ArchiveChain = [entry("a", 10), entry("b", 20), entry("c", 30)].into_iter().collect();
        let of = |at| chosen(&chain, at);
        assert_eq!(of(None), Some("c".into()));
        for (at, id) in [(5, "a"), (10, "a"), (11, "b"), (30, "c"), (99, "c")] {
            assert_eq!(of(Some(at)), Some(id.into()), "{at}");
        }
        assert_eq!(chosen(&ArchiveChain::default(), None), None);
    }
}
