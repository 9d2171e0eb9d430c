//! Tests of what is written for servers, of what is read of them, and of the accounts.

use std::net::Ipv4Addr;
use std::path::Path;

use super::accounting::{Account, Accounting};
use super::bucket::{Contents, Replication, key, stream_config, subject, value};
use super::config::ServerConfig;
use super::load::lacking;
use super::mapping::Mapping;
use super::pace::{Back, Pace};
use super::protocol::{Message, Op, Parser, Place, publish};
use super::publisher::answer;
use super::watcher::request;
use crate::checker::{Answer, Delivery, Fault, Level, Observation, Offer, Outcome, Seen, Version};
use crate::profile::Profile;
use crate::testbed::Script;

const NODES: usize = 5;
/// Length of a second in microseconds.
const S: u64 = 1_000_000;

fn ops(parser: &mut Parser) -> Vec<Op> {
    std::iter::from_fn(|| parser.next_op().expect("an operation")).collect()
}

#[test]
fn a_server_is_configured_for_its_links_alone() {
    let config = ServerConfig {
        name: "n2",
        store_dir: Path::new("/run/n2/data"),
        binds: Ipv4Addr::new(192, 168, 1, 2),
        reached_at: Ipv4Addr::new(10, 1, 2, 130),
        others: vec![Ipv4Addr::new(10, 1, 2, 129), Ipv4Addr::new(10, 1, 2, 131)],
    };
    let expected = r#"server_name: "n2"
listen: "0.0.0.0:4222"
http: "0.0.0.0:8222"
jetstream { store_dir: "/run/n2/data", max_memory_store: 256MB, max_file_store: 16GB }
cluster {
  name: "netem"
  listen: "192.168.1.2:6222"
  advertise: "10.1.2.130:6222"
  no_advertise: true
  routes: ["nats://10.1.2.129:6222", "nats://10.1.2.131:6222"]
}
"#;
    assert_eq!(config.text(), expected);
}

#[test]
fn the_bucket_keeps_one_value_of_each_key_three_times() {
    let config = stream_config();
    assert_eq!(config["name"], "KV_netem");
    assert_eq!(config["subjects"][0], "$KV.netem.>");
    assert_eq!(config["max_msgs_per_subject"], 1);
    assert_eq!(config["num_replicas"], 3);
    assert_eq!(config["discard"], "new");
    assert_eq!((&config["allow_rollup_hdrs"], &config["allow_direct"]), (&true.into(), &true.into()));
    assert_eq!(key(&subject("netem/3/35")), Some("netem/3/35"));
    assert_eq!(key("other"), None);
}

#[test]
fn a_watcher_begins_with_all_values_and_goes_on_after_the_last() {
    let first = request("inbox.1", 0);
    assert_eq!(first["config"]["deliver_policy"], "last_per_subject");
    assert_eq!(first["config"]["opt_start_seq"], serde_json::Value::Null);
    let next = request("inbox.2", 41);
    assert_eq!(
        (&next["config"]["deliver_policy"], &next["config"]["opt_start_seq"]),
        (&"by_start_sequence".into(), &42.into())
    );
}

#[test]
fn messages_are_read_however_they_are_cut() {
    let mut text =
        b"INFO {\"server_id\":\"x\"}\r\n+OK\r\nPING\r\nMSG a.b 7 3\r\n\r\n1\r\nMSG a 8 reply.to 0\r\n\r\n"
            .to_vec();
    text.extend_from_slice(
        b"HMSG c 9 r 30 32\r\nNATS/1.0\r\nNats-Sequence: 5\r\n\r\nhi\r\nPONG\r\n-ERR 'Stale Connection'\r\n",
    );
    let message = |subject: &str, sid, reply: Option<&str>, headers: &str, payload: &[u8]| {
        let reply = reply.map(str::to_owned);
        let (subject, headers, payload) = (subject.to_owned(), headers.to_owned(), payload.to_vec());
        Op::Message(Message { subject, sid, reply, headers, payload })
    };
    let expected = vec![
        Op::Info,
        Op::Ping,
        message("a.b", 7, None, "", b"\r\n1"),
        message("a", 8, Some("reply.to"), "", b""),
        message("c", 9, Some("r"), "NATS/1.0\r\nNats-Sequence: 5\r\n\r\n", b"hi"),
        Op::Pong,
        Op::Refused("Stale Connection".to_owned()),
    ];
    for length in 1..text.len() {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for part in text.chunks(length) {
            parser.push(part);
            found.extend(ops(&mut parser));
        }
        assert_eq!(found, expected, "in parts of {length} bytes");
    }
}

#[test]
fn what_is_not_of_the_protocol_is_an_error() {
    for text in [
        "HTTP/1.1 400 Bad Request\r\n",
        "MSG a 1\r\n",
        "MSG a x 1\r\nb\r\n",
        "HMSG a 1 9 3\r\nabc\r\n",
        "MSG a 1 99999999999\r\n",
    ] {
        let mut parser = Parser::default();
        parser.push(text.as_bytes());
        assert!(parser.next_op().is_err(), "{text:?}");
    }
}

#[test]
fn a_publish_is_written_with_its_length() {
    let mut out = Vec::new();
    publish(&mut out, "$KV.netem.a", Some("_INBOX.1"), b"{}");
    publish(&mut out, "flow", None, b"");
    assert_eq!(out, b"PUB $KV.netem.a _INBOX.1 2\r\n{}\r\nPUB flow 0\r\n\r\n");
}

#[test]
fn the_place_of_a_value_is_in_its_reply() {
    let place = |reply: &str| Message { reply: Some(reply.to_owned()), ..Message::default() }.place();
    let expected = Some(Place { sequence: 812, number: 3, pending: 17 });
    assert_eq!(place("$JS.ACK.KV_netem.c1.1.812.3.1764500000000000000.17"), expected);
    assert_eq!(place("$JS.ACK.hub.x.KV_netem.c1.1.812.3.1764500000000000000.17"), expected);
    assert_eq!(place("$JS.ACK.hub.x.KV_netem.c1.1.812.3.1764500000000000000.17.token"), expected);
    assert_eq!(place("$JS.FC.KV_netem.c1"), None);
    assert_eq!(place("a.b.c.d.e.1.2.3.4"), None);
}

#[test]
fn signs_of_life_are_told_from_values() {
    let headers =
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 12\r\nNats-Consumer-Stalled: $JS.FC.x\r\n\r\n";
    let sign = Message { headers: headers.to_owned(), ..Message::default() };
    assert_eq!(sign.status(), Some(100));
    assert_eq!(sign.header("nats-last-consumer"), Some("12"));
    assert_eq!(sign.header("Nats-Consumer-Stalled"), Some("$JS.FC.x"));
    assert_eq!(sign.header("Nats"), None);
    let value = Message { headers: "NATS/1.0\r\nA: b\r\n\r\n".to_owned(), ..Message::default() };
    assert_eq!(value.status(), None);
}

#[test]
fn answers_to_puts_are_read() {
    let said = |headers: &str, payload: &str| {
        answer(&Message { headers: headers.into(), payload: payload.into(), ..Message::default() })
    };
    let done = Answer::Done { ts: 9, outcome: Outcome::Applied, nodes: None };
    assert_eq!(said("", r#"{"stream":"KV_netem","seq":9}"#), Some(done));
    let full = r#"{"error":{"code":503,"err_code":10077,"description":"insufficient resources"},"stream":"KV_netem","seq":0}"#;
    assert_eq!(said("", full), Some(Answer::Failed { code: "insufficient resources".into(), applied: None }));
    let nobody = Answer::Failed { code: "no responders".into(), applied: None };
    assert_eq!(said("NATS/1.0 503\r\n\r\n", ""), Some(nobody));
    assert_eq!(said("", "{}"), None);
}

#[test]
fn values_of_the_bucket_are_read() {
    let found = value(br#"{"type":"x","message":{"subject":"$KV.netem.netem/1/1","seq":7,"data":"eyJuIjoxfQ==","time":"t"}}"#);
    assert_eq!(found.expect("a value"), Some(("netem/1/1".into(), Version::of_data(7, br#"{"n":1}"#))));
    assert_eq!(value(br#"{"error":{"code":404,"description":"no message found"}}"#).expect("none"), None);
    assert!(value(br#"{"error":{"code":503,"description":"no leader"}}"#).is_err());
    assert!(value(b"{}").is_err());
}

#[test]
fn replicas_are_whole_when_none_lags() {
    let whole = |text: &str| serde_json::from_str::<Replication>(text).expect(text).is_whole();
    let of =
        |second: &str| format!(r#"{{"leader":"n1","replicas":[{{"name":"n2","current":true}},{second}]}}"#);
    assert!(whole(&of(r#"{"name":"n3","current":true,"lag":0}"#)));
    assert!(!whole(&of(r#"{"name":"n3","current":true,"lag":4}"#)));
    assert!(!whole(&of(r#"{"name":"n3","current":false}"#)));
    assert!(!whole(&of(r#"{"name":"n3","current":true,"offline":true}"#)));
    assert!(!whole(r#"{"leader":"n1","replicas":[{"name":"n2","current":true}]}"#));
    assert!(!whole(r#"{"replicas":[{"current":true},{"current":true}]}"#), "nobody leads");
}

/// What was seen of a run, put together by tests.
#[derive(Default)]
struct Story(Accounting);

impl Story {
    fn see(&mut self, at_us: u64, seen: Seen) {
        self.0.observe(&Observation { at_us, seen });
    }

    fn send(&mut self, at_us: u64, publish: u64, source: &str) {
        let offer = Offer {
            source: source.into(),
            ts: None,
            data_hash: Some(held(publish, 0).hash),
            data_bytes: 1,
            ttl_ms: 0,
            node: "n1".into(),
            level: Level::Stored,
        };
        self.see(at_us, Seen::Offered { publish, offer });
    }

    fn acknowledge(&mut self, at_us: u64, publish: u64, ts: u64) {
        let answer = Answer::Done { ts, outcome: Outcome::Applied, nodes: None };
        self.see(at_us, Seen::Answered { publish, answer });
    }

    fn refuse(&mut self, at_us: u64, publish: u64) {
        let answer = Answer::Failed { code: "no responders".into(), applied: None };
        self.see(at_us, Seen::Answered { publish, answer });
    }

    fn judge(&self, bucket: &[(&str, Version)]) -> Account {
        let bucket: Contents = bucket.iter().map(|(key, version)| ((*key).into(), *version)).collect();
        self.0.judge(Some(&bucket))
    }

    fn lost(&self, bucket: &[(&str, Version)]) -> u64 {
        self.judge(bucket).lost.expect("a bucket").puts
    }
}

/// Returns the value that a put brings, with the sequence that it got.
fn held(publish: u64, sequence: u64) -> Version {
    Version::of_data(sequence, publish.to_string().as_bytes())
}

#[test]
fn an_acknowledged_put_is_kept_by_itself_or_by_a_newer_one() {
    let mut story = Story::default();
    story.send(1, 1, "a");
    story.acknowledge(2, 1, 10);
    assert_eq!(story.lost(&[("a", held(1, 10))]), 0);
    assert_eq!(story.lost(&[("a", held(2, 11))]), 0, "a newer one");
    assert_eq!(story.lost(&[("a", held(2, 9))]), 1, "an older one");
    assert_eq!(story.lost(&[("b", held(1, 10))]), 1, "another key");
    let first = &story.judge(&[]).lost.expect("a bucket").first;
    assert_eq!(first, &["a was acknowledged at 0.000 s as 10, and the bucket holds nothing"]);
}

#[test]
fn a_put_that_came_after_the_acknowledgement_is_newer_whatever_its_sequence() {
    let mut story = Story::default();
    story.send(1, 1, "a");
    story.send(1, 2, "a");
    story.acknowledge(5, 1, 10);
    story.send(6, 3, "a");
    assert_eq!(story.lost(&[("a", held(3, 4))]), 0, "the bucket has begun its sequences again");
    assert_eq!(story.lost(&[("a", held(2, 10))]), 1, "another put has got the same sequence");
}

#[test]
fn nothing_is_owed_for_puts_that_were_not_acknowledged() {
    let mut story = Story::default();
    story.send(1, 1, "a");
    story.refuse(2, 1);
    story.send(3, 2, "a");
    story.see(4, Seen::Unanswered { publish: 2 });
    let account = story.judge(&[]);
    assert_eq!((account.sent, account.acknowledged, account.refused, account.unanswered), (2, 0, 1, 1));
    assert_eq!(account.refusals["no responders"], 1);
    assert_eq!(account.lost.expect("a bucket").puts, 0);
    assert_eq!(story.0.judge(None).lost, None);
    story.acknowledge(9, 2, 7);
    assert_eq!(story.judge(&[("a", held(2, 7))]).acknowledged, 1, "a late answer counts");
}

#[test]
fn the_longest_time_without_an_acknowledgement_is_found() {
    let mut story = Story::default();
    for (publish, sent_s, answered_s) in [(1, 1, Some(2)), (2, 3, None), (3, 8, Some(9)), (4, 10, Some(30))] {
        story.send(sent_s * S, publish, "a");
        if let Some(answered_s) = answered_s {
            story.acknowledge(answered_s * S, publish, publish);
        }
    }
    assert_eq!(story.judge(&[]).longest_without_us, 7 * S, "from 2 s to 9 s");
    let mut silent = Story::default();
    (0..5).for_each(|publish| silent.send(publish * S, publish, "a"));
    assert_eq!(silent.judge(&[]).longest_without_us, 4 * S);
}

#[test]
fn a_pace_is_back_when_a_second_of_it_is_as_before() {
    let mut pace = Pace::default();
    let mut run = |from_ds: u64, until_ds: u64, each: u64| {
        (from_ds..until_ds).for_each(|slot| (0..each).for_each(|_| pace.count(slot * 100_000)));
    };
    run(0, 20, 10);
    run(20, 45, 1);
    run(45, 100, 10);
    assert_eq!(pace.back(Some((2 * S, 4 * S)), (0, 10 * S)), Back::AfterUs(400_000));
    assert_eq!(pace.back(Some((2 * S, 4 * S)), (0, 5 * S)), Back::NotWithinUs(S));
    assert_eq!(pace.back(Some((2 * S, 4 * S)), (0, 4 * S)), Back::NotMeasured, "nothing was put any more");
    assert_eq!(pace.back(Some((S / 2, 4 * S)), (0, 10 * S)), Back::NotMeasured, "there was no time before");
    assert_eq!(pace.back(None, (0, 10 * S)), Back::NotMeasured);
    assert_eq!(
        Pace::default().back(Some((2 * S, 4 * S)), (0, 10 * S)),
        Back::NotMeasured,
        "nothing was usual"
    );
}

#[test]
fn snapshots_are_no_deliveries_that_are_back() {
    let mut story = Story::default();
    let fault = Fault { id: 1, name: "kill".into(), nodes: Vec::new(), is_deadly: true };
    for slot in 0..100 {
        let at_us = slot * 100_000;
        story.send(at_us, slot, "a");
        let delivery = Delivery { source: "a".into(), version: held(slot, slot), is_snapshot: slot >= 50 };
        story.see(at_us, Seen::Delivered { subscriber: 1, delivery });
        story.acknowledge(at_us, slot, slot);
        match slot {
            30 => story.see(at_us, Seen::FaultBegan { fault: fault.clone() }),
            40 => story.see(at_us, Seen::FaultEnded { fault: 1 }),
            _ => {}
        }
    }
    let account = story.judge(&[]);
    assert_eq!(account.acknowledgements_back, Back::AfterUs(0));
    assert_eq!(account.deliveries_back, Back::AfterUs(0));
    let mut lasting = story;
    lasting.see(10 * S, Seen::FaultBegan { fault });
    assert_eq!(lasting.judge(&[]).deliveries_back, Back::NotMeasured, "a fault lasts to the end");
}

#[test]
fn a_watcher_lacks_what_it_has_not_or_has_otherwise() {
    let contents = |some: &[(&str, Version)]| -> Contents {
        some.iter().map(|(key, version)| ((*key).into(), *version)).collect()
    };
    let bucket = contents(&[("a", held(1, 1)), ("b", held(2, 2)), ("c", held(3, 3))]);
    assert_eq!(lacking(&contents(&[("a", held(1, 1)), ("b", held(9, 1))]), &bucket), 2);
    assert_eq!(lacking(&bucket, &bucket), 0);
}

fn map(name: &str) -> Mapping {
    let profile = Profile::read(name).expect(name);
    let script = Script::new(&profile, NODES, 15.0, 1);
    Mapping::new(&profile, script)
}

#[test]
fn faults_of_anode_alone_are_left_out_with_the_reason() {
    let starved = map("starved");
    assert!(starved.left_out.is_empty(), "{:?}", starved.left_out);
    assert_eq!(
        starved.applied,
        [
            "cpu by a group of processes",
            "stop by SIGSTOP, then SIGCONT",
            "memory by a group of processes",
            "files by prlimit",
            "delays by the links of the run"
        ]
    );
    let clocks = map("clock-steps");
    assert_eq!(clocks.left_out, ["clock (a program in Go does not ask the C library for the time)"]);
    assert!(!clocks.is_empty(), "a node is killed");
    let keys = map("key-rotation").left_out;
    assert!(keys.iter().any(|line| line.starts_with("keys (")), "{keys:?}");
    assert!(keys.iter().any(|line| line.starts_with("sealed messages (")), "{keys:?}");
}

#[test]
fn profiles_of_which_nothing_is_left_are_told() {
    let empty: Vec<&str> =
        crate::profile::NAMES.iter().copied().filter(|name| map(name).is_empty()).collect();
    assert_eq!(empty, ["rolling-upgrade", "join-storm"]);
}
