//! Snapshots and pages that look for what is not there, and maps full of what has expired: they cost what they
//! find, and nobody else waits for them.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::connect;
use crate::harness::{Client, Deadline, Http, Node, NodeConfig, eventually};

/// Longest time from a publish to its delivery to somebody else while others scan. It is generous, because
/// tests run on busy machines.
const SOON: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(120);

/// Publishes sources in batches and waits until all are applied.
fn fill(node: &Node, records: impl Iterator<Item = Value>) {
    let mut client = node.publisher();
    let mut records = records.peekable();
    while records.peek().is_some() {
        let batch: Vec<Value> = records.by_ref().take(1_000).collect();
        client.send_json(json!(batch));
    }
    assert!(client.publish(json!({"source": "filled", "data": 1})).get("result").is_some());
}

/// A client that has nothing to do with the scans.
struct Bystander {
    client: Client,
    publisher: Client,
    round: u64,
}

impl Bystander {
    fn watching(node: &Node) -> Bystander {
        let mut client = node.subscriber("source=bystander");
        client.snapshot();
        Bystander { client, publisher: node.publisher(), round: 0 }
    }

    fn is_served_in_time(&mut self) {
        self.round += 1;
        let start = Deadline::after(LONG);
        self.publisher.send_json(json!({"source": "bystander", "data": self.round}));
        assert_eq!(self.client.record()["data"], self.round);
        assert!(start.elapsed() < SOON, "round {} took {:?}", self.round, start.elapsed());
    }
}

/// Sends a request for a page of `*/nomatch` without waiting for the answer.
fn ask_for_page(node: &Node) -> TcpStream {
    let mut stream = connect(&node.http);
    let request = format!(
        "GET /v1/sources?pattern=*/nomatch HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        node.http
    );
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

fn is_empty_page(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    let answer = Http::read(&mut stream).expect("an answer");
    assert_eq!((answer.status, answer.json()), (200, json!({"records": [], "after": null})));
}

/// A page of `*/nomatch` and a snapshot of `zz/*/N` looked at every source of the map. A thousand of them at once
/// took a minute of the processor, and others waited for tens of milliseconds again and again.
#[test]
fn a_thousand_lookups_of_what_is_not_there_cost_next_to_nothing() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--history", "1"]));
    let sources = 200_000;
    fill(&node, (0..sources).map(|n| json!({"source": format!("sensors/{n}/temp"), "data": 1})));
    let mut bystander = Bystander::watching(&node);
    let before = node.metric("anode_scan_steps_total", &[]);
    let pages: Vec<TcpStream> = (0..500).map(|_| ask_for_page(&node)).collect();
    let clients: Vec<Client> =
        (0..500).map(|n| node.subscriber(&format!("source=zz/*/{n}&source=*/nomatch"))).collect();
    (0..10).for_each(|_| bystander.is_served_in_time());
    pages.into_iter().for_each(is_empty_page);
    for mut client in clients {
        assert!(client.snapshot().records.is_empty());
        bystander.is_served_in_time();
    }
    let steps = node.metric("anode_scan_steps_total", &[]) - before;
    assert!(steps > 0.0 && steps / 1_000.0 < f64::from(sources) / 20.0, "{} steps each", steps / 1_000.0);
    // The same places in the order of names are found without looking at what comes before.
    let page = node.get("/v1/sources?pattern=sensors/**&limit=2&after=sensors/99998").json();
    assert_eq!(page["records"][1]["source"], "sensors/99999/temp");
    assert_eq!(page["records"].as_array().map(Vec::len), Some(2));
}

/// A pattern may begin with a wildcard where every source has a beginning of its own. Then all of them are looked
/// at, in small parts that many such scans share.
#[test]
fn scans_of_everything_take_turns_and_hold_up_nobody() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--history", "1"]));
    let sources = 20_000;
    fill(&node, (0..sources).map(|n| json!({"source": format!("room-{n}/temp"), "data": 1})));
    let mut bystander = Bystander::watching(&node);
    let pages: Vec<TcpStream> = (0..40).map(|_| ask_for_page(&node)).collect();
    let clients: Vec<Client> =
        (0..40).map(|n| node.subscriber(&format!("source=*/{n}&source=*/x/*&source=*/nomatch"))).collect();
    (0..20).for_each(|_| bystander.is_served_in_time());
    for mut client in clients {
        assert!(client.snapshot().records.is_empty());
        bystander.is_served_in_time();
    }
    pages.into_iter().for_each(is_empty_page);
    let mut whole = node.subscriber("source=*/temp");
    assert_eq!(whole.snapshot().records.len(), sources);
    assert_eq!(node.all_records("*/temp").len(), sources);
}

/// Expired sources filled the map for a day, and new sources were refused with `overloaded`.
#[test]
fn a_map_full_of_expired_sources_takes_new_ones() {
    let flags = ["--history", "1", "--max-memory", "8MiB"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    node.put("lasting", json!(1));
    for round in 0..12 {
        let brief = |n| json!({"source": format!("brief/{round}/{n}"), "data": 1, "ttl_ms": 100});
        fill(&node, (0..4_000).map(brief));
        eventually("the sources expire", LONG, || {
            let page = node.get("/v1/sources?pattern=brief/**&limit=1").json();
            page["records"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
        node.put(&format!("new/{round}"), json!(round));
    }
    assert_eq!(node.all_records("new/*").len(), 12);
    assert_eq!(node.latest("lasting").map(|record| record["data"].clone()), Some(json!(1)));
    assert!(
        node.metric("anode_map_guards", &[]) > 1_000.0,
        "what was let go still guards against older values"
    );
    assert!(node.metric("anode_map_bytes", &[]) < f64::from(9 << 20));
    let answer = node.post(json!({"source": "brief/11/1", "ts": 5, "data": "old"})).json();
    assert_eq!(answer["outcome"], "stale", "{answer}");
    // A map full of what has not expired still refuses new sources, by name.
    let mut publisher = node.publisher();
    let refused = (0..100_000).find_map(|n| {
        let answer = publisher.publish(json!({"source": format!("full/{n}"), "data": "x".repeat(1_000)}));
        answer["error"]["code"].as_str().map(str::to_owned)
    });
    assert_eq!(refused.as_deref(), Some("overloaded"));
}

/// A hundred megabytes of tiny sources, as the map counted them, were 223 MB of resident memory.
#[test]
fn the_map_counts_what_it_costs() {
    /// What the history in memory takes for a source beside its record, which the map holds, too: 111 bytes of its
    /// table, of which four in seven places are taken, a list of one entry (32), and a place in the order of all (24).
    const HISTORY_BYTES: f64 = 167.0;
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--history", "1"]));
    // Whatever grows with the load and not with the map has its size after this.
    fill(&node, (0..50_000).map(|n| json!({"source": format!("warm/{n}"), "data": "x".repeat(200)})));
    let measure = || (node.rss_bytes() as f64, node.metric("anode_map_bytes", &[]));
    let before = measure();
    fill(&node, (0..200_000).map(|n| json!({"source": format!("tiny/{n}"), "data": 1})));
    fill(&node, (0..100_000).map(|n| json!({"source": format!("larger/{n}"), "data": "x".repeat(200)})));
    let after = measure();
    let taken = after.0 - before.0 - HISTORY_BYTES * 300_000.0;
    let ratio = taken / (after.1 - before.1);
    assert!((0.8..1.2).contains(&ratio), "{ratio:.2} bytes are resident for each that is counted");
}
