//! Random runs of a cluster that keeps its promises, and the same runs with one thing wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NODES: [&str; 3] = ["a", "b", "c"];
const SOURCES: [&str; 3] = ["s/1", "s/2", "s/3"];

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    Publish { node: usize, source: usize, is_deletion: bool, level: u8, is_answered: bool },
    Kill { node: usize },
    Reconnect { subscriber: u32, is_recovered: bool },
    Token { subscriber: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..3, 0usize..3, prop::bool::weighted(0.15), 0u8..3, prop::bool::weighted(0.9)).prop_map(
            |(node, source, is_deletion, level, is_answered)| Step::Publish {
                node, source, is_deletion, level, is_answered
            }
        ),
        1 => (0usize..3).prop_map(|node| Step::Kill { node }),
        2 => (0u32..6, any::<bool>()).prop_map(|(subscriber, is_recovered)| Step::Reconnect { subscriber, is_recovered }),
        2 => (0u32..6).prop_map(|subscriber| Step::Token { subscriber }),
    ]
}

/// A cluster in which every record reaches every node and subscriber at once. Each node has one subscriber of either
/// mode.
struct Cluster {
    story: Story,
    latest: BTreeMap<usize, Version>,
    /// What every subscriber has got, and had when it took its token.
    got: Vec<(BTreeMap<usize, Version>, BTreeMap<usize, Version>)>,
    connections: [u32; 6],
}

impl Cluster {
    fn run(steps: &[Step]) -> Cluster {
        let mut cluster = Cluster {
            story: Story::new(),
            latest: BTreeMap::new(),
            got: vec![Default::default(); 6],
            connections: [0; 6],
        };
        (0..6).for_each(|subscriber| cluster.connect(subscriber, None));
        for (number, step) in steps.iter().enumerate() {
            cluster.step(number as u64, step);
        }
        cluster.story.wait(60 * SECOND);
        cluster.story.members("alive");
        cluster
    }

    fn connect(&mut self, subscriber: u32, recovered: Option<bool>) {
        let index = subscriber as usize;
        self.connections[index] += 1;
        let mode = if subscriber < 3 { Mode::Latest } else { Mode::All };
        self.story.connect(subscriber, self.connections[index], NODES[index % 3], mode, recovered);
        let (got, covered) = &mut self.got[index];
        *got = if recovered == Some(true) { covered.clone() } else { BTreeMap::new() };
        let missing: Vec<(usize, Version)> = self
            .latest
            .iter()
            .filter(|(source, version)| got.get(source) != Some(version))
            .map(|(s, v)| (*s, *v))
            .collect();
        for (source, version) in missing {
            self.deliver(subscriber, source, version);
        }
    }

    fn deliver(&mut self, subscriber: u32, source: usize, version: Version) {
        self.story.deliver(subscriber, SOURCES[source], version);
        self.got[subscriber as usize].0.insert(source, version);
    }

    fn step(&mut self, number: u64, step: &Step) {
        match *step {
            Step::Publish { node, source, is_deletion, level, is_answered } => {
                let level = [Level::Accepted, Level::Stored, Level::Replicated][usize::from(level)];
                let text = number.to_string();
                let text = (!is_deletion).then_some(text.as_str());
                let publish = self.story.offer(NODES[node], SOURCES[source], text, level, 0);
                let ts = WALL_US + number;
                let version = text.map_or(Version::of_deletion(ts), |text| data(ts, text));
                self.latest.insert(source, version);
                (0..6).for_each(|subscriber| self.deliver(subscriber, source, version));
                match is_answered {
                    true => self.story.answer(publish, ts),
                    false => self.story.see(Seen::Unanswered { publish }),
                }
                let (begun_us, found) = (self.story.at_us, Some(version));
                for node in NODES {
                    self.story.see(Seen::Read {
                        node: node.into(),
                        source: SOURCES[source].into(),
                        begun_us,
                        found,
                    });
                }
            }
            Step::Kill { node } => {
                self.story.see(Seen::NodeEnded { node: NODES[node].into() });
                self.story.see(Seen::NodeStarted { node: NODES[node].into() });
            }
            Step::Reconnect { subscriber, is_recovered } => {
                self.story.see(Seen::Disconnected { subscriber });
                self.connect(subscriber, Some(is_recovered));
            }
            Step::Token { subscriber } => {
                self.story.see(Seen::TokenTaken { subscriber });
                let (got, covered) = &mut self.got[subscriber as usize];
                *covered = got.clone();
            }
        }
    }

    /// Reads all nodes; of the node that `lacks` names, a source is left out.
    fn end(mut self, lacks: Option<(usize, usize)>) -> Report {
        for (index, node) in NODES.iter().enumerate() {
            let held = self.latest.iter().filter(|(_, version)| !version.deleted);
            let held: Vec<(&str, Version)> = held
                .filter(|(source, _)| lacks != Some((index, **source)))
                .map(|(source, version)| (SOURCES[*source], *version))
                .collect();
            self.story.end(node, Place::Map, &held);
        }
        self.story.judge()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_run_that_keeps_its_promises_is_not_accused(steps in prop::collection::vec(step(), 1..80)) {
        let report = Cluster::run(&steps).end(None);
        prop_assert!(report.is_kept, "{}", report.text());
    }

    #[test]
    fn a_stored_record_that_is_missing_is_always_found(
        mut steps in prop::collection::vec(step(), 0..60), node in 0usize..3, source in 0usize..3,
    ) {
        // A deletion without an answer may explain why a source is empty, so there is none.
        for step in &mut steps {
            if let Step::Publish { is_deletion: true, is_answered, .. } = step {
                *is_answered = true;
            }
        }
        let mut cluster = Cluster::run(&steps);
        let last = Step::Publish { node: 0, source, is_deletion: false, level: 1, is_answered: true };
        cluster.step(1_000, &last);
        let report = cluster.end(Some((node, source)));
        prop_assert!(report.broken().contains(&"stored-kept"), "{}", report.text());
    }

    #[test]
    fn a_record_that_comes_again_is_always_found(
        steps in prop::collection::vec(step(), 0..60), subscriber in 0u32..6, source in 0usize..3,
    ) {
        let mut cluster = Cluster::run(&steps);
        for number in [1_000, 1_001] {
            let publish = Step::Publish { node: 0, source, is_deletion: false, level: 0, is_answered: true };
            cluster.step(number, &publish);
        }
        cluster.story.deliver(subscriber, SOURCES[source], data(WALL_US + 1_000, "1000"));
        let report = cluster.story.judge();
        prop_assert!(report.broken().contains(&"stamps-rise"), "{}", report.text());
        prop_assert_eq!(report.broken().contains(&"all-once"), subscriber >= 3);
    }
}
