//! The command line, with one file for each subcommand.
//!
//! A subcommand is a function from its arguments to `Result<(), CliError>`. Only this file turns results into
//! exit codes: 0 done, 1 failed while running, 2 unusable arguments. The subcommands that are clients of a
//! node ([`client`]) use blocking sockets, because each has only one thing to wait for.

mod client;
mod demo;
mod get;
mod health;
mod history;
mod keys;
mod machine;
mod members;
mod publish;
mod serve;
mod sim;
mod subscribe;
mod token;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::server::ServerError;

/// The reason why a command did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments cannot be used. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The command failed while running. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command failed, and the reason has been written to stderr already. Exit code 1.
    #[error("failed")]
    Told,
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::Usage(error.to_string())
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> CliError {
        match error.exit_code() {
            2 => CliError::Usage(error.to_string()),
            _ => CliError::Failed(error.to_string()),
        }
    }
}

/// A failed read or write. If the reader of stdout is gone (`anode sub … | head -1`), no message is printed.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::Told,
            _ => CliError::Failed(error.to_string()),
        }
    }
}

/// A decentralized real-time data-sharing server: publish to any node, every node pushes to its
/// subscribers.
#[derive(Debug, Parser)]
#[command(name = "anode", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(Box<serve::Arguments>),
    /// Watch a whole cluster on this machine: nodes share live figures of the machine, and one of them is
    /// killed and brought back
    Demo(demo::Arguments),
    /// Publish one record, or the records on stdin
    Pub(publish::Arguments),
    /// Print matching records as they arrive, one JSON object per line
    Sub(subscribe::Arguments),
    /// Print the newest record of a source
    Get(get::Arguments),
    /// Print the past records of a source, newest first, one JSON object per line
    History(history::Arguments),
    /// Tell by the exit code whether a node runs, or is ready for clients
    Health(health::Arguments),
    /// Print the members of the cluster as a node sees them
    Members(members::Arguments),
    /// Make a key for a cluster, or show which keys the members of a cluster have
    Keys(keys::Arguments),
    /// Make a token, and print it with its SHA-256 for the file of --auth
    Token(token::Arguments),
    /// Simulate whole clusters: what they cost, how fast they are, and which faults they survive
    Sim(Box<sim::Arguments>),
}

/// Runs the command line and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Help and version end here too, with exit code 0. If stdout is closed, nobody is left to report
            // an error to.
            let _ = error.print();
            return exit_code(error.exit_code());
        }
    };
    let outcome = match command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Pub(arguments) => publish::run(&arguments),
        Command::Sub(arguments) => subscribe::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Members(arguments) => members::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Told) => exit_code(1),
        Err(error) => {
            eprintln!("anode: {error}");
            exit_code(if matches!(error, CliError::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Returns a parser of whole numbers in `range`. Its error tells the range, whatever the text was.
fn whole_number(
    range: std::ops::RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("allowed: whole numbers from {} to {}", range.start(), range.end()))
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lines_of_the_contract_parse() {
        for line in [
            "anode serve --http 127.0.0.1:0 --gossip [::1]:0 --join a:1,b:2 --store memory",
            "anode demo --nodes 5",
            "anode pub a/b 21.5 --to ws://127.0.0.1:7070 --ack stored --ts 5",
            "anode pub a/b -5",
            "anode pub --stdin --ack replicated",
            "anode sub a/* b/** --from ws://x:1 --no-snapshot --mode all --count 3",
            "anode get a/b --from http://127.0.0.1:7070",
            "anode history a/b --from 5 --to 9 --limit 3",
            "anode history a/b --from 5 --from ws://x:1",
            "anode health --from http://x:1 --ready",
            "anode members --from ws://x:1 --json",
            "anode keys",
            "anode keys new",
            "anode keys --from ws://x:1",
            "anode members --from ws://x:1 --json --token-file f",
            "anode token",
            "anode sub a --token x",
            "anode sim lossy --loss 5% --burst --seeds 1..5 --nodes 10,100 --json",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
        for line in [
            "anode",
            "anode serve --htpt x",
            "anode sub",
            "anode pub a",
            "anode pub",
            "anode get",
            "anode keys old",
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
