//! The records of a webhook that wait to be sent, with the resume tokens between them.
//!
//! A token covers all records before it. It may be kept when they were taken by the receiver, and not earlier.

use std::collections::VecDeque;

/// Most bytes of records that wait for one receiver. Beyond it the subscription is given up, and its place is taken
/// by one that brings the newest record of each source when there is room again.
pub const HOOK_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that an entry costs besides its text.
const ENTRY_BYTES: usize = 48;

#[derive(Debug)]
enum Entry {
    Record(Box<str>),
    Token(String),
}

/// Records and tokens in the order in which they came.
#[derive(Debug, Default)]
pub struct HookQueue {
    entries: VecDeque<Entry>,
    bytes: usize,
    records: usize,
    text_bytes: usize,
}

/// Records that are sent together.
#[derive(Debug, PartialEq, Eq)]
pub struct HookBatch {
    /// The records, at least one, each the text of a JSON object.
    pub records: Vec<Box<str>>,
    /// The last token in the batch or right behind it. It may be kept when the batch was taken: it covers all records
    /// that came before it, and to have those behind it sent again does no harm.
    pub token: Option<String>,
}

impl HookBatch {
    /// The body of the message: a JSON array of the records.
    pub fn body(&self) -> Vec<u8> {
        let mut body =
            Vec::with_capacity(self.records.iter().map(|record| record.len() + 1).sum::<usize>() + 1);
        for (at, record) in self.records.iter().enumerate() {
            body.push(if at == 0 { b'[' } else { b',' });
            body.extend_from_slice(record.as_bytes());
        }
        body.push(b']');
        body
    }
}

impl HookQueue {
    /// Adds a record.
    pub fn push(&mut self, record: Box<str>) {
        self.bytes += record.len() + ENTRY_BYTES;
        self.text_bytes += record.len() + 1;
        self.records += 1;
        self.entries.push_back(Entry::Record(record));
    }

    /// Adds a token that covers all records so far. It takes the place of one that came right before it.
    pub fn push_token(&mut self, token: String) {
        if let Some(Entry::Token(last)) = self.entries.back_mut() {
            self.bytes = (self.bytes + token.len()).saturating_sub(last.len());
            *last = token;
            return;
        }
        self.bytes += token.len() + ENTRY_BYTES;
        self.entries.push_back(Entry::Token(token));
    }

    /// Returns whether more waits than may.
    pub fn is_full(&self) -> bool {
        self.bytes >= HOOK_QUEUE_BYTES_MAX
    }

    /// Bytes of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether no record waits. There may be a token.
    pub fn has_no_records(&self) -> bool {
        self.records == 0
    }

    /// Number of records that wait.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns whether a batch of these bounds is full.
    pub fn fills(&self, records_max: usize, bytes_max: usize) -> bool {
        self.records >= records_max || self.text_bytes >= bytes_max
    }

    /// Takes the token at the front, if no record stands before it.
    pub fn take_token(&mut self) -> Option<String> {
        if !matches!(self.entries.front(), Some(Entry::Token(_))) {
            return None;
        }
        match self.entries.pop_front() {
            Some(Entry::Token(token)) => {
                self.bytes = self.bytes.saturating_sub(token.len() + ENTRY_BYTES);
                Some(token)
            }
            _ => None,
        }
    }

    /// Takes a batch of at least one record, within these bounds unless the first record alone exceeds them; `None` if
    /// no record waits. A batch may reach over tokens, of which it has the last.
    pub fn take_batch(&mut self, records_max: usize, bytes_max: usize) -> Option<HookBatch> {
        let mut batch = HookBatch { records: Vec::new(), token: None };
        // Each record comes with a bracket or a comma, and the last bracket comes to them.
        let mut bytes = 1;
        while let Some(entry) = self.entries.front() {
            if let Entry::Record(record) = entry {
                let is_over = batch.records.len() >= records_max || bytes + record.len() + 1 > bytes_max;
                if is_over && !batch.records.is_empty() {
                    break;
                }
            }
            match self.entries.pop_front() {
                Some(Entry::Record(record)) => {
                    self.note_taken(&record);
                    bytes += record.len() + 1;
                    batch.records.push(record);
                }
                Some(Entry::Token(token)) => {
                    self.bytes = self.bytes.saturating_sub(token.len() + ENTRY_BYTES);
                    batch.token = Some(token);
                }
                None => break,
            }
        }
        debug_assert!(!batch.records.is_empty() || self.records == 0, "a record that waits is taken");
        (!batch.records.is_empty()).then_some(batch)
    }

    /// Puts a batch back to where it was taken from, to be taken in smaller ones.
    pub fn put_back(&mut self, batch: HookBatch) {
        if let Some(token) = batch.token {
            self.bytes += token.len() + ENTRY_BYTES;
            self.entries.push_front(Entry::Token(token));
        }
        for record in batch.records.into_iter().rev() {
            self.bytes += record.len() + ENTRY_BYTES;
            self.text_bytes += record.len() + 1;
            self.records += 1;
            self.entries.push_front(Entry::Record(record));
        }
    }

    fn note_taken(&mut self, record: &str) {
        self.bytes = self.bytes.saturating_sub(record.len() + ENTRY_BYTES);
        self.text_bytes = self.text_bytes.saturating_sub(record.len() + 1);
        self.records = self.records.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(body: &str, records: usize, token: Option<&str>) -> Option<(String, usize, Option<String>)> {
        Some((body.into(), records, token.map(str::to_owned)))
    }

    fn take(queue: &mut HookQueue, records: usize, bytes: usize) -> Option<(String, usize, Option<String>)> {
        let batch = queue.take_batch(records, bytes)?;
        let body = String::from_utf8(batch.body()).expect("utf-8");
        Some((body, batch.records.len(), batch.token))
    }

    #[test]
    fn a_token_is_kept_when_all_before_it_were_taken() {
        let mut queue = HookQueue::default();
        queue.push_token("t0".into());
        for record in ["1", "2"] {
            queue.push(record.into());
        }
        queue.push_token("t1".into());
        queue.push_token("t2".into());
        queue.push("3".into());
        assert_eq!(queue.take_token(), Some("t0".into()));
        assert_eq!(queue.take_token(), None, "two records stand before it");
        assert_eq!(take(&mut queue, 1, 100), batch("[1]", 1, None));
        assert_eq!(take(&mut queue, 1, 100), batch("[2]", 1, Some("t2")));
        assert_eq!(take(&mut queue, 9, 100), batch("[3]", 1, None));
        assert_eq!((take(&mut queue, 9, 100), queue.bytes, queue.text_bytes), (None, 0, 0));
    }

    #[test]
    fn a_batch_reaches_over_tokens() {
        let mut queue = HookQueue::default();
        queue.push("1".into());
        queue.push_token("t1".into());
        queue.push("2".into());
        assert_eq!(take(&mut queue, 9, 100), batch("[1,2]", 2, Some("t1")));
    }

    #[test]
    fn a_record_that_is_too_large_goes_alone() {
        let mut queue = HookQueue::default();
        for record in ["1", "\"a long one\"", "2"] {
            queue.push(record.into());
        }
        for body in ["[1]", "[\"a long one\"]", "[2]"] {
            assert_eq!(take(&mut queue, 9, 6), batch(body, 1, None));
        }
    }

    #[test]
    fn what_is_put_back_comes_again() {
        let mut queue = HookQueue::default();
        for record in ["1", "2", "3"] {
            queue.push(record.into());
        }
        queue.push_token("t".into());
        let before = (queue.bytes, queue.text_bytes, queue.records);
        let taken = queue.take_batch(3, 100).expect("a batch");
        queue.put_back(taken);
        assert_eq!((queue.bytes, queue.text_bytes, queue.records), before);
        assert_eq!(take(&mut queue, 2, 100), batch("[1,2]", 2, None));
        assert_eq!(take(&mut queue, 2, 100), batch("[3]", 1, Some("t")));
    }

    proptest! {
        #[test]
        fn records_come_out_in_order_and_bounds_hold(
            sizes in proptest::collection::vec(0usize..40, 0..60),
            records_max in 1usize..6,
            bytes_max in 8usize..80,
        ) {
            let mut queue = HookQueue::default();
            for (at, size) in sizes.iter().enumerate() {
                queue.push(format!("\"{at}{}\"", "x".repeat(*size)).into());
                if size % 7 == 0 {
                    queue.push_token(at.to_string());
                }
            }
            let (mut count, mut last) = (0, None);
            while let Some(batch) = queue.take_batch(records_max, bytes_max) {
                let body = batch.body();
                let read: Vec<String> = serde_json::from_slice(&body).expect("an array");
                prop_assert_eq!(read.len(), batch.records.len());
                prop_assert!(read.len() <= records_max);
                prop_assert!(body.len() <= bytes_max || read.len() == 1);
                for text in read {
                    prop_assert!(text.trim_end_matches('x') == count.to_string());
                    count += 1;
                }
                if let Some(token) = batch.token {
                    // The token covers nothing that was not taken yet.
                    prop_assert!(token.parse::<usize>().expect("a number") < count);
                    last = Some(token);
                }
            }
            prop_assert_eq!(count, sizes.len());
            prop_assert!(queue.has_no_records() && queue.bytes <= 64 + ENTRY_BYTES);
            let newest = sizes.iter().rposition(|size| size % 7 == 0).map(|at| at.to_string());
            prop_assert_eq!(last, newest);
        }
    }
}
