//! `anode pull`: the sources that a cluster fetches from.

use std::path::PathBuf;

use super::{TOML, list, pull_trial, put, read_file, remove};
use crate::cli::client::{AccessArguments, Body};
use crate::cli::format::{FormatArguments, duration};
use crate::cli::{CliError, Given};
use crate::protocol::extension::ExtensionKind;
use crate::server::clock;

/// The arguments of `anode pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode pull test weather.toml\n\
    \x20 anode pull test weather.toml --url http://10.0.0.1:7070\n\
    \x20 anode pull put weather weather.toml\n\
    \x20 anode pull list\n\
    \x20 anode pull rm weather\n\n\
    Each is run by one live member, and goes on at another when that one dies.")]
pub struct Arguments {
    #[command(subcommand)]
    command: PullCommand,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Debug, clap::Subcommand)]
enum PullCommand {
    /// Let the cluster fetch from a source, as a TOML file defines it
    Put {
        /// Name of the definition
        name: String,
        /// The file with the definition
        file: PathBuf,
    },
    /// Print all definitions: which member runs each, and how it is doing
    List,
    /// Run a definition once, and print what it would publish, an object a line: here and without a node, or at the node
    /// that --url names
    Test {
        /// The file with the definition
        file: PathBuf,
        /// Directory that the program of a definition of the kind exec lies in
        #[arg(long, value_name = "DIR")]
        allow_exec: Option<PathBuf>,
    },
    /// Take a definition away
    Rm {
        /// Name of the definition
        name: String,
    },
}

/// Does what the arguments ask for.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let kind = ExtensionKind::Pull;
    let Arguments { access, format, .. } = arguments;
    let nodes = || access.nodes(given, ("--url", &[]));
    match &arguments.command {
        PullCommand::Test { allow_exec: Some(_), .. } if access.is_chosen(given) => {
            let message = "--allow-exec: not with --url, since the node has a directory of its own";
            Err(CliError::Usage(message.into()))
        }
        PullCommand::Test { file, .. } if access.is_chosen(given) => pull_trial::run_at(&nodes()?, file),
        PullCommand::Test { file, allow_exec } => pull_trial::run(file, allow_exec.as_deref()),
        PullCommand::Put { name, file } => {
            put(&nodes()?, kind, name, Body { media_type: TOML, bytes: &read_file(file)? })
        }
        PullCommand::Rm { name } => remove(&nodes()?, kind, name),
        PullCommand::List => {
            let is_json = format.is_json(given);
            let head = ["NAME", "RUNNER", "RECORDS/S", "LAST SUCCESS", "LAST ERROR"];
            list(&nodes()?, kind, is_json, head, |one| {
                let success = one.state.get("last_success").and_then(serde_json::Value::as_u64);
                let success = success.map_or_else(|| "-".into(), ago);
                [
                    one.name.clone(),
                    one.runner_cell(),
                    one.told("records_per_s"),
                    success,
                    one.told("last_error"),
                ]
            })
        }
    }
}

/// How long ago a moment is.
fn ago(us: u64) -> String {
    format!("{} ago", duration(clock::now().wall_us.saturating_sub(us)))
}
