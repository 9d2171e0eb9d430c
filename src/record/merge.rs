//! The rule by which one of two records of a source wins: the only place that decides it.
//!
//! Records of a source are in one total order: by stamp (`ts`, then `deleted`, then the hash of the
//! data), then by birth, then by checksum. The greater record is kept, so merging is commutative,
//! associative and idempotent, and copies become equal whatever the order of arrival. Users see the
//! stamp alone: between records with equal stamps the value is the same, and the greater birth replaces
//! the lesser one in silence. The checksum decides last, so that copies become equal even if two
//! different records were ever given the same birth.

use std::cmp::Ordering;

use super::{Birth, Record, SharedRecord};

/// The relation of an arriving record to the held record of the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The arriving record has the greater stamp, or nothing is held: it wins, and subscribers are told.
    Newer,
    /// The arriving record has the same stamp and the greater birth or checksum: it replaces the held record,
    /// and nobody is told.
    SameOfGreaterBirth,
    /// The arriving record is the held one, or has the same stamp and the lesser birth or checksum: nothing
    /// changes.
    Same,
    /// The arriving record has the lesser stamp: it loses.
    Older,
}

impl Verdict {
    /// Returns whether the arriving record is the one to hold from now on.
    #[inline]
    pub fn replaces(self) -> bool {
        matches!(self, Verdict::Newer | Verdict::SameOfGreaterBirth)
    }
}

/// Returns the key that decides between two records of equal stamps: the record with the greater key is kept.
/// It allocates nothing.
#[inline]
fn tie_key(record: &Record) -> (&Birth, u64) {
    (&record.birth, record.checksum)
}

/// Compares two records of one source: the greater one is kept.
#[inline]
pub fn order(one: &Record, other: &Record) -> Ordering {
    debug_assert_eq!(one.source, other.source, "records of two sources are in no order");
    one.stamp.cmp(&other.stamp).then_with(|| tie_key(one).cmp(&tie_key(other)))
}

/// Judges a record that arrives against the one that is held, by [`order`].
#[inline]
pub fn judge(current: Option<&SharedRecord>, record: &Record) -> Verdict {
    let Some(current) = current else { return Verdict::Newer };
    debug_assert_eq!(current.source, record.source, "records of two sources are in no order");
    match record.stamp.cmp(&current.stamp) {
        Ordering::Greater => Verdict::Newer,
        Ordering::Less => Verdict::Older,
        // Equal keys are the common case, and are recognized faster than which of two keys is greater.
        Ordering::Equal if tie_key(record) == tie_key(current) => Verdict::Same,
        Ordering::Equal if tie_key(record) > tie_key(current) => Verdict::SameOfGreaterBirth,
        Ordering::Equal => Verdict::Same,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Birth, NodeName, Payload, Source, Stamp};

    /// Generates records of one source with few different values of each field, so that all kinds of ties are
    /// frequent.
    fn any_record() -> impl Strategy<Value = SharedRecord> {
        (0u64..3, 0u8..3, 0u8..2, 1u64..3, 1u64..3, 0u64..2).prop_map(|(ts, data, origin, boot, seq, ttl)| {
            let payload = match data {
                0 => Payload::Deleted,
                byte => Payload::Binary(vec![byte].into()),
            };
            let stamp = match &payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                payload => Stamp::of_data(ts, payload.bytes()),
            };
            let origin = NodeName::parse(["a", "b"][usize::from(origin)]).expect("a name");
            let source = Source::parse("tied").expect("a source");
            // Only the checksum covers the time to live, so two records with the same birth can differ in it.
            Arc::new(Record::new(source, stamp, payload, Birth { origin, boot, seq }, ts, ttl))
        })
    }

    /// Merges as the map does.
    fn merge(held: Option<SharedRecord>, record: SharedRecord) -> Option<SharedRecord> {
        if judge(held.as_ref(), &record).replaces() { Some(record) } else { held }
    }

    fn merge_all(records: impl IntoIterator<Item = SharedRecord>) -> Option<SharedRecord> {
        records.into_iter().fold(None, merge)
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in any_record(), b in any_record(), c in any_record()) {
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            prop_assert_eq!(order(&a, &b).is_eq(), a == b);
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                prop_assert!(order(&a, &c).is_le());
            }
        }

        #[test]
        fn a_verdict_follows_from_the_order(held in any_record(), record in any_record()) {
            let verdict = judge(Some(&held), &record);
            prop_assert_eq!(verdict.replaces(), order(&record, &held).is_gt());
            prop_assert_eq!(verdict == Verdict::Newer, record.stamp > held.stamp);
            prop_assert_eq!(verdict == Verdict::Older, record.stamp < held.stamp);
            prop_assert_eq!(judge(None, &record), Verdict::Newer);
        }

        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in any_record(), b in any_record(), c in any_record(),
        ) {
            let pair = |x: &SharedRecord, y: &SharedRecord| merge(Some(x.clone()), y.clone());
            prop_assert_eq!(pair(&a, &b), pair(&b, &a));
            prop_assert_eq!(pair(&a, &a), Some(a.clone()));
            let left = pair(&a, &b).and_then(|ab| pair(&ab, &c));
            let right = pair(&b, &c).and_then(|bc| pair(&a, &bc));
            prop_assert_eq!(left, right);
        }

        #[test]
        fn arrival_in_any_order_and_any_number_leaves_the_same(
            (records, shuffled) in proptest::collection::vec(any_record(), 1..12)
                .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        ) {
            let twice = shuffled.iter().chain(&records).cloned();
            prop_assert_eq!(merge_all(records.clone()), merge_all(twice));
            let greatest = records.iter().max_by(|a, b| order(a, b)).cloned();
            prop_assert_eq!(merge_all(records.clone()), greatest);
        }
    }

    #[test]
    fn equal_stamps_are_decided_by_birth_and_then_by_checksum() {
        let make = |seq, ttl_ms| {
            let birth = Birth { origin: NodeName::parse("n").expect("a name"), boot: 1, seq };
            let source = Source::parse("tied").expect("a source");
            let payload = Payload::Binary("1".into());
            Arc::new(Record::new(source, Stamp::of_data(5, b"1"), payload, birth, 5, ttl_ms))
        };
        let (first, second) = (make(1, 0), make(2, 0));
        assert_eq!(judge(Some(&first), &second), Verdict::SameOfGreaterBirth);
        assert_eq!(judge(Some(&second), &first), Verdict::Same);
        let (lesser, greater) = match [make(1, 0), make(1, 1)] {
            [a, b] if a.checksum < b.checksum => (a, b),
            [a, b] => (b, a),
        };
        assert_eq!(judge(Some(&lesser), &greater), Verdict::SameOfGreaterBirth);
        assert_eq!(judge(Some(&greater), &lesser), Verdict::Same);
    }
}
