//! What sessions are said to hold, and what they are refused for want of memory.

use super::*;
use crate::latest::shard_of;
use crate::limits::{BATCH_ITEMS_MAX, LATEST_BUFFER_BYTES_MAX};
use crate::memory::{FREE_BYTES, SMALL_BYTES};
use crate::protocol::token::Token;

const MIB: usize = 1024 * 1024;

impl World {
    /// Replaces the account of the worker by one with a budget of `limit` bytes, of which a connection may have
    /// `holder_max`. Returns the budget.
    fn limit_memory(&mut self, limit: usize, holder_max: usize) -> Arc<Budget> {
        let budget = Arc::new(Budget::new(limit, holder_max));
        self.work.account = WorkerAccount::new(&budget);
        budget
    }

    fn held(&self, client: usize) -> usize {
        self.clients[client].session.holdings().total()
    }

    fn subscribe(&mut self, client: usize, sources: &[String]) -> Value {
        let text = serde_json::json!({"id": 1, "subscribe": {"sources": sources, "snapshot": false}});
        self.say(client, &text.to_string());
        self.read(client).remove(0)
    }
}

/// Patterns of 16 segments that no other round has.
fn long_patterns(round: usize, count: usize) -> Vec<String> {
    (0..count).map(|number| vec![format!("n{}", round * count + number); 16].join("/")).collect()
}

#[test]
fn patterns_are_refused_when_clients_have_used_up_the_memory() {
    let mut world = World::new();
    let budget = world.limit_memory(4 * MIB, 2 * MIB);
    let (client, other) = (world.open("/subscribe"), world.open("/subscribe"));
    world.read(client);
    world.read(other);
    let mut taken = 0;
    let refused = loop {
        let before = world.held(client);
        let answer = world.subscribe(client, &long_patterns(taken, 64));
        if answer["error"].is_object() {
            assert_eq!(world.held(client), before, "what is refused leaves nothing");
            break answer;
        }
        taken += 1;
    };
    assert!(world.held(client) <= 2 * MIB && world.held(client) > MIB);
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["temporary"]),
        (&"bad_request".into(), &false.into())
    );
    let message = refused["error"]["message"].as_str().expect("text");
    assert!(message.contains("at most 2097152 bytes"), "{message}");

    let mut greedy = budget.lease();
    greedy.set(2 * MIB).expect("within the bounds");
    let mut rest = budget.lease();
    rest.resize(2 * MIB, SMALL_BYTES).expect("the whole budget");
    let refused = world.subscribe(other, &long_patterns(1_000, 64));
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["temporary"]),
        (&"overloaded".into(), &true.into())
    );
    let message = refused["error"]["message"].as_str().expect("text");
    assert!(message.contains("--max-client-memory is 4194304 bytes"), "{message}");
    let answer = world.subscribe(other, &["a/*".into()]);
    assert_eq!(answer["result"]["subscription"], 1, "whoever needs little is not refused: {answer}");
    drop((greedy, rest));
    let answer = world.subscribe(other, &long_patterns(1_000, 64));
    assert_eq!(answer["result"]["subscription"], 2, "{answer}");
    let mut text = String::new();
    world.node.metrics.write(&mut text);
    assert!(text.contains("anode_client_memory_refusals_total{use=\"subscriptions\"} 2"), "{text}");
}

/// A client that always had the next subscription waiting when it ended one made the node keep the patterns of
/// all that it had ended.
#[test]
fn subscriptions_that_have_ended_hold_nothing() {
    let mut world = World::new();
    let client = world.open("/subscribe");
    world.read(client);
    let subscribe = |world: &mut World, round: usize| {
        let sources = long_patterns(round, 64);
        let text = serde_json::json!({"subscribe": {"sources": sources, "snapshot": false}});
        world.say(client, &text.to_string());
    };
    subscribe(&mut world, 0);
    world.settle();
    subscribe(&mut world, 1);
    world.publish("x", "1");
    world.turn_once(client);
    let mut held = Vec::new();
    for round in 2..40 {
        // The last subscription but one is live, the last one waits for a change, and this one is queued.
        subscribe(&mut world, round);
        world.say(client, &format!("{{\"unsubscribe\":{}}}", round - 1));
        assert!(world.drain_one());
        world.publish("x", "1");
        world.turn_once(client);
        world.read(client);
        held.push(world.held(client));
    }
    let (first, last) = (held[1], held[held.len() - 1]);
    assert!(last <= first + first / 4, "{held:?}");
    world.settle();
    world.turn(client, |session, turn| session.handle_closed(turn));
    assert!(world.held(client) < FREE_BYTES, "{}", world.held(client));
}

#[test]
fn records_that_wait_are_counted_until_they_are_read() {
    for (mode, data) in [("latest", "\"y\"".to_owned()), ("all", format!("{:?}", "y".repeat(1_000)))] {
        let mut world = World::new();
        let client = world.open(&format!("/subscribe?source=s/*&mode={mode}"));
        world.read_all(client);
        let before = world.held(client);
        let big = format!("{:?}", "x".repeat(60_000));
        while world.clients[client].out.len() <= LATEST_BUFFER_BYTES_MAX {
            world.publish("s/big", &big);
            world.settle();
        }
        for number in 0..500 {
            world.publish(&format!("s/{number}"), &data);
            world.settle();
        }
        let Client { session, out, .. } = &world.clients[client];
        let held = session.holdings().unsent + out.held_bytes();
        let least = LATEST_BUFFER_BYTES_MAX + if mode == "all" { 500 * 1_000 } else { 500 * 40 };
        assert!(held >= least, "{mode}: {held} bytes");
        assert!(held < 4 * MIB, "{mode}: {held} bytes");
        world.read_all(client);
        assert!(world.held(client) <= before + 1_024, "{mode}: {} bytes are left", world.held(client));
    }
}

/// A client that did not read its snapshot held all records of a shard, even after newer ones had replaced them in
/// the map.
#[test]
fn a_snapshot_that_nobody_reads_holds_few_records() {
    let mut world = World::new();
    let names = (0..).map(|number| format!("s/{number}")).filter(|name| shard_of(name) == 0);
    let big = format!("{:?}", "x".repeat(60_000));
    for name in names.take(30) {
        world.publish(&name, &big);
    }
    let client = world.open("/subscribe?source=s/*&mode=all");
    world.settle();
    assert!(world.clients[client].out.len() > LATEST_BUFFER_BYTES_MAX, "the client does not read");
    let waiting = world.clients[client].session.holdings().unsent;
    assert!(waiting < 400 * 1024, "{waiting} bytes wait in front of the buffer");
    assert_eq!(records(&world.read_all(client)).len(), 30, "the snapshot is whole all the same");
}

/// Tokens that the node cannot judge before its store is loaded, each as large as a frame, were not counted.
#[test]
fn tokens_are_counted_while_they_wait() {
    let mut world = World::new();
    world.node.is_loaded.set(false);
    let client = world.open("/subscribe");
    world.read(client);
    let heads: Vec<(u64, u64)> = (0..20_000).map(|key| (key, 1)).collect();
    let token = Token { cluster: 1, issued_us: WALL_US, patterns: Vec::new(), heads: heads.into() }.encode();
    for number in 1..=3 {
        let text = serde_json::json!({"subscribe": {"sources": [format!("a/{number}")], "resume": token}});
        world.say(client, &text.to_string());
        assert!(world.held(client) >= number * 20_000 * 16, "{} bytes", world.held(client));
    }
    world.node.is_loaded.set(true);
    world.pass(1_000_000);
    world.read_all(client);
    assert!(world.held(client) < FREE_BYTES, "{} bytes are left", world.held(client));
}

/// A batch of 65,000 zeros, 130 KB, was answered by 6.9 MB.
#[test]
fn the_answer_to_a_batch_is_bounded() {
    let mut world = World::new();
    let client = world.open("/publish");
    world.read(client);
    let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    world.say(client, &zeros(65_000));
    let told = world.read(client);
    assert_eq!(told[0]["error"]["message"], "a batch of 65000 items; at most 10000");
    world.say(client, &zeros(BATCH_ITEMS_MAX));
    assert!(world.clients[client].out.len() < 2 * MIB);
    let told = world.read(client);
    assert_eq!(told[0].as_array().map(Vec::len), Some(BATCH_ITEMS_MAX));
}

#[test]
fn refusals_that_wait_for_the_rest_of_their_batch_are_counted() {
    let mut world = World::new();
    let client = world.open("/publish?ack=stored");
    world.read(client);
    let bad = vec![r#"{"source":"a//b","data":1}"#; 1_000].join(",");
    world.say(client, &format!(r#"[{{"id":1,"source":"a","data":1}},{bad}]"#));
    let held = world.held(client);
    // The message of each refusal has some dozens of bytes, and so has the refusal itself.
    assert!((1_000 * (100 + 30)..MIB).contains(&held), "{held}");
    world.node.durable.set(1);
    world.turn(client, |session, turn| session.handle_durable(turn));
    assert_eq!(world.read(client)[0].as_array().map(Vec::len), Some(1_001));
    assert!(world.held(client) < FREE_BYTES);
}
