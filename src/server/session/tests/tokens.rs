use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::Arrival;
use crate::cluster::members::{Identity, State};
use crate::latest::Due;
use crate::limits::{RESUME_US, RESUME_WAIT_US};

fn resume(world: &mut World, token: &str) -> (Option<bool>, Vec<Value>) {
    let client = world.open(&format!("/subscribe?source=a/*&resume={token}"));
    let told = world.read_all(client);
    // There is no answer while the node waits for what the token covers.
    let recovered = told.get(1).and_then(|value| value["result"]["recovered"].as_bool());
    let records = told.into_iter().filter(|value| value.get("source").is_some()).collect();
    (recovered, records)
}

/// Ten sources, and the token of a subscriber that has seen them.
fn seen() -> (World, String) {
    let mut world = World::new();
    for n in 0..10 {
        world.publish(&format!("a/{n}"), "1");
    }
    let client = world.open("/subscribe?source=a/*");
    let token = token_of(&world.read_all(client));
    (world, token)
}

#[test]
fn a_recovered_snapshot_has_only_what_was_missed() {
    let (mut world, token) = seen();
    assert_eq!(resume(&mut world, &token), (Some(true), vec![]));
    world.publish("a/1", "2");
    world.delete("a/2");
    world.publish("a/new", "1");
    let (recovered, mut told) = resume(&mut world, &token);
    told.sort_by_key(|record| record["source"].to_string());
    assert_eq!(recovered, Some(true));
    let names: Vec<_> = told.iter().map(|record| record["source"].as_str().expect("name")).collect();
    assert_eq!(names, ["a/1", "a/2", "a/new"]);
    assert_eq!(told[1]["deleted"], true, "deletions included");
}

#[test]
fn what_expired_meanwhile_is_told_once() {
    let mut world = World::new();
    world.publish_draft("a/1", None, DraftPayload::Json(b"1"), 1_000);
    let client = world.open("/subscribe?source=a/*");
    let token = token_of(&world.read_all(client));
    world.now = world.now.plus_us(2_000_000);
    let client = world.open(&format!("/subscribe?source=a/*&resume={token}"));
    let told = world.read_all(client);
    assert_eq!(told[2]["deleted"], true);
    world.node.ingest.sweep(world.now, true, 10);
    assert!(world.read_all(client).is_empty(), "the map tells it again");
}

#[test]
fn what_a_token_cannot_prove_gives_a_full_snapshot() {
    let (mut world, token) = seen();
    let whole = |told: (Option<bool>, Vec<Value>)| told.0 == Some(false) && told.1.len() == 10;
    // The token is of another pattern.
    let client = world.open(&format!("/subscribe?source=a/**&resume={token}"));
    assert_eq!(world.read_all(client)[1]["result"]["recovered"], false);
    // The token is of another cluster.
    let cluster = std::mem::replace(&mut world.node.facts.cluster, 7);
    assert!(whole(resume(&mut world, &token)));
    world.node.facts.cluster = cluster;
    // The token is older than the time for which the names of expired values are sure to be known: a quarter of the
    // time for which deletions are kept.
    world.now = world.now.plus_us(DAY_US / 4 - 1_800_000_000);
    assert_eq!(resume(&mut world, &token).0, Some(true));
    world.now = world.now.plus_us(1);
    assert!(whole(resume(&mut world, &token)));
}

/// A node without memory to spare forgets which sources have expired. It must not tell a client that it has missed
/// nothing.
#[test]
fn a_token_from_before_an_end_that_was_forgotten_gives_a_full_snapshot() {
    let (mut world, _) = seen();
    world.publish_draft("a/brief", None, DraftPayload::Json(b"0"), 1_000);
    let client = world.open("/subscribe?source=a/*");
    let before = token_of(&world.read_all(client));
    world.now = world.now.plus_us(60_000_000);
    world.node.ingest.sweep(world.now, true, 100);
    let (recovered, told) = resume(&mut world, &before);
    assert_eq!((recovered, told.len(), &told[0]["deleted"]), (Some(true), 1, &Value::Bool(true)));
    let due = Due { wall_us: world.now.wall_us, tombstones_us: DAY_US, may_collect: false, budget: 9 };
    world.node.ingest.latest().relieve(0, due, &mut |_| {});
    assert_eq!(resume(&mut world, &before).0, Some(false));
    let client = world.open("/subscribe?source=a/*");
    let after = token_of(&world.read_all(client));
    assert_eq!(resume(&mut world, &after).0, Some(true), "this client has been told");
}

#[test]
fn what_a_token_cannot_prove_gives_a_snapshot_whatever_was_asked_for() {
    let (mut world, token) = seen();
    world.publish("a/1", "2");
    let url = format!("/subscribe?source=a/*&snapshot=false&resume={token}");
    let client = world.open(&url);
    let told = world.read_all(client);
    assert_eq!((told[1]["result"]["recovered"].as_bool(), records(&told).len()), (Some(true), 1));
    world.now = world.now.plus_us(DAY_US);
    let client = world.open(&url);
    let told = world.read_all(client);
    assert_eq!((told[1]["result"]["recovered"].as_bool(), records(&told).len()), (Some(false), 10));
}

/// A token is good on any node: on one that has what it speaks of, or is sure to get it.
#[test]
fn tokens_on_another_node() {
    let (here, token) = seen();
    let origin = here.node.facts.node.clone();
    let mut there = World::named("n2", 9);
    let copy = |there: &World, n: usize| {
        let record = here.node.ingest.latest().get(&format!("a/{n}")).expect("a record");
        there.node.ingest.apply(there.now, record, Arrival::Tree { hops: 1 });
    };
    (0..9).for_each(|n| copy(&there, n));
    there.node.others.borrow_mut().insert((origin.clone(), 1), 9);
    assert_eq!(resume(&mut there, &token).0, Some(false), "one is missing, and its origin is not known");
    let gossip = ([127, 0, 0, 1], 1).into();
    let identity = |boot| Identity::new(origin.clone(), boot, gossip, "127.0.0.1:1", "", "");
    let shown = |identity, state| Arc::from([MemberInfo::new(Arc::new(identity), state)]);
    let member = |boot, state| shown(identity(boot), state);
    *there.node.members.borrow_mut() = member(1, State::Alive);
    assert_eq!(resume(&mut there, &token).0, None, "its origin lives: it will come, and is waited for");
    *there.node.members.borrow_mut() = member(2, State::Alive);
    assert_eq!(resume(&mut there, &token).0, Some(false), "that life is over");
    *there.node.members.borrow_mut() = shown(identity(1).renewed().expect("a next one"), State::Alive);
    assert_eq!(resume(&mut there, &token).0, None, "it took a boot number while it ran");
    *there.node.members.borrow_mut() = member(2, State::Alive);
    copy(&there, 9);
    there.node.others.borrow_mut().insert((origin.clone(), 1), 10);
    there.publish("a/mine", "1");
    let (recovered, told) = resume(&mut there, &token);
    assert_eq!((recovered, told.len()), (Some(true), 1));
}

/// Half of a cluster was killed, and subscribers resumed at a node that had just come back and lacked what they had
/// seen. They went on at once, got records again as the node caught up, and of some sources values older than those
/// they held. Now the node waits until it has what the token says was seen.
#[test]
fn a_node_that_lacks_what_was_seen_waits_for_it() {
    let (here, token) = seen();
    let origin = here.node.facts.node.clone();
    let lagging = || {
        let there = World::named("n2", 9);
        let gossip = ([127, 0, 0, 1], 1).into();
        *there.node.members.borrow_mut() = Arc::from([MemberInfo::new(
            Arc::new(Identity::new(origin.clone(), 1, gossip, "127.0.0.1:1", "", "")),
            State::Alive,
        )]);
        there
    };
    let recovered =
        |told: &[Value]| told.iter().find_map(|value| value.get("result")?["recovered"].as_bool());
    let mut there = lagging();
    let client = there.open(&format!("/subscribe?source=a/*&resume={token}"));
    there.pass(RESUME_WAIT_US / 2);
    assert_eq!(recovered(&there.read_all(client)), None);
    for n in 0..10 {
        let record = here.node.ingest.latest().get(&format!("a/{n}")).expect("a record");
        there.node.ingest.apply(there.now, record, Arrival::Tree { hops: 1 });
    }
    there.node.others.borrow_mut().insert((origin.clone(), 1), 10);
    there.pass(RESUME_WAIT_US / 10);
    let told = there.read_all(client);
    assert_eq!((recovered(&told), records(&told)), (Some(true), vec![]), "nothing comes twice");

    let mut there = lagging();
    there.publish("a/0", "2");
    let client = there.open(&format!("/subscribe?source=a/*&resume={token}"));
    there.pass(RESUME_WAIT_US - 1);
    assert_eq!(recovered(&there.read_all(client)), None);
    there.pass(RESUME_WAIT_US / 10);
    let told = there.read_all(client);
    assert_eq!((recovered(&told), records(&told).len()), (Some(false), 1), "it has waited for long enough");
}

/// nats.go#1777: a subscription died silently after reconnecting. Here every token that is sent, the
/// periodic ones too, brings back exactly what followed it.
#[test]
fn periodic_tokens_wait_for_what_they_speak_of() {
    let mut world = World::new();
    let client = world.open("/subscribe?source=a/*");
    world.read_all(client);
    world.publish("a/1", "1");
    world.now = world.now.plus_us(RESUME_US);
    world.turn_once(client);
    assert!(world.read(client).is_empty(), "the mailbox is not drained yet");
    let told = world.read_all(client);
    assert_eq!(records(&told).len(), 1);
    assert!(told[1].get("resume").is_some());
    assert_eq!(resume(&mut world, &token_of(&told)), (Some(true), vec![]));
    world.pass(RESUME_US);
    let told = world.read_all(client);
    assert_eq!(told.len(), 1, "again every ten seconds");
    world.publish("a/2", "1");
    assert_eq!(resume(&mut world, &token_of(&told)).1.len(), 1);
}

#[test]
fn a_token_waits_behind_what_waits() {
    let mut world = World::new();
    let client = world.open("/subscribe?source=a/*");
    world.read_all(client);
    let data = format!("\"{}\"", "x".repeat(10_000));
    for n in 0..60 {
        world.publish(&format!("a/{n}"), &data);
    }
    world.settle();
    world.pass(RESUME_US);
    let first = world.read(client);
    assert!(!first.iter().any(|value| value.get("resume").is_some()));
    let rest = world.read_all(client);
    assert_eq!(records(&first).len() + records(&rest).len(), 60);
    assert!(rest.last().is_some_and(|value| value.get("resume").is_some()));
}

/// The records that a client holds, as the `ts` of each source.
type Held = BTreeMap<String, u64>;

/// Adds what was read to what the client holds, and remembers what it held at the last token.
fn hold(held: &mut Held, at_token: &mut Option<(String, Held)>, values: &[Value]) {
    for value in values {
        if let Some(source) = value.get("source").and_then(Value::as_str) {
            match value.get("deleted") {
                Some(_) => held.remove(source),
                None => held.insert(source.to_owned(), value["ts"].as_u64().expect("a ts")),
            };
        } else if value.get("eos").is_some() || value.get("resume").is_some() {
            *at_token = Some((token_of(std::slice::from_ref(value)), held.clone()));
        }
    }
}

proptest! {
    /// A client that loses its connection at any moment, and everything after the last token with it, holds
    /// everything again after it has resumed.
    #[test]
    fn a_token_and_what_follows_it_are_the_whole(
        acts in proptest::collection::vec((0u8..10, 0usize..8), 1..80),
        is_slow: bool,
        all: bool,
    ) {
        let mut world = World::new();
        world.work.scans.set_share(60);
        let data = if is_slow { format!("\"{}\"", "x".repeat(30_000)) } else { "1".into() };
        for n in 0..4 {
            world.publish(&format!("a/{n}"), &data);
        }
        let mode = if all { "all" } else { "latest" };
        let url = format!("/subscribe?source=a/*&mode={mode}");
        let (mut held, mut at_token) = (Held::new(), None);
        let mut client = world.open(&url);
        for (kind, n) in acts {
            let source = format!("a/{n}");
            match kind {
                0..4 => _ = world.publish(&source, &data),
                4 => _ = world.delete(&source),
                5 => _ = world.publish_draft(&source, None, DraftPayload::Json(b"0"), 2_000),
                6 => _ = world.drain_one(),
                7 => world.turn_once(client),
                8 => {
                    world.pass(RESUME_US / 4);
                    world.node.ingest.sweep(world.now, true, 100);
                }
                _ => {
                    let values = world.read(client);
                    hold(&mut held, &mut at_token, &values);
                }
            }
            if world.clients[client].closed.is_some() {
                world.turn(client, |session, turn| session.handle_closed(turn));
                held = at_token.as_ref().map(|(_, held)| held.clone()).unwrap_or_default();
                let token = at_token.as_ref().map(|(token, _)| format!("&resume={token}")).unwrap_or_default();
                client = world.open(&format!("{url}{token}"));
            }
        }
        // The client keeps the last token that it got, and what it held then.
        let Some((token, mut held)) = at_token else { return Ok(()) };
        let client = world.open(&format!("{url}&resume={token}"));
        let values = world.read_all(client);
        prop_assert_eq!(&values[1]["result"]["recovered"], true);
        hold(&mut held, &mut None, &values);
        world.now = world.now.plus_us(10_000);
        world.node.ingest.sweep(world.now, true, 100);
        hold(&mut held, &mut None, &world.read_all(client));
        let pattern = crate::record::Pattern::parse("a/*").expect("pattern");
        let mut listing = crate::latest::Listing::new(pattern, None, 100);
        while !listing.advance(world.node.ingest.latest(), world.now.wall_us, &mut 1_000) {}
        let visible = listing.into_records();
        let visible: Held = visible.iter().map(|record| (record.source.to_string(), record.stamp.ts)).collect();
        prop_assert_eq!(held, visible);
    }
}
