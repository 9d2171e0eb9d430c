//! How far the partitions have been read: kept in the state of the pull source, so that the member that runs it next goes on
//! where this one stopped.
//!
//! Before a group of messages is published, the place tells where the group begins and ends, and the timestamp from which its
//! records are stamped. Whoever comes next publishes the same messages once more with the same timestamps. Those that had been
//! published are known as duplicates everywhere, and have no effect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::Partition;
use crate::extend::state::StateWriter;

/// Field of the state that keeps the places.
const PLACES: &str = "places";

/// The places in all partitions of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KafkaPlaces {
    /// The id of the cluster, whose offsets mean nothing in another one.
    cluster: Option<String>,
    /// KafkaPlaces by topic and by number of the partition.
    topics: BTreeMap<String, BTreeMap<i32, KafkaPlace>>,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KafkaPlace {
    /// Offset of the next message.
    pub next: i64,
    /// The group of messages that begins here and may have been published in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<KafkaGroupMark>,
}

/// A group of messages that is being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KafkaGroupMark {
    /// Offset behind its last message.
    pub end: i64,
    /// Timestamp of its first record, in microseconds, if the record has none of its own; each further one has one more.
    pub ts: u64,
}

impl KafkaPlaces {
    /// The places that a state tells; none if there is no such state.
    pub fn in_state(state: Option<&Value>) -> KafkaPlaces {
        let told = state.and_then(|state| state.get(PLACES));
        told.and_then(|places| serde_json::from_value(places.clone()).ok()).unwrap_or_default()
    }

    /// Puts the places into the state. They are told with it.
    pub fn put_into(&self, state: &StateWriter) {
        state.set(PLACES, serde_json::to_value(self).unwrap_or_default());
    }

    /// Forgets what is about another cluster, or about topics that are not read any longer.
    pub fn keep_only(&mut self, cluster: Option<&str>, topics: &[String]) {
        if self.cluster.as_deref() != cluster {
            *self = KafkaPlaces { cluster: cluster.map(str::to_owned), topics: BTreeMap::new() };
        }
        self.topics.retain(|topic, _| topics.contains(topic));
    }

    /// The place in a partition, if it is known.
    pub fn of(&self, partition: &Partition) -> Option<KafkaPlace> {
        self.topics.get(&partition.topic)?.get(&partition.index).copied()
    }

    /// Goes to a place in a partition.
    pub fn set(&mut self, partition: &Partition, place: KafkaPlace) {
        // An allocation a topic, not one a group.
        match self.topics.get_mut(&partition.topic) {
            Some(partitions) => partitions.insert(partition.index, place),
            None => self.topics.entry(partition.topic.clone()).or_default().insert(partition.index, place),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_outlive_a_runner_and_belong_to_a_cluster() {
        let partition = Partition { topic: "t".into(), index: 3 };
        let mut places = KafkaPlaces::default();
        places.keep_only(Some("c"), &["t".into()]);
        assert_eq!(places.of(&partition), None);
        let place = KafkaPlace { next: 5, group: Some(KafkaGroupMark { end: 9, ts: 7 }) };
        places.set(&partition, place);
        let told = serde_json::to_value(&places).expect("JSON");
        let expected =
            json!({"cluster": "c", "topics": {"t": {"3": {"next": 5, "group": {"end": 9, "ts": 7}}}}});
        assert_eq!(told, expected);
        let mut again = KafkaPlaces::in_state(Some(&json!({ "places": told })));
        again.keep_only(Some("c"), &["t".into()]);
        assert_eq!(again.of(&partition), Some(place));
        again.keep_only(Some("c"), &["u".into()]);
        assert_eq!(again.of(&partition), None);
        places.keep_only(Some("other"), &["t".into()]);
        assert_eq!(places.of(&partition), None);
        for unusable in [json!({}), json!({"places": 1}), json!({"places": {"topics": {"t": {"x": {}}}}})] {
            assert_eq!(KafkaPlaces::in_state(Some(&unusable)), KafkaPlaces::default());
        }
    }
}
