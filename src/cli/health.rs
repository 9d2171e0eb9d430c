//! `anode health`: checks a node and tells the result by the exit code, for example as the health check of a
//! container.

use std::io::Write;

use serde_json::json;

use super::client::{AccessArguments, fetch};
use super::format::FormatArguments;
use super::{CliError, Given};

/// The arguments of `anode health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode health --url http://127.0.0.1:7071\n\
    \x20 until anode health --ready; do sleep 1; done\n\n\
    Exit codes: 0 the node is well, 1 it is not or does not answer, 2 unusable arguments.")]
pub struct Arguments {
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// Also check whether the node is ready for clients, not only whether it runs
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    format: FormatArguments,
}

/// Returns an error if the node does not answer, or answers that it is not well.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--from", &arguments.from))?;
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    let checked = fetch(&nodes, path).and_then(|answer| answer.ok());
    if arguments.format.is_json(given) {
        let reason = checked.as_ref().err().map(ToString::to_string);
        let told = json!({ "ok": reason.is_none(), "path": path, "reason": reason });
        writeln!(std::io::stdout(), "{told}")?;
    }
    checked.map(|_| ())
}
