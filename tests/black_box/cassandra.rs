//! Nodes whose records are stored in a real Cassandra: what `stored` promises there, and what happens while
//! Cassandra is unavailable. `scripts/test` starts it (127.0.0.1:9042, with a password) and runs these tests
//! one at a time, because some of them stop it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Cluster, Event, Http, Node, NodeConfig, eventually};
use crate::resume::resumed;
use crate::snippets::block_of;

/// A keyspace that belongs to one test. The node that starts first creates it.
pub struct Keyspace {
    name: String,
    contacts: &'static str,
    password: tempfile::NamedTempFile,
}

impl Keyspace {
    pub fn new(test: &str) -> Keyspace {
        let password = tempfile::NamedTempFile::new().unwrap_or_else(|error| panic!("no file: {error}"));
        std::fs::write(password.path(), "cassandra\n").unwrap_or_else(|error| panic!("no file: {error}"));
        let name = format!("b_{test}_{}", std::process::id());
        Keyspace { name, contacts: "127.0.0.1:9042", password }
    }

    /// Returns the same keyspace, reached through other nodes of Cassandra.
    pub fn at(self, contacts: &'static str) -> Keyspace {
        Keyspace { contacts, ..self }
    }

    pub fn set(&self, mut config: NodeConfig) -> NodeConfig {
        config.store = "cassandra";
        let password = self.password.path().display().to_string();
        let flags = ["--cassandra", self.contacts, "--keyspace", &self.name, "--cassandra-user", "cassandra"];
        config.with(&flags).with(&["--cassandra-password-file", &password])
    }

    pub fn node(&self, name: &str) -> NodeConfig {
        self.set(NodeConfig::named(name))
    }
}

/// Cassandra's process, which is stopped as long as this value lives.
struct Paused(String);

impl Paused {
    fn now() -> Paused {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or("target".into());
        let file = format!("{target}/cassandra/node1/pid");
        let pid = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let paused = Paused(pid.trim().to_owned());
        paused.signal("STOP");
        paused
    }

    fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &self.0]).status();
        assert!(sent.is_ok_and(|status| status.success()), "Cassandra cannot be sent {name}");
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

pub fn publish_stored(client: &mut Client, source: &str, data: Value) -> Value {
    client.publish(json!({"source": source, "data": data, "ack": "stored"}))
}

pub fn ready_code(node: &Node) -> u16 {
    Http::attempt(&node.http, "GET", "/readyz", &[], b"").map_or(0, |answer| answer.status)
}

pub fn all_is_written(node: &Node) {
    eventually("all is written", Duration::from_secs(60), || {
        (node.metric("anode_store_pending_records", &[]) == 0.0).then_some(())
    });
}

/// Needs no Cassandra: it compares the flags of the nodes in these tests with the line in docs/cassandra.md.
#[test]
fn the_line_of_the_page_has_the_flags_of_these_tests() {
    let contacts = "10.0.0.1:9042,10.0.0.2:9042";
    let config = Keyspace::new("page").at(contacts).node("a");
    let at = config.flags.iter().position(|flag| flag == "--cassandra").expect("the flag");
    let flags = config.flags[at..at + 2].join(" ");
    let line = format!("anode serve --store {} {flags}", config.store);
    assert_eq!(block_of("docs/cassandra.md", "anode serve --store cassandra").trim(), line);
}

/// In Jepsen's test of NATS 2.12.1 acknowledged writes were lost. Here they must be in the database, so that
/// a node that has never seen them starts with them.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn what_is_stored_in_cassandra_survives_kill_9_and_the_loss_of_the_disk() {
    let keyspace = Keyspace::new("kill");
    let mut node = Node::start(keyspace.node("a"));
    let mut client = Client::open(&node.http, "/publish?ack=stored");
    for step in 0..300 {
        client.send_json(json!({"id": step, "source": format!("k/{step}"), "data": step}));
    }
    for _ in 0..300 {
        let Some(Event::Text(text)) = client.event(PATIENCE) else { panic!("no answers") };
        assert_eq!(crate::harness::json(&text)["result"]["level"], "stored", "{text}");
    }
    client.publish(json!({"source": "k/7", "deleted": true, "ack": "stored"}));
    node.kill9();
    node.forget_data();
    let other = Node::start(keyspace.node("b"));
    assert_eq!(other.all_records("k/*").len(), 299);
    assert_eq!(other.latest("k/8").map(|record| record["data"].clone()), Some(json!(8)));
    assert_eq!(other.get("/v1/sources/k/7").json()["deleted"], true);
}

#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn history_is_cassandras_and_comes_in_pages() {
    let keyspace = Keyspace::new("history");
    let nodes = Cluster::configured(2, |config| keyspace.set(config));
    for step in 0..30 {
        let mut client = nodes[step % 2].publisher();
        let answer = publish_stored(&mut client, "h/x", json!(step));
        assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
        let ts = answer["result"]["ts"].as_u64().unwrap_or_default();
        nodes[(step + 1) % 2].wait_ts("h/x", ts);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = nodes[0].get(&format!("/v1/sources/h/x/history?limit=7{after}")).json();
        let records = page["records"].as_array().cloned().unwrap_or_default();
        seen.extend(records.iter().map(|record| record["data"].clone()));
        match page["after"].as_str() {
            Some(cursor) => after = format!("&after={}", crate::harness::encode(cursor)),
            None => break,
        }
    }
    assert_eq!(json!(seen), json!((0..30).rev().collect::<Vec<_>>()));
}

/// A database that hangs must not take the cluster down with it. `accepted` publishes go on, and subscribers
/// and peers are served as before. `stored` publishes are refused in time, and later all records are in the
/// database.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_paused_cassandra_delays_nobody_and_misses_nothing() {
    let keyspace = Keyspace::new("paused");
    let nodes = Cluster::configured(2, |config| keyspace.set(config));
    let mut subscriber = nodes[1].subscriber("source=p/*");
    let paused = Paused::now();
    let mut client = nodes[0].publisher();
    for step in 0..200 {
        let ts = nodes[0].put(&format!("p/{step}"), json!(step));
        assert!(ts > 0);
    }
    nodes[1]
        .wait_ts("p/199", nodes[0].latest("p/199").map_or(0, |record| record["ts"].as_u64().unwrap_or(0)));
    let _ = subscriber.event(Duration::from_secs(5));
    let refused = publish_stored(&mut client, "p/late", json!(1));
    assert_eq!(refused["error"]["code"], "store_unavailable", "{refused}");
    assert_eq!(refused["error"]["applied"], true, "{refused}");
    eventually("readyz tells", PATIENCE, || (ready_code(&nodes[0]) == 503).then_some(()));
    assert!(nodes[0].metric("anode_store_pending_records", &[]) > 0.0);
    drop(paused);
    eventually("readyz recovers", PATIENCE, || (ready_code(&nodes[0]) == 200).then_some(()));
    all_is_written(&nodes[0]);
    // The log tells of the trouble, once for each reason, and of its end. It tells at the start, too, that Cassandra answers.
    eventually("the log tells that it is over", PATIENCE, || {
        (nodes[0].log().matches("Cassandra answers").count() > 1).then_some(())
    });
    let log = nodes[0].log();
    assert!((1..4).contains(&log.matches("Cassandra is away").count()), "{log}");
    assert_eq!(log.matches("Cassandra answers").count(), 2, "{log}");
    assert_eq!(publish_stored(&mut client, "p/after", json!(1))["result"]["level"], "stored");
    drop(nodes);
    let other = Node::start(keyspace.node("c"));
    assert_eq!(other.all_records("p/*").len(), 202);
}

/// Records that wait on disk survive the end of the node, and are written to Cassandra after its restart.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn what_waits_for_cassandra_survives_a_restart_of_the_node() {
    let keyspace = Keyspace::new("spill");
    let mut node = Node::start(keyspace.node("a"));
    let paused = Paused::now();
    for step in 0..50 {
        node.put(&format!("w/{step}"), json!(step));
    }
    // The node notices that Cassandra does not answer, and keeps records that wait on disk.
    eventually("it is noticed", PATIENCE, || (ready_code(&node) == 503).then_some(()));
    assert_eq!(node.sigterm(), Some(0));
    node.restart_unready();
    // The node serves its records before Cassandra is available.
    eventually("it serves", PATIENCE, || node.latest("w/49"));
    drop(paused);
    node.wait_ready();
    all_is_written(&node);
    node.kill9();
    let other = Node::start(keyspace.node("b"));
    assert_eq!(other.all_records("w/*").len(), 50);
}

/// A node dies with records that it has accepted and that are not in Cassandra. Its peers hold them and must
/// write them.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn survivors_store_what_a_dead_node_could_not() {
    let keyspace = Keyspace::new("custody");
    let mut nodes = Cluster::configured(3, |config| keyspace.set(config));
    nodes[0].put("c/before", json!(0));
    let paused = Paused::now();
    let mut last = 0;
    for step in 0..100 {
        last = nodes[0].put(&format!("c/{step}"), json!(step));
    }
    nodes[1].wait_ts("c/99", last);
    nodes[2].wait_ts("c/99", last);
    nodes[0].kill9();
    nodes[0].forget_data();
    drop(paused);
    for survivor in 1..3 {
        nodes[survivor].wait_member("a", "dead", PATIENCE);
    }
    let first = Node::start(keyspace.node("x"));
    let is_stored = |probe: &Node| probe.all_records("c/*").len();
    // A node without peers has only what is in Cassandra. A new one is started until it has everything.
    let mut stored = is_stored(&first);
    let deadline = crate::harness::Deadline::after(Duration::from_secs(60));
    while stored < 101 && deadline.left().is_some() {
        stored = is_stored(&Node::start(keyspace.node("x")));
    }
    // The records c/0 to c/99, and c/before.
    assert_eq!(stored, 101);
}

/// `stored` is asked for while older records that waited are being written. It may be confirmed only when
/// these are in Cassandra, too, and must fail in time otherwise.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn stored_is_said_only_after_all_that_waited() {
    // Enough records that they are written in at least three steps.
    const WAITING: usize = 10_000;
    let keyspace = Keyspace::new("drain");
    let mut node = Node::start(keyspace.node("a"));
    let mut client = node.publisher();
    let paused = Paused::now();
    eventually("it is noticed", PATIENCE, || (ready_code(&node) == 503).then_some(()));
    for from in (0..WAITING).step_by(500) {
        let batch: Vec<Value> = (from..from + 500)
            .map(|step| json!({"id": step, "source": format!("w/{step}"), "data": step}))
            .collect();
        client.send_json(json!(batch));
        let answers = client.next();
        let are_applied = answers.as_array().is_some_and(|answers| {
            answers.len() == 500 && answers.iter().all(|one| one["result"]["outcome"] == "applied")
        });
        assert!(are_applied, "{answers}");
    }
    eventually("it waits on the disk", PATIENCE, || {
        (node.metric("anode_store_spilled_records", &[]) >= WAITING as f64).then_some(())
    });
    drop(paused);
    // The first publish comes before any waiting record is written, and the next ones while they are written.
    let answer = eventually("it is stored", Duration::from_secs(60), || {
        let answer = publish_stored(&mut client, "w/last", json!(1));
        if answer["result"]["level"] == "stored" {
            return Some(answer);
        }
        // It is `timeout` once Cassandra answers again but does not have all records yet.
        let code = answer["error"]["code"].as_str();
        assert!(matches!(code, Some("store_unavailable" | "timeout")), "{answer}");
        assert_eq!(answer["error"]["applied"], true, "{answer}");
        None
    });
    node.kill9();
    node.forget_data();
    let other = Node::start(keyspace.node("b"));
    assert_eq!(other.all_records("w/*").len(), WAITING + 1, "{answer}");
}

/// After the restart of a node, a subscriber with a token is sent everything again unless the node can prove
/// that it needs less. A token that hides missed records would be worse than none.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_token_over_a_restart_hides_nothing() {
    let keyspace = Keyspace::new("token");
    let mut alone = Node::start(keyspace.node("a"));
    let mut client = alone.publisher();
    publish_stored(&mut client, "r/old", json!(1));
    let token = alone.subscriber("source=r/*").snapshot().resume;
    assert_eq!(alone.sigterm(), Some(0));
    // Another node writes this record meanwhile, so that it is only in Cassandra.
    let other = Node::start(keyspace.node("b"));
    publish_stored(&mut other.publisher(), "r/meanwhile", json!(2));
    drop(other);
    alone.restart();
    alone.put("r/new", json!(3));
    let snapshot = resumed(&alone, "r/*", &token);
    // Without peers the node cannot prove what the subscriber has seen, because Cassandra may lack records
    // that other nodes hold.
    assert_eq!(snapshot.result["recovered"], false);
    assert_eq!(snapshot.sources(), ["r/meanwhile", "r/new", "r/old"]);
}

/// In a cluster, the restarted node learns from its peers what the subscriber has seen.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_token_is_good_at_a_restarted_node_of_a_cluster() {
    let keyspace = Keyspace::new("tokens");
    let mut nodes = Cluster::configured(2, |config| keyspace.set(config));
    publish_stored(&mut nodes[1].publisher(), "r/old", json!(1));
    nodes.wait_equal("r/*", Duration::from_secs(10));
    let token = eventually("a token proves everything", PATIENCE, || {
        let token = nodes[1].subscriber("source=r/*").snapshot().resume;
        let snapshot = resumed(&nodes[0], "r/*", &token);
        (snapshot.result["recovered"] == true && snapshot.records.is_empty()).then_some(token)
    });
    assert_eq!(nodes[0].sigterm(), Some(0));
    publish_stored(&mut nodes[1].publisher(), "r/meanwhile", json!(2));
    nodes[0].restart();
    nodes.wait_equal("r/*", Duration::from_secs(10));
    let snapshot = eventually("it has learned what it has seen", PATIENCE, || {
        let snapshot = resumed(&nodes[0], "r/*", &token);
        assert!(snapshot.sources().contains(&"r/meanwhile".to_owned()), "{snapshot:?}");
        (snapshot.result["recovered"] == true).then_some(snapshot)
    });
    assert_eq!(snapshot.sources(), ["r/meanwhile"]);
}

/// Tables that are dropped while nodes run are created again, and filled with the records that the nodes
/// hold.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_dropped_schema_is_made_and_filled_again() {
    let keyspace = Keyspace::new("dropped");
    let node = Node::start(keyspace.node("a"));
    for step in 0..100 {
        node.put(&format!("d/{step}"), json!(step));
    }
    let mut client = node.publisher();
    publish_stored(&mut client, "d/last", json!(1));
    drop_keyspace(&keyspace.name);
    eventually("it is noticed and mended", Duration::from_secs(60), || {
        let answer = publish_stored(&mut client, "d/again", json!(1));
        (answer["result"]["level"] == "stored" && node.log().contains("everything is written again"))
            .then_some(())
    });
    eventually("all is written", Duration::from_secs(60), || {
        node.log().contains("the whole map is in Cassandra").then_some(())
    });
    let other = Node::start(keyspace.node("b"));
    assert_eq!(other.all_records("d/*").len(), 102);
}

/// Drops a keyspace over the CQL protocol (version 4): startup, password, query.
fn drop_keyspace(name: &str) {
    use std::io::{Read, Write};
    let mut stream = crate::harness::http::connect("127.0.0.1:9042");
    let mut ask = |opcode: u8, body: &[u8]| {
        let mut frame = vec![4, 0, 0, 0, opcode];
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(body);
        let sent = stream.write_all(&frame);
        assert!(sent.is_ok(), "{sent:?}");
        let mut head = [0; 9];
        let read = stream.read_exact(&mut head);
        assert!(read.is_ok(), "{read:?}");
        let mut rest = vec![0; u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize];
        let read = stream.read_exact(&mut rest);
        assert!(read.is_ok(), "{read:?}");
        (head[4], String::from_utf8_lossy(&rest).into_owned())
    };
    let short = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let startup = [vec![0, 1], short("CQL_VERSION"), short("3.0.0")].concat();
    assert_eq!(ask(1, &startup).0, 3, "AUTHENTICATE");
    let token = b"\0cassandra\0cassandra";
    assert_eq!(ask(15, &[&(token.len() as u32).to_be_bytes()[..], token].concat()).0, 16, "AUTH_SUCCESS");
    let text = format!("DROP KEYSPACE {name}");
    let query = [&(text.len() as u32).to_be_bytes()[..], text.as_bytes(), &[0, 1, 0]].concat();
    let (opcode, answer) = ask(7, &query);
    assert_eq!(opcode, 8, "{answer}");
}
