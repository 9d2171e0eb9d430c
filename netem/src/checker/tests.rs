//! Tests of the checker: a run in which every promise is kept, and for each promise a run in which it is broken once, so
//! that the checker says so by its name with the source, the timestamp and the node.

mod acknowledged;
mod delivered;
mod foreign;
mod honest;

use super::*;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
/// Wall clock at the beginning of the runs, in microseconds.
const WALL_US: u64 = 1_800_000_000_000_000;

/// A run that is told step by step.
struct Story {
    checker: Checker,
    at_us: u64,
    publishes: u64,
}

impl Story {
    /// Three nodes run, and nothing else has happened.
    fn new() -> Story {
        let mut story = Story {
            checker: Checker::new(Settings::new("story", "netem/run story", WALL_US)),
            at_us: 0,
            publishes: 0,
        };
        for node in ["a", "b", "c"] {
            story.see(Seen::NodeStarted { node: node.into() });
        }
        story.members("alive");
        story
    }

    fn see(&mut self, seen: Seen) {
        self.at_us += MS;
        self.checker.observe(Observation { at_us: self.at_us, seen });
    }

    fn wait(&mut self, us: u64) {
        self.at_us += us;
    }

    /// Every node is asked now and says that the others are alive, and c has this state.
    fn members(&mut self, state_of_c: &str) {
        self.members_asked_at(self.at_us, state_of_c);
    }

    /// Every node was asked at this time and says that the others are alive, and c has this state.
    fn members_asked_at(&mut self, begun_us: u64, state_of_c: &str) {
        self.members_with(begun_us, state_of_c, 0, 1);
    }

    /// Every node was asked at this time and says that the others are alive, and c has this state and incarnation, and has
    /// taken part since it came as the `joined`-th.
    fn members_with(&mut self, begun_us: u64, state_of_c: &str, incarnation: u64, joined: u64) {
        let state = match state_of_c {
            "alive" => MemberState::Alive,
            "suspect" => MemberState::Suspect,
            _ => MemberState::Dead,
        };
        for seen_by in ["a", "b", "c"] {
            let members = ["a", "b", "c"].map(|node| MemberSeen {
                node: node.into(),
                state: if node == "c" { state } else { MemberState::Alive },
                incarnation: if node == "c" { incarnation } else { 0 },
                boot: 1,
                joined: Some(if node == "c" { joined } else { 0 }),
            });
            self.see(Seen::Members { seen_by: seen_by.into(), begun_us, members: members.into() });
        }
    }

    fn offer(&mut self, node: &str, source: &str, data: Option<&str>, level: Level, ttl_ms: u64) -> u64 {
        self.publishes += 1;
        let publish = self.publishes;
        let offer = Offer {
            source: source.into(),
            ts: None,
            data_hash: data.map(|data| Version::of_data(0, data.as_bytes()).hash),
            data_bytes: data.map_or(0, str::len) as u32,
            ttl_ms,
            node: node.into(),
            level,
        };
        self.see(Seen::Offered { publish, offer });
        publish
    }

    fn answer(&mut self, publish: u64, ts: u64) {
        let answer = Answer::Done { ts, outcome: Outcome::Applied, nodes: None };
        self.see(Seen::Answered { publish, answer });
    }

    /// Offers a record to node a, which answers it.
    fn publish(&mut self, source: &str, ts: u64, data: Option<&str>, level: Level) {
        let publish = self.offer("a", source, data, level, 0);
        self.answer(publish, ts);
    }

    fn connect(&mut self, subscriber: u32, number: u32, node: &str, mode: Mode, recovered: Option<bool>) {
        let connection =
            Connection { number, node: node.into(), mode, patterns: vec!["s/**".into()], recovered };
        self.see(Seen::Connected { subscriber, connection });
        self.see(Seen::SnapshotEnded { subscriber });
    }

    fn deliver(&mut self, subscriber: u32, source: &str, version: Version) {
        let delivery = Delivery { source: source.into(), version, is_snapshot: false };
        self.see(Seen::Delivered { subscriber, delivery });
    }

    fn end(&mut self, node: &str, place: Place, records: &[(&str, Version)]) {
        let records = records.iter().map(|(source, version)| ((*source).into(), *version)).collect();
        self.see(Seen::Final { node: node.into(), place, records });
    }

    fn fault(&mut self, id: u32, nodes: &[&str]) {
        let nodes = nodes.iter().map(|node| (*node).into()).collect();
        self.see(Seen::FaultBegan { fault: Fault { id, name: "fault".into(), nodes, is_deadly: true } });
    }

    fn judge(self) -> Report {
        self.checker.judge()
    }

    /// Asserts that this promise alone is broken, and returns its first witness.
    fn breaks(self, promise: Promise) -> Witness {
        let report = self.judge();
        assert_eq!(report.broken(), [promise.name()], "{}", report.text());
        assert!(!report.is_kept && report.verdict().contains(promise.name()), "{}", report.verdict());
        assert!(report.text().contains("netem/run story"), "the command that runs it again is told");
        let found =
            report.promises.iter().find(|found| found.promise == promise.name()).expect("the promise");
        found.findings.witnesses.first().expect("a witness").clone()
    }

    fn keeps(self) -> Report {
        let report = self.judge();
        assert!(report.is_kept, "{}", report.text());
        report
    }
}

fn data(ts: u64, data: &str) -> Version {
    Version::of_data(ts, data.as_bytes())
}

#[track_caller]
fn tells(witness: &Witness, source: &str, ts: u64, node: &str) {
    assert_eq!(
        (witness.source.as_str(), witness.ts, witness.node.as_str()),
        (source, ts, node),
        "{witness:?}"
    );
}

#[test]
fn what_is_lacking_after_the_last_fault() {
    let story = |comes: bool| {
        let mut story = Story::new();
        story.connect(1, 1, "b", Mode::Latest, None);
        story.fault(1, &["b"]);
        story.publish("s/1", 5, Some("1"), Level::Accepted);
        story.see(Seen::FaultEnded { fault: 1 });
        if comes {
            story.wait(3 * SECOND);
            story.deliver(1, "s/1", data(5, "1"));
        }
        story
    };
    let report = story(false).judge();
    assert_eq!(report.broken(), ["latest-ends-newest", "converges"], "{}", report.text());
    let settled = story(true).keeps().figures.settled.expect("a fault");
    assert_eq!((settled.lacked, settled.converged_us), (1, Some(3 * SECOND + MS)));
    let mut slow = story(true);
    slow.checker.settings.convergence_us_max = Some(2 * SECOND);
    assert!(slow.breaks(Promise::Converges).detail.contains("2000 ms are allowed"));
}

#[test]
fn a_healthy_member_that_is_declared_dead() {
    let mut story = Story::new();
    story.wait(60 * SECOND);
    story.members("suspect");
    story.members("dead");
    let report = story.judge();
    assert_eq!(report.broken(), ["healthy-not-dead"], "{}", report.text());
    let found = report.figures.false_suspicions;
    assert_eq!((found.suspected, found.declared_dead), (3, 3), "each node says so");
    let mut story = Story::new();
    story.wait(60 * SECOND);
    story.see(Seen::NodeEnded { node: "c".into() });
    story.wait(SECOND);
    story.members("dead");
    story.keeps();
}

/// Runs of 15 s judged no member at all, because each was allowed 20 s after every start, and so also after the first one.
#[test]
fn a_healthy_member_that_is_declared_dead_soon_after_the_first_start() {
    let story = |wait_us: u64| {
        let mut story = Story::new();
        story.wait(wait_us);
        story.members("dead");
        story
    };
    assert_eq!(story(6 * SECOND).breaks(Promise::HealthyNotDead).node, "a");
    story(2 * SECOND).keeps();
    let mut killed = Story::new();
    killed.wait(SECOND);
    killed.see(Seen::NodeEnded { node: "c".into() });
    killed.see(Seen::NodeStarted { node: "c".into() });
    killed.wait(6 * SECOND);
    killed.members("dead");
    killed.keeps();
}

/// A machine on which 30 programs wanted to run let nodes wait for a processor for seconds, and others took them for dead.
/// What is lost on such a machine is lost all the same.
#[test]
fn times_on_a_machine_with_too_much_to_do_are_told_and_not_judged() {
    let busy = |story: &mut Story| {
        for _ in 0..10 {
            story.wait(SECOND);
            story.see(Seen::Waited { us: 900 * MS });
        }
    };
    let mut story = Story::new();
    busy(&mut story);
    story.members("dead");
    let report = story.keeps();
    assert_eq!(report.unjudged(), ["healthy-not-dead"], "{}", report.text());
    assert!(report.text().contains("not judged: healthy-not-dead 3 times"), "{}", report.text());
    assert!(report.figures.scarcity.is_too_great());
    let mut story = Story::new();
    story.checker.settings.convergence_us_max = Some(2 * SECOND);
    story.connect(1, 1, "b", Mode::Latest, None);
    story.fault(1, &["b"]);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.see(Seen::FaultEnded { fault: 1 });
    busy(&mut story);
    story.deliver(1, "s/1", data(5, "1"));
    assert_eq!(story.keeps().unjudged(), ["converges"]);
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Stored);
    busy(&mut story);
    story.end("b", Place::Map, &[]);
    story.breaks(Promise::StoredKept);
}

#[test]
fn a_node_that_takes_too_much_memory() {
    let mut story = Story::new();
    story.checker.settings.memory_bytes_max = Some(1_000);
    story.see(Seen::Memory { node: "b".into(), bytes: 900 });
    story.see(Seen::Memory { node: "c".into(), bytes: 1_001 });
    assert_eq!(story.breaks(Promise::MemoryBounded).node, "c");
}

#[test]
fn the_report_tells_what_was_not_tried_and_can_be_read_by_machines() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    story.publish("s/1", 5, Some("1"), Level::Stored);
    story.deliver(1, "s/1", data(5, "1"));
    story.see(Seen::Wire { bytes: 500 });
    story.fault(3, &[]);
    story.see(Seen::FaultEnded { fault: 3 });
    story.end("b", Place::Map, &[("s/1", data(5, "1"))]);
    let report = story.keeps();
    assert!(report.text().contains("not tried: accepted-kept"), "{}", report.text());
    assert_eq!((report.figures.wire_bytes, report.figures.useful_bytes), (500, 2));
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["promises"][0]["promise"], "stored-kept");
    assert_eq!(json["promises"][0]["checked"], 1);
    let svg = timeline(&report).expect("a drawing");
    assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains("fault"), "{svg}");
}
