//! Filters: what is sent, what is told to be gone, and what a token covers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::expression::SharedExpression;
use crate::limits::{FILTERS_PER_CONNECTION_MAX, INTRICATE_FILTERS_PER_CONNECTION_MAX};

/// The URL of a subscription with a filter.
fn url(source: &str, filter: &str, rest: &str) -> String {
    let filter = percent_encoding::utf8_percent_encode(filter, percent_encoding::NON_ALPHANUMERIC);
    format!("/subscribe?source={source}&filter={filter}{rest}")
}

/// What was told of sources: data, `"gone"` or `"deleted"`.
fn told(world: &mut World, client: usize) -> Vec<(String, Value)> {
    let told = world.read_all(client);
    let of = |message: &Value| {
        let what = if message["gone"] == true {
            assert_eq!(message.as_object().map(serde_json::Map::len), Some(3), "{message}");
            json!("gone")
        } else if message["deleted"] == true {
            json!("deleted")
        } else {
            message["data"].clone()
        };
        Some((message["source"].as_str()?.to_owned(), what))
    };
    told.iter().filter_map(of).collect()
}

fn pair(source: &str, what: Value) -> (String, Value) {
    (source.to_owned(), what)
}

#[test]
fn only_what_the_filter_lets_through_is_sent_and_what_leaves_is_gone_once() {
    let mut world = World::new();
    world.publish("a/1", r#"{"t":5}"#);
    world.publish("a/2", r#"{"t":15}"#);
    world.publish("a/3", "15");
    let client = world.open(&url("a/*", "data.t > 10", ""));
    assert_eq!(told(&mut world, client), [pair("a/2", json!({"t": 15}))]);
    world.publish("a/1", r#"{"t":6}"#);
    world.publish("a/1", r#"{"t":11}"#);
    world.publish("a/1", r#"{"t":12}"#);
    world.publish("a/1", r#"{"t":7}"#);
    world.publish("a/1", r#"{"t":8}"#);
    world.publish("a/2", "null");
    world.publish("a/2", "{}");
    world.delete("a/2");
    world.delete("a/3");
    let wanted = [
        pair("a/1", json!({"t": 11})),
        pair("a/1", json!({"t": 12})),
        pair("a/1", json!("gone")),
        pair("a/2", json!("gone")),
        pair("a/2", json!("deleted")),
        pair("a/3", json!("deleted")),
    ];
    assert_eq!(told(&mut world, client), wanted);
    let all = world.open(&url("a/*", "data.t > 10", "&mode=all"));
    told(&mut world, all);
    world.publish("a/1", r#"{"t":20}"#);
    world.publish("a/1", r#"{"t":2}"#);
    assert_eq!(told(&mut world, all), [pair("a/1", json!({"t": 20}))], "mode=all is not told what is gone");
    assert_eq!(told(&mut world, client), [pair("a/1", json!({"t": 20})), pair("a/1", json!("gone"))]);
}

#[test]
fn a_record_is_sent_once_if_any_subscription_wants_it() {
    let mut world = World::new();
    world.publish("a/1", "1");
    let client = world.open(&url("a/*", "data > 10", ""));
    world.say(client, r#"{"subscribe":{"sources":["a/1","b"],"filter":"data < 5"}}"#);
    assert_eq!(told(&mut world, client), [pair("a/1", json!(1))]);
    world.publish("a/1", "20");
    world.publish("a/1", "2");
    world.publish("a/1", "7");
    world.publish("a/1", "8");
    world.publish("b", "20");
    world.publish("b", "3");
    let wanted =
        [pair("a/1", json!(20)), pair("a/1", json!(2)), pair("a/1", json!("gone")), pair("b", json!(3))];
    assert_eq!(told(&mut world, client), wanted);
    world.say(client, r#"{"subscribe":{"sources":["a/*"]}}"#);
    assert_eq!(told(&mut world, client), [pair("a/1", json!(8))]);
    world.publish("a/1", "9");
    assert_eq!(told(&mut world, client), [pair("a/1", json!(9))]);
    world.say(client, r#"{"unsubscribe":3}"#);
    world.publish("a/1", "10");
    assert_eq!(told(&mut world, client), []);
}

#[test]
fn filters_are_shared_and_forgotten_with_the_last_subscription() {
    let mut world = World::new();
    let clients: Vec<_> = (0..5).map(|_| world.open(&url("a", "data > 1", ""))).collect();
    for &client in &clients {
        told(&mut world, client);
    }
    assert_eq!(world.work.filters.take_counts().1, 1);
    world.publish("a", "2");
    world.publish("a", "111");
    world.settle();
    let (counts, _) = world.work.filters.take_counts();
    assert_eq!((counts.evaluations, counts.errors), (2, 0), "each record is judged once for all");
    for &client in &clients {
        assert_eq!(told(&mut world, client).len(), 2);
        world.say(client, r#"{"unsubscribe":1}"#);
    }
    assert_eq!(world.work.filters.take_counts().1, 0);
    assert!(world.work.index.is_empty());
}

/// Each subscription read its filter for itself once, and held what it had read as long as it lasted, though one of them
/// was evaluated for all and counted as the only one: the memory of all others was counted nowhere.
#[test]
fn a_thousand_subscriptions_with_one_filter_hold_one_expression() {
    const FILTER: &str = "data.shared > 1 && source.startsWith('a')";
    const SUBSCRIPTIONS: usize = 1_000;
    let mut world = World::new();
    let clients: Vec<_> = (0..SUBSCRIPTIONS).map(|_| world.open(&url("a", FILTER, ""))).collect();
    for &client in &clients {
        told(&mut world, client);
    }
    assert_eq!(SharedExpression::users(FILTER), SUBSCRIPTIONS + 1, "each connection and the table of all");
    world.work.filters.take_counts();
    world.publish("a", r#"{"shared":2}"#);
    world.publish("a", r#"{"shared":1}"#);
    world.settle();
    let (counts, filters) = world.work.filters.take_counts();
    assert_eq!((counts.evaluations, filters), (2, 1), "each record is judged once for all");
    for &client in &clients {
        assert_eq!(told(&mut world, client), [pair("a", json!({"shared": 2})), pair("a", json!("gone"))]);
    }
    for &client in &clients[1..] {
        world.say(client, r#"{"unsubscribe":1}"#);
    }
    assert_eq!(SharedExpression::users(FILTER), 2);
    world.say(clients[0], r#"{"unsubscribe":1}"#);
    assert_eq!(SharedExpression::users(FILTER), 0, "the last subscription gives it back");
}

#[test]
fn bad_filters_and_too_many_are_refused() {
    let mut world = World::new();
    let client = world.open("/subscribe");
    world.read_all(client);
    world.say(client, r#"{"id":1,"subscribe":{"sources":["a"],"filter":"data.x >"}}"#);
    world.say(client, r#"{"id":2,"subscribe":{"sources":["a"],"filter":7}}"#);
    let refused = world.read_all(client);
    assert_eq!(refused[0]["error"]["code"], "bad_filter");
    let message = "filter: line 1, column 9: the expression ends where a value is expected";
    assert_eq!(refused[0]["error"]["message"], message);
    assert_eq!(refused[1]["error"]["code"], "bad_filter");
    for number in 0..=FILTERS_PER_CONNECTION_MAX {
        let text = format!(r#"{{"subscribe":{{"sources":["a"],"filter":"data > {number}"}}}}"#);
        world.say(client, &text);
        let answers = world.read_all(client);
        let is_refused = number == FILTERS_PER_CONNECTION_MAX;
        assert_eq!(answers[0].get("error").is_some(), is_refused, "{number}: {answers:?}");
    }
    let client = world.open("/subscribe");
    world.read_all(client);
    for number in 0..=INTRICATE_FILTERS_PER_CONNECTION_MAX {
        let text = format!(r#"{{"subscribe":{{"sources":["a"],"filter":"data.all(x, x > {number})"}}}}"#);
        world.say(client, &text);
        let answers = world.read_all(client);
        let is_refused = number == INTRICATE_FILTERS_PER_CONNECTION_MAX;
        assert_eq!(answers[0].get("error").is_some(), is_refused, "{number}: {answers:?}");
    }
}

#[test]
fn who_resumes_is_told_what_does_not_match_any_longer() {
    let mut world = World::new();
    for source in ["a/1", "a/2", "a/3", "a/4"] {
        world.publish(source, "20");
    }
    world.publish("a/5", "1");
    let client = world.open(&url("a/*", "data > 10", ""));
    let first = world.read_all(client);
    let token = first.last().and_then(|eos| eos["eos"]["resume"].as_str()).expect("a token").to_owned();
    world.publish("a/1", "5");
    world.publish("a/2", "30");
    world.delete("a/3");
    world.publish("a/5", "2");
    let again = world.open(&url("a/*", "data > 10", &format!("&resume={token}")));
    let mut told_again = told(&mut world, again);
    told_again.sort_by(|a, b| a.0.cmp(&b.0));
    let wanted = [
        pair("a/1", json!("gone")),
        pair("a/2", json!(30)),
        pair("a/3", json!("deleted")),
        pair("a/5", json!("gone")),
    ];
    assert_eq!(told_again, wanted);
    // The source that the token covers is known to be shown.
    world.publish("a/4", "3");
    assert_eq!(told(&mut world, again), [pair("a/4", json!("gone"))]);
    // What was seen with another filter, or without one, proves nothing.
    for (filter, recovered) in [("data > 10", true), ("data > 11", false)] {
        let other = world.open(&url("a/*", filter, &format!("&resume={token}")));
        let answers = world.read_all(other);
        assert_eq!(answers[1]["result"]["recovered"], recovered, "{filter}");
    }
    let plain = world.open(&format!("/subscribe?source=a/*&resume={token}"));
    assert_eq!(world.read_all(plain)[1]["result"]["recovered"], false);
}

#[test]
fn a_slow_reader_gets_the_newest_of_each_source() {
    let mut world = World::new();
    let client = world.open(&url("a/*", "data.t > 10", ""));
    told(&mut world, client);
    let filler = "x".repeat(60_000);
    for number in 0..40 {
        world.publish(&format!("a/f{number}"), &format!(r#"{{"t":20,"f":"{filler}"}}"#));
    }
    world.settle();
    world.publish("a/f0", r#"{"t":1}"#);
    world.publish("a/f39", r#"{"t":1}"#);
    world.publish("a/f38", r#"{"t":1}"#);
    world.publish("a/f38", r#"{"t":30}"#);
    world.settle();
    let mut newest = BTreeMap::new();
    for (source, what) in told(&mut world, client) {
        newest.insert(source, what);
    }
    assert_eq!(newest["a/f0"], "gone");
    assert_eq!(newest["a/f39"], "gone");
    assert_eq!(newest["a/f38"], json!({"t": 30}));
    assert_eq!(newest.len(), 40);
}

proptest! {
    /// Whatever comes in whatever order, a table that follows what it is told shows what matches.
    #[test]
    fn a_table_is_right(
        acts in proptest::collection::vec((0u8..6, 0u8..4, 0u8..20), 1..60),
        slow in any::<bool>(),
    ) {
        let mut world = World::new();
        let mut clients: Vec<(usize, BTreeMap<String, Value>)> = Vec::new();
        let mut truth: BTreeMap<String, u8> = BTreeMap::new();
        for (kind, source, value) in acts {
            let source = format!("a/{source}");
            match kind {
                0 => {
                    world.delete(&source);
                    truth.remove(&source);
                }
                1 if clients.len() < 4 => {
                    let client = world.open(&url("a/*", "data >= 10", ""));
                    clients.push((client, BTreeMap::new()));
                }
                _ => {
                    world.publish(&source, &value.to_string());
                    truth.insert(source, value);
                }
            }
            if !slow {
                follow(&mut world, &mut clients);
            }
        }
        world.settle();
        follow(&mut world, &mut clients);
        let wanted: BTreeMap<String, Value> = truth
            .into_iter()
            .filter(|(_, value)| *value >= 10)
            .map(|(source, value)| (source, json!(value)))
            .collect();
        for (_, table) in clients {
            prop_assert_eq!(&table, &wanted);
        }
    }
}

/// Lets each client follow what it is told. A record must show what matches, and what is gone must have been shown.
fn follow(world: &mut World, clients: &mut [(usize, BTreeMap<String, Value>)]) {
    for (client, table) in clients {
        for (source, what) in told(world, *client) {
            if what == "deleted" || what == "gone" {
                table.remove(&source);
            } else {
                assert!(what.as_u64() >= Some(10), "{source}: {what}");
                table.insert(source, what);
            }
        }
    }
}
