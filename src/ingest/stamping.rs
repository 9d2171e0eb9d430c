//! The stamps of clients' drafts.

use crate::protocol::draft::DraftPayload;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Stamp;

/// Refuses a publish without a timestamp to a source whose latest record has the greatest timestamp there is.
/// Trying again does not help, so the code is not one of the temporary ones.
#[cold]
pub(super) fn no_ts_left() -> Refusal {
    let message = "the source's latest ts is so far ahead that no later one is left";
    Refusal::new(Code::FutureTimestamp, message)
}

/// The stamp of a payload at `ts`.
pub(super) fn stamp_of(ts: u64, payload: &DraftPayload<'_>) -> Stamp {
    match payload {
        DraftPayload::Deleted => Stamp::of_deletion(ts),
        data => Stamp::of_data(ts, data.bytes()),
    }
}
