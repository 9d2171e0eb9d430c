//! `anode health`: checks a node and tells the result by the exit code, for example as the health check of a
//! container.

use super::CliError;
use super::client::{DEFAULT_URL, NodeUrl, TrustArguments, fetch};

/// The arguments of `anode health`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT; with TLS wss:// or https://
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
    #[command(flatten)]
    trust: TrustArguments,
    /// Also check whether the node is ready for clients, not only whether it runs
    #[arg(long)]
    ready: bool,
}

/// Returns an error if the node does not answer, or answers that it is not well.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = NodeUrl::parse(&arguments.from, "from", &arguments.trust)?;
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    fetch(&endpoint, path)?.ok().map(|_| ())
}
