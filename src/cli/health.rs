//! `anode health`: an exit code for those who look after a node, such as a container's health check.

use super::CliError;
use super::client::{DEFAULT_URL, Endpoint, fetch};

/// Of which node, and how much is asked of it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A node: ws://HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
    /// Ask not only whether it runs, but whether clients should be sent to it now
    #[arg(long)]
    ready: bool,
}

/// Fails with what the node says is the matter, or because it says nothing.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = Endpoint::parse(&arguments.from, "from")?;
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    fetch(&endpoint, path)?.ok().map(|_| ())
}
