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
