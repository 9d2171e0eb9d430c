//! Middlewares: what changes, drops or refuses records on their way in, at every door that takes records.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{anode, binary, run};
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Deadline, Http, Node, NodeConfig, ProtoClient, eventually, proto, wall_us};

const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Longest wait for a middleware to be in force. It takes a second at most, which is tested by itself, unless other programs keep
/// the machine busy.
const IN_FORCE: Duration = Duration::from_secs(5);

fn put(node: &Node, name: &str, definition: Value) -> Http {
    let path = format!("/v1/middleware/{name}");
    Http::request(&node.http, "PUT", &path, &[JSON], definition.to_string().as_bytes())
}

/// Puts a middleware and waits until so many are in force at these nodes.
fn put_in_force<'n>(
    nodes: impl IntoIterator<Item = &'n Node> + Clone,
    name: &str,
    definition: Value,
) -> Value {
    let first = nodes.clone().into_iter().next().expect("a node");
    let answer = put(first, name, definition);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    for node in nodes {
        let in_force = format!("middleware is in force name={name} version={}", answer["version"]);
        eventually("the middleware is in force", IN_FORCE, || node.log().contains(&in_force).then_some(()));
    }
    answer
}

fn publish(node: &Node, source: &str, data: Value) -> Http {
    node.post(json!({"source": source, "data": data}))
}

fn data(node: &Node, source: &str) -> Option<Value> {
    node.latest(source).map(|record| record["data"].clone())
}

#[test]
fn an_expression_changes_data_at_every_door() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    put_in_force([&node], "add", json!({"on": "in/**", "cel": "{\"v\": data.v + 1, \"by\": source}"}));
    assert_eq!(publish(&node, "in/http", json!({"v": 1})).json()["outcome"], "applied");
    assert_eq!(data(&node, "in/http"), Some(json!({"v": 2, "by": "in/http"})));
    let mut client = node.publisher();
    client.send_json(json!({"id": 1, "source": "in/ws", "data": {"v": 2}, "ack": "stored"}));
    assert_eq!(client.json()["result"]["outcome"], "applied");
    assert_eq!(data(&node, "in/ws"), Some(json!({"v": 3, "by": "in/ws"})));
    client.send_json(
        json!([{"source": "in/batch", "data": {"v": 3}}, {"id": 2, "source": "out", "data": {"v": 3}}]),
    );
    assert_eq!(client.json()[0]["result"]["outcome"], "applied");
    assert_eq!(
        (data(&node, "in/batch"), data(&node, "out")),
        (Some(json!({"v": 4, "by": "in/batch"})), Some(json!({"v": 3})))
    );
    let line = "{\"source\":\"in/import\",\"data\":{\"v\":4}}\n";
    assert_eq!(Http::post(&node.http, "/v1/import", line).json()["applied"], 1);
    assert_eq!(data(&node, "in/import"), Some(json!({"v": 5, "by": "in/import"})));
    let query = json!({"query": "mutation { publish(records: [{source: \"in/graphql\", data: {v: 5}}]) { outcome } }"});
    let answer = Http::request(&node.http, "POST", "/graphql", &[JSON], query.to_string().as_bytes());
    assert_eq!(answer.json()["data"]["publish"][0]["outcome"], "APPLIED", "{answer:?}");
    assert_eq!(data(&node, "in/graphql"), Some(json!({"v": 6, "by": "in/graphql"})));
    let answer = Http::request(&node.http, "PUT", "/v1/sources/in/put", &[JSON], b"{\"v\":6}");
    let tag = answer.header("etag").expect("a tag").to_owned();
    let get = Http::request(&node.http, "GET", "/v1/sources/in/put", &[], b"");
    assert_eq!(get.header("etag"), Some(&*tag), "the tag is that of the record which is held");
    assert_eq!(get.json()["data"], json!({"v": 7, "by": "in/put"}));
    let mut client = ProtoClient::open(&node.http, "/publish");
    let (id, value) = (Some(proto::Id { id: Some(proto::id::Id::Number(1)) }), r#"{"v":7}"#.to_owned());
    let value = Some(proto::publish::Value::Data(value));
    client.publish(proto::Publish { id, source: "in/proto".into(), value, ..Default::default() });
    assert!(matches!(client.answer().answer, Some(proto::answer::Answer::Result(_))));
    assert_eq!(data(&node, "in/proto"), Some(json!({"v": 8, "by": "in/proto"})));
    // Deletions have no data, and pass.
    assert_eq!(node.post(json!({"source": "in/put", "deleted": true})).json()["outcome"], "applied");
}

#[test]
fn what_is_dropped_or_rejected_is_answered_so() {
    let node = Node::single();
    let cel = "data == null ? drop() : data < 0 ? reject(\"below \" + string(0)) : data";
    put_in_force([&node], "sign", json!({"on": "n/*", "cel": cel}));
    let before = wall_us();
    for level in ["accepted", "stored", "replicated"] {
        let answer =
            Http::post(&node.http, &format!("/v1/publish?ack={level}"), "{\"source\":\"n/1\",\"data\":null}");
        let result = answer.json();
        assert_eq!((&result["outcome"], &result["level"]), (&json!("dropped"), &json!(level)), "{answer:?}");
        assert!(result["ts"].as_u64().is_some_and(|ts| ts >= before));
        assert_eq!(result.get("nodes"), (level == "replicated").then_some(&json!(0)));
    }
    publish(&node, "n/1", json!(-1)).assert_problem(422, "rejected");
    let mut client = node.publisher();
    client.send_json(json!({"id": 7, "source": "n/1", "data": -5}));
    let error = client.json()["error"].clone();
    assert_eq!(
        (&error["code"], &error["message"], &error["temporary"]),
        (&json!("rejected"), &json!("below 0"), &json!(false))
    );
    assert_eq!(node.latest("n/1"), None);
    // What the expression leaves alone is kept to the last byte.
    assert_eq!(Http::post(&node.http, "/v1/publish", "{\"source\":\"n/1\",\"data\":1.50}").status, 200);
    assert!(node.get("/v1/sources/n/1").body.contains("\"data\":1.50"));
    let import = "{\"source\":\"n/2\",\"data\":null}\n{\"source\":\"n/2\",\"data\":-1}\n";
    let told = Http::post(&node.http, "/v1/import", import).json();
    assert_eq!((&told["dropped"], &told["refused_total"]), (&json!(1), &json!(1)), "{told}");
    assert_eq!(node.metric("anode_middleware_dropped_total", &[]), 4.0);
    assert_eq!(node.metric("anode_middleware_rejected_total", &[]), 3.0);
    assert_eq!(node.metric("anode_refusals_total", &[("code", "rejected")]), 3.0);
}

#[test]
fn they_run_in_order_and_only_where_they_are_to() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    put_in_force([&node], "z", json!({"on": "s/**", "order": -1, "cel": "data + \"1\""}));
    put_in_force([&node], "b", json!({"on": "s/*", "cel": "data + \"3\""}));
    put_in_force([&node], "a", json!({"on": "s/*", "cel": "data + \"2\"", "when": "source != \"s/not\""}));
    publish(&node, "s/1", json!("x"));
    publish(&node, "s/not", json!("x"));
    publish(&node, "s/1/2", json!("x"));
    publish(&node, "t", json!("x"));
    assert_eq!(data(&node, "s/1"), Some(json!("x123")));
    assert_eq!(data(&node, "s/not"), Some(json!("x13")));
    assert_eq!((data(&node, "s/1/2"), data(&node, "t")), (Some(json!("x1")), Some(json!("x"))));
}

#[test]
fn failures_refuse_and_switch_off_everywhere_after_ten() {
    let cluster = Cluster::start(2);
    put_in_force(&cluster.nodes, "strict", json!({"on": "f/*", "cel": "data.missing"}));
    for _ in 0..9 {
        publish(&cluster[0], "f/1", json!({})).assert_problem(500, "middleware_failed");
        assert_eq!(publish(&cluster[0], "f/1", json!({"missing": 1})).status, 200);
    }
    for _ in 0..10 {
        publish(&cluster[0], "f/1", json!({})).assert_problem(500, "middleware_failed");
    }
    for node in &cluster.nodes {
        eventually("it is off", IN_FORCE, || (publish(node, "f/2", json!({})).status == 200).then_some(()));
        eventually("the metric tells it", IN_FORCE, || {
            (node.metric("anode_middlewares_switched_off", &[]) == 1.0).then_some(())
        });
    }
    let state = cluster[1].get("/v1/middleware/strict").json()["state"].clone();
    assert_eq!((&state["off"], &state["version"]), (&json!(true), &json!(1)), "{state}");
    assert!(state["reason"].as_str().is_some_and(|reason| reason.contains("missing")), "{state}");
    assert!(cluster[0].log().contains("switched off everywhere"));
    // Another version is on again.
    put_in_force(&cluster.nodes, "strict", json!({"on": "f/*", "cel": "data.other"}));
    publish(&cluster[1], "f/3", json!({})).assert_problem(500, "middleware_failed");
    put_in_force(&cluster.nodes, "strict", json!({"on": "f/*", "cel": "data.other", "on_failure": "pass"}));
    assert_eq!(publish(&cluster[1], "f/3", json!({})).status, 200);
}

/// Versions change while records come at both nodes: every record has passed one of them.
#[test]
fn versions_change_without_a_record_that_passes_none() {
    let cluster = Cluster::start(2);
    put_in_force(&cluster.nodes, "v", json!({"on": "v/*", "cel": "{\"version\": 1, \"was\": data}"}));
    std::thread::scope(|scope| {
        for (at, node) in cluster.nodes.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..1_500 {
                    let answer = publish(node, &format!("v/{at}-{number}"), json!(number));
                    assert_eq!(answer.json()["outcome"], "applied", "{answer:?}");
                }
            });
        }
        for version in 2..12 {
            let cel = format!("{{\"version\": {version}, \"was\": data}}");
            assert_eq!(put(&cluster[0], "v", json!({"on": "v/*", "cel": cel})).json()["version"], version);
        }
    });
    let all = cluster.wait_equal("v/*", Duration::from_secs(10));
    assert_eq!(all.len(), 3_000);
    let versions: Vec<u64> = all.iter().filter_map(|record| record["data"]["version"].as_u64()).collect();
    assert_eq!(versions.len(), 3_000, "every record has passed");
    assert!(versions.iter().any(|version| *version > 1));
}

/// Twenty versions, one after another, each in force at all of three nodes within a second. Two of them may be later, by the
/// other tests that use the same processors.
#[test]
fn a_new_version_is_in_force_at_every_node_within_a_second() {
    let cluster = Cluster::start(3);
    put_in_force(&cluster.nodes, "v", json!({"on": "v/*", "cel": "0"}));
    let mut times = Vec::new();
    for version in 1..=20 {
        let begun = Deadline::after(IN_FORCE);
        let answer = put(&cluster[version % 3], "v", json!({"on": "v/*", "cel": version.to_string()}));
        assert_eq!(answer.status, 200, "{answer:?}");
        for (at, node) in cluster.nodes.iter().enumerate() {
            let source = format!("v/{version}-{at}");
            eventually("the version is in force", IN_FORCE, || {
                publish(node, &source, json!(null));
                (data(node, &source) == Some(json!(version))).then_some(())
            });
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    assert!(times[17] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn the_version_before_is_one_step_away_and_all_survives_a_restart() {
    let mut node = Node::single();
    put_in_force([&node], "r", json!({"on": "r", "cel": "1"}));
    Http::post(&node.http, "/v1/middleware/r/rollback", "").assert_problem(400, "bad_request");
    put_in_force([&node], "r", json!({"on": "r", "cel": "2"}));
    let rolled = anode(&["middleware", "rollback", "r", "--url", &format!("http://{}", node.http)]);
    assert_eq!(rolled.code, Some(0), "{rolled:?}");
    eventually("version 1 is in force", IN_FORCE, || {
        publish(&node, "r", json!(0));
        (data(&node, "r") == Some(json!(1))).then_some(())
    });
    assert_eq!(node.get("/v1/middleware/r").json()["definition"]["version"], 3);
    assert_eq!(node.sigterm(), Some(0));
    node.restart();
    // Not one record comes past it after the start.
    assert_eq!(publish_once_taken(&node, "r", json!(0)), Some(json!(1)));
    let removed = Http::request(&node.http, "DELETE", "/v1/middleware/r", &[], b"");
    assert_eq!(removed.status, 200, "{removed:?}");
    eventually("it is gone", IN_FORCE, || {
        publish(&node, "r", json!(0));
        (data(&node, "r") == Some(json!(0))).then_some(())
    });
    node.get("/v1/middleware/r").assert_problem(404, "not_found");
    Http::post(&node.http, "/v1/middleware/r/rollback", "").assert_problem(404, "not_found");
}

/// Publishes until the node does not say that it prepares the middleware, and returns the data that is held then.
fn publish_once_taken(node: &Node, source: &str, value: Value) -> Option<Value> {
    eventually("the node takes it", IN_FORCE, || {
        let answer = publish(node, source, value.clone());
        (answer.status == 200).then_some(()).or_else(|| {
            answer.assert_problem(503, "overloaded");
            None
        })
    });
    data(node, source)
}

#[test]
fn a_node_that_joins_has_all_of_them_before_it_takes_records() {
    let first = Node::start(NodeConfig::named("a").in_memory());
    put_in_force([&first], "j", json!({"on": "j/*", "cel": "data + 1"}));
    let second = Node::start(NodeConfig::joining("b", &first).in_memory());
    assert_eq!(publish_once_taken(&second, "j/1", json!(1)), Some(json!(2)));
    // What has passed at one node is not asked about at another.
    let ts = second.latest("j/1").expect("the record")["ts"].as_u64().expect("ts");
    first.wait_ts("j/1", ts);
    assert_eq!(data(&first, "j/1"), Some(json!(2)));
}

/// `ts` is the publisher's timestamp, or else the time of the node; `now` is the time of the node.
#[test]
fn an_expression_knows_the_time_of_the_record_and_of_the_node() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let cel = "ts < now - 3600000000 ? drop() : {\"age\": now - ts, \"by\": source}";
    put_in_force([&node], "fresh", json!({"on": "t/*", "cel": cel}));
    let of = |ts: u64| node.post(json!({"source": "t/1", "ts": ts, "data": 1})).json()["outcome"].clone();
    assert_eq!(of(wall_us() - 3_700_000_000), "dropped");
    let earlier = wall_us() - 1_800_000_000;
    assert_eq!(of(earlier), "applied");
    let age = data(&node, "t/1").expect("held")["age"].as_u64().expect("microseconds");
    assert!((1_800_000_000..1_860_000_000).contains(&age), "{age}");
    publish(&node, "t/2", json!(1));
    assert_eq!(data(&node, "t/2"), Some(json!({"age": 0, "by": "t/2"})));
}

#[test]
fn other_records_can_be_looked_up() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let cel = "latest(\"names/\" + data.id) == null ? reject(\"unknown id\") : {\"v\": data.v, \"name\": latest(\"names/\" + data.id)}";
    put_in_force([&node], "names", json!({"on": "values/*", "cel": cel}));
    node.put("names/7", json!("boiler"));
    publish(&node, "values/1", json!({"id": "7", "v": 3}));
    assert_eq!(data(&node, "values/1"), Some(json!({"v": 3, "name": "boiler"})));
    publish(&node, "values/1", json!({"id": "8", "v": 3})).assert_problem(422, "rejected");
}

#[test]
fn rights_decide_who_changes_them_and_hold_for_what_they_make() {
    let file = RightsFile::new(&format!(
        "{}{}{}",
        token_entry("boss", "boss-secret", "admin = true"),
        token_entry("eye", "eye-secret", "observe = true"),
        token_entry("sensor", "sensor-secret", "publish = [\"s/**\"]\nsubscribe = [\"**\"]"),
    ));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    let request = |method: &str, path: &str, token: &str, body: &str| {
        let header = bearer(token);
        Http::request(&node.http, method, path, &[JSON, ("Authorization", &header)], body.as_bytes())
    };
    let definition = json!({"on": "s/*", "cel": "{\"by\": token}"}).to_string();
    request("PUT", "/v1/middleware/t", "sensor-secret", &definition).assert_problem(403, "forbidden");
    request("PUT", "/v1/middleware/t", "eye-secret", &definition).assert_problem(403, "forbidden");
    assert_eq!(request("PUT", "/v1/middleware/t", "boss-secret", &definition).status, 200);
    assert_eq!(request("GET", "/v1/middleware", "eye-secret", "").json()["middleware"][0]["name"], "t");
    request("POST", "/v1/middleware/t/test", "eye-secret", "{}").assert_problem(403, "forbidden");
    eventually("the name of the token comes in", IN_FORCE, || {
        let sent = request("POST", "/v1/publish", "sensor-secret", "{\"source\":\"s/1\",\"data\":1}");
        assert_eq!(sent.status, 200, "{sent:?}");
        let held = request("GET", "/v1/sources/s/1", "sensor-secret", "").json();
        (held["data"] == json!({"by": "sensor"})).then_some(())
    });
}

#[test]
fn bad_definitions_are_refused_with_the_field() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    for (field, definition) in [
        ("on", json!({"cel": "data"})),
        ("on", json!({"on": "$middleware/*", "cel": "data"})),
        ("cel", json!({"on": "a", "cel": "data +"})),
        ("cel", json!({"on": "a", "cel": "nothing.known"})),
        ("when", json!({"on": "a", "cel": "data", "when": "("})),
        ("on_failure", json!({"on": "a", "cel": "data", "on_failure": "x"})),
        ("order", json!({"on": "a", "cel": "data", "order": "x"})),
        ("wasm", json!({"on": "a", "wasm": "AAAA"})),
        ("wasm", json!({"on": "a", "wasm": {"hash": "0".repeat(32), "bytes": 5}})),
        ("colour", json!({"on": "a", "cel": "data", "colour": 1})),
    ] {
        let answer = put(&node, "x", definition);
        answer.assert_problem(400, "bad_request");
        assert!(answer.body.contains(&format!("{field}: ")), "{field}: {answer:?}");
    }
    put(&node, "a/b", json!({"on": "a", "cel": "data"})).assert_problem(404, "not_found");
    put(&node, "a%20b", json!({"on": "a", "cel": "data"})).assert_problem(400, "bad_request");
    Http::request(&node.http, "PUT", "/v1/middleware/x", &[("Content-Type", "text/plain")], b"x")
        .assert_problem(400, "bad_request");
    assert_eq!(node.get("/v1/middleware").json(), json!({"middleware": []}));
    let toml = "on = \"a\"\ncel = '''\ndata + 1\n'''\n";
    let header = ("Content-Type", "application/toml");
    let answer = Http::request(&node.http, "PUT", "/v1/middleware/toml", &[header], toml.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn the_terminal_does_all_of_it() {
    let node = Node::single();
    let url = format!("http://{}", node.http);
    let command = |args: &[&str], input: &str| {
        let mut command = binary();
        command.arg("middleware").args(args).args(["--url", &url]);
        run(&mut command, input)
    };
    let put = command(
        &["put", "round", "--on", "t/**", "--order", "-5", "--cel", "int(data)", "--when", "data != 13.5"],
        "",
    );
    assert_eq!(put.code, Some(0), "{put:?}");
    let listed = command(&["list"], "");
    assert!(
        listed.stdout.contains("round") && listed.stdout.contains("t/**") && listed.stdout.contains("-5")
    );
    let told: Value = serde_json::from_str(&command(&["list", "--json"], "").stdout).expect("JSON");
    assert_eq!(told["middleware"][0]["definition"]["when"], "data != 13.5");
    let input = "{\"source\":\"t/1\",\"data\":1.5}\n{\"source\":\"u\",\"data\":1.5}\n{\"source\":\"t/1\",\"data\":13.5}\n";
    let tested = command(&["test", "round"], input);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    let lines: Vec<Value> =
        tested.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0], json!({"outcome": "changed", "records": [{"source": "t/1", "data": 1}]}));
    assert_eq!((&lines[1]["outcome"], &lines[2]["outcome"]), (&json!("passed"), &json!("passed")));
    let failed = command(&["test", "round"], "{\"source\":\"t/1\",\"data\":{}}\n");
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("middleware_failed"), "{failed:?}");
    assert!(throughout_nothing(&node), "a trial publishes nothing");
    assert_eq!(command(&["put", "x", "--on", "a"], "").code, Some(2), "neither --cel nor --wasm");
    assert_eq!(command(&["put", "x", "--on", "a", "--cel", "1", "--wasm", "f"], "").code, Some(2));
    assert_eq!(command(&["put", "x", "--on", "a", "--cel", "1", "--on-failure", "stop"], "").code, Some(2));
    assert_eq!(command(&["put", "x", "--on", "a", "--cel", "(("], "").code, Some(1));
    assert_eq!(command(&["rm", "round"], "").code, Some(0));
    assert_eq!(command(&["rm", "round"], "").code, Some(1));
}

fn throughout_nothing(node: &Node) -> bool {
    throughout("nothing is published", Duration::from_millis(100), || node.latest("t/1").is_none());
    true
}
