//! The checks of definitions of middlewares and of their modules, which come from admins and from other nodes.

use bytes::Bytes;
use serde_json::Value;

use super::definition::{MiddlewareDefinition, MiddlewareVersion};
use super::parts::ModuleId;
use crate::fuzzing::{Pieces, join};

/// Reads bytes as a definition, as users write it and as it is kept. What is understood comes back when it is written
/// and read again, and the version before is in force again after going back twice.
pub fn middleware(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Ok((version, module)) = MiddlewareVersion::of_request(&body) {
        let first = MiddlewareDefinition::followed_by(None, version);
        assert!(module.is_none() || first.modules().count() == 1, "a module is named");
        again(&first);
        let second = MiddlewareDefinition::followed_by(Some(first.clone()), first.current.clone());
        again(&second);
        let back = second.clone().rolled_back().map(|back| back.current.rule);
        assert_eq!(back, Some(first.current.rule));
    }
    if let Ok(definition) = MiddlewareDefinition::read(&body) {
        again(&definition);
    }
}

/// Asserts that a definition comes back after it was written.
fn again(definition: &MiddlewareDefinition) {
    let text = definition.write();
    let read = serde_json::from_str(&text).map(|body| MiddlewareDefinition::read(&body));
    assert!(matches!(&read, Ok(Ok(read)) if read == definition), "{text}");
}

/// Definitions as they occur.
pub fn middleware_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"on":"sensors/**","cel":"{\"c\": (data.f - 32.0) / 1.8}","when":"has(data.f)"}"#,
        r#"{"on":"a/*","order":-3,"cel":"drop()","on_failure":"pass"}"#,
        r#"{"on":"**","wasm":"AGFzbQ=="}"#,
        r#"{"on":"a","order":1,"kind":"wasm","wasm":{"hash":"0123456789abcdef0123456789abcdef","bytes":5},"on_failure":"refuse","version":7,"previous":{"on":"a","cel":"data","version":6}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// The input is the parts of a module, as records of other nodes bring them. Asserts that they make a module only if
/// it is the one that is named, and has the engine compile it, and run it if it can be.
pub fn module(input: &[u8]) {
    let parts: Vec<Bytes> = Pieces(input).map(Bytes::copy_from_slice).collect();
    let Some(first) = parts.first().filter(|part| !part.is_empty()) else { return };
    let whole = ModuleId::of(first);
    assert_eq!(whole.assemble(|part| parts.get(part).cloned()), Some(first.to_vec()));
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    if let Some(other) = ModuleId::told(&whole.hash, bytes as u64).filter(|other| *other != whole) {
        assert_eq!(other.assemble(|part| parts.get(part).cloned()), None, "it has another length");
    }
    #[cfg(feature = "wasm")]
    compiled::run(first);
}

/// Modules, or what looks like one: an empty component, one with an empty module inside, a module of the core, and
/// bytes that are none of these.
pub fn module_seeds() -> Vec<Vec<u8>> {
    let component: &[u8] = b"\0asm\x0d\0\x01\0";
    let nested: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0";
    let core: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";
    let with_core = [component, &[1, core.len() as u8], core, b"\x02\x04\x01\0\0\0"].concat();
    [component, nested, core, with_core.as_slice(), b"no module".as_slice()]
        .map(|module| join([module, b"more".as_slice()]))
        .to_vec()
}

#[cfg(feature = "wasm")]
mod compiled {
    use std::sync::{Arc, LazyLock};

    use super::super::rule::{GivenDraft, MiddlewareRule, RecordReader};
    use super::super::wasm::WasmEngine;
    use crate::protocol::draft::{Draft, DraftPayload};
    use crate::record::SharedRecord;

    /// One engine for all inputs, as a node has one for all modules.
    static ENGINE: LazyLock<Result<Arc<WasmEngine>, String>> = LazyLock::new(WasmEngine::new);

    struct NoRecords;

    impl RecordReader for NoRecords {
        fn latest(&self, _: &str) -> Option<SharedRecord> {
            None
        }
    }

    pub fn run(module: &[u8]) {
        let Ok(engine) = ENGINE.as_ref() else { return };
        match engine.compile(module, 1) {
            Ok(rule) => {
                let draft = Draft {
                    source: "a/b".into(),
                    ts: None,
                    payload: DraftPayload::Json(b"1"),
                    ttl_ms: 0,
                    ack: None,
                };
                let reader: Arc<dyn RecordReader> = Arc::new(NoRecords);
                let _ = rule.decide(&GivenDraft { draft: &draft, token: "", now_us: 1 }, &reader);
            }
            Err(why) => assert!(!why.is_empty()),
        }
    }
}
