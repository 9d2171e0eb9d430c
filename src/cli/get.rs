//! `anode get`: the latest record of a source.

use std::io::Write;

use super::CliError;
use super::client::{DEFAULT_URL, Endpoint, fetch, percent_encoded};
use crate::record::Source;

/// What and where from.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    /// A node: ws://HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
}

/// Prints the record, or fails with what the node says.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = Endpoint::parse(&arguments.from, "from")?;
    Source::check(&arguments.source).map_err(|error| CliError::Usage(error.to_string()))?;
    let record = fetch(&endpoint, &format!("/v1/sources/{}", percent_encoded(&arguments.source)))?.ok()?;
    Ok(writeln!(std::io::stdout(), "{record}")?)
}
