//! What can be asked of archives beside their definitions: which there are, whether they are as they were written, and to
//! restore one.
//!
//! To verify and to restore take as long as they take. They are answered with lines of JSON that tell how far they are,
//! one a second, and end when the client goes.

use std::convert::Infallible;

use super::JobLines;
use super::app::{App, HandlerResult, apart, typed};
use super::export::LINES_TYPE;
use super::extensions;
use super::leased::{lease, leased_json};
use super::params::Query;
use super::problem::{CHANGE, Problem, READ};
use crate::auth::Resource;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::extension::{ArchiveAsked, ExtensionKind, ExtensionName};
use crate::protocol::query::decode_path;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::Uri;
use futures_util::stream;

/// Memory of a restore, or of a verification, in bytes: a frame as it is stored, the same decompressed, and one that is
/// being read meanwhile.
const JOB_BYTES: usize = 24 * 1024 * 1024;

/// What stands behind the name of a definition in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArchivePart {
    Archives,
    Verify,
    Restore,
}

/// Answers with a definition, or with its archives.
pub(super) async fn get(app: State<App>, uri: Uri, query: RawQuery) -> HandlerResult {
    let Some((name, part)) = part_of(&uri)? else {
        return extensions::one(ExtensionKind::Archive, app, uri, query).await;
    };
    if part != ArchivePart::Archives {
        return Err(Problem::wrong_method("this is asked for with POST", "POST"));
    }
    Query::parse(query.0.as_deref(), &[])?;
    let node = app.0.node.clone();
    let listed = apart(move || node.archives(&name)).await??;
    leased_json(&app.0, listed)
}

/// Verifies archives, or restores one.
pub(super) async fn post(State(app): State<App>, request: Request) -> HandlerResult {
    let asked = part_of(request.uri())?;
    let query = request.uri().query();
    let (name, asked) = match asked {
        Some((name, ArchivePart::Verify)) => {
            let query = Query::parse(query, &["id"])?;
            (name, ArchiveAsked::Verify { id: query.get("id").map(str::to_owned) })
        }
        Some((name, ArchivePart::Restore)) => (name, restore_asked(query)?),
        listed_or_one => {
            let allow = if listed_or_one.is_some() { READ } else { CHANGE };
            return Err(Problem::wrong_method("POST is for /verify and /restore", allow));
        }
    };
    let lease = lease(&app, MemoryUse::Pages, JOB_BYTES.min(app.node.memory().holder_max()))?;
    let lines = app.node.archive_job(&name, asked)?;
    tracing::info!(archive = name.as_str(), "an admin verifies or restores archives");
    Ok(typed(LINES_TYPE, Body::from_stream(stream::unfold((lines, lease), next_line))))
}

/// The next line of a piece of work, and the work itself with the lease that covers its memory.
async fn next_line(job: (JobLines, Lease)) -> Option<(Result<Bytes, Infallible>, (JobLines, Lease))> {
    let (mut lines, lease) = job;
    let line = lines.recv().await?;
    Some((Ok(line), (lines, lease)))
}

fn restore_asked(query: Option<&str>) -> Result<ArchiveAsked, Refusal> {
    let query = Query::parse(query, &["id", "pattern", "at", "as_new"])?;
    let pattern = query.get("pattern").map(Pattern::parse).transpose();
    let pattern = pattern.map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))?;
    let as_new = match query.get("as_new") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("as_new is {other:?}; allowed are true and false");
            return Err(Refusal::new(Code::BadRequest, message));
        }
    };
    let id = query.get("id").map(str::to_owned);
    Ok(ArchiveAsked::Restore { id, pattern, at: query.ts_if_given("at")?, as_new })
}

/// The definition that a path names and what is asked of it; `None` if the path names a definition alone.
fn part_of(uri: &Uri) -> Result<Option<(ExtensionName, ArchivePart)>, Refusal> {
    let rest =
        uri.path().strip_prefix(Resource::Extension(ExtensionKind::Archive).path()).unwrap_or_default();
    let Some((name, part)) = rest.split_once('/') else { return Ok(None) };
    let part = match part {
        "archives" => ArchivePart::Archives,
        "verify" => ArchivePart::Verify,
        "restore" => ArchivePart::Restore,
        _ => return Err(Refusal::new(Code::NotFound, "there is nothing at this path")),
    };
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let name = decode_path(name).map_err(|error| bad_request(error.to_string()))?;
    let name = ExtensionName::parse(&name).map_err(|error| bad_request(error.to_string()))?;
    Ok(Some((name, part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries() {
        let part = |path: &'static str| {
            let found = part_of(&Uri::from_static(path));
            found
                .map(|found| found.map(|(name, part)| (name.to_string(), part)))
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(part("/v1/archive/a"), Ok(None));
        assert_eq!(part("/v1/archive/a/archives"), Ok(Some(("a".into(), ArchivePart::Archives))));
        assert_eq!(part("/v1/archive/%61/restore"), Ok(Some(("a".into(), ArchivePart::Restore))));
        assert_eq!(part("/v1/archive/a/b"), Err(Code::NotFound));
        assert_eq!(part("/v1/archive//verify"), Err(Code::BadRequest));
        let asked = restore_asked(Some("id=1-n&pattern=a/*&at=5&as_new=true"));
        let pattern = Pattern::parse("a/*").ok();
        assert_eq!(
            asked,
            Ok(ArchiveAsked::Restore { id: Some("1-n".into()), pattern, at: Some(5), as_new: true })
        );
        for bad in ["as_new=1", "at=x", "pattern=a//b", "what=1"] {
            assert!(restore_asked(Some(bad)).is_err(), "{bad}");
        }
    }
}
