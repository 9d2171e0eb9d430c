//! Archives on S3 and IPFS: what is written, how it is listed and verified, and what a restore brings back.
//!
//! These tests use a bucket and a node of IPFS of their own, in memory. `scripts/archives-test` runs the same against moto's
//! server for S3 and against Kubo.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bucket::Bucket;
use crate::harness::command::{Output, binary, run};
use crate::harness::kubo::Kubo;
use crate::harness::wait::{pause, throughout};
use crate::harness::{Http, Node, NodeConfig, eventually};

pub const LONG: Duration = Duration::from_secs(40);

/// A node that can write to the bucket.
pub fn config(name: &str) -> NodeConfig {
    NodeConfig::named(name).with_env("AWS_ACCESS_KEY_ID", "id").with_env("AWS_SECRET_ACCESS_KEY", "secret")
}

/// A definition for this bucket in TOML, with further lines.
pub fn definition(bucket: &Bucket, further: &str) -> String {
    format!(
        "kind = \"s3\"\nendpoint = \"{}\"\nbucket = \"archives\"\nprefix = \"p\"\n{further}\n",
        bucket.endpoint()
    )
}

/// Puts a definition in TOML.
pub fn put_archive(node: &Node, name: &str, text: &str) {
    let headers = [("Content-Type", "application/toml")];
    let answer = Http::request(&node.http, "PUT", &format!("/v1/archive/{name}"), &headers, text.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The archives that a node lists, the newest first.
pub fn listed(node: &Node, name: &str) -> Vec<Value> {
    let answer = node.get(&format!("/v1/archive/{name}/archives"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["archives"].as_array().cloned().unwrap_or_default()
}

/// Waits until there are at least so many archives, and returns them, the newest first.
pub fn wait_listed(node: &Node, name: &str, count: usize) -> Vec<Value> {
    eventually("archives", LONG, || Some(listed(node, name)).filter(|all| all.len() >= count))
}

/// Runs `anode archive` at a node.
pub fn archive(node: &Node, args: &[&str]) -> Output {
    let url = format!("http://{}", node.http);
    run(binary().args(["--url", &url, "archive"]).args(args), "")
}

/// Runs `anode archive` with `--json`, and returns what it prints.
pub fn archive_json(node: &Node, args: &[&str]) -> Value {
    let url = format!("http://{}", node.http);
    let output = run(binary().args(["--url", &url, "--json", "archive"]).args(args), "");
    assert_eq!(output.code, Some(0), "{args:?}: {}{}", output.stdout, output.stderr);
    crate::harness::json(&output.stdout)
}

fn id(archive: &Value) -> String {
    archive["id"].as_str().unwrap_or_default().to_owned()
}

/// The data of all records that match, by source.
pub fn table(node: &Node, pattern: &str) -> BTreeMap<String, Value> {
    let pairs = node.all_records(pattern).into_iter().map(|record| {
        let data = if record["data"].is_null() { record["data_b64"].clone() } else { record["data"].clone() };
        (record["source"].as_str().unwrap_or_default().to_owned(), data)
    });
    pairs.collect()
}

/// Takes the archives of a definition through all that can be done with them. `text` is the definition in TOML, for which
/// `every = "1s"` and a pattern are added.
pub fn whole_life(start: impl Fn(&str) -> NodeConfig, text: &str) {
    let node = Node::start(start("a"));
    for n in 0..200 {
        node.put(&format!("s/{n}"), json!({"n": n}));
    }
    node.put("other", json!(1));
    let frame = json!([{"source": "s/bytes", "data_b64": "AP8="}, {"source": "s/0", "deleted": true}]);
    let headers = [("Content-Type", "application/json")];
    Http::request(&node.http, "POST", "/v1/publish", &headers, frame.to_string().as_bytes());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{text}\nevery = \"1s\"\npattern = \"s/**\"\n")).expect("written");
    let put = archive(&node, &["put", "n", &file.path().display().to_string()]);
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    let first = wait_listed(&node, "n", 1).remove(0);
    assert_eq!(
        (&first["parent"], &first["records"], &first["deletions"]),
        (&Value::Null, &json!(201), &json!(1))
    );
    // Nothing has changed, so nothing is written.
    throughout("there is one archive", Duration::from_millis(2_500), || listed(&node, "n").len() == 1);
    let before = table(&node, "s/**");
    let moment = crate::harness::wall_us();
    node.put("s/1", json!("changed"));
    Http::request(&node.http, "DELETE", "/v1/sources/s/2", &[], b"");
    let all = wait_listed(&node, "n", 2);
    assert_eq!(all[0]["parent"], first["id"]);
    let changes: u64 = all[..all.len() - 1].iter().map(|one| one["records"].as_u64().unwrap_or(0)).sum();
    assert!((1..=4).contains(&changes), "only what has changed: {all:?}");
    let newest = eventually("both changes are archived", LONG, || {
        let all = listed(&node, "n");
        let deletions: u64 = all.iter().map(|one| one["deletions"].as_u64().unwrap_or(0)).sum();
        (deletions >= 2).then(|| id(&all[0]))
    });
    let verified = archive_json(&node, &["verify"]);
    assert!(verified["records"].as_u64() >= Some(203), "{verified}");
    let listing = archive(&node, &["list", "n"]).stdout;
    assert!(
        listing.contains("full") && listing.contains("changes") && listing.contains(&newest),
        "{listing}"
    );
    // Others can keep an index of the archives, such as one in Tableland: each is a record with its id.
    let url = format!("http://{}", node.http);
    let followed = run(binary().args(["sub", "$archive/*/list/*", "--count", "1", "--url", &url]), "");
    let told = crate::harness::json(&followed.stdout);
    let name = told["source"].as_str().unwrap_or_default().to_owned();
    assert_eq!(name, format!("$archive/n/list/{}", id(&told["data"])), "{followed:?}");
    let none = archive(&node, &["restore", "no-such-archive"]);
    assert!(none.code != Some(0) && none.stderr.contains("no-such-archive"), "{}", none.stderr);
    restore_elsewhere(&start, text, &node, &newest, moment, &before);
}

/// Restores the archives of a node into clusters that know nothing: as they are, as they were at a moment, and in part.
fn restore_elsewhere(
    start: &impl Fn(&str) -> NodeConfig,
    text: &str,
    node: &Node,
    newest: &str,
    moment: u64,
    before: &BTreeMap<String, Value>,
) {
    let after = table(node, "s/**");
    // The same archives are found by a cluster that knows nothing.
    let fresh = Node::start(start("b"));
    put_archive(&fresh, "n", &format!("{text}\nevery = \"1h\"\npattern = \"s/**\"\n"));
    wait_listed(&fresh, "n", 2);
    let restored = archive_json(&fresh, &["restore", newest]);
    assert_eq!((&restored["refused"], &restored["stored"]), (&json!(0), &json!(true)), "{restored}");
    assert_eq!(table(&fresh, "s/**"), after);
    assert_eq!(fresh.latest("s/1").expect("restored")["ts"], node.latest("s/1").expect("there")["ts"]);
    let again = archive_json(&fresh, &["restore", newest]);
    assert_eq!(
        (&again["applied"], &again["stale"]),
        (&json!(0), &json!(0)),
        "again changes nothing: {again}"
    );
    // What is newer stays, and what is restored as new wins.
    fresh.put("s/1", json!("newer"));
    fresh.put("s/5", json!("newer"));
    archive_json(&fresh, &["restore", "n"]);
    assert_eq!(fresh.latest("s/1").expect("there")["data"], json!("newer"));
    let at = moment.to_string();
    let back = archive_json(&fresh, &["restore", "n", "--at", &at, "--as-new"]);
    assert_eq!(&table(&fresh, "s/**"), before, "as it was at that moment: {back}");
    // A third one takes only what it asks for, up to a moment.
    let third = Node::start(start("c"));
    put_archive(&third, "n", &format!("{text}\nevery = \"1h\"\npattern = \"s/**\"\n"));
    wait_listed(&third, "n", 2);
    archive_json(&third, &["restore", newest, "--pattern", "s/1", "--at", &at]);
    assert_eq!(table(&third, "**"), BTreeMap::from([("s/1".to_owned(), json!({"n": 1}))]));
    // To take the definition away leaves the archives.
    assert_eq!(archive(&third, &["rm", "n"]).code, Some(0));
    eventually("all of it is gone", LONG, || third.all_records("$archive/**").is_empty().then_some(()));
    assert_eq!(archive(&fresh, &["verify", "n"]).code, Some(0));
}

#[test]
fn archives_are_written_verified_and_restored() {
    let bucket = Bucket::start();
    whole_life(config, &definition(&bucket, ""));
    assert!(bucket.names().iter().all(|name| name.starts_with("p/n/")), "{:?}", bucket.names());
}

#[test]
fn archives_on_ipfs_are_written_verified_and_restored() {
    let kubo = Kubo::start();
    whole_life(NodeConfig::named, &format!("kind = \"ipfs\"\napi = \"{}\"", kubo.api()));
}

/// The id of an archive on IPFS is the content id of its folder. The folder is pinned, and holds all that the archive needs: when
/// the node of IPFS has removed everything else, all archives can be read to the last byte.
#[test]
fn what_is_pinned_on_ipfs_is_all_that_archives_need() {
    let kubo = Kubo::start();
    let node = Node::start(NodeConfig::named("a"));
    let text = format!("kind = \"ipfs\"\napi = \"{}\"\nevery = \"1s\"\nkeep = 2\nfull_every = 2", kubo.api());
    node.put("s", json!(0));
    put_archive(&node, "n", &text);
    let mut n = 0;
    let mut seen = BTreeSet::new();
    eventually("five archives were written", Duration::from_secs(60), || {
        n += 1;
        node.put("s", json!(n));
        seen.extend(listed(&node, "n").iter().map(id));
        pause();
        (seen.len() >= 5).then_some(())
    });
    let last = node.put("s", json!("last"));
    eventually("the last record is archived", LONG, || {
        (listed(&node, "n").first()?["at"].as_u64() > Some(last)).then_some(())
    });
    let ids = |node: &Node| -> BTreeSet<String> { listed(node, "n").iter().map(id).collect() };
    eventually("what is listed is pinned, and nothing else", LONG, || {
        (ids(&node) == kubo.pinned()).then_some(())
    });
    assert!(kubo.collect_garbage() > 0);
    assert_eq!(archive(&node, &["verify"]).code, Some(0));
    let fresh = Node::start(NodeConfig::named("b").in_memory());
    put_archive(&fresh, "n", &text.replace("1s", "1h"));
    eventually("the new cluster knows them", LONG, || (ids(&fresh) == ids(&node)).then_some(()));
    archive_json(&fresh, &["restore", "n"]);
    assert_eq!(table(&fresh, "s"), BTreeMap::from([("s".to_owned(), json!("last"))]));
}

/// What stands in the bucket is as it is documented: lines of JSON in frames of zstd of at most 8 MiB, and a manifest with
/// the counts, the ranges and the hash of each.
#[test]
fn frames_are_bounded_and_described_by_the_manifest() {
    let bucket = Bucket::start();
    let node = Node::start(config("a"));
    // 12 MiB, which do not fit into one frame.
    for n in 0..200 {
        node.put(&format!("large/{n:03}"), json!("x".repeat(63 * 1024)));
    }
    put_archive(&node, "n", &definition(&bucket, "every = \"1h\""));
    let folder = format!("p/n/{}", id(&wait_listed(&node, "n", 1)[0]));
    let manifest = bucket.object(&format!("{folder}/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!((&manifest["parent"], &manifest["records"]), (&Value::Null, &json!(200)), "{manifest}");
    let frames = manifest["frames"].as_array().expect("frames");
    assert!(frames.len() >= 2, "{} frames", frames.len());
    let mut sources = Vec::new();
    for frame in frames {
        let stored =
            bucket.object(&format!("{folder}/{}", frame["name"].as_str().expect("a name"))).expect("a frame");
        assert_eq!(frame["sha256"], json!(crate::harness::rights::sha256_of(&stored)));
        let lines = zstd::stream::decode_all(stored.as_slice()).expect("zstd");
        assert!(lines.len() <= 8 << 20 && frame["bytes"] == lines.len(), "{} bytes", lines.len());
        let lines = String::from_utf8(lines).expect("text");
        let records: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(frame["records"], records.len());
        let mut names: Vec<String> =
            records.iter().map(|record| record["source"].as_str().expect("a source").to_owned()).collect();
        let stamps = || records.iter().filter_map(|record| record["ts"].as_u64());
        assert_eq!(frame["ts"], json!([stamps().min(), stamps().max()]));
        names.sort();
        assert_eq!(frame["sources"], json!([names.first(), names.last()]));
        sources.append(&mut names);
    }
    sources.sort();
    let expected: Vec<String> = (0..200).map(|n| format!("large/{n:03}")).collect();
    assert_eq!(sources, expected);
}

#[test]
fn damage_is_found_and_never_restored() {
    let bucket = Bucket::start();
    let node = Node::start(config("a"));
    node.put("s", json!(1));
    put_archive(&node, "n", &definition(&bucket, "every = \"1s\""));
    let id = id(&wait_listed(&node, "n", 1)[0]);
    let frame = format!("p/n/{id}/data-00000.ndjson.zst");
    let manifest = format!("p/n/{id}/manifest.json");
    for (object, at) in [(&frame, 10), (&manifest, 30)] {
        bucket.damage(object, |content| content[at] ^= 1);
        for command in ["verify", "restore"] {
            let output = archive(&node, &[command, &id]);
            assert_eq!(output.code, Some(1), "{command} {object}: {}", output.stderr);
            assert!(output.stderr.contains("damaged") && output.stderr.contains(&id), "{}", output.stderr);
        }
        bucket.damage(object, |content| content[at] ^= 1);
    }
    assert_eq!(archive(&node, &["verify", &id]).code, Some(0));
}

#[test]
fn old_archives_go_and_none_loses_its_parent() {
    let bucket = Bucket::start();
    let node = Node::start(config("a"));
    put_archive(&node, "n", &definition(&bucket, "every = \"1s\"\nkeep = 2"));
    let mut seen = BTreeSet::new();
    let mut n = 0;
    eventually("seven archives were written", Duration::from_secs(60), || {
        n += 1;
        node.put("s", json!(n));
        let all = listed(&node, "n");
        assert!(all.len() <= 5, "{all:?}");
        for archive in &all {
            seen.insert(id(archive));
            let parent = archive["parent"].as_str();
            let has_parent = parent.is_none_or(|parent| all.iter().any(|other| other["id"] == *parent));
            assert!(has_parent, "{archive} of {all:?}");
        }
        pause();
        (seen.len() >= 7).then_some(())
    });
    assert!(node.metric("anode_archives_removed_total", &[]) >= 3.0);
    assert_eq!(archive(&node, &["verify"]).code, Some(0));
    let folders: BTreeSet<String> =
        bucket.names().iter().filter_map(|name| name.split('/').nth(2).map(str::to_owned)).collect();
    assert!(folders.len() <= 6, "what is removed is removed from the store: {folders:?}");
}

/// Starts a node that adds one to the data of records on their way in.
fn start_adding(name: &str) -> Node {
    let node = Node::start(config(name));
    let headers = [("Content-Type", "application/json")];
    let adding = json!({"on": "s/*", "cel": "data + 1"}).to_string();
    let put = Http::request(&node.http, "PUT", "/v1/middleware/add", &headers, adding.as_bytes());
    assert_eq!(put.status, 200, "{}", put.body);
    eventually("the middleware is in force", LONG, || {
        node.log().contains("middleware is in force name=add").then_some(())
    });
    node
}

/// Records have passed the middlewares before they are archived, so none changes them a second time when they are restored.
#[test]
fn what_is_restored_passes_no_middleware() {
    let bucket = Bucket::start();
    let text = definition(&bucket, "every = \"1h\"\npattern = \"s/*\"");
    let node = start_adding("a");
    node.put("s/1", json!(1));
    let added = BTreeMap::from([("s/1".to_owned(), json!(2))]);
    assert_eq!(table(&node, "s/*"), added);
    put_archive(&node, "n", &text);
    let id = id(&wait_listed(&node, "n", 1)[0]);
    node.put("s/1", json!(7));
    let restored = archive_json(&node, &["restore", &id, "--as-new"]);
    assert_eq!(restored["applied"], 1, "{restored}");
    assert_eq!(table(&node, "s/*"), added);
    // The same holds for records that keep their timestamps, in a cluster that knows nothing.
    let fresh = start_adding("b");
    put_archive(&fresh, "n", &text);
    wait_listed(&fresh, "n", 1);
    let restored = archive_json(&fresh, &["restore", &id]);
    assert_eq!(restored["applied"], 1, "{restored}");
    assert_eq!(table(&fresh, "s/*"), added);
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let headers = [("Content-Type", "application/toml")];
    for (field, line) in [
        ("kind", "kind = \"tape\""),
        ("bucket", "kind = \"s3\"\nbucket = \"B\""),
        ("endpoint", "kind = \"s3\"\nbucket = \"b-1\"\nendpoint = \"http://h/path\""),
        ("every", "kind = \"ipfs\"\nevery = \"1\""),
        ("keep", "kind = \"ipfs\"\nkeep = 0"),
        ("pattern", "kind = \"ipfs\"\npattern = \"a//b\""),
        ("secret_access_key", "kind = \"s3\"\nbucket = \"b-1\"\nsecret_access_key = \"plain\""),
        ("colour", "kind = \"ipfs\"\ncolour = \"red\""),
    ] {
        let answer = Http::request(&node.http, "PUT", "/v1/archive/x", &headers, line.as_bytes());
        answer.assert_problem(400, "bad_request");
        assert!(answer.body.contains(field) && answer.body.contains("allowed"), "{}", answer.body);
        assert!(!answer.body.contains("plain"), "{}", answer.body);
    }
    node.get("/v1/archive/none/archives").assert_problem(404, "not_found");
    node.get("/v1/archive/none/verify").assert_problem(405, "method_not_allowed");
    Http::post(&node.http, "/v1/archive/none/restore", "").assert_problem(404, "not_found");
    Http::post(&node.http, "/v1/archive/none/restore?at=x", "").assert_problem(400, "bad_timestamp");
    Http::post(&node.http, "/v1/archive/none/else", "").assert_problem(404, "not_found");
    // A node without the credentials says so, and neither writes nor restores.
    let text = "kind = \"s3\"\nbucket = \"b-1\"\naccess_key_id = \"env:NO_SUCH_ID\"";
    put_archive(&node, "x", text);
    let told = eventually("why nobody runs it", LONG, || {
        node.get("/v1/archive/x").json()["cannot"]["a"].as_str().map(str::to_owned)
    });
    assert!(told.contains("NO_SUCH_ID"), "{told}");
    let answer = Http::post(&node.http, "/v1/archive/x/verify", "");
    answer.assert_problem(400, "bad_request");
    assert!(answer.body.contains("NO_SUCH_ID"), "{}", answer.body);
}

/// The server of S3 that `scripts/archives-test` has started.
#[test]
#[ignore = "needs moto, see scripts/archives-test"]
fn archives_on_moto() {
    let endpoint = std::env::var("TEST_S3_ENDPOINT").expect("TEST_S3_ENDPOINT");
    let prefix = format!("t{}", std::process::id());
    let text =
        format!("kind = \"s3\"\nendpoint = \"{endpoint}\"\nbucket = \"archives\"\nprefix = \"{prefix}\"");
    whole_life(config, &text);
}

/// The node of IPFS that `scripts/archives-test` has started.
#[test]
#[ignore = "needs Kubo, see scripts/archives-test"]
fn archives_on_kubo() {
    let api = std::env::var("TEST_IPFS_API").expect("TEST_IPFS_API");
    whole_life(NodeConfig::named, &format!("kind = \"ipfs\"\napi = \"{api}\""));
}
