//! Cuts the rows that are to be written into requests, and bounds the number of requests that are on their
//! way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::record::{Record, Stamp};

/// Least number of requests that are on their way at a time.
const IN_FLIGHT_MIN: usize = 16;
/// Greatest number of requests that are on their way at a time.
const IN_FLIGHT_MAX: usize = 256;
/// Largest number of rows in a request. They may be of as many partitions, and Cassandra warns of an unlogged
/// batch of more than ten.
pub(super) const BATCH_ROWS_MAX: usize = 10;
/// Largest number of bytes of a request's rows, under the 5 KiB at which Cassandra warns of any batch. A
/// larger row is sent alone.
const BATCH_BYTES_MAX: usize = 4 << 10;
/// Estimated bytes of a row besides its name and its data: key, stamp and birth.
const ROW_OVERHEAD_BYTES: usize = 100;

/// Bounds the number of requests that are on their way at a time. The bound grows by one with every answer
/// and falls to the least after a failure, so that a Cassandra that comes back is not overrun and soon has
/// all it can take.
#[derive(Debug)]
pub(super) struct RequestWindow(AtomicUsize);

impl RequestWindow {
    /// Makes a window of the least size.
    pub(super) fn new() -> RequestWindow {
        RequestWindow(IN_FLIGHT_MIN.into())
    }

    /// The number of requests that may be on their way now.
    pub(super) fn size(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Notes an answer and returns how many requests take the place of the one that was answered.
    pub(super) fn handle_answer(&self) -> usize {
        let size = self.size();
        self.0.store((size + 1).min(IN_FLIGHT_MAX), Relaxed);
        if size < IN_FLIGHT_MAX { 2 } else { 1 }
    }

    /// Notes that a request failed.
    pub(super) fn handle_failure(&self) {
        self.0.store(IN_FLIGHT_MIN, Relaxed);
    }
}

/// One row to be written. Its statement is made only when its turn comes, so that the first rows of a large
/// group are on their way while the last are still records.
pub(super) enum RowWrite<'a> {
    /// The record becomes the latest of its source.
    Put(&'a Record),
    /// The record is added to the history of its source.
    Append(&'a Record),
    /// The bucket of the record is listed. The number is the hash by which the link remembers that.
    OpenBucket(&'a Record, u64),
    /// The latest record of a source is removed, if its stamp is not greater than this one.
    Remove(&'a str, Stamp),
}

impl RowWrite<'_> {
    /// Estimated bytes of the row in a request.
    fn bytes(&self) -> usize {
        ROW_OVERHEAD_BYTES
            + match self {
                RowWrite::Put(record) | RowWrite::Append(record) => {
                    2 * record.source.as_str().len() + record.payload.bytes().len()
                }
                RowWrite::OpenBucket(record, _) => record.source.as_str().len(),
                RowWrite::Remove(source, _) => source.len(),
            }
    }
}

/// Cuts writes into requests of at most `most` rows.
pub(super) fn requests<'w, 'a>(
    mut writes: &'w [RowWrite<'a>],
    most: usize,
) -> impl Iterator<Item = &'w [RowWrite<'a>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |write: &&RowWrite<'_>| {
            bytes += write.bytes();
            bytes <= BATCH_BYTES_MAX
        };
        let count = writes.iter().take(most).take_while(fits).count().max(1);
        let (request, rest) = writes.split_at_checked(count)?;
        writes = rest;
        Some(request)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::record;

    proptest! {
            /// Cassandra logs a warning for batches over 5 KiB or ten partitions, and refuses those over 50
            /// KiB.
            #[test]
            fn requests_are_small_and_leave_nothing_out(
                sizes in proptest::collection::vec(prop_oneof![4 => 0usize..200, 1 => 0usize..20_000], 0..60),
                most in 1usize..12,
            ) {
                let data = |size: usize| format!("\"{}\"", "x".repeat(size)).into_bytes();
                let records: Vec<Record> =
                    sizes.iter().zip(1u64..).map(|(&size, ts)| record("s", ts, &data(size))).collect();
                let writes: Vec<RowWrite<'_>> = records.iter().map(RowWrite::Append).collect();
                let mut sent = Vec::new();
                for request in requests(&writes, most) {
                    prop_assert!((1..=most).contains(&request.len()));
                    prop_assert!(request.len() == 1 || request.iter().map(RowWrite::bytes).sum::<usize>() <= BATCH_BYTES_MAX);
                    sent.extend(request.iter().map(|write| match write {
                        RowWrite::Append(record) => record.stamp.ts,
                        _ => 0,
                    }));
                }
                prop_assert_eq!(sent, (1..=sizes.len() as u64).collect::<Vec<_>>());
            }
    }
}
