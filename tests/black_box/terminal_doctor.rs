//! `anode doctor`: what it finds, what it says to do about it, and its exit code.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::Value;

use crate::harness::clock::ShiftedClock;
use crate::harness::command::{Background, binary, run};
use crate::harness::file_size::set_writable;
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Node, NodeConfig, Output, anode, eventually, json as parse, ports};

/// Returns the findings about one thing, each as its verdict and message.
fn findings(output: &Output, check: &str) -> Vec<(String, String)> {
    let told = parse(&output.stdout);
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let all = told["findings"].as_array().expect("findings").iter();
    let of = all.filter(|finding| finding["check"] == check);
    of.map(|finding| (text(finding, "verdict"), text(finding, "message"))).collect()
}

#[test]
fn a_healthy_cluster_has_nothing_wrong() {
    let cluster = Cluster::start(3);
    let url = format!("http://{}", cluster[0].http);
    let output = anode(&["doctor", "--json", "--url", &url]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(parse(&output.stdout)["ok"], true);
    for check in ["node", "ready", "clock", "files", "store", "disk", "peers"] {
        let found = findings(&output, check);
        assert!(!found.is_empty(), "{check}: {output:?}");
        assert!(found.iter().all(|(verdict, _)| verdict != "wrong"), "{check}: {found:?}");
    }
    assert!(findings(&output, "peers")[0].1.contains("3 members"), "{output:?}");
    let text = anode(&["doctor", "--url", &url]);
    assert!(text.code == Some(0) && text.stdout.contains("nothing is wrong"), "{text:?}");
}

#[test]
fn a_node_that_is_not_there_is_wrong() {
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    let output = anode(&["doctor", "--url", &nowhere]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("WRONG") && output.stdout.contains("-> start the node"), "{output:?}");
}

#[test]
fn before_a_start_the_machine_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let doctor = |http: &str, gossip: &str, join: &str| {
        let mut command = binary();
        command.args(["doctor", "--json", "--http", http, "--gossip", gossip]).current_dir(folder.path());
        if !join.is_empty() {
            command.args(["--join", join]);
        }
        run(&mut command, "")
    };
    let free = || format!("127.0.0.1:{}", ports::free());
    let output = doctor(&free(), &free(), "");
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(findings(&output, "ports")[0].0, "ok");
    assert_eq!(findings(&output, "store")[0].0, "ok");
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let taken = held.local_addr().expect("an address").to_string();
    let output = doctor(&free(), &taken, "");
    assert_eq!(output.code, Some(1), "{output:?}");
    // The same port of TCP may be taken as well, by a node of another test.
    let found = findings(&output, "ports");
    let is_told = |(verdict, message): &(String, String)| {
        verdict == "wrong" && message.contains(&taken) && message.contains("UDP")
    };
    assert!(found.iter().any(is_told), "{found:?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left behind");
}

#[test]
fn join_targets_are_asked_over_udp_and_tcp() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let ask = |join: &str, cluster: &str| {
        let own = [format!("127.0.0.1:{}", ports::free()), format!("127.0.0.1:{}", ports::free())];
        let output = anode(&[
            "doctor",
            "--json",
            "--store",
            "memory",
            "--http",
            &own[0],
            "--gossip",
            &own[1],
            "--join",
            join,
            "--cluster-name",
            cluster,
        ]);
        let found = findings(&output, "peers");
        (output.code, found.first().cloned().unwrap_or_default())
    };
    let (code, (verdict, message)) = ask(&node.gossip, &node.config.cluster_name);
    assert_eq!((code, verdict.as_str()), (Some(0), "ok"), "{message}");
    assert!(message.contains("UDP and TCP"), "{message}");
    let (code, (verdict, message)) = ask(&node.gossip, "strangers");
    assert_eq!((code, verdict.as_str()), (Some(1), "wrong"), "{message}");
    assert!(message.contains("another cluster"), "{message}");
    let (code, (_, message)) = ask(&format!("127.0.0.1:{}", ports::free()), "any");
    assert!(code == Some(1) && message.contains("nothing listens"), "{message}");
    // Who only asks is not taken for a member.
    let members = node.get("/v1/members").json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
}

#[test]
fn a_peer_that_datagrams_do_not_reach_is_named() {
    let first = Node::start(NodeConfig::named("a").in_memory());
    // It tells others an address at which nothing answers.
    let mut config = NodeConfig::joining("b", &first).in_memory();
    config.advertise = Some(format!("127.0.0.1:{}", ports::free()));
    let second = Node::spawn(config);
    crate::harness::eventually("it is joining", std::time::Duration::from_secs(20), || {
        let members = first.get("/v1/members").json();
        let joining = members["members"].as_array()?.iter().any(|member| member["state"] == "joining");
        joining.then_some(())
    });
    let output = anode(&["doctor", "--json", "--url", &format!("http://{}", first.http)]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let found = findings(&output, "peers");
    assert!(found.iter().any(|(verdict, said)| verdict == "wrong" && said.contains(&second.id)), "{found:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_wrong() {
    // Root may write anywhere but below a file.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), b"x").expect("written");
    let own = [format!("127.0.0.1:{}", ports::free()), format!("127.0.0.1:{}", ports::free())];
    let dir = folder.path().join("file").display().to_string();
    let args = ["doctor", "--json", "--http", &own[0], "--gossip", &own[1], "--data-dir", &dir];
    let mut running = Background::start(binary().args(args));
    let code = running.wait(std::time::Duration::from_secs(30));
    let output = Output { code, stdout: running.stdout(), stderr: running.stderr() };
    assert_eq!(code, Some(1), "{output:?}");
    assert_eq!(findings(&output, "store")[0].0, "wrong", "{output:?}");
}

/// What a running node suffers from was judged in tests of the pieces alone.
#[test]
fn a_store_that_fails_and_a_clock_that_is_off_are_wrong() {
    let doctor = |node: &Node| anode(&["doctor", "--json", "--url", &format!("http://{}", node.http)]);
    let config = NodeConfig { survives_failing_writes: true, ..NodeConfig::named("a") };
    let mut node = Node::start(config);
    node.allowed_errors = vec!["the store failed to commit"];
    set_writable(node.pid(), false);
    node.put("s", serde_json::json!(1));
    eventually("the store fails", PATIENCE, || (node.metric("anode_store_up", &[]) == 0.0).then_some(()));
    let output = doctor(&node);
    let store = findings(&output, "store");
    assert_eq!((output.code, store[0].0.as_str()), (Some(1), "wrong"), "{output:?}");
    assert!(
        store[0].1.contains("do not become durable") && output.stdout.contains("see the log"),
        "{output:?}"
    );

    let clock = ShiftedClock::ahead_by(60);
    let cluster = Cluster::start(2);
    let wrong = Node::spawn(NodeConfig::joining("c", &cluster[0]).in_memory().with_clock(&clock));
    eventually("it notices", PATIENCE, || {
        let output = doctor(&wrong);
        let found = findings(&output, "clock");
        (found.first()?.0 == "wrong" && output.code == Some(1) && output.stdout.contains("NTP")).then_some(())
    });
}

/// A port that is open for TCP alone, and one for UDP alone, are told apart from one at which nothing is.
#[test]
fn a_join_target_that_answers_in_one_way_alone_is_told() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let ask = |join: SocketAddr| {
        let own = [format!("127.0.0.1:{}", ports::free()), format!("127.0.0.1:{}", ports::free())];
        let mut args = vec!["doctor", "--json", "--store", "memory", "--http", &own[0], "--gossip", &own[1]];
        let (join, cluster) = (join.to_string(), node.config.cluster_name.clone());
        args.extend(["--join", &join, "--cluster-name", &cluster]);
        let output = anode(&args);
        (output.code, findings(&output, "peers").first().cloned().unwrap_or_default())
    };
    let tcp = Relay::tcp(&node.gossip);
    let (code, (verdict, message)) = ask(tcp.address);
    assert_eq!((code, verdict.as_str()), (Some(1), "wrong"), "{message}");
    assert!(message.contains("answers over TCP, and no datagram"), "{message}");
    let udp = Relay::udp(&node.gossip);
    let (code, (verdict, message)) = ask(udp.address);
    assert_eq!((code, verdict.as_str()), (Some(1), "wrong"), "{message}");
    assert!(message.contains("answers over UDP, and not over TCP"), "{message}");
}

/// Passes on what comes over TCP, or over UDP, to a node, for as long as the test runs.
struct Relay {
    address: SocketAddr,
}

impl Relay {
    fn tcp(to: &str) -> Relay {
        let to = to.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let there = TcpStream::connect(&to).expect("the node listens");
                let (back, forth) = (there.try_clone().expect("a copy"), here.try_clone().expect("a copy"));
                for (mut from, mut into) in [(here, there), (back, forth)] {
                    std::thread::spawn(move || std::io::copy(&mut from, &mut into).map(|_| ()));
                }
            }
        });
        Relay { address }
    }

    fn udp(to: &str) -> Relay {
        let to = to.to_owned();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            let inner = UdpSocket::bind("127.0.0.1:0").expect("bound");
            inner.connect(&to).expect("an address");
            inner.set_read_timeout(Some(PATIENCE)).expect("a time");
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                inner.send(&buffer[..length]).expect("sent");
                if let Ok(length) = inner.recv(&mut buffer) {
                    socket.send_to(&buffer[..length], from).expect("sent");
                }
            }
        });
        Relay { address }
    }
}
