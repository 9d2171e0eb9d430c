//! The schemas of definitions in the OpenAPI document against what a node takes: they have the fields that the program knows and
//! no others, and on both sides of every bound the schema and the node decide alike.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{check, openapi};
use crate::harness::{Http, Node, NodeConfig};

/// The kinds, each with the name of the schema of its definitions.
const KINDS: [(&str, &str); 4] = [
    ("pull", "PullDefinition"),
    ("middleware", "MiddlewareDefinition"),
    ("archive", "ArchiveDefinition"),
    ("hook", "HookDefinition"),
];
/// Bytes of a text that fit into a request with a definition, which may have 64 KiB.
const TEXT_BYTES_MAX: u64 = 60_000;
/// Fields that other ones need as they are in the example. When one is changed, the field behind it is left out.
const NEEDED_BY: [(&str, &str); 2] = [("method", "body"), ("tls", "ca")];
/// Fields of a middleware that nodes tell, and pass over in what users write.
const TOLD_BY_NODES: [&str; 3] = ["kind", "version", "previous"];

/// A form that definitions of a kind may have, or a rule of a pull source, with the example that has the most fields.
struct Form<'d> {
    kind: &'static str,
    schema: &'d Value,
    example: Value,
    /// Makes the definition that contains the example.
    whole: fn(Value) -> Value,
}

fn followed<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let pointer = value["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

/// The objects that a schema allows: itself, or those that it gives the choice of.
fn choices<'d>(document: &'d Value, schema: &'d Value) -> Vec<&'d Value> {
    match schema["properties"].is_object() {
        true => vec![schema],
        false => {
            schema["oneOf"].as_array().into_iter().flatten().map(|one| followed(document, one)).collect()
        }
    }
}

/// The request by which a definition of the kind is put, as the document describes it.
fn content<'d>(document: &'d Value, kind: &str) -> &'d Value {
    &document["paths"][format!("/v1/{kind}/{{name}}")]["put"]["requestBody"]["content"]["application/json"]
}

impl<'d> Form<'d> {
    fn all(document: &'d Value) -> Vec<Form<'d>> {
        let mut forms = Vec::new();
        for (kind, name) in KINDS {
            let content = content(document, kind);
            assert_eq!(content["schema"]["$ref"], format!("#/components/schemas/{name}"));
            let examples: Vec<&Value> =
                content["examples"].as_object().into_iter().flatten().map(|(_, one)| &one["value"]).collect();
            for schema in choices(document, followed(document, &content["schema"])) {
                let fitting = examples.iter().filter(|one| check(document, schema, one, kind).is_ok());
                let example = fitting.max_by_key(|one| one.as_object().map_or(0, serde_json::Map::len));
                let example = example.unwrap_or_else(|| panic!("{kind}: no example of {schema}"));
                forms.push(Form { kind, schema, example: (*example).clone(), whole: |body| body });
            }
        }
        let whole = |rule: Value| json!({"kind": "http", "url": "https://api.example/", "records": [rule]});
        let rules = [
            json!({"source": "a/{/b}", "pointer": "/c", "ts": "/d", "ts_unit": "s", "ttl": "1h"}),
            json!({"cel": "{\"source\": \"a\", \"data\": data}"}),
        ];
        let schemas = choices(document, &document["components"]["schemas"]["PullRule"]);
        assert_eq!(schemas.len(), rules.len());
        for (schema, example) in schemas.into_iter().zip(rules) {
            forms.push(Form { kind: "pull", schema, example, whole });
        }
        forms
    }

    /// The example with another value of a field, and without what does not go with it.
    fn with(&self, field: &str, value: Value) -> Value {
        let mut body = self.example.clone();
        let Some(fields) = body.as_object_mut() else { panic!("{body}") };
        let rivals = self.schema["not"]["required"].as_array().into_iter().flatten();
        let rivals: Vec<&str> = rivals.filter_map(Value::as_str).collect();
        for rival in rivals.iter().filter(|_| rivals.contains(&field)) {
            fields.remove(*rival);
        }
        for (_, needing) in NEEDED_BY.iter().filter(|(needed, _)| *needed == field) {
            fields.remove(*needing);
        }
        fields.insert(field.to_owned(), value);
        body
    }

    fn put(&self, node: &Node, body: &Value) -> Http {
        let (path, fields) = (format!("/v1/{}/probe", self.kind), [("Content-Type", "application/json")]);
        let body = (self.whole)(body.clone()).to_string();
        Http::request(&node.http, "PUT", &path, &fields, body.as_bytes())
    }

    /// The fields that the program knows, by its answer to one that it does not know.
    fn known_fields(&self, node: &Node) -> BTreeSet<String> {
        let answer = self.put(node, &self.with("zz", json!(1)));
        answer.assert_problem(400, "bad_request");
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        let list = detail.rsplit("allowed: ").next().unwrap_or_default();
        let list = list.trim_start_matches("no such field; known are ").trim_start_matches("one of ");
        list.split(", ").map(str::to_owned).collect()
    }
}

/// Returns the milliseconds of a length of time with its unit.
fn milliseconds(text: &str) -> i64 {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = units.iter().find(|(unit, _)| *unit == &text[number.len()..]);
    let (_, scale) = unit.unwrap_or_else(|| panic!("{text} has no unit"));
    number.parse::<i64>().expect(text) * scale
}

/// Values of a field on both sides of each of its bounds, each with whether it is allowed. `example` is a good value.
fn probes(schema: &Value, example: &Value) -> Vec<(Value, bool)> {
    let mut probes = Vec::new();
    for (bound, step) in [("minimum", -1), ("maximum", 1)] {
        if let Some(limit) = schema[bound].as_i64() {
            probes.extend([(json!(limit), true), (json!(limit + step), false)]);
        }
        if let Some(limit) = schema[format!("x-{bound}")].as_str() {
            let beyond = milliseconds(limit) + step;
            probes.push((json!(limit), true));
            probes.extend((beyond >= 0).then(|| (json!(format!("{beyond}ms")), false)));
        }
    }
    if let Some(wanted) = schema.get("const") {
        probes.extend([(wanted.clone(), true), (json!("zz"), false)]);
    }
    for word in schema["enum"].as_array().into_iter().flatten() {
        probes.extend([(word.clone(), true), (json!("zz"), false)]);
    }
    if schema["type"] == "boolean" {
        probes.extend([(json!(true), true), (json!(false), true), (json!(1), false)]);
    }
    if schema["type"].is_string() && schema["type"] != "array" {
        probes.push((json!([]), false));
    }
    let extents =
        |side: &str| ["Length", "Items", "Properties"].map(|unit| schema[format!("{side}{unit}")].as_u64());
    let of_extent = |extent: u64| extended(schema, example, extent);
    for most in extents("max").into_iter().flatten().filter(|most| *most < TEXT_BYTES_MAX) {
        probes.extend([(of_extent(most), true), (of_extent(most + 1), false)]);
    }
    for least in extents("min").into_iter().flatten().filter(|least| *least > 0) {
        probes.push((of_extent(least - 1), false));
    }
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        probes.extend(
            self::probes(choice, example)
                .into_iter()
                .filter(|(value, _)| !value.is_array() || choice["type"] == "array"),
        );
    }
    probes
}

/// Makes a text, a list or a table of this size from a value that is good.
fn extended(schema: &Value, example: &Value, extent: u64) -> Value {
    let extent = extent as usize;
    match schema["type"].as_str() {
        Some("array") => {
            let item = example.get(0).unwrap_or(example);
            Value::Array(vec![item.clone(); extent])
        }
        Some("object") => (0..extent).map(|number| (format!("X{number}"), json!("v"))).collect(),
        _ => {
            let text = example.as_str().unwrap_or("x");
            json!(format!("{text}{}", "x".repeat(extent.saturating_sub(text.len())))[..extent])
        }
    }
}

#[test]
fn the_schemas_of_definitions_are_what_a_node_takes() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let document = openapi(&node);
    let forms = Form::all(&document);
    assert_eq!(forms.len(), 5 + 1 + 3 + 1 + 2);
    let mut count = 0;
    for form in &forms {
        let properties = form.schema["properties"].as_object().expect("properties");
        let described: BTreeSet<String> = properties.keys().cloned().collect();
        let told = TOLD_BY_NODES.iter().filter(|_| form.kind == "middleware").map(|name| (*name).to_owned());
        let known: BTreeSet<String> = form.known_fields(&node).into_iter().chain(told).collect();
        assert_eq!(described, known, "{}", form.example);
        assert_eq!(form.put(&node, &form.example).status, 200, "{}", form.example);
        for (field, schema) in properties {
            // A duration is a text, and schemas have no bounds for what it means: they are said beside it.
            let is_duration = schema.get("x-minimum").is_some();
            for (value, is_good) in probes(schema, &form.example[field]) {
                let body = form.with(field, value);
                let checked = check(&document, form.schema, &body, form.kind);
                assert!(
                    checked.is_ok() == is_good || is_duration && !is_good,
                    "{field}: {checked:?} of {body}"
                );
                let answer = form.put(&node, &body);
                assert_eq!(answer.status, if is_good { 200 } else { 400 }, "{field}: {body}: {answer:?}");
                count += 1;
            }
            for required in
                form.schema["required"].as_array().into_iter().flatten().filter(|one| *one == field)
            {
                let mut body = form.example.clone();
                body.as_object_mut().map(|fields| fields.remove(field));
                assert!(check(&document, form.schema, &body, form.kind).is_err(), "{required}");
                form.put(&node, &body).assert_problem(400, "bad_request");
            }
        }
    }
    assert!(count > 250, "only {count} values were tried");
}
