//! The OpenAPI and AsyncAPI documents against what a node does: every example in them is executed, every answer must have
//! a status that is described and the form that is described for it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::harness::{Client, Http, Node, NodeConfig, anode, encode, eventually};

/// Checks a value against a schema of JSON Schema, as far as the documents use it. Returns what is wrong.
pub fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#'));
        let found = found.ok_or_else(|| format!("{place}: nothing at {reference}"))?;
        return check(document, found, value, place);
    }
    if let Some(kinds) = schema.get("type") {
        let kinds: Vec<&str> = match kinds {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        if !kinds.iter().any(|kind| is_of_type(kind, value)) {
            return Err(format!("{place}: {value} is not one of {kinds:?}"));
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{place}: {value} is not one of {allowed:?}"));
    }
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        return Err(format!("{place}: {value} is not {wanted}"));
    }
    let number = value.as_f64();
    let is_low = schema["minimum"].as_f64().zip(number).is_some_and(|(least, number)| number < least);
    let is_high = schema["maximum"].as_f64().zip(number).is_some_and(|(most, number)| number > most);
    if is_low || is_high {
        return Err(format!("{place}: {value} is out of range"));
    }
    check_extent(schema, value, place)?;
    if let Some(unwanted) = schema.get("not")
        && check(document, unwanted, value, place).is_ok()
    {
        return Err(format!("{place}: {value} is what it may not be"));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| check(document, choice, value, place).is_ok()).count();
        if fitting != 1 {
            return Err(format!("{place}: {value} fits {fitting} of the choices"));
        }
    }
    if let Some(items) = value.as_array() {
        for (at, item) in items.iter().enumerate().filter(|_| schema.get("items").is_some()) {
            check(document, &schema["items"], item, &format!("{place}/{at}"))?;
        }
    }
    value.as_object().map_or(Ok(()), |members| check_members(document, schema, members, place))
}

/// Checks how long a text is and how it is made, and how much a list or a table contains.
fn check_extent(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let (unit, extent) = match value {
        Value::String(text) => ("Length", text.chars().count() as u64),
        Value::Array(items) => ("Items", items.len() as u64),
        Value::Object(members) => ("Properties", members.len() as u64),
        _ => return Ok(()),
    };
    let bound = |side: &str| schema[format!("{side}{unit}")].as_u64();
    let is_short = bound("min").is_some_and(|least| extent < least);
    if is_short || bound("max").is_some_and(|most| extent > most) {
        return Err(format!("{place}: {extent} is out of the bounds of its {unit}"));
    }
    let pattern = schema["pattern"].as_str().zip(value.as_str());
    match pattern {
        Some((pattern, text)) if !regex::Regex::new(pattern).expect(pattern).is_match(text) => {
            Err(format!("{place}: {text:?} is not as {pattern} says"))
        }
        _ => Ok(()),
    }
}

fn check_members(
    document: &Value,
    schema: &Value,
    members: &Map<String, Value>,
    place: &str,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Err(format!("{place}: {name} is missing"));
        }
    }
    for (name, member) in members {
        match schema["properties"].get(name) {
            Some(described) => check(document, described, member, &format!("{place}/{name}"))?,
            None if schema["additionalProperties"] == false => {
                return Err(format!("{place}: {name} is not described"));
            }
            None => {}
        }
    }
    Ok(())
}

fn is_of_type(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

#[test]
fn the_checker_complains() {
    let schema = json!({"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": "integer", "minimum": 1}, "b": {"enum": ["x"]}, "c": {"items": {"const": true}}}});
    let is_fine = |value: Value| check(&json!({}), &schema, &value, "").is_ok();
    assert!(is_fine(json!({"a": 1, "b": "x", "c": [true]})));
    for bad in [
        json!([]),
        json!({}),
        json!({"a": 0}),
        json!({"a": "1"}),
        json!({"a": 1, "b": "y"}),
        json!({"a": 1, "c": [false]}),
        json!({"a": 1, "d": 1}),
    ] {
        assert!(!is_fine(bad.clone()), "{bad}");
    }
    let extents = json!({"minLength": 2, "maxLength": 3, "pattern": "^[a-c]+$", "minItems": 1, "maxItems": 2,
        "maxProperties": 1, "not": {"type": "object", "required": ["c"]}});
    let is_fine = |value: Value| check(&json!({}), &extents, &value, "").is_ok();
    assert!([json!("ab"), json!("abc"), json!([1]), json!([1, 2]), json!({"a": 1})].into_iter().all(is_fine));
    for bad in [
        json!("a"),
        json!("abca"),
        json!("xy"),
        json!([]),
        json!([1, 2, 3]),
        json!({"a": 1, "b": 1}),
        json!({"c": 1}),
    ] {
        assert!(!is_fine(bad.clone()), "{bad}");
    }
    let choice = json!({"oneOf": [{"type": "string"}, {"type": ["string", "null"]}]});
    assert!(check(&json!({}), &choice, &json!("x"), "").is_err());
    assert!(check(&json!({}), &choice, &json!(null), "").is_ok());
}

/// One request that the OpenAPI document describes.
pub struct Described<'d> {
    document: &'d Value,
    pub path: &'d str,
    pub method: &'d str,
    pub operation: &'d Value,
}

impl<'d> Described<'d> {
    /// All requests of the document that this node answers.
    pub fn all(document: &'d Value) -> Vec<Described<'d>> {
        let paths = document["paths"].as_object().into_iter().flatten();
        let found = paths.flat_map(|(path, operations)| {
            let operations = operations.as_object().into_iter().flatten();
            operations.map(move |(method, operation)| Described { document, path, method, operation })
        });
        found.collect()
    }

    fn followed<'v>(&self, value: &'v Value) -> &'v Value
    where
        'd: 'v,
    {
        let pointer = value["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
        pointer.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(value)
    }

    /// The target of the request with the examples of its parameters.
    pub fn target(&self) -> String {
        let (mut path, mut query) = (self.path.to_owned(), Vec::new());
        for parameter in self.operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.followed(parameter);
            let (name, example) = (parameter["name"].as_str().unwrap_or_default(), &parameter["example"]);
            let texts: Vec<String> = match example {
                Value::Null => continue,
                Value::Array(items) => items.iter().map(text_of).collect(),
                one => vec![text_of(one)],
            };
            for text in texts {
                match parameter["in"].as_str() {
                    Some("path") => path = path.replace(&format!("{{{name}}}"), &text),
                    Some("query") => query.push(format!("{name}={}", encode(&text))),
                    other => panic!("an example in {other:?}"),
                }
            }
        }
        match query.is_empty() {
            true => path,
            false => format!("{path}?{}", query.join("&")),
        }
    }

    /// Checks that the status is described, and the body as it is described for the status.
    pub fn check(&self, answer: &Http) {
        let place = format!("{} {} → {}", self.method, self.path, answer.status);
        let described = self.operation["responses"].get(answer.status.to_string());
        let described = described.unwrap_or_else(|| panic!("{place} is not described: {answer:?}"));
        let Some(content) = self.followed(described)["content"].as_object() else { return };
        let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let schema = content.get(kind).unwrap_or_else(|| panic!("{place}: {kind:?} is not described"));
        if kind.ends_with("json") && kind != "application/x-ndjson" {
            let checked = check(self.document, &schema["schema"], &answer.json(), &place);
            assert_eq!(checked, Ok(()), "{answer:?}");
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the OpenAPI document that a node serves.
pub fn openapi(node: &Node) -> Value {
    let answer = node.get("/v1/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// Checks that an answer to a request of this node is described, status and body.
pub fn assert_described(node: &Node, (method, path): (&str, &str), answer: &Http) {
    let document = openapi(node);
    let found = Described::all(&document).into_iter().find(|it| (it.method, it.path) == (method, path));
    found.unwrap_or_else(|| panic!("{method} {path} is not described")).check(answer);
}

/// Requests that end the node, that do not end by themselves, or that other parts of the program answer.
const APART: [&str; 5] = ["/v1/admin/drain", "/v1/stream", "/publish", "/subscribe", "/"];

/// Puts the example of a definition of each kind.
fn put_definitions(node: &Node, document: &Value) {
    for kind in ["pull", "middleware", "archive", "hook"] {
        let described = &document["paths"][format!("/v1/{kind}/{{name}}")]["put"]["requestBody"];
        let example = &described["content"]["application/json"]["examples"]["definition"]["value"];
        assert!(example.is_object(), "{kind} has no example");
        let fields = [("Content-Type", "application/json")];
        let target = format!("/v1/{kind}/example");
        let answer = Http::request(&node.http, "PUT", &target, &fields, example.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn every_example_of_the_openapi_document_is_executed() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let document = openapi(&node);
    node.put("sensors/7/temp", json!(21.5));
    put_definitions(&node, &document);
    let mut executed = 0;
    for described in Described::all(&document) {
        if APART.contains(&described.path) {
            continue;
        }
        let (method, target) = (described.method.to_uppercase(), described.target());
        let Some(content) = described.operation["requestBody"]["content"].as_object() else {
            let answer = Http::request(&node.http, &method, &target, &[], b"");
            described.check(&answer);
            let expected = match described.path {
                path if path.starts_with("/v1/admin/forget") => 404,
                // The node has no credentials for the store of the example.
                "/v1/archive/{name}/verify" | "/v1/archive/{name}/restore" => 400,
                _ => 200,
            };
            assert_eq!(answer.status, expected, "{method} {target}: {answer:?}");
            // What was deleted is there again for the next request.
            node.put("sensors/7/temp", json!(21.5));
            put_definitions(&node, &document);
            executed += 1;
            continue;
        };
        for (kind, body) in content {
            for (name, example) in body["examples"].as_object().into_iter().flatten() {
                let value = &example["value"];
                if kind == "application/json" {
                    let checked = check(&document, &body["schema"], value, name);
                    assert_eq!(checked, Ok(()), "{method} {target} {name}");
                }
                let text = if kind == "application/json" { value.to_string() } else { text_of(value) };
                let fields = [("Content-Type", kind.as_str())];
                let answer = Http::request(&node.http, &method, &target, &fields, text.as_bytes());
                described.check(&answer);
                assert_eq!(answer.status, 200, "{method} {target} {name}: {answer:?}");
                executed += 1;
            }
        }
    }
    assert!(executed >= 20, "only {executed} examples were executed");
    // A stream does not end by itself, so only its head is asked for.
    let stream = Described::all(&document).into_iter().find(|described| described.path == "/v1/stream");
    let target = stream.unwrap_or_else(|| panic!("the stream is not described")).target();
    assert_eq!(Http::request(&node.http, "HEAD", &target, &[], b"").status, 200);
    let drain = Described::all(&document).into_iter().find(|described| described.path == "/v1/admin/drain");
    let answer = Http::request(&node.http, "POST", "/v1/admin/drain", &[], b"");
    drain.unwrap_or_else(|| panic!("drain is not described")).check(&answer);
    assert_eq!(answer.status, 202);
}

/// The examples of answers have the form that is described for them.
#[test]
fn the_examples_of_answers_are_as_they_are_described() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let document = openapi(&node);
    let mut count = 0;
    for described in Described::all(&document) {
        for (status, response) in described.operation["responses"].as_object().into_iter().flatten() {
            let content = described.followed(response)["content"].as_object().into_iter().flatten();
            for (kind, body) in content {
                for (name, example) in body["examples"].as_object().into_iter().flatten() {
                    let place = format!("{} {} {status} {kind} {name}", described.method, described.path);
                    assert_eq!(check(&document, &body["schema"], &example["value"], &place), Ok(()));
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 5, "{count}");
}

/// Every field that a member may have is described.
#[test]
fn members_are_described_in_full() {
    let folder = tempfile::tempdir().expect("folder");
    let key = folder.path().join("keys").display().to_string();
    std::fs::write(&key, anode(&["keys", "new"]).stdout).expect("written");
    let flags = ["--cluster-key", key.as_str()];
    let first = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let second = Node::start(NodeConfig::joining("b", &first).in_memory().with(&flags));
    let document = openapi(&first);
    let described = &document["components"]["schemas"]["Member"]["properties"];
    eventually("all fields are seen", Duration::from_secs(30), || {
        let mut seen = std::collections::BTreeSet::new();
        // The node that joins connects to the other one, and seldom the other way round.
        for node in [&first, &second] {
            let answer = node.get("/v1/members").json();
            let members = answer["members"].as_array().cloned().unwrap_or_default();
            for (name, value) in members.iter().filter_map(Value::as_object).flatten() {
                assert_eq!(check(&document, &described[name.as_str()], value, name), Ok(()));
                assert!(described[name.as_str()].is_object(), "{name} is not described");
                seen.insert(name.clone());
            }
        }
        // Whether the node reaches a member over TCP is known once it has tried to.
        ["tcp", "keys", "rtt_us"].iter().all(|name| seen.contains(*name)).then_some(())
    });
}

/// The messages of the AsyncAPI document by their names.
fn examples(document: &Value, name: &str) -> Vec<Value> {
    let message = &document["components"]["messages"][name];
    let examples = message["examples"].as_array().cloned().unwrap_or_default();
    assert!(!examples.is_empty(), "{name} has no example");
    let payloads: Vec<Value> = examples.into_iter().map(|example| example["payload"].clone()).collect();
    for payload in &payloads {
        is_message(document, name, payload);
    }
    payloads
}

fn is_message(document: &Value, name: &str, payload: &Value) {
    let schema = &document["components"]["messages"][name]["payload"];
    assert!(schema.is_object(), "{name} is not described");
    assert_eq!(check(document, schema, payload, name), Ok(()), "{payload}");
}

#[test]
fn every_example_of_the_asyncapi_document_is_executed() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let answer = node.get("/v1/asyncapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    for name in document["components"]["messages"].as_object().into_iter().flatten().map(|(name, _)| name) {
        examples(&document, name);
    }
    let mut publisher = Client::open(&node.http, "/publish");
    is_message(&document, "connected", &json!({"connected": publisher.connected}));
    for frame in examples(&document, "auth") {
        publisher.send_json(frame);
        is_message(&document, "authenticated", &publisher.json());
    }
    for frame in examples(&document, "publish") {
        publisher.send_json(frame.clone());
        let answer = publisher.json();
        is_message(&document, "published", &answer);
        assert!(!answer.to_string().contains("\"error\""), "{frame}: {answer}");
    }
    publisher.send_json(json!({"id": 1, "source": "a//b", "data": 1}));
    is_message(&document, "published", &publisher.json());

    let mut subscriber = Client::open(&node.http, "/subscribe");
    is_message(&document, "connected", &json!({"connected": subscriber.connected}));
    for frame in examples(&document, "auth").into_iter().chain(examples(&document, "subscribe")) {
        subscriber.send_json(frame);
    }
    let (mut seen, mut eos) = (std::collections::BTreeSet::new(), 0);
    while eos < 2 {
        let message = subscriber.json();
        let name = name_of(&message);
        is_message(&document, name, &message);
        eos += usize::from(name == "eos");
        seen.insert(name);
    }
    for frame in examples(&document, "unsubscribe") {
        subscriber.send_json(frame);
        let answer = subscriber.json();
        assert!(answer["result"]["subscription"].is_u64(), "{answer}");
        is_message(&document, "subscribed", &answer);
    }
    node.post(json!({"source": "sensors/9/temp", "deleted": true}));
    let deadline = crate::harness::Deadline::after(Duration::from_secs(20));
    while !seen.contains("resume") {
        assert!(deadline.left().is_some(), "no token has come; only {seen:?}");
        let message = subscriber.json();
        is_message(&document, name_of(&message), &message);
        seen.insert(name_of(&message));
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["authenticated", "eos", "record", "resume", "subscribed"]
    );
}

/// The name of a message to a subscriber.
fn name_of(message: &Value) -> &'static str {
    let has = |name: &str| message.get(name).is_some();
    match () {
        () if has("eos") => "eos",
        () if has("resume") => "resume",
        () if message["result"].get("expires").is_some() => "authenticated",
        () if has("result") || has("error") => "subscribed",
        () => "record",
    }
}
