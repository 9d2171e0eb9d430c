//! `anode get`: prints the newest record of a source.

use std::io::Write;

use super::CliError;
use super::client::{DEFAULT_URL, NodeUrl, TokenArguments, TrustArguments, fetch, percent_encoded};
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
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
}

/// Prints the record. Returns the node's error if there is none.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = NodeUrl::parse(&arguments.from, "from", &arguments.trust)?;
    let endpoint = endpoint.with_token(arguments.token.read()?);
    Source::check(&arguments.source).map_err(|error| CliError::Usage(error.to_string()))?;
    let record = fetch(&endpoint, &format!("/v1/sources/{}", percent_encoded(&arguments.source)))?.ok()?;
    Ok(writeln!(std::io::stdout(), "{record}")?)
}
