//! The seam under every interleaving: publishes, mailbox, scans, reads, subscriptions and their ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::Pattern;

#[derive(Clone, Debug)]
enum Act {
    Publish(usize),
    Delete(usize),
    Expiring(usize),
    Sweep,
    Drain(usize),
    Turn,
    Read,
    Subscribe(usize, bool),
    Unsubscribe(u32),
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..SOURCES.len()).prop_map(Act::Publish),
        1 => (0..SOURCES.len()).prop_map(Act::Delete),
        1 => (0..SOURCES.len()).prop_map(Act::Expiring),
        1 => Just(Act::Sweep),
        5 => (1usize..6).prop_map(Act::Drain),
        5 => Just(Act::Turn),
        3 => Just(Act::Read),
        2 => (0..PATTERNS.len(), any::<bool>()).prop_map(|(pattern, snapshot)| Act::Subscribe(pattern, snapshot)),
        1 => (1u32..6).prop_map(Act::Unsubscribe),
        1 => Just(Act::Pass),
    ]
}

const SOURCES: [&str; 6] = ["a/1", "a/2", "b/1", "b/2", "c", "a/1/x"];
const PATTERNS: [&str; 5] = ["a/*", "**", "a/1", "*/1", "a/**"];

/// A connection with its subscriptions, and the records that it was sent.
struct Play {
    world: World,
    client: usize,
    data: String,
    /// The subscriptions by number, and whether each came with a snapshot.
    wanted: BTreeMap<u32, (&'static str, bool)>,
    numbered: u32,
    newest: BTreeMap<String, (u64, bool)>,
    has_ended_any: bool,
}

impl Play {
    fn new(mode: &str, is_slow: bool) -> Play {
        let mut world = World::new();
        // A scan takes several turns, so that everything else happens in between.
        world.work.scans.set_share(40);
        Play {
            client: world.open(&format!("/subscribe?mode={mode}")),
            world,
            data: if is_slow { format!("\"{}\"", "x".repeat(30_000)) } else { "1".into() },
            wanted: BTreeMap::new(),
            numbered: 0,
            newest: BTreeMap::new(),
            has_ended_any: false,
        }
    }

    fn see(&mut self, values: Vec<Value>) -> Result<(), TestCaseError> {
        for value in values {
            let Some(source) = value.get("source").and_then(Value::as_str) else { continue };
            let order = (value["ts"].as_u64().unwrap_or(0), value.get("deleted").is_some());
            let before = self.newest.insert(source.into(), order);
            // A client that ended a subscription and asks for the same one again gets its records again.
            let may_repeat = self.has_ended_any && before == Some(order);
            let is_right = may_repeat || before.is_none_or(|before| before < order);
            prop_assert!(is_right, "{source}: {before:?} then {order:?}");
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let Play { world, client, .. } = self;
        world.now = world.now.plus_us(1_000);
        match *act {
            Act::Publish(n) => _ = world.publish(SOURCES[n], &self.data),
            Act::Delete(n) => _ = world.delete(SOURCES[n]),
            Act::Expiring(n) => _ = world.publish_draft(SOURCES[n], None, DraftPayload::Json(b"0"), 3),
            Act::Sweep => _ = world.node.ingest.sweep(world.now, true, 100),
            Act::Drain(count) => (0..count).for_each(|_| _ = world.drain_one()),
            Act::Turn => world.turn_once(*client),
            Act::Read => {
                let values = world.read(*client);
                self.see(values)?;
            }
            Act::Subscribe(n, snapshot) => {
                self.numbered += 1;
                self.wanted.insert(self.numbered, (PATTERNS[n], snapshot));
                let asked = format!(r#"{{"sources":["{}"],"snapshot":{snapshot}}}"#, PATTERNS[n]);
                world.say(*client, &format!(r#"{{"subscribe":{asked}}}"#));
            }
            Act::Unsubscribe(number) => {
                self.has_ended_any |= self.wanted.remove(&number).is_some();
                world.say(*client, &format!(r#"{{"unsubscribe":{number}}}"#));
            }
            Act::Pass => world.pass(10_000_000),
        }
        Ok(())
    }

    /// A client whose pattern came with a snapshot ends with the newest record of every source that matches.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.world.now = self.world.now.plus_us(10_000_000);
        self.world.node.ingest.sweep(self.world.now, true, 100);
        let values = self.world.read_all(self.client);
        self.see(values)?;
        for source in SOURCES {
            let matches = |text: &str| Pattern::parse(text).expect("pattern").matches(source);
            let is_wanted = self.wanted.values().any(|(text, snapshot)| *snapshot && matches(text));
            let record = self.world.node.ingest.latest().get(source).filter(|_| is_wanted);
            let Some(record) = record else { continue };
            let is_gone = !record.is_visible(self.world.now.wall_us);
            match self.newest.get(source) {
                // A source that was deleted while nobody subscribed to it is not in a snapshot.
                Some(newest) if self.has_ended_any && is_gone => prop_assert!(newest.0 <= record.stamp.ts),
                Some(newest) => prop_assert_eq!(*newest, (record.stamp.ts, is_gone), "{}", source),
                None => prop_assert!(is_gone, "{source} was never sent"),
            }
        }
        Ok(())
    }
}

fn play(mode: &str, acts: &[Act], is_slow: bool) -> Result<(), TestCaseError> {
    let mut play = Play::new(mode, is_slow);
    for act in acts {
        play.act(act)?;
        if play.world.clients[play.client].closed.is_some() {
            return Ok(());
        }
    }
    play.end()
}

/// A token that was due while the mailbox had a backlog kept its worker busy for ever once the last
/// subscription was gone.
#[test]
fn an_ended_subscription_leaves_nothing_to_do() {
    use Act::{Pass, Publish, Subscribe, Turn, Unsubscribe};
    let first = [Subscribe(0, false), Pass, Unsubscribe(1), Pass];
    let second = [Subscribe(0, false), Publish(0), Turn, Unsubscribe(2)];
    play("latest", &[first, second].concat(), true).expect("settles");
}

fn acts(may_end: bool) -> impl Strategy<Value = Vec<Act>> {
    let acts = proptest::collection::vec(act(), 1..100);
    acts.prop_map(move |mut acts| {
        acts.retain(|act| may_end || !matches!(act, Act::Unsubscribe(_)));
        acts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn stamps_increase_and_the_newest_comes_last(acts in acts(false), all: bool) {
        play(if all { "all" } else { "latest" }, &acts, false)?;
    }

    #[test]
    fn slow_readers_end_with_the_newest(acts in acts(true)) {
        play("latest", &acts, true)?;
    }

    #[test]
    fn subscriptions_may_end_at_any_time(acts in acts(true), all: bool) {
        play(if all { "all" } else { "latest" }, &acts, false)?;
    }

    /// A client in `mode=all` is sent every record that is published after the end of its snapshot.
    #[test]
    fn all_misses_nothing_after_eos(
        before in acts(false),
        after in proptest::collection::vec((0..SOURCES.len(), 0usize..3, any::<bool>()), 1..40),
    ) {
        let mut world = World::new();
        world.work.scans.set_share(40);
        let client = world.open("/subscribe?source=**&mode=all");
        for act in &before {
            match act {
                Act::Publish(n) => _ = world.publish(SOURCES[*n], "1"),
                Act::Drain(_) => _ = world.drain_one(),
                Act::Turn => world.turn_once(client),
                _ => {}
            }
        }
        // Go on until the end of the snapshot has been sent.
        while !world.read(client).iter().any(|value| value.get("eos").is_some()) {
            world.drain_one();
            world.turn_once(client);
        }
        let (mut published, mut told) = (Vec::new(), Vec::new());
        for (n, drains, turns) in after {
            published.push((SOURCES[n].to_owned(), world.publish(SOURCES[n], "1")));
            (0..drains).for_each(|_| _ = world.drain_one());
            if turns {
                world.turn_once(client);
                told.extend(records(&world.read(client)));
            }
        }
        told.extend(records(&world.read_all(client)));
        prop_assert!(told.ends_with(&published), "{told:?} lacks some of {published:?}");
    }
}
