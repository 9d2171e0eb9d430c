//! `anode pull`: the sources that a cluster fetches from.

use std::path::PathBuf;

use super::{TOML, list, put, read_file, remove};
use crate::cli::client::{AccessArguments, Body};
use crate::cli::format::FormatArguments;
use crate::cli::{CliError, Given};
use crate::protocol::extension::ExtensionKind;

/// The arguments of `anode pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
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
    /// Take a definition away
    Rm {
        /// Name of the definition
        name: String,
    },
}

/// Does what the arguments ask for.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    let kind = ExtensionKind::Pull;
    match &arguments.command {
        PullCommand::Put { name, file } => {
            put(&nodes, kind, name, Body { media_type: TOML, bytes: &read_file(file)? })
        }
        PullCommand::Rm { name } => remove(&nodes, kind, name),
        PullCommand::List => {
            let is_json = arguments.format.is_json(given);
            list(&nodes, kind, is_json, ["NAME", "RUNNER", "ERROR"], |one| {
                [one.name.clone(), one.runner_cell(), one.told("error")]
            })
        }
    }
}
