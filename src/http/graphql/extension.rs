//! What users added to the cluster, in the schema.

use async_graphql::{Enum, SimpleObject};

use super::types::{JsonText, Micros};
use crate::protocol::extension::{ExtensionKind, ListedExtension};

/// A kind of things that users add.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(name = "ExtensionKind")]
pub(super) enum GraphqlExtensionKind {
    /// Something that the cluster fetches and publishes.
    Pull,
    /// A rule that changes or refuses records on their way in.
    Middleware,
    /// A copy of records outside the cluster, made at intervals.
    Archive,
    /// An address that is sent records as they come.
    Hook,
}

impl From<GraphqlExtensionKind> for ExtensionKind {
    fn from(kind: GraphqlExtensionKind) -> ExtensionKind {
        match kind {
            GraphqlExtensionKind::Pull => ExtensionKind::Pull,
            GraphqlExtensionKind::Middleware => ExtensionKind::Middleware,
            GraphqlExtensionKind::Archive => ExtensionKind::Archive,
            GraphqlExtensionKind::Hook => ExtensionKind::Hook,
        }
    }
}

/// Something that users added, with what is known of it.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(name = "Extension")]
pub(super) struct GraphqlExtension {
    /// Name of the definition.
    name: String,
    /// Timestamp of the definition.
    ts: Micros,
    /// The definition as it was put.
    definition: JsonText,
    /// The member that runs it; null if none can, or if all members do.
    runner: Option<String>,
    /// Why members cannot run it.
    cannot: Vec<Obstacle>,
    /// How it is doing; null if nothing was told so far.
    state: Option<JsonText>,
}

/// Why a member cannot run something.
#[derive(SimpleObject, Clone, Debug)]
pub(super) struct Obstacle {
    /// Name of the member.
    member: String,
    /// The reason that the member gives.
    reason: String,
}

/// The text of a record of the system's names, which is JSON unless an admin published bytes there.
fn json(text: Vec<u8>) -> JsonText {
    JsonText(String::from_utf8(text).unwrap_or_else(|_| "null".to_owned()))
}

impl From<ListedExtension> for GraphqlExtension {
    fn from(one: ListedExtension) -> GraphqlExtension {
        let cannot = one.cannot.into_iter().map(|(member, reason)| Obstacle { member, reason });
        GraphqlExtension {
            name: one.name.as_str().to_owned(),
            ts: Micros(one.ts),
            definition: json(one.definition),
            runner: one.runner,
            cannot: cannot.collect(),
            state: one.state.map(json),
        }
    }
}
