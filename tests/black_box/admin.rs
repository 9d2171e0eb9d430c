//! Requests by which an operator changes how nodes work: leaving in good order, and forgetting a member.

use std::time::Duration;

use serde_json::json;

use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::wait::throughout;
use crate::harness::{Client, Cluster, Http, Node, NodeConfig, eventually};

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

/// Starts a node without a file of rights that is reached from outside of this machine. Returns it with its addresses
/// there and on loopback; `None` where the machine has no address but loopback.
fn open_node() -> Option<(Node, String, String)> {
    let Some(address) = outer_address() else {
        println!("this machine has no address but loopback: what others may do without rights is not tried");
        return None;
    };
    let mut config = NodeConfig::named("a").in_memory();
    config.http = config.http.replace("127.0.0.1", "0.0.0.0");
    let node = Node::start(config);
    let port = node.http.rsplit_once(':').map_or("", |(_, port)| port);
    let (outer, local) = (format!("{address}:{port}"), format!("127.0.0.1:{port}"));
    Some((node, outer, local))
}

/// Without a file of rights, admin requests are taken from this machine alone, whatever page they come from.
#[test]
fn without_rights_admin_requests_are_local() {
    let Some((node, outer, local)) = open_node() else { return };
    for path in ["/v1/admin/drain", "/v1/admin/forget/b"] {
        Http::request(&outer, "POST", path, &[], b"").assert_problem(403, "forbidden");
        let foreign = [("Origin", "https://elsewhere.example")];
        Http::request(&node.http, "POST", path, &foreign, b"").assert_problem(403, "forbidden");
    }
    assert_eq!(node.get("/readyz").status, 200);
    Http::request(&local, "POST", "/v1/admin/forget/b", &[], b"").assert_problem(404, "not_found");
}

/// Without a file of rights, everybody may publish, subscribe and observe. What users add is kept under the system's names,
/// and is changed from this machine alone.
#[test]
fn without_rights_the_systems_names_are_changed_from_this_machine_alone() {
    let Some((_node, outer, local)) = open_node() else { return };
    let definition = json!({"on": "none/*", "cel": "data"}).to_string();
    let ask = |address: &str, method: &str, path: &str| {
        let body = if matches!(method, "PUT" | "POST") { definition.as_bytes() } else { b"" };
        Http::request(address, method, path, &[("Content-Type", "application/json")], body)
    };
    for kind in ["pull", "middleware", "archive", "hook"] {
        for method in ["PUT", "POST", "DELETE"] {
            ask(&outer, method, &format!("/v1/{kind}/mine")).assert_problem(403, "forbidden");
        }
    }
    let path = "/v1/middleware/mine";
    assert_eq!(ask(&outer, "GET", path).status, 404, "nothing was put there");
    assert_eq!(ask(&local, "PUT", path).status, 200);
    ask(&outer, "DELETE", path).assert_problem(403, "forbidden");
    assert_eq!(ask(&outer, "GET", path).status, 200, "everybody may look at it");
    let publish = |source: &str| {
        let body = json!({"source": source, "data": 1}).to_string();
        Http::post(&outer, "/v1/publish", &body)
    };
    publish("$middleware/other").assert_problem(403, "forbidden");
    publish("$sys").assert_problem(403, "forbidden");
    assert_eq!(publish("a").status, 200);
    for path in ["/v1/sources/a", "/v1/members", "/metrics"] {
        assert_eq!(Http::get(&outer, path).status, 200, "{path}");
    }
    assert_eq!(Client::open(&outer, "/subscribe?source=a").snapshot().sources(), ["a"]);
    assert_eq!(ask(&local, "DELETE", path).status, 200);
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses the address that it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
