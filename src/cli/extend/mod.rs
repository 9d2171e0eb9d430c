//! The commands for what users add to a cluster: `anode pull`, and those of the other kinds. Each kind has a file; what
//! they have in common is here.

pub mod archive;
pub mod hook;
pub mod middleware;
pub mod pull;
mod pull_trial;

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Body, Nodes, fetch, request};
use super::{CliError, format};
use crate::protocol::extension::{ExtensionKind, ExtensionName};

/// The media type of a definition in TOML.
pub const TOML: &str = "application/toml";

/// A definition as a node lists it.
#[derive(Debug, Deserialize)]
pub struct ListedDefinition {
    /// Name of the definition.
    pub name: String,
    /// The definition: a JSON object.
    pub definition: Value,
    /// Name of the member that runs it.
    pub runner: Option<String>,
    /// The reasons why members cannot run it, by the members' names.
    #[serde(default)]
    pub cannot: serde_json::Map<String, Value>,
    /// How it is doing: a JSON object, or `null`.
    pub state: Value,
}

impl ListedDefinition {
    /// A field of the state as a cell of a table; a dash if it has none.
    pub fn told(&self, field: &str) -> String {
        match self.state.get(field) {
            None | Some(Value::Null) => "-".into(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// The member that runs it, or why nobody does.
    pub fn runner_cell(&self) -> String {
        let reason = || {
            self.cannot
                .iter()
                .next()
                .map(|(member, why)| format!("none ({member}: {})", why.as_str().unwrap_or_default()))
        };
        self.runner.clone().or_else(reason).unwrap_or_else(|| "-".into())
    }
}

/// Reads a file that the user named.
pub fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

/// The path of a definition.
pub fn path_of(kind: ExtensionKind, name: &str) -> Result<String, CliError> {
    let name = ExtensionName::parse(name).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(format!("/v1/{}/{name}", kind.as_str()))
}

/// Puts a definition, and prints the answer.
pub fn put(nodes: &Nodes, kind: ExtensionKind, name: &str, body: Body<'_>) -> Result<(), CliError> {
    let answer = request(nodes, "PUT", &path_of(kind, name)?, Some(body))?.ok()?;
    Ok(writeln!(std::io::stdout(), "{answer}")?)
}

/// Takes a definition away, and prints the answer.
pub fn remove(nodes: &Nodes, kind: ExtensionKind, name: &str) -> Result<(), CliError> {
    let answer = request(nodes, "DELETE", &path_of(kind, name)?, None)?.ok()?;
    Ok(writeln!(std::io::stdout(), "{answer}")?)
}

/// Prints all definitions of a kind: as the node sent them, or as a table with the cells that `cells` makes under `head`.
pub fn list<const N: usize>(
    nodes: &Nodes,
    kind: ExtensionKind,
    is_json: bool,
    head: [&str; N],
    cells: impl Fn(&ListedDefinition) -> [String; N],
) -> Result<(), CliError> {
    let body = fetch(nodes, &format!("/v1/{}", kind.as_str()))?.ok()?;
    if is_json {
        return Ok(writeln!(std::io::stdout(), "{body}")?);
    }
    let unreadable =
        |error: serde_json::Error| CliError::Failed(format!("the node's answer cannot be read: {error}"));
    let mut answer: Value = serde_json::from_str(&body).map_err(unreadable)?;
    let all = answer.get_mut(kind.as_str()).map(Value::take).unwrap_or_default();
    let all: Vec<ListedDefinition> = serde_json::from_value(all).map_err(unreadable)?;
    let lines: Vec<[String; N]> =
        std::iter::once(head.map(String::from)).chain(all.iter().map(cells)).collect();
    Ok(std::io::stdout().write_all(format::table(&lines).as_bytes())?)
}
