//! `anode serve`: reads flags, environment and file, and runs a node.

use std::io::IsTerminal;
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::CliError;
use super::machine::this_machine;
use crate::config::{Config, ConfigError, LogFormat, Raw, check};

/// A flag overrides the environment (ANODE_HTTP for --http), which overrides the file given with --config.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Sizes are in bytes, or have a unit of KiB, MiB or GiB; durations need one of ms, s, m, h or d.\n\
    When the node serves, it prints one line on stdout: `ready node=ID http=ADDR gossip=ADDR`.\n\
    Exit codes: 0 done, 1 failed while running, 2 unusable arguments."
)]
pub struct Arguments {
    /// File of TOML with the same names as the flags, for example http = "0.0.0.0:7070"
    #[arg(long, env = "ANODE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    raw: Raw,
}

/// Runs a node until a signal or an error ends it.
pub fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = configured(arguments)?;
    start_log(&config);
    Ok(crate::server::run(config)?)
}

fn configured(arguments: Arguments) -> Result<Config, ConfigError> {
    let file = match &arguments.config {
        None => Raw::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let allowed = format!("a readable file of TOML ({error})");
                ConfigError::new("config", path.display().to_string(), allowed)
            })?;
            Raw::from_toml(&text, path)?
        }
    };
    check(&arguments.raw.or(file), this_machine())
}

/// Starts the log. It is written to stderr, because stdout is for the line `ready …`.
pub fn start_log(config: &Config) {
    // The Cassandra driver logs every lost connection as an error. The store logs what follows from it
    // instead.
    let filter = EnvFilter::new(format!("{},cdrs_tokio=off", config.log_level.as_str()));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // An error means that a test has started a log before, which is then used.
    let _ = match config.log {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
