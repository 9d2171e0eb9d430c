//! Who runs pull sources: one live member each, another when it dies, one on each side of a partition.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::harness::origin::{Origin, answer_json};
use crate::harness::pulls::{MOVED, SOON};
use crate::harness::{Cluster, Deadline, Fabric, Node, NodeConfig, eventually};

/// A server that tells each who asks apart by the header `X-Node`.
fn origin() -> Origin {
    Origin::start(|asked, stream| {
        let source = asked.path.trim_start_matches('/');
        answer_json(
            stream,
            &json!({"source": format!("from/{source}"), "data": crate::harness::wall_us()}).to_string(),
        );
    })
}

fn put(node: &Node, name: &str, origin: &Origin) {
    let url = origin.url(&format!("/{name}"));
    let headers = "headers = { X-Node = \"env:PULL_NODE\" }";
    node.put_pull(name, &format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{url}\"\n{headers}"));
}

/// The nodes that have asked for a path since it was asked for `from` times.
fn askers(origin: &Origin, name: &str, from: usize) -> Vec<String> {
    let asked = origin.asked(&format!("/{name}"));
    let mut nodes: Vec<String> = asked[from.min(asked.len())..]
        .iter()
        .filter_map(|asked| asked.header("x-node").map(str::to_owned))
        .collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// The nodes that have asked for a path since it was asked for `from` times, one after another: each as often as it took over.
fn turns(origin: &Origin, name: &str, from: usize) -> Vec<String> {
    let asked = origin.asked(&format!("/{name}"));
    let nodes = asked[from.min(asked.len())..].iter().filter_map(|asked| asked.header("x-node"));
    let mut nodes: Vec<String> = nodes.map(str::to_owned).collect();
    nodes.dedup();
    nodes
}

#[test]
fn each_is_run_by_one_member_and_by_another_soon_after_its_death() {
    let origin = origin();
    let mut cluster = Cluster::configured(3, |config| {
        let name = config.name.clone();
        config.with_variable("PULL_NODE", &name)
    });
    let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    names.iter().for_each(|name| put(&cluster[0], name, &origin));
    let running = |cluster: &Cluster| -> Vec<f64> {
        cluster.nodes.iter().map(|node| node.metric("anode_pull_running", &[])).collect()
    };
    let runners = eventually("all are run once, and every member runs some", SOON, || {
        let told = |name: &String| {
            let told = cluster[1].pull(name);
            let runner = told["runner"].as_str()?.to_owned();
            (told["state"]["runner"] == told["runner"]).then_some((name.clone(), runner))
        };
        let runners = names.iter().map(told).collect::<Option<BTreeMap<String, String>>>()?;
        let counts = running(&cluster);
        (counts.iter().sum::<f64>() == 12.0 && counts.iter().all(|count| *count > 0.0)).then_some(runners)
    });
    let counts: Vec<usize> = names.iter().map(|name| origin.asked(&format!("/{name}")).len()).collect();
    eventually("each goes on", SOON, || {
        let all = names.iter().zip(&counts);
        all.clone().all(|(name, count)| origin.asked(&format!("/{name}")).len() > count + 10).then_some(())
    });
    for (name, count) in names.iter().zip(&counts) {
        assert_eq!(askers(&origin, name, *count), [runners[name].clone()], "{name} is run by one");
    }
    let dead = runners["s0"].clone();
    let index = cluster.nodes.iter().position(|node| node.id == dead).expect("a node");
    cluster[index].kill9();
    let died = Deadline::after(MOVED);
    for name in names.iter().filter(|name| runners[*name] == dead) {
        eventually(&format!("another member goes on with {name}"), MOVED, || {
            let from = counts[names.iter().position(|other| other == name).expect("a name")];
            askers(&origin, name, from).iter().any(|node| *node != dead).then_some(())
        });
    }
    let moved = died.elapsed();
    assert!(moved < MOVED, "{moved:?}");
    let counts: Vec<usize> = names.iter().map(|name| origin.asked(&format!("/{name}")).len()).collect();
    cluster[index].restart();
    cluster.wait_whole();
    eventually("it runs some again", SOON, || {
        (cluster[index].metric("anode_pull_running", &[]) > 0.0).then_some(())
    });
    eventually("each is run once", SOON, || (running(&cluster).iter().sum::<f64>() == 12.0).then_some(()));
    // The member before has stopped when the one that came back begins: nobody asks again after another one has.
    for (name, count) in names.iter().zip(&counts) {
        let turns = turns(&origin, name, *count);
        assert!(turns.len() <= 2 && turns[1..].iter().all(|node| *node == dead), "{name}: {turns:?}");
    }
}

/// A member that is stopped in good order says so, and nobody waits until its death is seen. Of some stops one is as fast as the
/// guide says, even where other programs keep the machine busy.
#[test]
fn another_member_goes_on_within_a_second_when_one_is_stopped_in_good_order() {
    let origin = origin();
    let mut cluster = Cluster::configured(2, |config| {
        let name = config.name.clone();
        config.with_variable("PULL_NODE", &name)
    });
    put(&cluster[0], "moving", &origin);
    let mut fastest = Duration::MAX;
    for _ in 0..4 {
        let runner = eventually("one runs it", SOON, || {
            let told = cluster[0].pull("moving");
            let runner = told["state"]["runner"].as_str().filter(|runner| told["runner"] == *runner)?;
            askers(&origin, "moving", 0).contains(&runner.to_owned()).then(|| runner.to_owned())
        });
        let index = cluster.nodes.iter().position(|node| node.id == runner).expect("a node");
        let other = cluster[1 - index].id.clone();
        let from = origin.asked("/moving").len();
        std::thread::scope(|scope| {
            let stopped = Deadline::after(MOVED);
            let stopping = &mut cluster[index];
            scope.spawn(move || assert_eq!(stopping.sigterm(), Some(0)));
            eventually("the other one goes on", MOVED, || {
                askers(&origin, "moving", from).contains(&other).then_some(())
            });
            fastest = fastest.min(stopped.elapsed());
        });
        cluster[index].restart();
        cluster.wait_whole();
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[test]
fn both_sides_of_a_partition_go_on_and_one_does_after_it() {
    let (fabric, cluster) = Fabric::start(2, &[]);
    let origin = Origin::start(|_, stream| {
        answer_json(stream, &json!({"source": "both", "data": crate::harness::wall_us()}).to_string());
    });
    cluster[0]
        .put_pull("both", &format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{}\"", origin.url("/")));
    let running = |node: &Node| node.metric("anode_pull_running", &[]);
    let total = || running(&cluster[0]) + running(&cluster[1]);
    eventually("one runs it", SOON, || (total() == 1.0).then_some(()));
    fabric.cut(&[0]);
    eventually("both run it", SOON, || {
        (running(&cluster[0]) == 1.0 && running(&cluster[1]) == 1.0).then_some(())
    });
    for node in &cluster.nodes {
        let before = node.latest("both").map(|record| record["ts"].clone());
        eventually("each side has new records", SOON, || {
            (node.latest("both").map(|record| record["ts"].clone()) != before).then_some(())
        });
    }
    fabric.heal();
    eventually("the members see each other", SOON, || {
        cluster.nodes.iter().all(|node| node.alive() == 2).then_some(())
    });
    eventually("one runs it", MOVED, || (total() == 1.0).then_some(()));
}

#[test]
fn members_that_cannot_run_it_leave_it_to_others() {
    let origin = origin();
    let a = Node::start(NodeConfig::named("a"));
    let b = Node::start(NodeConfig::joining("b", &a).with_variable("PULL_NODE", "b"));
    for n in 0..6 {
        put(&a, &format!("only{n}"), &origin);
    }
    for n in 0..6 {
        let told = eventually("b runs it", SOON, || {
            let told = a.pull(&format!("only{n}"));
            (told["runner"] == "b" && told["state"]["runner"] == "b").then_some(told)
        });
        assert_eq!(told["cannot"]["a"], "PULL_NODE is not set in the environment");
    }
    drop(b);
}
