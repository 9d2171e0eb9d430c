//! Clusters whose nodes have keys: who has none is not heard, recordings are refused, and keys change while records
//! flow.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::gossip::{self, DATAGRAM, MEMBERS, proto};
use crate::harness::http::connect;
use crate::harness::wait::{PATIENCE, pause};
use crate::harness::{Cluster, Deadline, Fabric, Node, NodeConfig, anode, eventually, ports};

/// Files with keys, which are removed with this value.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn new() -> Keys {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        Keys { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as an operator should: under another name first.
    fn write(&self, name: &str, keys: &[&str]) -> String {
        let (file, new) = (self.path(name), self.path("new"));
        let written =
            std::fs::write(&new, keys.join("\n") + "\n").and_then(|()| std::fs::rename(&new, &file));
        assert!(written.is_ok(), "{written:?}");
        file.display().to_string()
    }
}

fn new_key() -> String {
    let output = anode(&["keys", "new"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout.trim().to_owned()
}

/// What `anode keys` shows at a node: for each member id, state, key that seals, keys that open, phase.
fn shown(node: &Node) -> Vec<Vec<String>> {
    let output = anode(&["keys", "--from", &format!("http://{}", node.http)]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let lines = output.stdout.lines().skip(1);
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn refused(node: &Node, reason: &str) -> f64 {
    node.metric("anode_gossip_refused_total", &[("reason", reason)])
}

fn refused_in_all(cluster: &Cluster, reason: &str) -> f64 {
    cluster.nodes.iter().map(|node| refused(node, reason)).sum()
}

fn wait_refused(node: &Node, reason: &str, count: f64) {
    eventually(&format!("{} has refused {count} for {reason}", node.id), PATIENCE, || {
        (refused(node, reason) >= count).then_some(())
    });
}

/// Sends datagrams to the gossip port of a node, and returns the number of bytes that come back.
fn bytes_for(node: &Node, datagrams: &[Vec<u8>]) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no socket: {error}"));
    let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
    for datagram in datagrams {
        let _ = socket.send_to(datagram, &node.gossip);
    }
    let (mut buffer, mut bytes) = ([0; 2_048], 0);
    while let Ok(received) = socket.recv(&mut buffer) {
        bytes += received;
    }
    bytes
}

/// Writes bytes on a stream to the gossip port, and returns how many come back until the node closes it.
fn bytes_until_closed(node: &Node, bytes: &[u8]) -> usize {
    let mut stream: TcpStream = connect(&node.gossip);
    let _ = stream.write_all(bytes);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(8)));
    let (mut buffer, mut came) = ([0; 1_024], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return came,
            Ok(read) => came += read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return came,
            Err(error) => panic!("the stream is open: {error}"),
        }
    }
}

/// A sealed datagram, or the preamble of a sealed stream, as somebody makes it up who knows the id of a key.
fn made_up(kind: u8, id: &str) -> Vec<u8> {
    let id = u32::from_str_radix(id, 16).unwrap_or_default().to_be_bytes();
    // Nonce of a life, number, tag of the receiver, name, boot number, and what should open.
    let rest = [&[7; 8][..], &[1, 0, 0, 0, 0, 0], &[0; 4], &[7; 6], &[9; 8], &[3; 32]].concat();
    [&b"aS\x01"[..], &[kind], &id, &rest].concat()
}

fn assert_nobody_was_suspected(cluster: &Cluster) {
    for node in &cluster.nodes {
        let members = node.get("/v1/members").json();
        for member in members["members"].as_array().into_iter().flatten() {
            assert_eq!((&member["state"], &member["incarnation"]), (&json!("alive"), &json!(0)), "{members}");
        }
    }
}

#[test]
fn who_has_no_key_or_another_one_is_counted_and_not_answered() {
    let keys = Keys::new();
    let (key, other) = (new_key(), new_key());
    assert_ne!(key, other);
    let file = keys.write("keys", &[&key]);
    let cluster = Cluster::start_with(3, &["--cluster-key", &file]);
    let ts = cluster[0].put("sealed", json!("x".repeat(60_000)));
    cluster.nodes.iter().for_each(|node| node.wait_ts("sealed", ts));
    let a = &cluster[0];
    let ping = proto::Ping {
        sequence: 7,
        sender: "s".into(),
        view: 1,
        padding: vec![0; 500].into(),
        ..Default::default()
    };
    let body = proto::Datagram { body: Some(proto::datagram::Body::Ping(ping)), ..Default::default() };
    let plain = gossip::message(&a.config.cluster_name, DATAGRAM, 99, &prost::Message::encode_to_vec(&body));
    let id = shown(a)[0][2].clone();
    assert_eq!(id.len(), 8);
    for (reason, datagram, preamble) in [
        ("plain", plain, gossip::message(&a.config.cluster_name, MEMBERS, 99, b"")),
        ("key", made_up(DATAGRAM, "0badc0de"), made_up(MEMBERS, "0badc0de")),
        ("forged", made_up(DATAGRAM, &id), made_up(MEMBERS, &id)),
    ] {
        let before = refused(a, reason);
        assert_eq!(bytes_for(a, &vec![datagram; 10]), 0, "{reason}: a stranger is answered");
        wait_refused(a, reason, before + 10.0);
        // All preambles are filled up to the length of a sealed one.
        assert_eq!(bytes_until_closed(a, &preamble), 0, "{reason}: a stream is answered");
        wait_refused(a, reason, before + 11.0);
    }
    // Nodes without the key, and with another one, that would like to join.
    let plain = Node::start(NodeConfig::joining("plain", a).in_memory());
    let strange = keys.write("strange", &[&other]);
    let strange =
        Node::start(NodeConfig::joining("strange", a).in_memory().with(&["--cluster-key", &strange]));
    for (node, reason) in [(&plain, "plain"), (&strange, "key")] {
        let before = refused(a, reason);
        wait_refused(a, reason, before + 2.0);
        assert_eq!(node.alive(), 1);
        assert!(a.member_state(&node.id).is_none());
    }
    for node in [a, &strange] {
        eventually("the log says it", PATIENCE, || node.log().contains("no key in common").then_some(()));
    }
    let lines = a.log().lines().filter(|line| line.contains("no key in common")).count();
    assert!(lines <= 2, "a plain and a sealed stranger are one line a minute each:\n{}", a.log());
    assert!(plain.latest("sealed").is_none() && strange.latest("sealed").is_none());
    assert_nobody_was_suspected(&cluster);
}

#[test]
fn recordings_are_refused() {
    let keys = Keys::new();
    let file = keys.write("keys", &[&new_key()]);
    let (fabric, mut cluster) = Fabric::start(3, &["--cluster-key", &file]);
    for step in 0..50 {
        cluster[step % 3].put(&format!("recorded/{step}"), json!(step));
    }
    cluster.wait_equal("**", PATIENCE);
    let seen = fabric.seen();
    assert!(seen.len() > 100);
    for datagram in &seen {
        assert!(datagram.starts_with(b"aS") || datagram.starts_with(b"as"), "{datagram:?}");
        assert!(!datagram.windows(8).any(|part| part == b"recorded"), "{datagram:?}");
    }
    let again = |cluster: &Cluster| {
        let (before, copies) = (refused_in_all(cluster, "replay"), settled_copies(cluster));
        for datagram in &seen {
            for to in 0..3 {
                fabric.inject((to + 1) % 3, to, datagram);
            }
        }
        // Each was for one of the three.
        eventually("the recordings are refused", PATIENCE, || {
            (refused_in_all(cluster, "replay") - before >= seen.len() as f64).then_some(())
        });
        assert_eq!(refused_in_all(cluster, "forged"), 0.0);
        cluster.wait_whole();
        assert_eq!(settled_copies(cluster), copies, "records came out of a recording");
    };
    again(&cluster);
    assert_nobody_was_suspected(&cluster);
    // A stranger that sends them again from its own address gets no more than it sent.
    for node in &cluster.nodes {
        let sent: usize = seen.iter().map(Vec::len).sum();
        assert!(bytes_for(node, &seen) <= sent);
    }
    // Nodes that were restarted have an empty memory of what came.
    assert_eq!(cluster[2].sigterm(), Some(0));
    cluster[2].restart_unready();
    fabric.restarted(2, &cluster[2]);
    cluster[2].wait_ready();
    cluster.wait_whole();
    cluster.wait_equal("**", PATIENCE);
    again(&cluster);
    let ts = cluster[1].put("after", json!(1));
    cluster.nodes.iter().for_each(|node| node.wait_ts("after", ts));
}

fn copies(cluster: &Cluster) -> f64 {
    cluster.nodes.iter().map(|node| node.metric("anode_data_copies_received_total", &[])).sum()
}

/// The number of copies of records that came from peers, once it has stayed the same for longer than the interval at
/// which nodes update their metrics.
fn settled_copies(cluster: &Cluster) -> f64 {
    loop {
        let (before, deadline) = (copies(cluster), Deadline::after(Duration::from_millis(2_500)));
        while deadline.left().is_some() {
            pause();
        }
        if copies(cluster) == before {
            return before;
        }
    }
}

#[test]
fn a_cluster_goes_over_to_keys_without_a_stop() {
    let keys = Keys::new();
    let file = keys.write("keys", &[&new_key()]);
    let mut cluster = Cluster::start(3);
    let mut step = 0;
    let mut publish = |cluster: &Cluster| {
        for node in &cluster.nodes {
            step += 1;
            let ts = node.put("over", json!(step));
            cluster.nodes.iter().for_each(|node| node.wait_ts("over", ts));
        }
    };
    publish(&cluster);
    for phase in ["accept", "send", "require"] {
        for index in 0..3 {
            assert_eq!(cluster[index].sigterm(), Some(0));
            let other = cluster[(index + 1) % 3].gossip.clone();
            let node = &mut cluster[index];
            node.config.flags = vec!["--cluster-key".into(), file.clone()];
            if phase != "require" {
                node.config.flags.extend(["--cluster-key-phase".into(), phase.into()]);
            }
            node.config.join = vec![other];
            node.restart();
            cluster.wait_whole();
            publish(&cluster);
        }
        eventually(&format!("all show {phase}"), PATIENCE, || {
            let all = cluster.nodes.iter().flat_map(shown);
            all.into_iter()
                .all(|member| member[4] == phase && (member[2] == "-") == (phase == "accept"))
                .then_some(())
        });
    }
    for reason in ["plain", "key", "forged"] {
        assert_eq!(refused_in_all(&cluster, reason), 0.0, "{reason}");
    }
    let plain = gossip::message(&cluster[0].config.cluster_name, DATAGRAM, 99, b"");
    bytes_for(&cluster[0], &[plain]);
    wait_refused(&cluster[0], "plain", 1.0);
}

/// What nodes send each other shows their phase: plain messages with `accept`, and sealed ones with the other two.
#[test]
fn each_phase_sends_what_it_says() {
    let keys = Keys::new();
    let file = keys.write("keys", &[&new_key()]);
    for phase in ["accept", "send", "require"] {
        let (fabric, cluster) = Fabric::start(2, &["--cluster-key", &file, "--cluster-key-phase", phase]);
        let ts = cluster[0].put("phase", json!(phase));
        cluster[1].wait_ts("phase", ts);
        let seen = fabric.seen();
        assert!(!seen.is_empty(), "nothing was sent in the phase {phase}");
        for datagram in &seen {
            let is_sealed = datagram.starts_with(b"aS") || datagram.starts_with(b"as");
            assert!(is_sealed || datagram.starts_with(b"aN"), "{phase}: {datagram:?}");
            assert_eq!(is_sealed, phase != "accept", "{phase}: {datagram:?}");
        }
    }
}

#[test]
fn a_rotation_while_records_flow_loses_none_and_makes_nobody_suspect() {
    let keys = Keys::new();
    let (old, new) = (new_key(), new_key());
    let names = ["a", "b", "c"];
    for name in names {
        keys.write(name, &[&old]);
    }
    let cluster = Cluster::configured(3, |config| {
        let file = keys.path(&config.name).display().to_string();
        config.with(&["--cluster-key", &file])
    });
    let old_id = shown(&cluster[0])[0][2].clone();
    let mut published = 0;
    let mut publish = |count: usize| {
        for _ in 0..count {
            cluster[published % 3].put(&format!("flow/{published}"), json!(published));
            published += 1;
        }
    };
    let mut new_id = String::new();
    for file in [vec![&old, &new], vec![&new, &old], vec![&new]] {
        for name in names {
            let lines: Vec<&str> = file.iter().map(|key| key.as_str()).collect();
            keys.write(name, &lines);
            publish(20);
        }
        let deadline = Deadline::after(PATIENCE);
        loop {
            publish(5);
            let all: Vec<Vec<String>> = cluster.nodes.iter().flat_map(shown).collect();
            let ids: Vec<&str> = all[0][3].split(',').collect();
            if all.iter().all(|member| member[2..] == all[0][2..])
                && all.len() == 9
                && ids.len() == file.len()
            {
                let is_old = file[0] == &old;
                if (all[0][2] == old_id) == is_old {
                    new_id = ids.into_iter().find(|id| *id != old_id).unwrap_or_default().to_owned();
                    break;
                }
            }
            assert!(deadline.left().is_some(), "`anode keys` shows {all:?}");
        }
        assert_nobody_was_suspected(&cluster);
    }
    assert_eq!(new_id.len(), 8);
    assert_eq!(cluster.wait_equal("flow/*", PATIENCE).len(), published);
    for reason in ["plain", "key", "replay", "forged"] {
        assert_eq!(refused_in_all(&cluster, reason), 0.0, "{reason}");
    }
    let members = cluster[0].get("/v1/members").json();
    let expected = json!({"seals": new_id, "opens": [new_id], "phase": "require"});
    for member in members["members"].as_array().into_iter().flatten() {
        assert_eq!(member["keys"], expected, "{members}");
    }
}

#[test]
fn a_bad_file_is_refused_while_the_node_runs() {
    let keys = Keys::new();
    let key = new_key();
    let file = keys.write("keys", &[&key]);
    let mut a = Node::start(NodeConfig::named("a").in_memory().with(&["--cluster-key", &file]));
    a.allowed_errors.push("--cluster-key");
    let b = Node::start(NodeConfig::joining("b", &a).in_memory().with(&["--cluster-key", &file]));
    let before = shown(&a);
    drop(b);
    keys.write("keys", &["no key at all"]);
    eventually("the log says it", PATIENCE, || a.log().contains("line 1 is no key").then_some(()));
    assert!(!a.log().contains("no key at all"), "the content of a key file is not logged");
    assert_eq!(shown(&a)[0], before[0], "the old key stays");
    keys.write("keys", &[&new_key(), &key]);
    eventually("the next good one is taken", PATIENCE, || {
        (shown(&a)[0][3].split(',').count() == 2).then_some(())
    });
    let errors = a.log().lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(errors, 1, "a bad file is one line:\n{}", a.log());
}

#[test]
fn bad_arguments_end_with_code_2_and_name_the_field() {
    let keys = Keys::new();
    let good = keys.write("good", &[&new_key()]);
    let twice = new_key();
    let many: Vec<String> = (0..9).map(|_| new_key()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let missing = keys.path("missing").display().to_string();
    for (flags, field) in [
        (vec!["--cluster-key", &missing], "--cluster-key"),
        (vec!["--cluster-key", &keys.write("empty", &["", "# none"])], "--cluster-key"),
        (vec!["--cluster-key", &keys.write("word", &["password"])], "--cluster-key"),
        (vec!["--cluster-key", &keys.write("twice", &[&twice, &twice])], "--cluster-key"),
        (vec!["--cluster-key", &keys.write("many", &many)], "--cluster-key"),
        (vec!["--cluster-key", &good, "--cluster-key-phase", "maybe"], "--cluster-key-phase"),
        (vec!["--cluster-key-phase", "send"], "--cluster-key-phase"),
    ] {
        let output = anode(&[&["serve", "--store", "memory"], &flags[..]].concat());
        assert_eq!(output.code, Some(2), "{flags:?}: {output:?}");
        assert!(output.stderr.contains(&format!("{field}:")), "{flags:?}: {}", output.stderr);
        assert!(!output.stderr.contains("password") && !output.stderr.contains(&twice), "{}", output.stderr);
    }
}

#[test]
fn an_open_gossip_port_is_warned_of_once() {
    let keys = Keys::new();
    let file = keys.write("keys", &[&new_key()]);
    let warnings = |config: NodeConfig| {
        let node = Node::start(config.in_memory());
        node.log().lines().filter(|line| line.contains("WARN") && line.contains("--cluster-key")).count()
    };
    let open = || {
        let port = ports::free();
        let mut config = NodeConfig::named("a");
        config.gossip = format!("0.0.0.0:{port}");
        config.advertise = Some(format!("127.0.0.1:{port}"));
        config
    };
    assert_eq!(warnings(open()), 1);
    assert_eq!(warnings(open().with(&["--cluster-key", &file])), 0);
    assert_eq!(warnings(NodeConfig::named("a")), 0);
}

/// Silent streams of strangers keep nobody from joining, with keys as without.
#[test]
fn silent_streams_do_not_hold_up_a_join() {
    let keys = Keys::new();
    let file = keys.write("keys", &[&new_key()]);
    let sealed = |config: NodeConfig| config.in_memory().with(&["--cluster-key", &file]);
    let a = Node::start(sealed(NodeConfig::named("a")));
    let id = shown(&a)[0][2].clone();
    let mut silent = Vec::new();
    for first in [&b""[..], b"aS\x01\x02", &made_up(2, &id)[..40]] {
        silent.extend((0..40).map(|_| {
            let mut stream = connect(&a.gossip);
            let _ = stream.write_all(first);
            stream
        }));
    }
    let start = Deadline::after(Duration::from_secs(20));
    let b = Node::start(sealed(NodeConfig::joining("b", &a)));
    assert!(start.elapsed() < Duration::from_secs(5), "joined after {:?}", start.elapsed());
    let ts = a.put("early", json!(1));
    b.wait_ts("early", ts);
    drop(silent);
}

/// A node that is paused while a key changes at the others takes part again.
#[test]
fn a_node_that_stood_still_in_a_rotation_comes_back() {
    let keys = Keys::new();
    let (old, new) = (new_key(), new_key());
    let file = keys.write("keys", &[&old, &new]);
    let cluster = Cluster::start_with(3, &["--cluster-key", &file]);
    cluster[2].signal("STOP");
    keys.write("keys", &[&new, &old]);
    let deadline = Deadline::after(Duration::from_secs(4));
    while deadline.left().is_some() {
        pause();
    }
    cluster[2].signal("CONT");
    cluster.wait_whole();
    let ts = cluster[2].put("back", json!(1));
    cluster.nodes.iter().for_each(|node| node.wait_ts("back", ts));
    let members: Value = cluster[2].get("/v1/members").json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3));
    assert_eq!(refused_in_all(&cluster, "key"), 0.0);
}
