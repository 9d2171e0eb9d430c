//! What a reader of a source's history asks for, and where it goes on.

use std::fmt;
use std::str::FromStr;

use crate::limits::TS_MAX;
use crate::record::{Record, SharedRecord, Stamp};

/// Where the next page of a history begins: after (older than) this record. As text it is opaque to
/// clients: `ts-deleted-hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor(pub Stamp);

/// A text that is no cursor.
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

/// One page of a history, as an engine is asked for it.
#[derive(Clone, Copy, Debug)]
pub struct HistoryQuery<'a> {
    /// Of which source.
    pub source: &'a str,
    /// Least `ts` shown.
    pub from_us: u64,
    /// Greatest `ts` shown.
    pub to_us: u64,
    /// Only records that come before this stamp in the order.
    pub before: Option<Stamp>,
    /// Most records shown.
    pub limit: usize,
    /// Stamps, ascending, of what the engine has not been given yet: newer records take places of
    /// the ring, so as many of the oldest are hidden.
    pub unwritten: &'a [Stamp],
}

impl HistoryQuery<'_> {
    /// Whether a record of this stamp belongs to the page.
    pub fn shows(&self, stamp: Stamp) -> bool {
        (self.from_us..=self.to_us).contains(&stamp.ts) && self.before.is_none_or(|before| stamp < before)
    }
}

/// A page, newest first, and where the next one begins, if there is more.
pub type HistoryPage = (Vec<Record>, Option<HistoryCursor>);

/// Joins what waits with what is written into one page of at most `limit` records.
pub(super) fn page(
    query: &HistoryQuery<'_>,
    unwritten: &[SharedRecord],
    written: Vec<Record>,
    limit: usize,
) -> HistoryPage {
    let waiting =
        unwritten.iter().filter(|record| query.shows(record.stamp)).map(|record| (**record).clone());
    let mut records: Vec<Record> = waiting.chain(written).collect();
    // Stable: of two equal stamps the waiting record, which will replace the other, is kept.
    records.sort_by_key(|record| std::cmp::Reverse(record.stamp));
    records.dedup_by_key(|record| record.stamp);
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|record| HistoryCursor(record.stamp));
    (records, next)
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
