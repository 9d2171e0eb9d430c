//! `GET /v1/export`: all records that match, one a line, at the pace of the reader.
//!
//! The map is walked through in parts, and a part is looked for when the one before it was sent. So an export of any size
//! needs the memory of a part, and takes its turns with the searches for pages.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use futures_util::stream;

use super::app::{App, HandlerResult, apart, typed};
use super::entry::Sender;
use super::leased::lease;
use super::params::Query;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::json::write_export_line;
use crate::record::RecordWalk;

/// The media type of lines of JSON.
const LINES_TYPE: &str = "application/x-ndjson";
/// Memory of the records of a part, in bytes, unless one record alone has more.
const PART_BYTES: usize = 64 * 1024;
/// Memory that an export needs besides that of its largest record, in bytes: the records of a part, their lines, and the
/// lines of the part before it, which are being sent.
const EXPORT_BYTES: usize = 4 * PART_BYTES;

/// An export that is under way.
struct Export {
    app: App,
    walk: Box<dyn RecordWalk>,
    /// Covers all memory of the export, so that nothing has to be refused when it has begun.
    lease: Arc<Lease>,
}

/// The lines of a part, and the lease that covers them until they are sent.
struct Part {
    lines: Vec<u8>,
    _lease: Arc<Lease>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.lines
    }
}

/// Answers with the records that match and that the sender may read.
pub(super) async fn export(
    State(app): State<App>,
    Extension(Sender(reader)): Extension<Sender>,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    let mut pattern = Query::parse(query.as_deref(), &["pattern"])?.pattern()?;
    if let Some(reader) = &reader {
        pattern = reader.rights().narrowed(pattern);
    }
    let bytes = EXPORT_BYTES + 3 * app.record_bytes_max;
    let lease = Arc::new(lease(&app, MemoryUse::Pages, bytes.min(app.node.memory().holder_max()))?);
    let export = Export { walk: app.node.walk(pattern, reader), app, lease };
    Ok(typed(LINES_TYPE, Body::from_stream(stream::unfold(export, next_part))))
}

/// Returns the lines of the next part that has any, and the rest of the export; `None` at its end.
async fn next_part(mut export: Export) -> Option<(Result<Bytes, Infallible>, Export)> {
    while !export.walk.is_over() {
        let wall_us = export.app.node.now().wall_us;
        let Export { app, mut walk, lease } = export;
        let turn = app.search_permit().await;
        let walked = apart(move || {
            let records = walk.next_part(PART_BYTES);
            let mut lines = Vec::new();
            records.iter().for_each(|record| write_export_line(&mut lines, record, wall_us));
            (walk, lines)
        });
        // Without an end the client sees that the answer is not whole.
        let (walk, lines) = walked.await.ok()?;
        drop(turn);
        export = Export { app, walk, lease };
        if !lines.is_empty() {
            let part = Part { lines, _lease: export.lease.clone() };
            return Some((Ok(Bytes::from_owner(part)), export));
        }
    }
    None
}
