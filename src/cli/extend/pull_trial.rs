//! `anode pull test`: runs a definition once, here or at a node that is named, and keeps nothing of it.

use std::io::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{TOML, read_file};
use crate::cli::CliError;
use crate::cli::client::{Body, Nodes, request};
use crate::cli::format::note;
use crate::extend::pull::{PullDefinition, PullDraft, try_once};
use crate::extend::read_body;
use crate::protocol::extension::ExtensionKind;
use crate::server::clock;

/// Runs the definition in a file once, and prints what it would publish.
pub(super) fn run(file: &Path, allow_exec: Option<&Path>) -> Result<(), CliError> {
    let unusable = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let body = read_body(ExtensionKind::Pull, &read_file(file)?, is_toml(file))
        .map_err(|refusal| unusable(refusal.message))?;
    let body = serde_json::from_slice(&body).map_err(|error| unusable(error.to_string()))?;
    let definition = PullDefinition::read(&body).map_err(|bad| unusable(bad.to_string()))?;
    let print = |draft: &PullDraft| writeln!(std::io::stdout(), "{}", draft.publish_object());
    let trial = try_once(&definition, allow_exec, clock::now, print)?;
    outcome(trial.error, trial.records)
}

/// The answer of a node to `POST /v1/pull/test`: the records that the definition would have published.
#[derive(Debug, Deserialize)]
struct ToldTrial {
    records: Vec<Box<RawValue>>,
    #[serde(default)]
    more: u64,
    error: Option<String>,
}

/// Lets a node run the definition in a file once, and prints what it would publish.
pub(super) fn run_at(nodes: &Nodes, file: &Path) -> Result<(), CliError> {
    let media_type = if is_toml(file) { TOML } else { "application/json" };
    let body = Body { media_type, bytes: &read_file(file)? };
    let answer = request(nodes, "POST", "/v1/pull/test", Some(body))?.ok()?;
    let told: ToldTrial = serde_json::from_str(&answer)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))?;
    let mut out = std::io::stdout().lock();
    for record in &told.records {
        writeln!(out, "{record}")?;
    }
    if told.more > 0 {
        note(&format!("{} more records are not shown", told.more));
    }
    outcome(told.error, told.records.len() as u64)
}

/// A trial without a record has failed, even if nothing went wrong.
fn outcome(error: Option<String>, records: u64) -> Result<(), CliError> {
    match error {
        Some(error) => Err(CliError::Failed(error)),
        None if records == 0 => Err(CliError::Failed("nothing came that could be published".into())),
        None => Ok(()),
    }
}

fn is_toml(file: &Path) -> bool {
    file.extension().is_none_or(|ending| ending != "json")
}
