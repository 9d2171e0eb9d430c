//! Publishing the records of middlewares: definitions, states, and the parts of modules.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::super::host::ExtendHost;
use super::super::system_record::tell_system;
use super::definition::MiddlewareDefinition;
use super::parts::{ModuleId, cut, parts_pattern};
use crate::protocol::draft::DraftPayload;
use crate::protocol::extension::ExtensionName;
use crate::protocol::refusal::Refusal;
use crate::record::Pattern;

/// Age from which on parts that no version names are taken away, in microseconds. Younger ones may belong to a version
/// that another node is about to put.
const LEFTOVER_US: u64 = 60_000_000;

/// Publishes a record with JSON. What cannot be told now is logged.
pub fn tell_json(host: &dyn ExtendHost, source: &str, text: &str) {
    if let Err(refusal) = tell_system(host, source, DraftPayload::Json(text.as_bytes())) {
        tracing::warn!(source, %refusal, "the state of a middleware cannot be told now");
    }
}

/// Publishes the parts of a module that are not there yet. `pause` is called while much waits for the cluster or the
/// store.
pub fn tell_module(
    host: &dyn ExtendHost,
    name: &ExtensionName,
    module: &[u8],
    pause: impl Fn(),
) -> Result<(), Refusal> {
    let id = ModuleId::of(module);
    for (number, part) in cut(module).enumerate() {
        let source = id.part_name(name.as_str(), number);
        let is_there = host.get(&source).is_some_and(|held| held.payload.bytes() == part);
        if is_there {
            continue;
        }
        while host.is_congested() {
            pause();
        }
        tell_system(host, &source, DraftPayload::Binary(Cow::Borrowed(part)))?;
    }
    Ok(())
}

/// Takes away the parts of modules that neither version of the definition names; all of them if there is no definition.
pub fn clean(host: &dyn ExtendHost, name: &ExtensionName, definition: Option<&MiddlewareDefinition>) {
    let Ok(pattern) = Pattern::parse(&parts_pattern(name.as_str())) else { return };
    let kept: BTreeSet<&str> =
        definition.into_iter().flat_map(MiddlewareDefinition::modules).map(|module| &*module.hash).collect();
    let old_us = host.now().wall_us.saturating_sub(LEFTOVER_US);
    for record in host.list(&pattern) {
        let hash = record.source.as_str().rsplit('/').nth(1).unwrap_or_default();
        let is_needed = kept.contains(hash) || (definition.is_some() && record.stamp.ts > old_us);
        if !is_needed && let Err(refusal) = tell_system(host, record.source.as_str(), DraftPayload::Deleted) {
            tracing::debug!(%name, %refusal, "a part of a module cannot be taken away now");
        }
    }
}
