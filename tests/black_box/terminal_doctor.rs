//! `anode doctor`: what it finds, what it says to do about it, and its exit code.

use serde_json::Value;

use crate::harness::command::{Background, binary, run};
use crate::harness::{Cluster, Node, NodeConfig, Output, anode, json as parse, ports};

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
    let found = findings(&output, "ports");
    assert!(found[0].0 == "wrong" && found[0].1.contains(&taken) && found[0].1.contains("UDP"), "{found:?}");
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
