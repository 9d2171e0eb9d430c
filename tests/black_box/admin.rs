//! Requests by which an operator changes how nodes work: leaving in good order, and forgetting a member.

use std::time::Duration;

use serde_json::json;

use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually};

fn post(node: &Node, path: &str) -> Http {
    Http::request(&node.http, "POST", path, &[], b"")
}

#[test]
fn a_node_that_is_drained_leaves_in_good_order() {
    let mut cluster = Cluster::start(3);
    let id = cluster[1].id.clone();
    let mut subscriber = cluster[1].subscriber("source=a");
    subscriber.snapshot();
    let ts = cluster[1].put("a", json!(1));
    cluster[1].get("/v1/admin/drain").assert_problem(405, "method_not_allowed");
    post(&cluster[1], "/v1/admin/drain?now=1").assert_problem(400, "bad_request");
    let answer = post(&cluster[1], "/v1/admin/drain");
    assert_eq!((answer.status, answer.json()), (202, json!({"draining": true})), "{answer:?}");
    assert_eq!(subscriber.close_code(), 4200);
    assert_eq!(cluster[1].process().wait(Duration::from_secs(10)), Some(0));
    cluster[0].wait_member(&id, "left", Duration::from_secs(5));
    cluster[0].wait_ts("a", ts);
    cluster[2].wait_ts("a", ts);
}

#[test]
fn a_member_that_will_not_come_back_is_forgotten_by_all() {
    let mut cluster = Cluster::start(3);
    let id = cluster[2].id.clone();
    post(&cluster[0], &format!("/v1/admin/forget/{id}")).assert_problem(400, "bad_request");
    post(&cluster[0], "/v1/admin/forget/nobody").assert_problem(404, "not_found");
    post(&cluster[0], "/v1/admin/forget/no%20name").assert_problem(400, "bad_request");
    cluster[0].get(&format!("/v1/admin/forget/{id}")).assert_problem(405, "method_not_allowed");
    cluster[2].kill9();
    cluster[0].wait_member(&id, "dead", Duration::from_secs(60));
    cluster[1].wait_member(&id, "dead", Duration::from_secs(60));
    let answer = post(&cluster[0], &format!("/v1/admin/forget/{id}"));
    assert_eq!((answer.status, &answer.json()["forgotten"]), (200, &json!(id)), "{answer:?}");
    assert_eq!(cluster[0].member_state(&id), None);
    eventually("the other node forgets it, too", Duration::from_secs(10), || {
        cluster[1].member_state(&id).is_none().then_some(())
    });
    // It does not come back by hearsay, and takes part again when it is started.
    throughout("time passes", Duration::from_secs(3), || true);
    assert_eq!((cluster[0].member_state(&id), cluster[1].member_state(&id)), (None, None));
    cluster[2].restart();
    cluster[0].wait_member(&id, "alive", Duration::from_secs(20));
    cluster[1].wait_member(&id, "alive", Duration::from_secs(20));
}

#[test]
fn admin_requests_need_the_right_to_administrate() {
    let ops = token_entry("ops", "o", "admin = true");
    let other = token_entry("other", "x", "publish = [\"**\"]\nsubscribe = [\"**\"]\nobserve = true");
    let rights = RightsFile::new(&format!("{ops}{other}"));
    let mut node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    for path in ["/v1/admin/drain", "/v1/admin/forget/b"] {
        post(&node, path).assert_problem(401, "unauthorized");
        Http::with_token(&node.http, "POST", path, "x").assert_problem(403, "forbidden");
    }
    Http::with_token(&node.http, "POST", "/v1/admin/forget/b", "o").assert_problem(404, "not_found");
    assert_eq!(Http::with_token(&node.http, "POST", "/v1/admin/drain", "o").status, 202);
    assert_eq!(node.process().wait(Duration::from_secs(10)), Some(0));
}

/// Without a file of rights, admin requests are taken from this machine alone, whatever page they come from.
#[test]
fn without_rights_admin_requests_are_local() {
    let Some(address) = outer_address() else { return };
    let mut config = NodeConfig::named("a").in_memory();
    config.http = config.http.replace("127.0.0.1", "0.0.0.0");
    let node = Node::start(config);
    let port = node.http.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
    let outer = format!("{address}:{port}");
    for path in ["/v1/admin/drain", "/v1/admin/forget/b"] {
        Http::request(&outer, "POST", path, &[], b"").assert_problem(403, "forbidden");
        let foreign = [("Origin", "https://elsewhere.example")];
        Http::request(&node.http, "POST", path, &foreign, b"").assert_problem(403, "forbidden");
    }
    assert_eq!(node.get("/readyz").status, 200);
    Http::request(&format!("127.0.0.1:{port}"), "POST", "/v1/admin/forget/b", &[], b"")
        .assert_problem(404, "not_found");
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses the address that it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
