//! `anode get`: prints the newest record of a source.

use std::io::Write;

use super::client::{AccessArguments, fetch, percent_encoded};
use super::format::FormatArguments;
use super::{CliError, Given};
use crate::record::Source;

/// The arguments of `anode get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode get sensors/7/temp\n\
    \x20 anode get sensors/7/temp --url http://10.0.0.1:7070,http://10.0.0.2:7070\n\n\
    Exit codes: 0 there is a record, 1 there is none or no node answers, 2 unusable arguments.")]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    _format: FormatArguments,
}

/// Prints the record. Returns the node's error if there is none.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--from", &arguments.from))?;
    Source::check(&arguments.source).map_err(|error| CliError::Usage(error.to_string()))?;
    let record = fetch(&nodes, &format!("/v1/sources/{}", percent_encoded(&arguments.source)))?.ok()?;
    Ok(writeln!(std::io::stdout(), "{record}")?)
}
