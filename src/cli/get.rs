//! `anode get`: prints the newest record of a source.

use std::io::Write;

use super::CliError;
use super::client::{AccessArguments, DEFAULT_URL, fetch, percent_encoded};
use crate::record::Source;

/// The arguments of `anode get`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT; with TLS wss:// or https://
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
    #[command(flatten)]
    access: AccessArguments,
}

/// Prints the record. Returns the node's error if there is none.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = arguments.access.node(&arguments.from, "from")?;
    Source::check(&arguments.source).map_err(|error| CliError::Usage(error.to_string()))?;
    let record = fetch(&endpoint, &format!("/v1/sources/{}", percent_encoded(&arguments.source)))?.ok()?;
    Ok(writeln!(std::io::stdout(), "{record}")?)
}
