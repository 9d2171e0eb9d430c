//! The check of definitions of middlewares, which come from admins and from other nodes.

use serde_json::Value;

use super::definition::{MiddlewareDefinition, MiddlewareVersion};

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
