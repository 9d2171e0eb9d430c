//! Archives in a table of Tableland, at its local node that `scripts/tableland-test` has started. All tests share one table,
//! and each has a name for its archives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::archives::{archive, archive_json, listed, put_archive, table, whole_life};
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::rights::sha256_of;
use crate::harness::{Http, Node, NodeConfig, eventually};

/// An archive takes several transactions, and each takes seconds.
const LONG: Duration = Duration::from_secs(120);

fn variable(name: &str) -> String {
    let name = format!("TEST_TABLELAND_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// A definition for the table in TOML, whose transactions go to this address.
fn definition(rpc: &str) -> String {
    format!(
        "kind = \"tableland\"\nrpc = \"{rpc}\"\napi = \"{}\"\nregistry = \"{}\"\nfrom = \"{}\"\ntable = \"{}\"",
        variable("API"),
        variable("REGISTRY"),
        variable("FROM"),
        variable("TABLE")
    )
}

/// The rows of a query. `None` while the validator has been asked too often within a second.
fn rows(statement: &str) -> Option<Vec<Value>> {
    let api = variable("API");
    let path = format!("/api/v1/query?format=objects&statement={}", statement.replace(' ', "%20"));
    // The validator counts the requests of each client, and the node under test is to have a count of its own.
    let headers = [("X-Forwarded-For", "192.0.2.1")];
    let answer = Http::request(api.trim_start_matches("http://"), "GET", &path, &headers, b"");
    if answer.status == 429 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().as_array().cloned()
}

/// The ids of the archives of which there is any row.
fn stored(name: &str) -> Option<BTreeSet<String>> {
    let rows =
        rows(&format!("SELECT DISTINCT folder FROM {} WHERE folder LIKE '{name}/%25'", variable("TABLE")))?;
    let folders = rows.iter().filter_map(|row| row["folder"].as_str()?.split('/').nth(1));
    Some(folders.map(str::to_owned).collect())
}

/// The ids of the archives that a node lists.
fn ids(node: &Node, name: &str) -> BTreeSet<String> {
    listed(node, name).iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

/// Text that hardly gets smaller when it is compressed: an archive with it takes more than one transaction.
fn noise(seed: usize) -> String {
    (0..900).map(|part| sha256_of(format!("{seed} {part}").as_bytes())).collect()
}

#[test]
#[ignore = "needs Tableland's local node, see scripts/tableland-test"]
fn archives_on_tableland() {
    whole_life(NodeConfig::named, &definition(&variable("RPC")));
}

/// What `keep` removes is removed from the table, and what is left can be read to the last byte.
#[test]
#[ignore = "needs Tableland's local node, see scripts/tableland-test"]
fn old_archives_leave_the_table_on_tableland() {
    let node = Node::start(NodeConfig::named("a"));
    let text = format!("{}\nevery = \"1s\"\nkeep = 1\nfull_every = 1", definition(&variable("RPC")));
    put_archive(&node, "old", &text);
    let mut seen = BTreeSet::new();
    for n in 0..3 {
        let at = node.put("s", json!({"n": n, "noise": noise(n)}));
        eventually("it is archived", LONG, || {
            let all = listed(&node, "old");
            seen.extend(ids(&node, "old"));
            (all.first()?["at"].as_u64() > Some(at)).then_some(())
        });
    }
    assert!(seen.len() >= 3, "{seen:?}");
    eventually("the newest is in the table, and no other", LONG, || {
        let all = ids(&node, "old");
        (all.len() == 1 && stored("old")? == all).then_some(())
    });
    assert_eq!(archive(&node, &["verify"]).code, Some(0));
}

/// The writer dies at each of its transactions in turn: one time before the transaction is sent, and one time after it,
/// without knowing its hash.
#[test]
#[ignore = "needs Tableland's local node, see scripts/tableland-test"]
fn a_writer_that_dies_at_any_step_leaves_whole_archives_or_none_on_tableland() {
    // Transactions pass through here. From one on, none is answered, and the first of these may still be sent.
    let (count, allowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let is_sent = Arc::new(AtomicBool::new(false));
    let (counted, bound, sends) = (count.clone(), allowed.clone(), is_sent.clone());
    let rpc = variable("RPC").trim_start_matches("http://").to_owned();
    let gate = Receiver::start(move |asked| {
        let is_transaction = String::from_utf8_lossy(&asked.body).contains("eth_sendTransaction");
        let before = is_transaction.then(|| counted.fetch_add(1, Ordering::SeqCst));
        let allowed = bound.load(Ordering::SeqCst);
        let is_last = before == Some(allowed);
        if before > Some(allowed) || (is_last && !sends.load(Ordering::SeqCst)) {
            return Reaction::Hang;
        }
        let headers = [("Content-Type", "application/json")];
        let answer = Http::request(&rpc, &asked.method, &asked.path, &headers, &asked.body);
        if is_last {
            return Reaction::Hang;
        }
        Reaction::Answer(answer.status, Vec::new(), answer.body.into_bytes())
    });
    let text = |rpc: &str, every: &str| {
        format!("{}\nevery = \"{every}\"\nkeep = 2\nfull_every = 2\n", definition(rpc))
    };
    let mut node = Node::start(NodeConfig::named("a"));
    for n in 0..50 {
        node.put(&format!("s/{n}"), json!(n));
    }
    put_archive(&node, "dies", &text(&format!("http://{}", gate.addr), "1s"));
    let mut partial = 0;
    for step in 0..8 {
        is_sent.store(step % 2 == 1, Ordering::SeqCst);
        count.store(0, Ordering::SeqCst);
        allowed.store(step / 2, Ordering::SeqCst);
        node.put("s/0", json!(noise(step)));
        let mut n = 0;
        // An archive may have fewer transactions than that, so further ones are written.
        eventually("the writer is at its step", LONG, || {
            n += 1;
            node.put("s/1", json!(n));
            (count.load(Ordering::SeqCst) > step / 2).then_some(())
        });
        let whole = ids(&node, "dies");
        node.kill9();
        partial += usize::from(eventually("what it leaves", LONG, || stored("dies")) != whole);
        allowed.store(usize::MAX, Ordering::SeqCst);
        node.restart();
        let last = json!({"step": step});
        let at = node.put("s/0", last.clone());
        eventually("an archive is written, and nothing is left over", LONG, || {
            let is_new = listed(&node, "dies").first()?["at"].as_u64() > Some(at);
            (is_new && stored("dies")? == ids(&node, "dies")).then_some(())
        });
        let fresh = Node::start(NodeConfig::named("b").in_memory());
        put_archive(&fresh, "dies", &text(&variable("RPC"), "1h"));
        eventually("the new cluster knows them", LONG, || {
            (ids(&fresh, "dies") == ids(&node, "dies")).then_some(())
        });
        assert_eq!(archive(&fresh, &["verify", "dies"]).code, Some(0));
        archive_json(&fresh, &["restore", "dies"]);
        assert_eq!(table(&fresh, "s/**"), table(&node, "s/**"));
        assert_eq!(table(&fresh, "s/**").get("s/0"), Some(&last));
    }
    assert!(partial > 0, "some deaths were in the middle of an archive");
}
