//! Streams between nodes that the cluster machine has closed, and whose last bytes wait for the peer to read
//! them.
//!
//! A peer that reads nothing would keep these bytes in memory for as long as it likes. So such a stream is
//! given up when its peer takes nothing for a few seconds or reads too slowly in all, and when too many bytes
//! wait on all of them together.

use std::collections::BTreeMap;

use crate::cluster::StreamId;

/// Time after which a closing stream is given up if its peer takes nothing, in microseconds.
const STALLED_US_MAX: u64 = 5_000_000;
/// Longest time from the closing of a stream to its end, in microseconds. A peer that takes longer to read
/// the last bytes of a session reads less than 20 kB a second.
const CLOSING_US_MAX: u64 = 30_000_000;
/// Most bytes that wait on closing streams together. The sessions that end at one time leave less.
const CLOSING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A closing stream. Times are on the monotonic clock, in microseconds.
#[derive(Debug)]
struct ClosingStream {
    since_us: u64,
    /// When the peer took bytes last.
    moved_us: u64,
    /// Bytes that waited at that time.
    waiting_bytes: usize,
}

/// All closing streams.
#[derive(Debug, Default)]
pub struct ClosingStreams {
    streams: BTreeMap<StreamId, ClosingStream>,
}

impl ClosingStreams {
    /// Adds a stream on which `waiting_bytes` wait.
    pub fn add(&mut self, now_us: u64, id: StreamId, waiting_bytes: usize) {
        self.streams.insert(id, ClosingStream { since_us: now_us, moved_us: now_us, waiting_bytes });
    }

    /// Forgets a stream that has ended.
    pub fn remove(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    /// Returns the stream that has been closing for longest, among those for which `is_wanted` returns `true`.
    pub fn oldest(&self, is_wanted: impl Fn(StreamId) -> bool) -> Option<StreamId> {
        let streams = self.streams.iter().filter(|&(&id, _)| is_wanted(id));
        streams.min_by_key(|&(&id, stream)| (stream.since_us, id)).map(|(&id, _)| id)
    }

    /// Returns the next stream that is to be given up; `None` if there is none. `waiting_bytes` returns how
    /// many bytes wait on a stream now.
    pub fn next_overdue(
        &mut self,
        now_us: u64,
        waiting_bytes: impl Fn(StreamId) -> usize,
    ) -> Option<StreamId> {
        let mut all_bytes = 0;
        let mut overdue = None;
        for (&id, stream) in &mut self.streams {
            let bytes = waiting_bytes(id);
            if bytes < stream.waiting_bytes {
                (stream.waiting_bytes, stream.moved_us) = (bytes, now_us);
            }
            all_bytes += bytes;
            let is_over = now_us >= stream.moved_us.saturating_add(STALLED_US_MAX)
                || now_us >= stream.since_us.saturating_add(CLOSING_US_MAX);
            if is_over {
                overdue = Some(id);
            }
        }
        if overdue.is_none() && all_bytes > CLOSING_BYTES_MAX {
            overdue = self.oldest(|_| true);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_nothing_is_given_up_soon_and_who_reads_slowly_later() {
        let mut closing = ClosingStreams::default();
        closing.add(0, StreamId(2), 1_000);
        closing.add(0, StreamId(4), 1_000);
        let mut ended = Vec::new();
        for second in 1..=40u64 {
            // On the stream 4 the peer takes ten bytes a second.
            let waiting = |id| if id == StreamId(4) { 1_000 - 10 * second as usize } else { 1_000 };
            while let Some(id) = closing.next_overdue(second * 1_000_000, waiting) {
                closing.remove(id);
                ended.push((id.0, second));
            }
        }
        assert_eq!(ended, [(2, STALLED_US_MAX / 1_000_000), (4, CLOSING_US_MAX / 1_000_000)]);
    }

    #[test]
    fn together_they_hold_bounded_memory() {
        let mut closing = ClosingStreams::default();
        let each = CLOSING_BYTES_MAX / 4;
        (0..5).for_each(|number| closing.add(number, StreamId(number), each));
        assert_eq!(closing.next_overdue(5, |_| each), Some(StreamId(0)));
        closing.remove(StreamId(0));
        assert_eq!(closing.next_overdue(5, |_| each), None);
        assert_eq!(closing.oldest(|id| id.0 > 2), Some(StreamId(3)));
    }
}
