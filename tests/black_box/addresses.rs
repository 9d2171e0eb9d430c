//! The addresses by which members find each other: wrong ones, those of other families, and those written in
//! another form.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

use crate::harness::tls::{Authority, TlsNode};
use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Cluster, Node, NodeConfig, eventually, ports};

/// A node that advertised an address which nobody reaches was alive and suspected in turn, three times a second
/// for ever. No log said so, and answers of the level `replicated` at healthy nodes waited for it in vain.
#[test]
fn a_node_at_an_address_that_nobody_reaches_takes_no_part_and_gets_the_records() {
    let cluster = Cluster::start(2);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let nowhere = silent.local_addr().expect("address").to_string();
    let config = NodeConfig { advertise: Some(nowhere.clone()), ..NodeConfig::joining("c", &cluster[0]) };
    let lost = Node::spawn(config);
    for node in &cluster.nodes {
        eventually("the members hear of it", PATIENCE, || node.member_state("c"));
    }
    let mut published = 0;
    wait::throughout("it stays so, and no answer waits for it", Duration::from_secs(4), || {
        published += 1;
        let body = json!({"source": "s", "data": published}).to_string();
        let answer = crate::harness::Http::post(&cluster[0].http, "/v1/publish?ack=replicated", &body);
        assert_eq!((answer.status, &answer.json()["nodes"]), (200, &json!(2)), "{answer:?}");
        cluster.nodes.iter().all(|node| node.member_state("c").as_deref() == Some("joining"))
    });
    lost.wait_member("c", "joining", PATIENCE);
    let joining = cluster[0].metric("anode_members", &[("state", "joining")]);
    assert_eq!((joining, cluster[0].metric("anode_members", &[("state", "alive")])), (1.0, 2.0));
    let log = cluster[0].log();
    assert!(!log.contains("suspect"), "{log}");
    for (node, words) in [(&cluster[0], "do not answer this node"), (&lost, "cannot reach this node")] {
        let told = eventually(&format!("{} names the address", node.id), PATIENCE, || {
            node.log().lines().find(|line| line.contains(words) && line.contains(&nowhere)).map(str::to_owned)
        });
        assert!(told.contains("WARN"), "{told}");
    }
    let ts = cluster[1].put("to/it", json!(1));
    lost.wait_ts("to/it", ts);
    let ts = lost.put("from/it", json!(2));
    cluster[0].wait_ts("from/it", ts);
    cluster[1].wait_ts("from/it", ts);
}

/// An IPv4 address in its IPv6 form was another address than the IPv4 address, so a node did not know itself.
#[test]
fn an_ipv4_address_in_ipv6_form_is_the_ipv4_address() {
    let port = ports::free();
    let mapped = format!("[::ffff:127.0.0.1]:{port}");
    let first = Node::start(NodeConfig { gossip: mapped.clone(), ..NodeConfig::named("a") });
    assert_eq!(first.gossip, format!("127.0.0.1:{port}"));
    let config = NodeConfig { join: vec![mapped], ..NodeConfig::joining("b", &first) };
    let second = Node::start(config);
    for node in [&first, &second] {
        node.wait_alive(2);
    }
    let members = second.get("/v1/members").json();
    assert_eq!(members["members"][0]["gossip"], format!("127.0.0.1:{port}"), "{members}");
    let ts = first.put("x", json!(1));
    second.wait_ts("x", ts);
}

/// A node with only IPv4 and one with only IPv6 that meet through a third cannot reach each other, which no log
/// said.
#[test]
fn nodes_of_two_families_meet_through_a_third() {
    if !ports::has_ipv6() {
        return;
    }
    let port = ports::free();
    let both = NodeConfig {
        gossip: format!("[::]:{port}"),
        advertise: Some(format!("127.0.0.1:{port}")),
        ..NodeConfig::named("both")
    };
    let both = Node::start(both);
    let four = Node::start(NodeConfig::joining("four", &both));
    let config = NodeConfig {
        gossip: format!("[::1]:{}", ports::free_on("::1")),
        join: vec![format!("[::1]:{port}")],
        ..NodeConfig::joining("six", &both)
    };
    let six = Node::start(config);
    for (node, other) in [(&four, &six), (&six, &four)] {
        node.wait_member(&other.id, "joining", PATIENCE);
        let named = format!("{} at {} (no address of its family here)", other.id, other.gossip);
        eventually(&format!("{} names {}", node.id, other.id), PATIENCE, || {
            node.log().lines().any(|line| line.contains("WARN") && line.contains(&named)).then_some(())
        });
    }
    for node in [&four, &six, &both] {
        let source = format!("from/{}", node.id);
        let ts = node.put(&source, json!(1));
        for other in [&four, &six, &both] {
            other.wait_ts(&source, ts);
        }
    }
}

/// Containers have addresses that no certificate has. A client that lost its node was told the address of another one,
/// and refused the certificate that it found there.
#[test]
fn clients_are_told_the_name_that_the_certificate_has() {
    let authority = Authority::new("an authority for tests");
    authority.write(&authority.pair("a node", &["localhost"]));
    let start = |name: &str, flag: &str| {
        TlsNode::start_with(&authority, NodeConfig::named(name).in_memory().with(&["--advertise-http", flag]))
    };
    let node = start("a", "localhost");
    let port = node.node.http.rsplit_once(':').expect("a port").1.to_owned();
    let told = format!("localhost:{port}");
    assert_eq!(node.get("/v1/members").json()["members"][0]["http"], told.as_str());
    let url = format!("ws://{}/subscribe", node.node.http);
    let (mut socket, _) = tungstenite::client::client(url, node.connect()).expect("opened");
    let greeting = socket.read().expect("read").into_text().expect("text");
    assert!(greeting.contains(&format!("\"http\":\"{told}\"")), "{greeting}");
    // The command line checks the certificate of what it was told, and not of the address behind it.
    let ca = authority.file("ca.pem");
    let get = |host: &str| {
        let from = format!("https://{host}");
        crate::harness::anode(&["members", "--from", &from, "--ca", &ca])
    };
    assert_eq!(get(&told).code, Some(0));
    assert!(get(&node.node.http).stderr.contains("certificate"));
    let other = start("b", "node.example:443");
    assert_eq!(other.get("/v1/members").json()["members"][0]["http"], "node.example:443");
    let refused = crate::harness::anode(&["serve", "--advertise-http", "0.0.0.0"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--advertise-http"), "{refused:?}");
}
