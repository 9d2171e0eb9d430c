//! A page of a source's history: the question, the answer, and the cursor that joins two pages.
//!
//! The control plane asks with these types and every store answers with them, so that nothing is
//! translated in between.

use std::fmt;
use std::str::FromStr;

use super::{Record, Stamp};
use crate::limits::TS_MAX;

/// Place in a history where a page ended: the next page begins with the next older record. Its text,
/// `ts-deleted-hash`, is opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor(pub Stamp);

/// Error of a text that is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a history cursor")]
pub struct CursorError;

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { ts, deleted, hash } = self.0;
        write!(f, "{ts}-{}-{hash:032x}", u8::from(deleted))
    }
}

impl FromStr for HistoryCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<HistoryCursor, CursorError> {
        let mut parts = text.split('-');
        let (Some(ts), Some(deleted), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CursorError);
        };
        let ts = ts.parse().ok().filter(|&ts| ts <= TS_MAX).ok_or(CursorError)?;
        let deleted = match deleted {
            "0" => false,
            "1" => true,
            _ => return Err(CursorError),
        };
        let hash = u128::from_str_radix(hash, 16).map_err(|_| CursorError)?;
        Ok(HistoryCursor(Stamp { ts, deleted, hash }))
    }
}

/// Selects a part of one source's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Name of the source.
    pub source: String,
    /// Least `ts`, inclusive, in microseconds since the Unix epoch.
    pub from_us: u64,
    /// Greatest `ts`, inclusive, in microseconds since the Unix epoch.
    pub to_us: u64,
    /// Most records that the page may hold; at least 1.
    pub limit: usize,
    /// End of the page before; `None` asks for the newest records.
    pub after: Option<HistoryCursor>,
}

impl HistoryQuery {
    /// Returns whether a record of this stamp lies in the range of time and beyond the cursor.
    pub fn selects(&self, stamp: Stamp) -> bool {
        (self.from_us..=self.to_us).contains(&stamp.ts) && self.after.is_none_or(|after| stamp < after.0)
    }
}

/// Answer to a [`HistoryQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Records in descending order of their stamps, the newest first.
    pub records: Vec<Record>,
    /// Cursor that asks for the next page; `None` when there is no older record.
    pub after: Option<HistoryCursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        for stamp in [Stamp::of_data(7, b"x"), Stamp::of_deletion(TS_MAX)] {
            let cursor = HistoryCursor(stamp);
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "1", "1-0", "1-2-0", "1-0-g", "1-0-0-0", "9007199254740992-0-0", "-1-0-0"] {
            assert_eq!(bad.parse::<HistoryCursor>(), Err(CursorError), "{bad}");
        }
    }
}
