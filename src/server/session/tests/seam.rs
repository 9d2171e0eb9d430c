//! The seam under every interleaving: publishes, mailbox, scans, reads, subscriptions and their ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Publish(u8),
    Delete(u8),
    Expiring(u8),
    Sweep,
    Drain(u8),
    Turn,
    Read,
    Subscribe(u8, bool),
    Unsubscribe(u8),
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..6).prop_map(Act::Publish),
        1 => (0u8..6).prop_map(Act::Delete),
        1 => (0u8..6).prop_map(Act::Expiring),
        1 => Just(Act::Sweep),
        5 => (1u8..6).prop_map(Act::Drain),
        5 => Just(Act::Turn),
        3 => Just(Act::Read),
        2 => (0u8..5, any::<bool>()).prop_map(|(pattern, snapshot)| Act::Subscribe(pattern, snapshot)),
        1 => (1u8..6).prop_map(Act::Unsubscribe),
        1 => Just(Act::Pass),
    ]
}

const SOURCES: [&str; 6] = ["a/1", "a/2", "b/1", "b/2", "c", "a/1/x"];
const PATTERNS: [&str; 5] = ["a/*", "**", "a/1", "*/1", "a/**"];

/// What one connection saw, held against what it must see.
#[derive(Default)]
struct Seen {
    newest: BTreeMap<String, (u64, bool)>,
    all: Vec<(String, u64, bool)>,
}

impl Seen {
    fn take(&mut self, values: Vec<Value>, strict: bool) -> Result<(), TestCaseError> {
        for value in values {
            let Some(source) = value.get("source").and_then(Value::as_str) else { continue };
            let order = (value["ts"].as_u64().unwrap_or(0), value.get("deleted").is_some());
            let before = self.newest.insert(source.into(), order);
            if strict {
                prop_assert!(
                    before.is_none_or(|before| before < order),
                    "{source}: {before:?} then {order:?}"
                );
            }
            self.all.push((source.into(), order.0, order.1));
        }
        Ok(())
    }
}

fn play(mode: &str, acts: &[Act], slow: bool, may_end: bool) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let data = if slow { format!("\"{}\"", "x".repeat(30_000)) } else { "1".into() };
    let client = world.open(&format!("/subscribe?mode={mode}"));
    let (mut seen, mut published, mut wanted) = (Seen::default(), Vec::new(), Vec::<&str>::new());
    let mut ended = false;
    for act in acts {
        world.now = world.now.plus_us(1_000);
        match *act {
            Act::Publish(n) => {
                let source = SOURCES[usize::from(n)];
                published.push((source.to_owned(), world.publish(source, &data), false));
            }
            Act::Delete(n) => {
                let source = SOURCES[usize::from(n)];
                published.push((source.to_owned(), world.delete(source), true));
            }
            Act::Expiring(n) => {
                world.publish_draft(SOURCES[usize::from(n)], None, DraftPayload::Json(b"0"), 3);
            }
            Act::Sweep => {
                world.node.ingest.sweep(world.now, true, 100);
            }
            Act::Drain(count) => (0..count).for_each(|_| {
                world.drain_one();
            }),
            Act::Turn => world.turn_once(client),
            Act::Read => seen.take(world.read(client), !ended)?,
            Act::Subscribe(n, snapshot) => {
                let pattern = PATTERNS[usize::from(n)];
                if snapshot {
                    wanted.push(pattern);
                }
                world.say(
                    client,
                    &format!(r#"{{"subscribe":{{"sources":["{pattern}"],"snapshot":{snapshot}}}}}"#),
                );
            }
            Act::Unsubscribe(n) if may_end => {
                world.say(client, &format!(r#"{{"unsubscribe":{n}}}"#));
                ended = true;
            }
            Act::Unsubscribe(_) => {}
            Act::Pass => world.pass(10_000_000),
        }
        if world.clients[client].closed.is_some() {
            return Ok(());
        }
    }
    world.now = world.now.plus_us(10_000_000);
    world.node.ingest.sweep(world.now, true, 100);
    seen.take(world.read_all(client), !ended)?;
    if may_end {
        return Ok(());
    }
    // Whoever has a snapshot's pattern ends with the newest of all that it matches.
    for source in SOURCES {
        let is_wanted = wanted.iter().any(|text| Pattern::parse(text).expect("pattern").matches(source));
        let Some(record) = world.node.ingest.latest().get(source).filter(|_| is_wanted) else { continue };
        let is_gone = !record.is_visible(world.now.wall_us);
        match seen.newest.get(source) {
            Some(newest) => prop_assert_eq!(*newest, (record.stamp.ts, is_gone), "{}", source),
            None => prop_assert!(is_gone, "{source} was never sent"),
        }
    }
    Ok(())
}

use crate::record::Pattern;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn stamps_increase_and_the_newest_comes_last(acts in proptest::collection::vec(act(), 1..80), all: bool) {
        play(if all { "all" } else { "latest" }, &acts, false, false)?;
    }

    #[test]
    fn slow_readers_end_with_the_newest(acts in proptest::collection::vec(act(), 1..120)) {
        play("latest", &acts, true, false)?;
    }

    #[test]
    fn subscriptions_may_end_at_any_time(acts in proptest::collection::vec(act(), 1..80), all: bool) {
        play(if all { "all" } else { "latest" }, &acts, false, true)?;
    }

    /// `mode=all` misses nothing after its eos: not one record that was published after the last.
    #[test]
    fn all_misses_nothing_after_eos(
        before in proptest::collection::vec(act(), 0..30),
        after in proptest::collection::vec((0u8..6, 0u8..3, any::<bool>()), 1..40),
    ) {
        let mut world = World::new();
        let client = world.open("/subscribe?source=**&mode=all");
        for act in &before {
            match act {
                Act::Publish(n) => drop(world.publish(SOURCES[usize::from(*n)], "1")),
                Act::Drain(_) => drop(world.drain_one()),
                Act::Turn => world.turn_once(client),
                _ => {}
            }
        }
        // Until the eos is out.
        while !world.read(client).iter().any(|value| value.get("eos").is_some()) {
            world.drain_one();
            world.turn_once(client);
        }
        let (mut published, mut told) = (Vec::new(), Vec::new());
        for (n, drains, turns) in after {
            let source = SOURCES[usize::from(n)];
            published.push((source.to_owned(), world.publish(source, "1")));
            (0..drains).for_each(|_| { world.drain_one(); });
            if turns {
                world.turn_once(client);
                told.extend(records(&world.read(client)));
            }
        }
        told.extend(records(&world.read_all(client)));
        prop_assert!(told.ends_with(&published), "{told:?} lacks some of {published:?}");
    }
}
