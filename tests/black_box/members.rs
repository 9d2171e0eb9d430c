//! The members of a cluster as the members themselves see them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{binary, run};
use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Cluster, Node, NodeConfig, eventually, ports};

#[test]
fn killed_is_dead_and_back_is_alive() {
    let mut cluster = Cluster::start(3);
    let boot = boot_of(&cluster[0], "c");
    cluster[2].kill9();
    for index in [0, 1] {
        cluster[index].wait_member("c", "dead", PATIENCE);
    }
    cluster[2].restart();
    cluster.wait_whole();
    assert!(boot_of(&cluster[0], "c") > boot, "a boot number is greater at every start");
}

fn boot_of(node: &Node, id: &str) -> u64 {
    let members = node.get("/v1/members").json();
    let list = members["members"].as_array().cloned().unwrap_or_default();
    list.iter().find(|member| member["id"] == id).and_then(|member| member["boot"].as_u64()).unwrap_or(0)
}

/// In its first second a node that was ready listed no members, not even itself.
#[test]
fn a_node_is_a_member_from_its_first_answer_on() {
    let node = Node::start(NodeConfig::named("a"));
    let members = node.get("/v1/members").json();
    assert_eq!(members["members"][0]["id"], "a", "{members}");
    assert_eq!(members["members"][0]["state"], "alive", "{members}");
    let metrics = node.get("/metrics").body;
    assert!(metrics.contains("anode_members{state=\"alive\"} 1"), "{metrics}");
}

#[test]
fn stopped_is_left_and_back_is_alive() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster[1].sigterm(), Some(0));
    for index in [0, 2] {
        cluster[index].wait_member("b", "left", Duration::from_secs(5));
    }
    cluster[1].restart();
    cluster.wait_whole();
}

/// A node that is restarted faster than others can notice is the same member with a new boot number.
#[test]
fn a_quick_restart_under_the_same_name() {
    let mut cluster = Cluster::start(3);
    for _ in 0..3 {
        cluster[1].kill9();
        cluster[1].restart();
    }
    cluster.wait_whole();
    let ts = cluster[1].put("x", json!(1));
    cluster[0].wait_ts("x", ts);
    cluster[2].wait_ts("x", ts);
}

/// In hashicorp/memberlist#241 a new node at an address used before was taken for the old one.
#[test]
fn a_new_name_at_an_old_address_is_a_new_member() {
    let mut cluster = Cluster::start(3);
    cluster[2].kill9();
    let config = NodeConfig { name: "d".into(), data_dir: None, ..cluster[2].config.clone() };
    let newcomer = Node::start(config);
    newcomer.wait_alive(3);
    for index in [0, 1] {
        cluster[index].wait_member("d", "alive", PATIENCE);
        cluster[index].wait_member("c", "dead", PATIENCE);
    }
    let ts = newcomer.put("x", json!(1));
    cluster[0].wait_ts("x", ts);
    wait::throughout("d stays alive", Duration::from_secs(2), || {
        cluster[0].member_state("d").as_deref() == Some("alive")
    });
}

/// A node that has died may come back with the same name at another address, as on container platforms.
#[test]
fn an_old_name_at_a_new_address_is_the_same_member() {
    let mut cluster = Cluster::start(3);
    cluster[2].kill9();
    cluster[0].wait_member("c", "dead", PATIENCE);
    let gossip = format!("127.0.0.1:{}", ports::free());
    let http = format!("127.0.0.1:{}", ports::free());
    let config =
        NodeConfig { http, gossip, data_dir: Some(cluster[2].data_dir()), ..cluster[2].config.clone() };
    let moved = Node::start(config);
    moved.wait_alive(3);
    cluster[0].wait_member("c", "alive", PATIENCE);
    let members = cluster[0].get("/v1/members").json();
    let list = members["members"].as_array().cloned().unwrap_or_default();
    let member = list.iter().find(|member| member["id"] == "c").cloned().unwrap_or_default();
    assert_eq!((&member["gossip"], &member["http"]), (&json!(moved.gossip), &json!(moved.http)), "{members}");
}

#[test]
fn a_name_alive_elsewhere_makes_the_newcomer_exit_1() {
    let cluster = Cluster::start(2);
    let config = NodeConfig::joining("b", &cluster[0]);
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let output = run(
        binary()
            .args(["serve", "--profile", "local", "--node-name", "b", "--http", &config.http])
            .args(["--gossip", &config.gossip, "--join", &config.join.join(",")])
            .args(["--cluster-name", &config.cluster_name, "--data-dir"])
            .arg(dir.path()),
        "",
    );
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains('b') && output.stderr.contains(&cluster[1].gossip), "{output:?}");
    wait::throughout("the first b lives on", Duration::from_secs(2), || {
        cluster[0].member_state("b").as_deref() == Some("alive")
    });
    let ts = cluster[1].put("x", json!(1));
    cluster[0].wait_ts("x", ts);
}

/// In hashicorp/consul#5928 and #719 one slow node made other members alternate between dead and alive.
#[test]
fn one_paused_node_makes_nobody_else_flap() {
    let cluster = Cluster::start(4);
    cluster[3].signal("STOP");
    cluster[0].wait_member("d", "dead", PATIENCE);
    wait::throughout("the others stay alive to each other", Duration::from_secs(4), || {
        (0..3).all(|one| {
            (0..3).all(|other| {
                let state = cluster[one].member_state(&cluster[other].id);
                matches!(state.as_deref(), Some("alive" | "suspect"))
            }) && cluster[one].alive() >= 2
        })
    });
    cluster[3].signal("CONT");
    cluster.wait_whole();
}

#[test]
fn everyone_learns_of_everyone() {
    let cluster = Cluster::start(7);
    for node in &cluster.nodes {
        let members = node.get("/v1/members").json();
        let list = members["members"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<_> = list.iter().filter_map(|member| member["id"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g"]);
        let greeting = node.publisher().connected;
        assert_eq!(greeting["members"].as_array().map(Vec::len), Some(7), "{greeting}");
    }
    eventually("round-trip times are measured", PATIENCE, || {
        let members = cluster[0].get("/v1/members").json();
        let list = members["members"].as_array().cloned().unwrap_or_default();
        list.iter().any(|member| member["rtt_us"].as_u64().is_some_and(|rtt| rtt > 0)).then_some(())
    });
}

/// A client goes on at a member that it was greeted with, so dead ones are of no use to it. In a large cluster it is told
/// of 16.
#[test]
fn a_greeting_names_up_to_sixteen_members_that_live() {
    let mut cluster = Cluster::configured(18, |config| config.in_memory().with(&["--workers", "1"]));
    let named = |node: &Node| -> BTreeMap<String, String> {
        let connected = node.publisher().connected;
        let members = connected["members"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named: BTreeMap<_, _> =
            members.iter().map(|member| (text(&member["id"]), text(&member["http"]))).collect();
        assert_eq!(named.len(), members.len(), "one is named twice: {connected}");
        named
    };
    assert_eq!(named(&cluster[0]).len(), 16);
    let dead: Vec<String> = (14..18).map(|at| cluster[at].id.clone()).collect();
    (14..18).for_each(|at| cluster[at].kill9());
    for id in &dead {
        cluster[0].wait_member(id, "dead", PATIENCE * 2);
    }
    let living: BTreeMap<_, _> =
        cluster.nodes[..14].iter().map(|node| (node.id.clone(), node.http.clone())).collect();
    assert_eq!(named(&cluster[0]), living);
}

/// A client that connects as soon as the ready line is printed needs other members to fall back to, and a
/// list that lacks the node itself looks broken.
#[test]
fn the_ready_node_is_a_member_of_its_own_list_at_once() {
    for _ in 0..5 {
        let node = Node::spawn(NodeConfig::named("self").in_memory());
        assert_eq!(node.member_state("self").as_deref(), Some("alive"));
        assert_eq!(node.get("/v1/members").json()["members"][0]["http"], node.http);
        let members = &node.publisher().connected["members"];
        assert_eq!(*members, json!([{"id": "self", "http": node.http}]));
    }
}

/// After a pause, such as a suspended laptop or a migrated virtual machine, a node reads what has arrived
/// meanwhile before it suspects anyone of not having answered.
#[test]
fn a_node_that_stood_still_suspects_nobody() {
    let cluster = Cluster::start(3);
    cluster[0].signal("STOP");
    cluster[1].wait_member("a", "dead", PATIENCE);
    cluster[0].signal("CONT");
    let mut seen = Vec::new();
    eventually("all see all again", PATIENCE, || {
        seen.extend(["b", "c"].iter().filter_map(|id| cluster[0].member_state(id)));
        cluster.nodes.iter().all(|node| node.alive() == 3).then_some(())
    });
    assert!(seen.iter().all(|state| state == "alive"), "{seen:?}");
}

/// An event loop that polls with a timeout of zero keeps a core busy, which nobody may notice for weeks.
#[test]
fn an_idle_node_uses_no_processor() {
    let cluster = Cluster::start(2);
    let before: Vec<f64> = cluster.nodes.iter().map(Node::cpu_seconds).collect();
    wait::throughout("idle nodes use less than a tenth of a core", Duration::from_secs(4), || {
        cluster.nodes.iter().zip(&before).all(|(node, before)| node.cpu_seconds() - before < 0.4)
    });
}
