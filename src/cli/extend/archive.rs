//! `anode archive`: copies of records outside the cluster, made at intervals.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{ListedDefinition, TOML, list, path_of, put, read_file, remove};
use crate::cli::client::{AccessArguments, Body, Nodes, fetch, open, percent_encoded};
use crate::cli::format::{self, FormatArguments, note};
use crate::cli::progress::Progress;
use crate::cli::{CliError, Given};
use crate::protocol::extension::ExtensionKind;

/// The arguments of `anode archive`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode archive put nightly nightly.toml\n\
    \x20 anode archive list nightly\n\
    \x20 anode archive verify\n\
    \x20 anode archive restore 1763800000000000-n1 --pattern 'sensors/**'\n\
    \x20 anode archive restore nightly --at 1763800000000000 --as-new\n\n\
    Restored records keep their timestamps, so newer ones stay; with --as-new the restored ones win.")]
pub struct Arguments {
    #[command(subcommand)]
    command: ArchiveCommand,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Debug, clap::Subcommand)]
enum ArchiveCommand {
    /// Let the cluster keep archives, as a TOML file defines it
    Put {
        /// Name of the definition
        name: String,
        /// The file with the definition
        file: PathBuf,
    },
    /// Print all definitions, or the archives of one
    List {
        /// Name of the definition
        name: Option<String>,
    },
    /// Read archives back and check every byte
    Verify {
        /// Id of an archive, or name of a definition for all of its archives; all without it
        id: Option<String>,
    },
    /// Publish the records of an archive in the running cluster
    Restore {
        /// Id of an archive, or name of a definition for its newest one
        id: String,
        /// Restore only sources that match
        #[arg(long, value_name = "PATTERN")]
        pattern: Option<String>,
        /// Restore how things were at this moment, in microseconds since the Unix epoch
        #[arg(long, value_name = "MICROS")]
        at: Option<u64>,
        /// Publish the records with new timestamps, so that they win over newer ones
        #[arg(long)]
        as_new: bool,
        /// Name of the definition, for an archive that is not listed
        #[arg(long, value_name = "NAME")]
        archive: Option<String>,
    },
    /// Take a definition away; its archives stay where they are
    Rm {
        /// Name of the definition
        name: String,
    },
}

/// The archives of a definition as a node lists them.
#[derive(Debug, Deserialize)]
struct ListedArchives {
    archives: Vec<ListedArchive>,
}

/// An archive as a node lists it.
#[derive(Debug, Deserialize)]
struct ListedArchive {
    id: String,
    parent: Option<String>,
    at: u64,
    records: u64,
    deletions: u64,
    stored_bytes: u64,
    node: String,
}

/// A line of a verification or a restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobLine {
    progress: Option<Value>,
    done: Option<Value>,
    error: Option<crate::cli::client::Refused>,
}

/// Does what the arguments ask for.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    let is_json = arguments.format.is_json(given);
    let kind = ExtensionKind::Archive;
    match &arguments.command {
        ArchiveCommand::Put { name, file } => {
            put(&nodes, kind, name, Body { media_type: TOML, bytes: &read_file(file)? })
        }
        ArchiveCommand::Rm { name } => remove(&nodes, kind, name),
        ArchiveCommand::List { name: Some(name) } => list_archives(&nodes, name, is_json),
        ArchiveCommand::List { name: None } => {
            list(&nodes, kind, is_json, ["NAME", "RUNNER", "ARCHIVES", "LAST", "ERROR"], |one| {
                let last = one.state.pointer("/last/id").and_then(Value::as_str).unwrap_or("-").to_owned();
                [one.name.clone(), one.runner_cell(), one.told("archives"), last, one.told("error")]
            })
        }
        ArchiveCommand::Verify { id } => {
            for (name, id) in found(&nodes, id.as_deref())? {
                let query = id.map_or_else(String::new, |id| format!("?id={}", percent_encoded(&id)));
                let path = format!("{}/verify{query}", path_of(kind, &name)?);
                work(&nodes, &path, "verifying", &format!("verified {name}"), is_json)?;
            }
            Ok(())
        }
        ArchiveCommand::Restore { id, pattern, at, as_new, archive } => {
            let (name, id) = match archive {
                Some(name) => (name.clone(), Some(id.clone())),
                None => one_of(found(&nodes, Some(id))?, id)?,
            };
            let mut query = format!("as_new={as_new}");
            let mut add = |name: &str, value: Option<String>| {
                if let Some(value) = value {
                    query.push_str(&format!("&{name}={}", percent_encoded(&value)));
                }
            };
            add("id", id);
            add("pattern", pattern.clone());
            add("at", at.map(|at| at.to_string()));
            let path = format!("{}/restore?{query}", path_of(kind, &name)?);
            work(&nodes, &path, "restoring", &format!("restored {name}"), is_json)
        }
    }
}

fn one_of(mut found: Vec<(String, Option<String>)>, id: &str) -> Result<(String, Option<String>), CliError> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(CliError::Usage(format!("{id} is in several archives; name one with --archive"))),
    }
}

/// The definitions that are meant, each with the id of an archive if one is named: by the name of a definition, by the id
/// of an archive, or all.
fn found(nodes: &Nodes, id: Option<&str>) -> Result<Vec<(String, Option<String>)>, CliError> {
    let names = definitions(nodes)?;
    let Some(id) = id else { return Ok(names.into_iter().map(|name| (name, None)).collect()) };
    if names.iter().any(|name| name == id) {
        return Ok(vec![(id.to_owned(), None)]);
    }
    let mut found = Vec::new();
    for name in names {
        if archives(nodes, &name)?.archives.iter().any(|archive| archive.id == id) {
            found.push((name, Some(id.to_owned())));
        }
    }
    match found.is_empty() {
        true => Err(CliError::Failed(format!("not_found: there is no archive {id}"))),
        false => Ok(found),
    }
}

fn definitions(nodes: &Nodes) -> Result<Vec<String>, CliError> {
    #[derive(Deserialize)]
    struct All {
        archive: Vec<ListedDefinition>,
    }
    let body = fetch(nodes, "/v1/archive")?.ok()?;
    let all: All = serde_json::from_str(&body).map_err(unreadable)?;
    Ok(all.archive.into_iter().map(|one| one.name).collect())
}

fn archives(nodes: &Nodes, name: &str) -> Result<ListedArchives, CliError> {
    let path = format!("{}/archives", path_of(ExtensionKind::Archive, name)?);
    serde_json::from_str(&fetch(nodes, &path)?.ok()?).map_err(unreadable)
}

fn list_archives(nodes: &Nodes, name: &str, is_json: bool) -> Result<(), CliError> {
    if is_json {
        let path = format!("{}/archives", path_of(ExtensionKind::Archive, name)?);
        let body = fetch(nodes, &path)?.ok()?;
        return Ok(writeln!(std::io::stdout(), "{body}")?);
    }
    let head = ["ID", "AT", "KIND", "RECORDS", "DELETIONS", "BYTES", "NODE"].map(String::from);
    let rows = archives(nodes, name)?.archives.into_iter().map(|one| {
        let kind = if one.parent.is_some() { "changes" } else { "full" }.to_owned();
        let numbers = [one.records, one.deletions].map(format::grouped);
        let [records, deletions] = numbers;
        [one.id, one.at.to_string(), kind, records, deletions, format::bytes(one.stored_bytes), one.node]
    });
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    Ok(std::io::stdout().write_all(format::table(&lines).as_bytes())?)
}

/// Lets the node do something that takes long, and shows how far it is. Prints the outcome.
fn work(nodes: &Nodes, path: &str, verb: &'static str, did: &str, is_json: bool) -> Result<(), CliError> {
    let incoming = nodes.try_each(
        |node| open(node, "POST", path).map_err(CliError::from),
        |_| false,
        |one, next| CliError::Failed(format!("{one}; {next}")),
    )?;
    let cut = |error: std::io::Error| CliError::Failed(format!("the answer was cut off: {error}"));
    if incoming.status != 200 {
        return incoming.whole().map_err(cut)?.ok().map(drop);
    }
    let mut progress = Progress::new(verb);
    let (mut records, mut bytes) = (0, 0);
    for line in BufReader::new(incoming.body).lines() {
        let line: JobLine = serde_json::from_str(&line.map_err(cut)?).map_err(unreadable)?;
        if let Some(error) = line.error {
            return Err(CliError::Failed(error.to_string()));
        }
        let so_far = line.progress.as_ref().or(line.done.as_ref());
        if let Some(so_far) = so_far {
            let counts = so_far.get("done").unwrap_or(so_far);
            let (now_records, now_bytes) = (total(counts), number(counts, "bytes"));
            progress.add(now_records.saturating_sub(records), now_bytes.saturating_sub(bytes));
            (records, bytes) = (now_records.max(records), now_bytes.max(bytes));
        }
        if let Some(done) = line.done {
            let said = progress.finish();
            match is_json {
                true => writeln!(std::io::stdout(), "{done}")?,
                false => note(&format!("{did}: {said}; {}", described(&done))),
            }
            let is_refused = number(&done, "refused") > 0;
            return if is_refused {
                Err(CliError::Failed("some records were refused".into()))
            } else {
                Ok(())
            };
        }
    }
    Err(CliError::Failed("the answer was cut off; to do it again does no harm".into()))
}

fn number(counts: &Value, name: &str) -> u64 {
    counts.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Number of records that counts are about.
fn total(counts: &Value) -> u64 {
    let each = ["applied", "duplicate", "stale", "expired", "refused"].map(|name| number(counts, name));
    number(counts, "records").max(each.iter().sum())
}

/// The counts in words: `3 applied, 1 stale`.
fn described(done: &Value) -> String {
    let counts = done.as_object().into_iter().flatten();
    let told =
        counts.filter(|(name, _)| !matches!(name.as_str(), "bytes" | "records" | "refusals" | "stored"));
    let told: Vec<String> = told.map(|(name, value)| format!("{value} {name}")).collect();
    told.join(", ")
}

fn unreadable(error: serde_json::Error) -> CliError {
    CliError::Failed(format!("the node's answer cannot be read: {error}"))
}
