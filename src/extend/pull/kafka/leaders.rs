//! Which broker leads which partition.

use std::collections::BTreeMap;

use super::request::{ClusterMap, Partition, error_text};

/// Most partitions of a definition, so that the state that keeps the places stays below 100 KiB.
const PARTITIONS_MAX: usize = 1_000;

/// The partitions that are read, by the host and port of the brokers that lead them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leaders {
    pub by_broker: BTreeMap<(String, u16), Vec<Partition>>,
    /// The reason why some of the topics or partitions cannot be read now.
    pub missing: Option<String>,
}

impl Leaders {
    /// Finds out whom to ask. Fails if nothing can be read.
    pub fn of(map: &ClusterMap) -> Result<Leaders, String> {
        let mut leaders = Leaders::default();
        let mut missing = Vec::new();
        for (topic, error) in &map.refused {
            missing.push(format!("topic {topic}: {}", error_text(*error)));
        }
        for (partition, leader) in &map.partitions {
            let address = leader.map(|number| map.brokers.get(&number));
            match address {
                Ok(Some(address)) => {
                    leaders.by_broker.entry(address.clone()).or_default().push(partition.clone())
                }
                Ok(None) => missing.push(format!("{partition}: its leader is not known")),
                Err(error) => missing.push(format!("{partition}: {}", error_text(error))),
            }
        }
        if map.partitions.len() > PARTITIONS_MAX {
            return Err(format!("{} partitions; at most {PARTITIONS_MAX} are read", map.partitions.len()));
        }
        let more = missing.len().saturating_sub(1);
        leaders.missing = missing.into_iter().next().map(|first| match more {
            0 => first,
            more => format!("{first}, and {more} more"),
        });
        match leaders.by_broker.is_empty() {
            true => Err(leaders.missing.unwrap_or_else(|| "the topics have no partitions".into())),
            false => Ok(leaders),
        }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {}, partition {}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_without_a_leader_do_not_keep_others_from_being_read() {
        let partition = |index| Partition { topic: "t".into(), index };
        let mut map = ClusterMap {
            cluster: None,
            brokers: [(1, ("a".to_owned(), 1))].into(),
            partitions: vec![(partition(0), Ok(1)), (partition(1), Err(5)), (partition(2), Ok(7))],
            refused: Vec::new(),
        };
        let leaders = Leaders::of(&map).expect("one can be read");
        assert_eq!(leaders.by_broker.into_values().collect::<Vec<_>>(), [vec![partition(0)]]);
        let missing = leaders.missing.expect("two cannot");
        assert!(
            missing.starts_with("topic t, partition 1: it has no leader") && missing.ends_with("and 1 more")
        );
        map.partitions.truncate(0);
        map.refused.push(("u".into(), 3));
        let nothing = Leaders::of(&map).expect_err("nothing can be read");
        assert_eq!(nothing, "topic u: there is no such topic or partition (Kafka's error 3)");
    }
}
