//! `anode export`: writes the newest records of a node as lines that `anode import` reads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use super::client::{AccessArguments, Nodes, open, percent_encoded};
use super::format::{FormatArguments, note};
use super::progress::Progress;
use super::{CliError, Given};
use crate::record::Pattern;

/// The arguments of `anode export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode export >backup.ndjson\n\
    \x20 anode export 'sensors/**' --file sensors.ndjson\n\
    \x20 anode export --url http://10.0.0.1:7070 | anode import --url http://10.9.0.1:7070\n\n\
    A line is a publish object with its ts, and the time that it has left to live. Deletions are among them, so that an \
    import brings nothing back. What was exported is told on stderr.")]
pub struct Arguments {
    /// Names of sources, in which * stands for any one segment and a last ** for one or more
    #[arg(value_name = "PATTERN", default_value = "**")]
    pattern: String,
    /// Write into this file [default: stdout]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    _format: FormatArguments,
}

/// Copies the lines as they come. Returns an error if the node ends before it has sent all of them.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    Pattern::parse(&arguments.pattern).map_err(|error| CliError::Usage(error.to_string()))?;
    let mut progress = match arguments.file.is_none() && io::stdout().is_terminal() {
        true => Progress::hidden(),
        false => Progress::new("exporting"),
    };
    match &arguments.file {
        None => copy(&nodes, &arguments.pattern, BufWriter::new(io::stdout().lock()), &mut progress)?,
        Some(path) => {
            let failed = |error: io::Error| {
                CliError::Failed(format!("--file: \"{}\" cannot be written: {error}", path.display()))
            };
            let file = File::create(path).map_err(failed)?;
            copy(&nodes, &arguments.pattern, BufWriter::new(&file), &mut progress)?;
            file.sync_all().map_err(failed)?;
        }
    }
    note(&format!("exported {}", progress.finish()));
    Ok(())
}

fn copy(nodes: &Nodes, pattern: &str, mut out: impl Write, progress: &mut Progress) -> Result<(), CliError> {
    let path = format!("/v1/export?pattern={}", percent_encoded(pattern));
    let incoming = nodes.try_each(
        |node| open(node, "GET", &path).map_err(CliError::from),
        |_| false,
        |one, next| CliError::Failed(format!("{one}; {next}")),
    )?;
    let cut = |error: io::Error| {
        CliError::Failed(format!("the export was cut, and what was written is not all of it: {error}"))
    };
    if incoming.status != 200 {
        return incoming.whole().map_err(cut)?.ok().map(drop);
    }
    let mut lines = BufReader::new(incoming.body);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(cut)? > 0 {
        out.write_all(&line)?;
        progress.add(1, line.len() as u64);
        line.clear();
    }
    Ok(out.flush()?)
}
