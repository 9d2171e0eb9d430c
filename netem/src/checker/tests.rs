//! Tests of the checker: a run in which every promise is kept, and for each promise a run in which it is broken once, so
//! that the checker says so by its name with the source, the timestamp and the node.

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

    /// Every node says that the others are alive, and c has this state.
    fn members(&mut self, state_of_c: &str) {
        let state = match state_of_c {
            "alive" => MemberState::Alive,
            "suspect" => MemberState::Suspect,
            _ => MemberState::Dead,
        };
        for seen_by in ["a", "b", "c"] {
            let members = ["a", "b", "c"].map(|node| MemberSeen {
                node: node.into(),
                state: if node == "c" { state } else { MemberState::Alive },
                incarnation: 0,
                boot: 1,
            });
            self.see(Seen::Members { seen_by: seen_by.into(), members: members.into() });
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
fn a_stored_record_that_a_node_lacks() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Stored);
    story.end("a", Place::Map, &[("s/1", data(5, "1"))]);
    story.end("b", Place::Map, &[]);
    tells(&story.breaks(Promise::StoredKept), "s/1", 5, "b");
}

#[test]
fn a_stored_record_that_its_own_store_lacks_after_a_kill() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Stored);
    story.publish("s/2", 6, Some("2"), Level::Accepted);
    story.see(Seen::NodeEnded { node: "a".into() });
    story.see(Seen::NodeStarted { node: "a".into() });
    story.end("a", Place::OwnStore, &[]);
    let witness = story.breaks(Promise::StoredKept);
    tells(&witness, "s/1", 5, "a");
    assert!(witness.detail.contains("nothing (OwnStore)"), "{witness:?}");
}

#[test]
fn an_older_record_in_place_of_a_stored_one() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Stored);
    story.end("b", Place::Map, &[("s/1", data(5, "1"))]);
    tells(&story.breaks(Promise::StoredKept), "s/1", 6, "b");
}

#[test]
fn an_accepted_record_is_owed_while_its_node_lives_on() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.end("c", Place::Map, &[]);
    tells(&story.breaks(Promise::AcceptedKept), "s/1", 5, "c");
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.see(Seen::NodeEnded { node: "a".into() });
    story.see(Seen::NodeStarted { node: "a".into() });
    story.end("c", Place::Map, &[]);
    story.keeps();
}

#[test]
fn replicated_that_was_not_true() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Replicated);
    let begun_us = story.at_us;
    story.members("alive");
    story.see(Seen::Read { node: "b".into(), source: "s/1".into(), begun_us, found: None });
    tells(&story.breaks(Promise::ReplicatedTrue), "s/1", 5, "b");
}

#[test]
fn replicated_with_too_few_nodes() {
    let mut story = Story::new();
    let publish = story.offer("a", "s/1", Some("1"), Level::Replicated, 0);
    let answer = Answer::Done { ts: 5, outcome: Outcome::Applied, nodes: Some(2) };
    story.see(Seen::Answered { publish, answer });
    story.members("alive");
    let witness = story.breaks(Promise::ReplicatedTrue);
    tells(&witness, "s/1", 5, "a");
    assert!(witness.detail.contains("2 nodes when 3 were alive"), "{witness:?}");
}

#[test]
fn replicated_says_nothing_of_members_that_may_have_been_dead() {
    let mut story = Story::new();
    story.fault(1, &["c"]);
    story.publish("s/1", 5, Some("1"), Level::Replicated);
    let begun_us = story.at_us;
    story.members("dead");
    story.see(Seen::Read { node: "c".into(), source: "s/1".into(), begun_us, found: None });
    story.keeps();
}

#[test]
fn a_latest_subscriber_that_misses_the_end() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.end("b", Place::Map, &[("s/1", data(6, "2"))]);
    let witness = story.breaks(Promise::LatestEndsNewest);
    tells(&witness, "s/1", 6, "b");
    assert!(witness.detail.contains("subscriber 1"), "{witness:?}");
}

#[test]
fn a_subscriber_may_keep_what_was_lost_with_a_killed_node() {
    let story = |is_killed: bool| {
        let mut story = Story::new();
        story.publish("s/1", 5, Some("1"), Level::Stored);
        story.connect(1, 1, "a", Mode::Latest, None);
        story.deliver(1, "s/1", data(5, "1"));
        story.publish("s/1", 6, Some("2"), Level::Accepted);
        story.publish("s/2", 7, Some("3"), Level::Accepted);
        story.deliver(1, "s/1", data(6, "2"));
        story.deliver(1, "s/2", data(7, "3"));
        if is_killed {
            story.see(Seen::NodeEnded { node: "a".into() });
            story.see(Seen::NodeStarted { node: "a".into() });
        }
        story.connect(1, 2, "b", Mode::Latest, Some(true));
        story.end("b", Place::Map, &[("s/1", data(5, "1"))]);
        story
    };
    story(true).keeps();
    assert!(story(false).judge().broken().contains(&"latest-ends-newest"), "nobody was killed");
}

#[test]
fn stamps_that_fall() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.connect(1, 1, "b", Mode::Latest, None);
    story.deliver(1, "s/1", data(6, "2"));
    story.deliver(1, "s/1", data(5, "1"));
    tells(&story.breaks(Promise::StampsRise), "s/1", 5, "b");
}

#[test]
fn stamps_that_fall_across_a_resume() {
    let story = |is_covered: bool| {
        let mut story = Story::new();
        story.publish("s/1", 5, Some("1"), Level::Accepted);
        story.publish("s/1", 6, Some("2"), Level::Accepted);
        story.connect(1, 1, "b", Mode::Latest, None);
        story.deliver(1, "s/1", data(6, "2"));
        if is_covered {
            story.wait(10 * SECOND);
            story.see(Seen::TokenTaken { subscriber: 1 });
        }
        story.see(Seen::Disconnected { subscriber: 1 });
        story.connect(1, 2, "c", Mode::Latest, Some(true));
        story.deliver(1, "s/1", data(5, "1"));
        story
    };
    tells(&story(true).breaks(Promise::StampsRise), "s/1", 5, "c");
    let report = story(false).keeps();
    assert_eq!(report.figures.resume_overlap, 1, "what came after the token may come again");
}

#[test]
fn an_all_subscriber_that_gets_a_record_twice() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.deliver(1, "s/1", data(5, "1"));
    tells(&story.breaks(Promise::AllOnce), "s/1", 5, "b");
}

#[test]
fn an_all_subscriber_may_get_a_record_again_after_a_resume() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.wait(10 * SECOND);
    story.see(Seen::TokenTaken { subscriber: 1 });
    story.see(Seen::Disconnected { subscriber: 1 });
    story.connect(1, 2, "c", Mode::All, Some(true));
    story.deliver(1, "s/1", data(5, "1"));
    assert_eq!(story.keeps().figures.resume_overlap, 1);
}

#[test]
fn an_all_subscriber_that_misses_a_record_of_its_node() {
    let mut story = Story::new();
    story.connect(1, 1, "a", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.deliver(1, "s/1", data(6, "2"));
    story.wait(20 * SECOND);
    story.members("alive");
    tells(&story.breaks(Promise::AllComplete), "s/1", 5, "a");
}

#[test]
fn a_record_that_nobody_offered() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "l"));
    story.see(Seen::Disconnected { subscriber: 1 });
    tells(&story.breaks(Promise::OnlyAccepted), "s/1", 5, "b");
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.end("b", Place::Map, &[("s/1", data(7, "1"))]);
    tells(&story.breaks(Promise::OnlyAccepted), "s/1", 7, "b");
}

#[test]
fn a_record_that_was_refused() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    let publish = story.offer("a", "s/1", Some("1"), Level::Accepted, 0);
    story.deliver(1, "s/1", data(5, "1"));
    story
        .see(Seen::Answered { publish, answer: Answer::Failed { code: "overloaded".into(), applied: None } });
    let witness = story.breaks(Promise::OnlyAccepted);
    assert!(witness.detail.contains("a refused"), "{witness:?}");
}

/// Two deletions of one source were offered without a timestamp, and one of them was seen before either was answered. The
/// check took the first for the one that was seen, and when that was refused, a refused record had been seen.
#[test]
fn a_deletion_that_was_seen_is_the_one_that_was_not_refused() {
    let refusal = || Answer::Failed { code: "clock_skew".into(), applied: None };
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    let first = story.offer("a", "s/1", None, Level::Accepted, 0);
    let second = story.offer("b", "s/1", None, Level::Accepted, 0);
    story.deliver(1, "s/1", Version::of_deletion(5));
    story.see(Seen::Answered { publish: first, answer: refusal() });
    story.answer(second, 5);
    assert!(!story.judge().broken().contains(&Promise::OnlyAccepted.name()));
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    let only = story.offer("a", "s/1", None, Level::Accepted, 0);
    story.deliver(1, "s/1", Version::of_deletion(5));
    story.see(Seen::Answered { publish: only, answer: refusal() });
    assert!(story.breaks(Promise::OnlyAccepted).detail.contains("a refused"));
}

/// A record with a time to live that a node refused was taken for the one whose end was seen, although another one of the
/// same source had that timestamp (chaos, seeds 1 to 3, about ten times in each).
#[test]
fn the_end_of_a_record_belongs_to_the_record_with_its_timestamp() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    let refused = story.offer("a", "s/1", Some("1"), Level::Stored, 1_000);
    let answer = Answer::Failed { code: "store_unavailable".into(), applied: None };
    story.see(Seen::Answered { publish: refused, answer });
    let publish = story.offer("a", "s/1", Some("2"), Level::Stored, 1_000);
    let ts = WALL_US + story.at_us;
    story.answer(publish, ts);
    story.wait(2 * SECOND);
    story.deliver(1, "s/1", Version::of_deletion(ts));
    story.end("b", Place::Map, &[]);
    story.keeps();
}

#[test]
fn a_record_without_an_answer_explains_what_is_seen() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    let lost = story.offer("a", "s/1", Some("1"), Level::Stored, 0);
    story.see(Seen::Unanswered { publish: lost });
    let late = story.offer("a", "s/2", Some("2"), Level::Stored, 0);
    let answer = Answer::Failed { code: "timeout".into(), applied: Some(9) };
    story.see(Seen::Answered { publish: late, answer });
    story.deliver(1, "s/1", data(5, "1"));
    story.deliver(1, "s/2", data(9, "2"));
    story.end("b", Place::Map, &[("s/1", data(5, "1")), ("s/2", data(9, "2"))]);
    let report = story.keeps();
    assert_eq!((report.figures.offered, report.figures.unanswered), (2, 1));
    assert_eq!(report.figures.errors.get("timeout"), Some(&1));
}

#[test]
fn a_deleted_record_that_is_held_at_the_end() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, None, Level::Accepted);
    story.end("a", Place::Map, &[]);
    story.end("c", Place::Map, &[("s/1", data(5, "1"))]);
    tells(&story.breaks(Promise::NothingReturns), "s/1", 5, "c");
}

#[test]
fn a_deleted_record_that_its_own_node_shows_again() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, None, Level::Accepted);
    story.connect(1, 1, "a", Mode::Latest, None);
    story.deliver(1, "s/1", data(5, "1"));
    story.see(Seen::Disconnected { subscriber: 1 });
    tells(&story.breaks(Promise::NothingReturns), "s/1", 5, "a");
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, None, Level::Accepted);
    let begun_us = story.at_us;
    story.see(Seen::Read { node: "a".into(), source: "s/1".into(), begun_us, found: Some(data(5, "1")) });
    tells(&story.breaks(Promise::NothingReturns), "s/1", 5, "a");
}

#[test]
fn a_record_after_the_end_of_its_time_to_live() {
    let mut story = Story::new();
    let publish = story.offer("a", "s/1", Some("1"), Level::Stored, 1_000);
    let ts = WALL_US + story.at_us;
    story.answer(publish, ts);
    story.wait(2 * SECOND);
    story.end("b", Place::Map, &[("s/1", data(ts, "1"))]);
    story.wait(2 * SECOND);
    story.end("b", Place::Map, &[("s/1", data(ts, "1"))]);
    let witness = story.breaks(Promise::NothingReturns);
    tells(&witness, "s/1", ts, "b");
    assert!(witness.at_us > 4 * SECOND, "the difference between clocks is allowed for: {witness:?}");
}

#[test]
fn a_record_whose_time_to_live_has_ended_is_not_owed() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    let publish = story.offer("a", "s/1", Some("1"), Level::Stored, 1_000);
    let ts = WALL_US + story.at_us;
    story.answer(publish, ts);
    story.deliver(1, "s/1", data(ts, "1"));
    story.wait(2 * SECOND);
    story.deliver(1, "s/1", Version::of_deletion(ts));
    story.end("b", Place::Map, &[]);
    story.keeps();
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
