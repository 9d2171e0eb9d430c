//! GraphQL over HTTP: the schema, queries and mutations. What is refused is in `graphql_refusals`, and subscriptions are in
//! `graphql_ws`.

use serde_json::{Value, json};

use crate::harness::ws::{Handshake, shake_with};
use crate::harness::{Client, Cluster, Http, Node, encode, wall_us};

/// Sends a request by POST, and returns the answer.
pub fn post(addr: &str, fields: &[(&str, &str)], request: &Value) -> Http {
    let fields: Vec<(&str, &str)> =
        [("Content-Type", "application/json")].iter().chain(fields).copied().collect();
    Http::request(addr, "POST", "/graphql", &fields, request.to_string().as_bytes())
}

/// Sends a query by POST, and returns its data. There must be no errors.
pub fn data(node: &Node, query: &str, variables: Value) -> Value {
    let answer = post(&node.http, &[], &json!({"query": query, "variables": variables}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let body = answer.json();
    assert!(body.get("errors").is_none(), "{query}: {body}");
    body["data"].clone()
}

/// Sends a query by POST, and returns the code and the message of its first error.
pub fn error(node: &Node, query: &str, variables: Value) -> (String, String) {
    let body = post(&node.http, &[], &json!({"query": query, "variables": variables})).json();
    let error = &body["errors"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(error["message"].is_string(), "{query}: {body}");
    (text(&error["extensions"]["code"]), text(&error["message"]))
}

/// Asks for the parts of the schema that the contract names.
const SCHEMA: &str = "{ __schema { types { kind name
        fields { name args { name defaultValue type { ...T } } type { ...T } }
        inputFields { name type { ...T } } enumValues { name } possibleTypes { name } }
        queryType { name } mutationType { name } subscriptionType { name } } }
        fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

#[test]
fn the_schema_is_that_of_the_contract() {
    let node = Node::single();
    let schema = data(&node, SCHEMA, Value::Null)["__schema"].clone();
    assert_eq!(schema["queryType"]["name"], "Query");
    assert_eq!(schema["mutationType"]["name"], "Mutation");
    assert_eq!(schema["subscriptionType"]["name"], "Subscription");
    let types: Vec<Value> = schema["types"].as_array().expect("types").clone();
    let named =
        |name: &str| types.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no type {name}"));
    for scalar in ["Micros", "JSON"] {
        assert_eq!(named(scalar)["kind"], "SCALAR");
    }
    let fields = |name: &str| -> Vec<String> {
        let all = named(name)["fields"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|field| format!("{}{}: {}", text(&field["name"]), args(field), type_of(&field["type"])))
            .collect()
    };
    let has = |name: &str, line: &str| {
        let fields = fields(name);
        assert!(fields.iter().any(|field| field == line), "{name} has no {line:?}: {fields:#?}");
    };
    for line in [
        "source: String!",
        "ts: Micros!",
        "origin: String!",
        "data: JSON",
        "dataB64: String",
        "deleted: Boolean!",
        "history(first: Int = 100, after: String, from: Micros, to: Micros): RecordConnection!",
    ] {
        has("Record", line);
    }
    has("Query", "record(source: String!): Record");
    has(
        "Query",
        "records(pattern: String! = \"**\", first: Int = 100, after: String, updatedSince: Micros): RecordConnection!",
    );
    has("Query", "members: [Member!]!");
    has("Query", "node: Node!");
    has("Mutation", "publish(records: [RecordInput!]!, ack: Ack = ACCEPTED): [PublishResult!]!");
    has(
        "Subscription",
        "records(patterns: [String!]!, snapshot: Boolean = true, mode: Mode = LATEST, filter: String): RecordEvent!",
    );
    for line in ["edges: [RecordEdge!]!", "nodes: [Record!]!", "pageInfo: PageInfo!"] {
        has("RecordConnection", line);
    }
    for line in ["cursor: String!", "node: Record!"] {
        has("RecordEdge", line);
    }
    // All four that clients of Relay ask for.
    for line in
        ["hasNextPage: Boolean!", "hasPreviousPage: Boolean!", "startCursor: String", "endCursor: String"]
    {
        has("PageInfo", line);
    }
    let event: Vec<String> = named("RecordEvent")["possibleTypes"]
        .as_array()
        .expect("union")
        .iter()
        .map(|one| text(&one["name"]))
        .collect();
    assert_eq!(event, ["Record", "Eos"]);
    let values = |name: &str| -> Vec<String> {
        named(name)["enumValues"].as_array().expect("enum").iter().map(|one| text(&one["name"])).collect()
    };
    assert_eq!(values("Ack"), ["ACCEPTED", "STORED", "REPLICATED"]);
    assert_eq!(values("Mode"), ["LATEST", "ALL"]);
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn type_of(of: &Value) -> String {
    match of["kind"].as_str() {
        Some("NON_NULL") => format!("{}!", type_of(&of["ofType"])),
        Some("LIST") => format!("[{}]", type_of(&of["ofType"])),
        _ => text(&of["name"]),
    }
}

fn args(field: &Value) -> String {
    let all = field["args"].as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        return String::new();
    }
    let shown = all.iter().map(|arg| {
        let default = arg["defaultValue"].as_str().map_or(String::new(), |default| format!(" = {default}"));
        format!("{}: {}{default}", text(&arg["name"]), type_of(&arg["type"]))
    });
    format!("({})", shown.collect::<Vec<_>>().join(", "))
}

#[test]
fn data_is_read_as_it_was_published() {
    let node = Node::single();
    let odd = "{\"z\": 1.50,  \"a\":[1e3, 12345678901234567890123, null],\"t\":\"\\u00e4\"}";
    let body = format!(
        "[{{\"source\":\"a/1\",\"data\":{odd}}},{{\"source\":\"a/2\",\"data_b64\":\"AAEC\"}},{{\"source\":\"a/3\",\"data\":null}}]"
    );
    assert_eq!(Http::post(&node.http, "/v1/publish", &body).status, 200);
    let request = json!({"query": "{ record(source: \"a/1\") { data } }"});
    let answer = post(&node.http, &[], &request);
    assert_eq!(answer.body, format!("{{\"data\":{{\"record\":{{\"data\":{odd}}}}}}}"));
    let found = data(
        &node,
        "{ a: record(source: \"a/2\") { source ts origin data dataB64 deleted }
           b: record(source: \"a/3\") { data dataB64 deleted }  c: record(source: \"none\") { ts } }",
        Value::Null,
    );
    let ts = node.latest("a/2").expect("a record")["ts"].clone();
    let expected =
        json!({"source": "a/2", "ts": ts, "origin": "a", "data": null, "dataB64": "AAEC", "deleted": false});
    assert_eq!(found["a"], expected);
    assert_eq!(found["b"], json!({"data": null, "dataB64": null, "deleted": false}));
    assert_eq!(found["c"], Value::Null);
    node.post(json!({"source": "a/2", "deleted": true}));
    assert_eq!(data(&node, "{ record(source: \"a/2\") { ts } }", Value::Null), json!({"record": null}));
}

#[test]
fn pages_follow_one_another() {
    let node = Node::single();
    for number in 0..25 {
        node.put(&format!("p/{number:02}"), json!(number));
    }
    let mark = node.latest("p/24").expect("a record")["ts"].clone();
    node.put("p/03", json!("new"));
    let query = "query Page($after: String, $since: Micros) {
        records(pattern: \"p/*\", first: 10, after: $after, updatedSince: $since) {
            edges { cursor node { source } } nodes { source }
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    let (mut names, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let page = data(&node, query, json!({"after": after}))["records"].clone();
        let edges = page["edges"].as_array().expect("edges");
        assert_eq!(edges.len(), page["nodes"].as_array().expect("nodes").len());
        names.extend(edges.iter().map(|edge| text(&edge["node"]["source"])));
        assert_eq!(page["pageInfo"]["endCursor"], edges.last().expect("an edge")["cursor"]);
        assert_eq!(page["pageInfo"]["startCursor"], edges.first().expect("an edge")["cursor"]);
        assert_eq!(page["pageInfo"]["hasPreviousPage"], pages > 0, "{page}");
        pages += 1;
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..25).map(|number| format!("p/{number:02}")).collect::<Vec<_>>());
    let newer = data(&node, query, json!({"since": mark}))["records"].clone();
    assert_eq!(newer["nodes"], json!([{"source": "p/03"}]));
    assert_eq!(newer["pageInfo"]["hasNextPage"], false);
    let from_the_beginning = data(&node, query, json!({"after": ""}))["records"]["nodes"].clone();
    assert_eq!(from_the_beginning[0]["source"], "p/00");
    let none = data(
        &node,
        "{ records(pattern: \"none/*\") { nodes { ts } pageInfo { hasNextPage endCursor } } }",
        Value::Null,
    );
    assert_eq!(none["records"], json!({"nodes": [], "pageInfo": {"hasNextPage": false, "endCursor": null}}));
    for (args, code) in [
        ("first: 0", "bad_request"),
        ("first: -1", "bad_request"),
        ("first: 10001", "bad_request"),
        ("pattern: \"a/**/b\"", "bad_pattern"),
    ] {
        assert_eq!(
            error(&node, &format!("{{ records({args}) {{ nodes {{ ts }} }} }}"), Value::Null).0,
            code,
            "{args}"
        );
    }
    assert_eq!(error(&node, "{ record(source: \"a//b\") { ts } }", Value::Null).0, "bad_source");
}

#[test]
fn histories_have_the_newest_first() {
    let node = Node::single();
    for number in 1..=5 {
        node.post(json!({"source": "h/1", "ts": number, "data": number}));
    }
    node.post(json!({"source": "h/1", "ts": 6, "deleted": true}));
    node.post(json!({"source": "h/1", "ts": 7, "data": 7}));
    let query = "query($after: String, $from: Micros, $to: Micros, $first: Int) { record(source: \"h/1\") {
        history(first: $first, after: $after, from: $from, to: $to) {
            nodes { ts data deleted } pageInfo { hasNextPage endCursor } } } }";
    let page = |variables: Value| data(&node, query, variables)["record"]["history"].clone();
    let stamps = |page: &Value| -> Vec<u64> {
        page["nodes"].as_array().expect("nodes").iter().filter_map(|record| record["ts"].as_u64()).collect()
    };
    let first = page(json!({"first": 3}));
    assert_eq!(stamps(&first), [7, 6, 5]);
    assert_eq!(first["nodes"][1], json!({"ts": 6, "data": null, "deleted": true}));
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let rest = page(json!({"after": first["pageInfo"]["endCursor"]}));
    assert_eq!((stamps(&rest), &rest["pageInfo"]["hasNextPage"]), (vec![4, 3, 2, 1], &json!(false)));
    assert_eq!(stamps(&page(json!({"from": 2, "to": 4}))), [4, 3, 2]);
    let bad = error(&node, query, json!({"after": "nothing"}));
    assert_eq!(bad.0, "bad_request");
    // Times are whole numbers from 0 to 2^53 - 1.
    assert_eq!(stamps(&page(json!({"from": 7, "to": 9_007_199_254_740_991_u64}))), [7]);
    for wrong in [json!(-1), json!(1.5), json!(9_007_199_254_740_992_u64), json!("1"), json!(true)] {
        let (code, message) = error(&node, query, json!({"from": wrong}));
        assert_eq!((code.as_str(), message.contains("whole number")), ("bad_request", true), "{message}");
    }
}

#[test]
fn publishes_are_answered_one_by_one() {
    let node = Node::single();
    let query = "mutation P($records: [RecordInput!]!, $ack: Ack) { publish(records: $records, ack: $ack) {
        ts outcome currentTs level nodes error { code message temporary applied } } }";
    let ahead = wall_us() + 60_000_000;
    let results = data(
        &node,
        query,
        json!({"ack": "STORED", "records": [
            {"source": "m/1", "ts": 10, "data": {"b": 1, "a": [true, null]}},
            {"source": "m/1", "ts": 10, "data": {"b": 1, "a": [true, null]}},
            {"source": "m/1", "ts": 5, "data": 1},
            {"source": "m/2", "dataB64": "AAEC"},
            {"source": "m/3", "data": null},
            {"source": "m/2", "deleted": true},
            {"source": "m//4", "data": 1},
            {"source": "$sys/x", "data": 1},
            {"source": "m/5", "ts": ahead, "data": 1},
            {"source": "m/6"},
            {"source": "m/7", "data": 1, "dataB64": "AAEC"},
            {"source": "m/8", "data": "x".repeat(70_000)},
            {"source": "m/9", "data": 1, "ttlMs": 60_000},
        ]}),
    )["publish"]
        .clone();
    let results = results.as_array().expect("a result each");
    assert_eq!(results.len(), 13);
    let outcome = |at: usize| (text(&results[at]["outcome"]), text(&results[at]["level"]));
    assert_eq!(outcome(0), ("APPLIED".into(), "STORED".into()));
    assert_eq!(outcome(1), ("DUPLICATE".into(), "STORED".into()));
    assert_eq!((outcome(2).0, &results[2]["currentTs"]), ("STALE".into(), &json!(10)));
    for at in [3, 4, 5, 12] {
        assert_eq!(outcome(at).0, "APPLIED", "{at}: {}", results[at]);
        assert!(results[at]["ts"].is_u64() && results[at]["error"].is_null());
    }
    for (at, code) in [
        (6, "bad_source"),
        (7, "forbidden"),
        (8, "future_timestamp"),
        (9, "bad_request"),
        (10, "bad_request"),
        (11, "too_large"),
    ] {
        assert_eq!(results[at]["error"]["code"], code, "{at}: {}", results[at]);
        assert_eq!(results[at]["error"]["applied"], false);
        assert!(results[at]["outcome"].is_null());
    }
    let kept = node.get("/v1/sources/m/1").body;
    // The variables of this test have their keys in the order of the alphabet.
    assert!(kept.contains(r#""data":{"a":[true,null],"b":1}"#), "{kept}");
    assert_eq!(node.latest("m/3").expect("null is a value")["data"], Value::Null);
    // Literals in the query are data, too.
    let literal = "mutation { publish(records: [{source: \"m/10\", data: {z: 1, k: [1, 2.5, \"x\", null, true]}}]) { outcome level } }";
    assert_eq!(
        data(&node, literal, Value::Null)["publish"],
        json!([{"outcome": "APPLIED", "level": "ACCEPTED"}])
    );
    let kept = node.get("/v1/sources/m/10").body;
    assert!(kept.contains(r#""data":{"z":1,"k":[1,2.5,"x",null,true]}"#), "keys keep their order: {kept}");
    assert_eq!(error(&node, "mutation { publish(records: []) { ts } }", Value::Null).0, "bad_request");
}

#[test]
fn replicated_names_the_nodes() {
    let cluster = Cluster::start(3);
    let query = "mutation { publish(ack: REPLICATED, records: [{source: \"r/1\", data: 1}]) { level nodes error { code } } }";
    assert_eq!(
        data(&cluster[0], query, Value::Null)["publish"],
        json!([{"level": "REPLICATED", "nodes": 3, "error": null}])
    );
    let members = data(
        &cluster[1],
        "{ members { id state http gossip boot version rttUs } node { id version ready reason member { id } } }",
        Value::Null,
    );
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3));
    assert_eq!(members["members"][0]["state"], "ALIVE");
    assert_eq!(members["node"]["id"], members["node"]["member"]["id"]);
    assert_eq!((&members["node"]["ready"], &members["node"]["reason"]), (&json!(true), &Value::Null));
}

#[test]
fn a_get_reads_and_changes_nothing() {
    let node = Node::single();
    node.put("g/1", json!(1));
    let query = encode(
        "query A($s: String!) { record(source: $s) { data } } mutation B { publish(records: []) { ts } }",
    );
    let variables = encode("{\"s\":\"g/1\"}");
    let path = format!("/graphql?query={query}&variables={variables}&operationName=A");
    let answer = node.get(&path);
    assert_eq!((answer.status, answer.json()), (200, json!({"data": {"record": {"data": 1}}})));
    let mutation = encode("mutation { publish(records: [{source: \"g/2\", data: 1}]) { ts } }");
    let refused = node.get(&format!("/graphql?query={mutation}"));
    refused.assert_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("POST"));
    assert!(node.latest("g/2").is_none());
    node.get("/graphql").assert_problem(400, "bad_request");
    node.get("/graphql?quer=x").assert_problem(400, "bad_request");
    node.get("/graphql?query=%7Ba%7D&variables=x").assert_problem(400, "bad_request");
    let two = node
        .get(&format!("/graphql?query={}", encode("query A { node { id } } query B { node { id } }")))
        .json();
    assert_eq!(two["errors"][0]["extensions"]["code"], "bad_request", "{two}");
    Http::request(&node.http, "DELETE", "/graphql", &[], b"").assert_problem(405, "method_not_allowed");
}

/// Builds without the feature say so; builds with it serve a page that loads nothing from elsewhere.
#[test]
fn browsers_get_graphiql_if_it_is_there() {
    let node = Node::single();
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = Http::request(&node.http, "GET", "/graphql", &browser, b"");
    if !cfg!(feature = "graphiql") {
        page.assert_problem(404, "not_found");
        assert!(page.body.contains("graphiql"), "{page:?}");
        node.get("/graphql/graphiql.js").assert_problem(404, "not_found");
        return;
    }
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(!page.body.contains("//"), "no foreign host: {}", page.body);
    for name in ["graphiql.js", "graphiql.css", "start.js"] {
        assert!(page.body.contains(&format!("graphql/{name}")));
        assert_eq!(node.get(&format!("/graphql/{name}")).status, 200);
    }
    assert_eq!(node.get("/graphql/graphiql.js").header("content-encoding"), Some("gzip"));
    node.get("/graphql/none.js").assert_problem(404, "not_found");
}

/// The examples of the reference, in their order: the operation, and the data that the reference shows for it.
fn examples() -> Vec<(String, Option<Value>)> {
    let reference = include_str!("../../docs/protocol.md");
    let section = reference.split("\n## GraphQL\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let mut examples: Vec<(String, Option<Value>)> = Vec::new();
    for block in section.split("```").skip(1).step_by(2) {
        if let Some(query) = block.strip_prefix("graphql\n") {
            examples.push((query.to_owned(), None));
        } else if let (Some(shown), Some(last)) = (block.strip_prefix("json\n"), examples.last_mut()) {
            last.1 = Some(crate::harness::json(shown));
        }
    }
    examples
}

#[test]
fn the_examples_of_the_reference_do_what_they_show() {
    let node = Node::single();
    let examples = examples();
    assert_eq!(examples.len(), 4, "{examples:#?}");
    for (query, shown) in examples {
        if query.starts_with("subscription") {
            let fields = [("Host", node.http.as_str())];
            let Handshake::Open(socket, _) =
                shake_with(&node.http, "/graphql", &["graphql-transport-ws"], &fields)
            else {
                panic!("refused");
            };
            let mut client = Client::over(socket);
            client.send_json(json!({"type": "connection_init"}));
            assert_eq!(client.json()["type"], "connection_ack");
            client.send_json(json!({"id": "1", "type": "subscribe", "payload": {"query": query}}));
            assert_eq!(client.json()["payload"]["data"]["records"]["source"], "sensors/7/temp");
            assert!(client.json()["payload"]["data"]["records"]["resume"].is_string());
        } else {
            let found = data(&node, &query, Value::Null);
            assert!(shown.is_none_or(|shown| shown == found), "{query}: {found}");
        }
    }
}
