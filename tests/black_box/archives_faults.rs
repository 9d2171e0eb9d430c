//! Archives whose writer dies, or whose store fails, at every step: each archive is whole or absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::archives::{
    LONG, archive, archive_json, config, definition, listed, put_archive, table, wait_listed,
};
use crate::harness::bucket::Bucket;
use crate::harness::kubo::Kubo;
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::rights::sha256_of;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually, wall_us};

/// The folders of archives in the bucket with the names of their objects.
fn folders(bucket: &Bucket) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in bucket.names() {
        let parts: Vec<&str> = name.split('/').collect();
        assert_eq!(parts.len(), 4, "{name}");
        folders.entry(parts[2].to_owned()).or_default().insert(parts[3].to_owned());
    }
    folders
}

/// Checks that every folder with a manifest has all that the manifest says. Returns the folders without one.
fn check_whole(bucket: &Bucket) -> Vec<String> {
    let mut partial = Vec::new();
    for (folder, objects) in folders(bucket) {
        if !objects.contains("manifest.json") {
            partial.push(folder);
            continue;
        }
        let text = bucket.object(&format!("p/n/{folder}/manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&text).expect("JSON");
        for frame in manifest["frames"].as_array().expect("frames") {
            let name = frame["name"].as_str().expect("a name");
            let stored = bucket.object(&format!("p/n/{folder}/{name}")).unwrap_or_default();
            assert_eq!(frame["sha256"], json!(sha256_of(&stored)), "{folder}/{name}");
        }
    }
    partial
}

/// Kills the writer at each of its requests in turn, the first, the second and so on, until one archive was written
/// before it was its turn.
#[test]
fn a_writer_that_dies_at_any_step_leaves_whole_archives_or_none() {
    let bucket = Bucket::start();
    let mut node = Node::start(config("a"));
    for n in 0..50 {
        node.put(&format!("s/{n}"), json!(n));
    }
    put_archive(&node, "n", &definition(&bucket, "every = \"1s\"\nkeep = 3\nfull_every = 2"));
    let mut partial = 0;
    for step in 0..7 {
        bucket.fail(move |number, _| (number >= step).then_some(Reaction::Hang));
        node.put("s/0", json!({"step": step}));
        eventually("the writer is at its step", LONG, || (bucket.count() > step).then_some(()));
        node.kill9();
        partial += check_whole(&bucket).len();
        bucket.fail(|_, _| None);
        node.restart();
        let restarted = wall_us();
        eventually("an archive is written, and nothing is left over", LONG, || {
            let left = check_whole(&bucket);
            let all = listed(&node, "n");
            let ids: BTreeSet<&str> = all.iter().filter_map(|one| one["id"].as_str()).collect();
            let stored = folders(&bucket);
            let is_same = ids == stored.keys().map(String::as_str).collect();
            let is_new = all.first().and_then(|one| one["at"].as_u64()) > Some(restarted);
            (left.is_empty() && is_same && is_new).then_some(())
        });
        // What a new cluster is given is what was published last.
        let fresh = Node::start(config("b").in_memory());
        put_archive(&fresh, "n", &definition(&bucket, "every = \"1h\""));
        eventually("the new cluster knows the newest", LONG, || {
            let newest = |node| listed(node, "n").first().map(|one| one["id"].clone());
            (newest(&fresh) == newest(&node)).then_some(())
        });
        archive_json(&fresh, &["restore", "n"]);
        assert_eq!(table(&fresh, "s/**"), table(&node, "s/**"));
        assert_eq!(table(&fresh, "s/**").get("s/0"), Some(&json!({"step": step})));
    }
    assert!(partial > 0, "some deaths were in the middle of an archive");
    assert_eq!(archive(&node, &["verify"]).code, Some(0));
}

/// The content ids that are pinned at a node of IPFS for the archives of a definition.
fn pinned(kubo: &str, name: &str) -> BTreeSet<String> {
    let told = Http::post(kubo, "/api/v0/pin/ls?type=recursive&names=true", "").json();
    let pins = told["Keys"].as_object().into_iter().flatten();
    let begins = format!("anode-archive/{name}/");
    let own = pins.filter(|(_, pin)| pin["Name"].as_str().is_some_and(|name| name.starts_with(&begins)));
    own.map(|(cid, _)| cid.clone()).collect()
}

/// The writer dies at a real node of IPFS, as `scripts/archives-test` runs it.
#[test]
#[ignore = "needs Kubo, see scripts/archives-test"]
fn a_writer_that_dies_at_any_step_leaves_whole_archives_or_none_on_kubo() {
    let api = std::env::var("TEST_IPFS_API").expect("TEST_IPFS_API");
    die_at_any_step_on_ipfs(&api, &format!("k{}", std::process::id()));
}

/// The writer dies at a node of IPFS in memory.
#[test]
fn a_writer_that_dies_at_any_step_leaves_whole_archives_or_none_on_ipfs() {
    die_at_any_step_on_ipfs(&Kubo::start().api(), "n");
}

/// Kills the writer of a node of IPFS at each of its requests in turn: whatever is pinned can be read to the last byte.
fn die_at_any_step_on_ipfs(api: &str, name: &str) {
    let kubo = api.trim_start_matches("http://").to_owned();
    // The requests of the writer pass through here. All from one on are never answered.
    let (count, allowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (counted, bound, asked_at) = (count.clone(), allowed.clone(), kubo.clone());
    let gate = Receiver::start(move |asked| {
        if counted.fetch_add(1, Ordering::SeqCst) >= bound.load(Ordering::SeqCst) {
            return Reaction::Hang;
        }
        let headers = [("Content-Type", asked.header("content-type").unwrap_or("application/json"))];
        let answer = Http::request(&asked_at, &asked.method, &asked.path, &headers, &asked.body);
        Reaction::Answer(answer.status, Vec::new(), answer.body.into_bytes())
    });
    let text = |api: &str, every: &str| {
        format!("kind = \"ipfs\"\napi = \"{api}\"\nevery = \"{every}\"\nkeep = 3\nfull_every = 2\n")
    };
    let mut node = Node::start(NodeConfig::named("a"));
    for n in 0..50 {
        node.put(&format!("s/{n}"), json!(n));
    }
    put_archive(&node, name, &text(&format!("http://{}", gate.addr), "1s"));
    let mut unpinned = 0;
    for step in 0..9 {
        let before = pinned(&kubo, name);
        count.store(0, Ordering::SeqCst);
        allowed.store(step, Ordering::SeqCst);
        node.put("s/0", json!({"step": step}));
        eventually("the writer is at its step", LONG, || (count.load(Ordering::SeqCst) > step).then_some(()));
        node.kill9();
        unpinned += usize::from(pinned(&kubo, name) == before);
        allowed.store(usize::MAX, Ordering::SeqCst);
        node.restart();
        let restarted = wall_us();
        // A writer that died behind the last byte of its archive has nothing to write until something changes.
        node.put("s/0", json!({"step": step}));
        eventually("an archive is written, and the pins are the archives", LONG, || {
            let all = listed(&node, name);
            let ids: BTreeSet<String> =
                all.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect();
            let is_new = all.first().and_then(|one| one["at"].as_u64()) > Some(restarted);
            (is_new && ids == pinned(&kubo, name)).then_some(())
        });
        let fresh = Node::start(NodeConfig::named("b").in_memory());
        put_archive(&fresh, name, &text(api, "1h"));
        eventually("the new cluster knows the newest", LONG, || {
            let newest = |node| listed(node, name).first().map(|one| one["id"].clone());
            (newest(&fresh) == newest(&node)).then_some(())
        });
        assert_eq!(archive(&fresh, &["verify", name]).code, Some(0));
        archive_json(&fresh, &["restore", name]);
        assert_eq!(table(&fresh, "s/**"), table(&node, "s/**"));
        assert_eq!(table(&fresh, "s/**").get("s/0"), Some(&json!({"step": step})));
    }
    assert!(unpinned > 0, "some deaths were in the middle of an archive");
}

/// A store that fails for a while delays archives, and is told.
#[test]
fn a_store_that_fails_is_told_and_tried_again() {
    let bucket = Bucket::start();
    let node = Node::start(config("a"));
    node.put("s", json!(1));
    let is_refused = Arc::new(AtomicBool::new(true));
    let refused = is_refused.clone();
    bucket.fail(move |_, _| refused.load(Ordering::Relaxed).then(|| Reaction::status(403)));
    put_archive(&node, "n", &definition(&bucket, "every = \"1s\""));
    let state = || node.latest("$archive/n/state").map(|state| state["data"].clone()).unwrap_or_default();
    let told = eventually("it is told", LONG, || Some(state()).filter(|told| !told["error"].is_null()));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("403")), "{told}");
    assert!(node.metric("anode_archives_total", &[("outcome", "failed")]) >= 1.0);
    is_refused.store(false, Ordering::Relaxed);
    wait_listed(&node, "n", 1);
    eventually("it is fine", LONG, || state()["error"].is_null().then_some(()));
    // Every other request fails in a way that passes: the archive is written all the same.
    bucket.fail(|number, _| (number % 2 == 0).then_some(Reaction::status(503)));
    node.put("s", json!(2));
    wait_listed(&node, "n", 2);
    bucket.fail(|_, _| None);
    assert_eq!(archive(&node, &["verify"]).code, Some(0));
}

/// The runner of two dies, and the other one goes on from its archives.
#[test]
fn another_node_goes_on_with_the_same_chain() {
    let bucket = Bucket::start();
    let Cluster { mut nodes, .. } = Cluster::configured(2, |node| {
        node.with_env("AWS_ACCESS_KEY_ID", "id").with_env("AWS_SECRET_ACCESS_KEY", "secret")
    });
    nodes[0].put("s/1", json!(1));
    put_archive(&nodes[0], "n", &definition(&bucket, "every = \"1s\""));
    let first = wait_listed(&nodes[0], "n", 1).remove(0);
    let at = nodes.iter().position(|node| first["node"] == json!(node.id)).expect("the writer");
    let mut dies = nodes.swap_remove(at);
    let lives = &nodes[0];
    wait_listed(lives, "n", 1);
    dies.kill9();
    lives.put("s/2", json!(2));
    let all = eventually("the other one writes", Duration::from_secs(60), || {
        let all = listed(lives, "n");
        (all.first().is_some_and(|one| one["node"] == json!(lives.id))).then_some(all)
    });
    assert!(!all.is_empty());
    let restored = archive_json(lives, &["verify"]);
    assert!(restored["archives"].as_u64() >= Some(2), "{restored}");
    let fresh = Node::start(config("c").in_memory());
    put_archive(&fresh, "n", &definition(&bucket, "every = \"1h\""));
    wait_listed(&fresh, "n", 2);
    archive_json(&fresh, &["restore", "n"]);
    assert_eq!(table(&fresh, "s/*"), table(lives, "s/*"));
    drop(dies);
}
