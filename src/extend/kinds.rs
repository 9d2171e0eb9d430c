//! The one list of kinds: how definitions are checked, and what runs them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::archive::{ArchiveDefinition, ArchiveRunner};
use super::definition::BadField;
use super::hooks::{HookDefinition, HookRunner};
use super::middleware::MiddlewareDefinition;
use super::pull::{PullDefinition, PullRunner};
use super::runner::Runner;
use crate::protocol::extension::ExtensionKind;

/// Checks a definition, and names the field that is wrong.
pub fn check(kind: ExtensionKind, body: &Value) -> Result<(), BadField> {
    match kind {
        ExtensionKind::Archive => ArchiveDefinition::read(body).map(drop),
        ExtensionKind::Hook => HookDefinition::read(body).map(drop),
        ExtensionKind::Middleware => MiddlewareDefinition::read(body).map(drop),
        ExtensionKind::Pull => PullDefinition::read(body).map(drop),
    }
}

/// Returns whether each definition of the kind is run by one member.
pub fn is_run_by_one(kind: ExtensionKind) -> bool {
    kind != ExtensionKind::Middleware
}

/// What runs the definitions of the kinds that are run by one member.
pub fn runners() -> BTreeMap<ExtensionKind, Box<dyn Runner>> {
    let mut runners = BTreeMap::<ExtensionKind, Box<dyn Runner>>::new();
    runners.insert(ExtensionKind::Archive, Box::new(ArchiveRunner));
    runners.insert(ExtensionKind::Hook, Box::new(HookRunner));
    runners.insert(ExtensionKind::Pull, Box::new(PullRunner));
    runners
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The document that a node serves to clients, in which the fields of all definitions are described.
    const OPENAPI: &str = include_str!("../http/api/openapi.json");

    /// Reads a definition, and returns all that was read of it as a text.
    fn read(kind: ExtensionKind, body: &Value) -> Result<String, BadField> {
        match kind {
            ExtensionKind::Archive => ArchiveDefinition::read(body).map(|read| format!("{read:?}")),
            ExtensionKind::Hook => HookDefinition::read(body).map(|read| format!("{read:?}")),
            ExtensionKind::Middleware => MiddlewareDefinition::read(body).map(|read| format!("{read:?}")),
            ExtensionKind::Pull => PullDefinition::read(body).map(|read| format!("{read:?}")),
        }
    }

    /// A field that is missing has the default that the document names for it: with that value, the definition means the same.
    #[test]
    fn the_defaults_of_fields_are_those_that_are_described() {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let (archive, hook) = (ExtensionKind::Archive, ExtensionKind::Hook);
        let (middleware, pull) = (ExtensionKind::Middleware, ExtensionKind::Pull);
        let address = |digit: &str| format!("0x{}", digit.repeat(40));
        let table = json!({
            "kind": "tableland", "api": "http://127.0.0.1", "rpc": "http://127.0.0.1:1", "table": "t_1_2",
            "registry": address("a"), "from": address("b"),
        });
        let mut count = 0;
        for (schema, kind, body) in [
            ("HttpPull", pull, json!({"kind": "http", "url": "http://127.0.0.1/"})),
            ("MqttPull", pull, json!({"kind": "mqtt", "url": "mqtt://127.0.0.1", "topics": ["#"]})),
            ("KafkaPull", pull, json!({"kind": "kafka", "brokers": ["k"], "topics": ["t"]})),
            ("FilePull", pull, json!({"kind": "file", "path": "/x", "node": "a"})),
            ("ExecPull", pull, json!({"kind": "exec", "command": ["x"]})),
            ("MiddlewareDefinition", middleware, json!({"on": "**", "cel": "data"})),
            ("S3Archive", archive, json!({"kind": "s3", "bucket": "abc"})),
            ("IpfsArchive", archive, json!({"kind": "ipfs"})),
            ("TablelandArchive", archive, table),
            ("HookDefinition", hook, json!({"on": "**", "url": "http://127.0.0.1/"})),
        ] {
            let plain = read(kind, &body).expect(schema);
            let fields = document["components"]["schemas"][schema]["properties"].as_object().expect(schema);
            for (field, default) in fields.iter().filter_map(|(field, it)| Some((field, it.get("default")?)))
            {
                let mut with_default = body.clone();
                with_default[field] = default.clone();
                assert_eq!(read(kind, &with_default), Ok(plain.clone()), "{schema}: {field} is {default}");
                count += 1;
            }
        }
        let rule = &document["components"]["schemas"]["PullRule"]["oneOf"][0]["properties"];
        let read_rule = |rule: Value| {
            read(pull, &json!({"kind": "exec", "command": ["x"], "records": [rule]})).expect("a rule")
        };
        for field in ["pointer", "ts_unit"] {
            let with_default = json!({"source": "a", field: rule[field]["default"]});
            assert_eq!(read_rule(with_default), read_rule(json!({"source": "a"})), "{field}");
        }
        assert!(count > 40, "only {count} defaults");
    }
}
