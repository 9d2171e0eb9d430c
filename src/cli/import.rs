//! `anode import`: publishes the lines of an export.
//!
//! The lines are sent in parts, so that what was imported is known while it goes on, and a part can be sent again when a
//! node goes away or has too much to do. Importing a line twice makes no difference: it has the same `ts`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::client::{AccessArguments, Answer, Nodes, Refused, post_lines};
use super::format::{FormatArguments, note};
use super::pipeline::Outcomes;
use super::progress::Progress;
use super::{CliError, Given};
use crate::protocol::AckLevel;
use crate::server::clock;

/// Bytes of a part, unless a single line is longer.
const PART_BYTES: usize = 256 * 1024;
/// Most lines of a part.
const PART_LINES: u64 = 1_000;
/// Number of times that a part is sent again to a node that has too much to do.
const AGAIN_MAX: u32 = 20;
/// Wait before a part is sent again, in microseconds.
const AGAIN_US: u64 = 500_000;
/// Statuses with which a node tells that it has too much to do.
const BUSY_STATUSES: [u16; 2] = [429, 503];

/// The arguments of `anode import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode import backup.ndjson\n\
    \x20 anode export --url http://10.0.0.1:7070 | anode import --url http://10.9.0.1:7070 --ack stored\n\n\
    Refused lines are named with their numbers, and the rest goes on. Importing the same lines again changes nothing.\n\n\
    Exit codes: 0 all lines were taken, 1 any was refused or no node answers, 2 unusable arguments.")]
pub struct Arguments {
    /// File with an export; - for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// When a part is answered: accepted (the node has it), stored (it survives a power cut), replicated (every
    /// live node has it)
    #[arg(long, value_name = "LEVEL", default_value = "accepted", value_parser = AckLevel::ALL.map(AckLevel::as_str))]
    ack: String,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

/// The answer of a node to an import.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Imported {
    applied: u64,
    duplicate: u64,
    stale: u64,
    /// Number of lines that middlewares dropped.
    dropped: u64,
    /// Number of all refused lines, of which `refused` names the first.
    refused_total: u64,
    refused: Vec<RefusedLine>,
}

/// A line that a node has refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefusedLine {
    line: u64,
    error: Option<Refused>,
}

/// The lines of one request, and how many came before them.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    lines: u64,
    before: u64,
}

/// Imports all lines, and returns an error if any of them is refused.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    let mut progress = Progress::new("importing");
    let outcomes = match arguments.file.as_os_str() == "-" {
        true => import(&nodes, &arguments.ack, io::stdin().lock(), &mut progress)?,
        false => {
            let file = File::open(&arguments.file).map_err(|error| {
                let path = arguments.file.display();
                CliError::Usage(format!(
                    "FILE: \"{path}\" cannot be used; allowed: a readable file ({error})"
                ))
            })?;
            import(&nodes, &arguments.ack, BufReader::new(file), &mut progress)?
        }
    };
    let done = progress.finish();
    match arguments.format.is_json(given) {
        true => writeln!(io::stdout(), "{}", json!({ "records": outcomes.sum(), "outcomes": outcomes }))?,
        false => note(&format!("imported {done}: {outcomes}")),
    }
    if outcomes.refused > 0 { Err(CliError::Told) } else { Ok(()) }
}

fn import(
    nodes: &Nodes,
    ack: &str,
    mut input: impl BufRead,
    progress: &mut Progress,
) -> Result<Outcomes, CliError> {
    let mut outcomes = Outcomes::default();
    let mut part = Part::default();
    loop {
        let read = input.read_until(b'\n', &mut part.bytes)?;
        if read > 0 {
            part.lines += 1;
            // The last line of a file may have no end.
            if part.bytes.last() != Some(&b'\n') {
                part.bytes.push(b'\n');
            }
        }
        let is_full = part.bytes.len() >= PART_BYTES || part.lines >= PART_LINES;
        if (read == 0 || is_full) && part.lines > 0 {
            send(nodes, ack, &part, &mut outcomes)?;
            progress.add(part.lines, part.bytes.len() as u64);
            part = Part { before: part.before + part.lines, ..Part::default() };
        }
        if read == 0 {
            return Ok(outcomes);
        }
    }
}

/// Sends a part to the first node that takes it, and adds what became of its lines.
fn send(nodes: &Nodes, ack: &str, part: &Part, outcomes: &mut Outcomes) -> Result<(), CliError> {
    let path = format!("/v1/import?ack={ack}");
    let mut again = 0;
    let answer = loop {
        let answer: Answer = nodes.try_each(
            |node| post_lines(node, &path, &part.bytes).map_err(CliError::from),
            |_| false,
            |one, next| CliError::Failed(format!("{one}; {next}")),
        )?;
        if !BUSY_STATUSES.contains(&answer.status) || again == AGAIN_MAX {
            break answer;
        }
        again += 1;
        clock::sleep(AGAIN_US);
    };
    let place = |error: CliError| {
        let done = part.before;
        CliError::Failed(format!("{error}; {done} lines were imported before"))
    };
    let body = answer.ok().map_err(place)?;
    let imported: Imported = serde_json::from_str(&body)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))?;
    outcomes.applied += imported.applied;
    outcomes.duplicate += imported.duplicate;
    outcomes.stale += imported.stale;
    outcomes.refused += imported.refused_total;
    if imported.dropped > 0 {
        note(&format!("{} lines were dropped by middlewares", imported.dropped));
    }
    for RefusedLine { line, error } in &imported.refused {
        let why = error.as_ref().map_or_else(|| "refused".into(), ToString::to_string);
        note(&format!("line {}: {why}", part.before + line));
    }
    Ok(())
}
