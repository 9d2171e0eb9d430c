//! Publishes the messages of a partition, in groups: the place is told before each group, so larger groups cost less.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::batch::{KafkaBatch, StoredMessage, split};
use super::codec::KafkaCodec;
use super::place::{KafkaGroupMark, KafkaPlace};
use super::request::{Fetched, Partition};
use super::session::KafkaSession;
use crate::extend::pull::document::take_document;
use crate::extend::pull::mapped::Mapped;
use crate::extend::pull::template::Facts;

/// Bytes of messages after which a group ends. A batch is always whole in a group. The next runner publishes a group that was
/// not finished once more, so it is no larger than what makes the telling of places cheap.
const GROUP_BYTES: usize = 256 << 10;

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KafkaMessage {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// Messages of a partition that follow one another.
#[derive(Debug, Default)]
struct KafkaGroup {
    messages: Vec<KafkaMessage>,
    bytes: usize,
    /// Offset behind the last message, or behind what is left out.
    end: i64,
    /// Messages that could not be read, and the reason of the first.
    failed: u64,
    failure: Option<String>,
}

/// The producers whose transactions, at the present place, are ones that ended without effect.
struct Aborted {
    /// Transactions that begin further on: the producers by the first offsets.
    to_come: BTreeMap<i64, Vec<i64>>,
    now: BTreeSet<i64>,
}

impl KafkaSession<'_> {
    /// Publishes what was fetched of a partition. Returns whether there was anything.
    pub async fn take(&self, fetched: &Fetched<'_>) -> Result<bool, String> {
        let partition = &fetched.partition;
        let start = self.place(partition).next;
        let mut aborted = Aborted::new(&fetched.aborted);
        let (mut rest, mut group) = (fetched.batches, KafkaGroup { end: start, ..KafkaGroup::default() });
        while let Some(batch) =
            split(&mut rest).map_err(|_| format!("{partition}: a batch that is no batch"))?
        {
            let is_void = aborted.is_void(&batch);
            // A batch is handed out whole even if only its end is asked for.
            if batch.end <= group.end {
                continue;
            }
            if !is_void {
                self.add(&batch, &mut group).await;
            }
            group.end = batch.end;
            if group.bytes >= GROUP_BYTES {
                let next = KafkaGroup { end: group.end, ..KafkaGroup::default() };
                self.publish(partition, std::mem::replace(&mut group, next)).await;
            }
        }
        self.publish(partition, group).await;
        Ok(self.place(partition).next > start)
    }

    /// Adds the messages of a batch that are not behind the place.
    async fn add(&self, batch: &KafkaBatch<'_>, group: &mut KafkaGroup) {
        let messages = plain(batch).await;
        let taken = messages.and_then(|messages| {
            let from = group.end;
            let take = |message: StoredMessage<'_>| {
                if message.offset >= from {
                    self.add_message(message, group);
                }
            };
            Ok(batch.read(&messages, take)?)
        });
        if let Err(why) = taken {
            group.fail(batch.count, format!("{why}; its {} messages are left out", batch.count));
        }
    }

    fn add_message(&self, message: StoredMessage<'_>, group: &mut KafkaGroup) {
        let bytes_max = self.definition.bytes_max;
        if message.value.is_some_and(|value| value.len() > bytes_max) {
            return group.fail(1, format!("a message of more than {bytes_max} bytes (max_bytes)"));
        }
        let [key, value] = [message.key, message.value].map(|bytes| bytes.map(<[u8]>::to_vec));
        group.bytes += [&key, &value].into_iter().flatten().map(Vec::len).sum::<usize>();
        group.messages.push(KafkaMessage { offset: message.offset, key, value });
    }

    /// Publishes a group. What a former runner may have published in part is published as it would have done it.
    async fn publish(&self, partition: &Partition, mut group: KafkaGroup) {
        let (mut wrong, mut why) = (group.failed, group.failure.take());
        self.feed.note_failed(group.failed);
        if let Some(mark) = self.place(partition).group {
            let at = group.messages.partition_point(|message| message.offset < mark.end);
            let fresh = group.messages.split_off(at);
            self.publish_part(
                partition,
                &group.messages,
                group.end.min(mark.end),
                Some(mark),
                (&mut wrong, &mut why),
            )
            .await;
            group.messages = fresh;
        }
        if !group.messages.is_empty() {
            self.publish_part(partition, &group.messages, group.end, None, (&mut wrong, &mut why)).await;
        }
        let place = self.place(partition);
        self.go_to(partition, KafkaPlace { next: place.next.max(group.end), ..place });
        if wrong > 0 || !group.messages.is_empty() {
            self.feed.note_outcome(wrong, why);
        }
    }

    /// Publishes messages up to the offset `end`. `again` is the mark of the group that they belong to, if a former runner may
    /// have published it in part.
    async fn publish_part(
        &self,
        partition: &Partition,
        messages: &[KafkaMessage],
        end: i64,
        again: Option<KafkaGroupMark>,
        (wrong, why): (&mut u64, &mut Option<String>),
    ) {
        let next = self.place(partition).next;
        let mark = again.unwrap_or_else(|| KafkaGroupMark { end, ts: self.fresh_ts() });
        if again.is_none() {
            self.go_to(partition, KafkaPlace { next, group: Some(mark) });
            self.feed.tell_surely().await;
        }
        let mut ts = mark.ts;
        for (at, message) in messages.iter().enumerate() {
            let mut mapped = self.map(partition, message);
            self.feed.note_failed(mapped.failed);
            *wrong += mapped.failed;
            if let Some(failure) = mapped.failure.take() {
                why.get_or_insert(failure);
            }
            for draft in &mut mapped.drafts {
                let may_restamp = draft.ts.is_none() && again.is_none();
                draft.ts.get_or_insert(ts);
                ts += 1;
                if let Err(refusal) = self.feed.publish_stamped(draft, may_restamp).await {
                    *wrong += 1;
                    why.get_or_insert_with(|| format!("{}: {refusal}", draft.source));
                }
            }
            self.feed.take_turns(at).await;
        }
        self.note_ts(ts);
        let group = (mark.end > end).then_some(KafkaGroupMark { end: mark.end, ts });
        self.go_to(partition, KafkaPlace { next: end, group });
    }

    fn map(&self, partition: &Partition, message: &KafkaMessage) -> Mapped {
        let key = message.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let now_us = self.feed.target().now().wall_us;
        let facts = Facts { topic: Some(&partition.topic), key, ..Facts::at(now_us) };
        let (mapping, mut mapped) = (&self.definition.mapping, Mapped::default());
        match &message.value {
            Some(value) => take_document(mapping, self.definition.format, value, facts, &mut mapped),
            None => mapping.map_deletion(facts, &mut mapped),
        }
        mapped
    }
}

/// The messages of a batch as they were before they were compressed.
async fn plain<'a>(batch: &KafkaBatch<'a>) -> Result<Cow<'a, [u8]>, String> {
    let (codec, bytes) = batch.stored()?;
    if codec == KafkaCodec::None {
        return Ok(Cow::Borrowed(bytes));
    }
    let stored = bytes.to_vec();
    // It takes a tenth of a second at worst, and so is done on another thread.
    let working = tokio::task::spawn_blocking(move || codec.decompress(&stored));
    working.await.map_err(|error| error.to_string())?.map(Cow::Owned)
}

impl KafkaGroup {
    fn fail(&mut self, messages: u64, why: String) {
        self.failed += messages;
        self.failure.get_or_insert(why);
    }
}

impl Aborted {
    fn new(transactions: &[(i64, i64)]) -> Aborted {
        let mut to_come = BTreeMap::<i64, Vec<i64>>::new();
        for (producer, first) in transactions {
            to_come.entry(*first).or_default().push(*producer);
        }
        Aborted { to_come, now: BTreeSet::new() }
    }

    /// Whether a batch has no messages for consumers: it ends a transaction, or belongs to one without effect. Batches must
    /// come in their order.
    fn is_void(&mut self, batch: &KafkaBatch<'_>) -> bool {
        let later = self.to_come.split_off(&batch.end);
        let begun = std::mem::replace(&mut self.to_come, later);
        self.now.extend(begun.into_values().flatten());
        let Some(producer) = batch.transaction_of else { return batch.is_control };
        if batch.is_control {
            if batch.is_abort() {
                self.now.remove(&producer);
            }
            return true;
        }
        self.now.contains(&producer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::{Pair, batch};
    use super::*;

    /// A transaction that ended without effect has an entry in the answer, and ends with a control batch of the producer. What
    /// the producer sends afterwards counts again.
    #[test]
    fn transactions_without_effect_are_left_out() {
        let (transactional, control) = (1 << 4, 1 << 4 | 1 << 5);
        let value: &[Pair<'_>] = &[(None, Some(b"1"))];
        let end: &[Pair<'_>] = &[(Some(&[0, 0, 0, 0]), Some(b""))];
        let bytes = [
            batch(10, transactional, value),
            batch(11, 0, value),
            batch(12, control, end),
            batch(13, transactional, value),
        ];
        let bytes = bytes.concat();
        // The producer of these batches has the number 77.
        let mut aborted = Aborted::new(&[(77, 10), (78, 13)]);
        let (mut rest, mut void) = (bytes.as_slice(), Vec::new());
        while let Some(batch) = split(&mut rest).expect("batches") {
            void.push(aborted.is_void(&batch));
        }
        assert_eq!(void, [true, false, true, false]);
    }
}
