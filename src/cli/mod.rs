//! The command line, with one file for each subcommand.
//!
//! A subcommand is a function from its arguments to `Result<(), CliError>`. Only this file turns results into
//! exit codes: 0 done, 1 failed while running, 2 unusable arguments. The subcommands that are clients of a
//! node ([`client`]) use blocking sockets, because each has only one thing to wait for.

mod client;
mod completions;
mod delete;
mod demo;
mod doctor;
mod environment;
mod export;
mod exposition;
mod extend;
mod format;
mod get;
mod health;
mod history;
mod import;
mod keys;
mod list;
mod machine;
mod members;
mod pipeline;
mod progress;
mod publish;
mod serve;
mod sim;
mod subscribe;
mod token;
mod top;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
#[command(
    name = "anode",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n\
    \x20 anode demo                                a whole cluster on this machine, to watch\n\
    \x20 anode serve                               one node, on 127.0.0.1:7070\n\
    \x20 anode pub sensors/7/temp 21.5\n\
    \x20 anode sub 'sensors/**'\n\
    \x20 anode top --url http://10.0.0.1:7070      a cluster, live\n\
    \x20 anode help pub                            more about a command\n\n\
    Commands that are clients of a node find it by --url or ANODE_URL, and bring the token in ANODE_TOKEN. NO_COLOR turns \
    colours off.\n\
    Exit codes: 0 done, 1 failed while running, 2 unusable arguments."
)]
struct Arguments {
    /// URL of a node, for commands that are clients of one: the same as --url behind the command
    #[arg(long, value_name = "URL[,…]", value_delimiter = ',')]
    url: Vec<String>,
    /// Print JSON, for programs: the same as --json behind the command
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The options that may stand before the subcommand as well as behind it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// URLs of nodes, in the order in which they are tried.
    pub urls: Vec<String>,
    /// Whether JSON is to be printed.
    pub is_json: bool,
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
    /// Print the newest records of all sources, or of those that match a pattern
    List(list::Arguments),
    /// Publish a deletion: the source has no value any longer
    Delete(delete::Arguments),
    /// Print the past records of a source, newest first, one JSON object per line
    History(history::Arguments),
    /// Write the newest records of a node as lines that `anode import` reads
    Export(export::Arguments),
    /// Publish the lines of an export
    Import(import::Arguments),
    /// Let the cluster fetch from other places and publish what it finds
    Pull(extend::pull::Arguments),
    /// Keep copies of records outside the cluster, at intervals: put, list, verify, restore, rm
    Archive(extend::archive::Arguments),
    /// Send records to addresses outside the cluster as they come: put, list, rm
    Hook(extend::hook::Arguments),
    /// Change or refuse records on their way in: put, list and take away middlewares
    Middleware(extend::middleware::Arguments),
    /// Tell by the exit code whether a node runs, or is ready for clients
    Health(health::Arguments),
    /// Print the members of the cluster as a node sees them
    Members(members::Arguments),
    /// Show members, rates, latencies and the hottest sources of a cluster, live
    Top(top::Arguments),
    /// Look for what may be wrong with a node, its cluster and this machine, and say what to do about it
    Doctor(Box<doctor::Arguments>),
    /// Make a key for a cluster, or show which keys the members of a cluster have
    Keys(keys::Arguments),
    /// Make a token, and print it with its SHA-256 for the file of --auth
    Token(token::Arguments),
    /// Simulate whole clusters: what they cost, how fast they are, and which faults they survive
    Sim(Box<sim::Arguments>),
    /// Print what a shell needs to complete the arguments of anode
    Completions(completions::CompletionsArguments),
    /// Print the manual page of anode or of a command, or write all pages into a directory
    Man(completions::ManArguments),
}

impl Command {
    /// Returns the name of a command that is no client of a node and prints no JSON by `--json`, and therefore takes
    /// neither of the options before it.
    fn takes_nothing(&self) -> Option<&'static str> {
        match self {
            Command::Serve(_) => Some("serve"),
            Command::Demo(_) => Some("demo"),
            Command::Sim(_) => Some("sim"),
            Command::Completions(_) => Some("completions"),
            Command::Man(_) => Some("man"),
            _ => None,
        }
    }
}

/// The whole command line. The options by which `anode pull` and the like reach nodes are taken before and behind their own
/// subcommands. The URL of `anode hook` is not, because `anode hook put --url` names the receiver; its other
/// subcommands have an option of their own for the node.
fn command_line() -> clap::Command {
    let everywhere = |name: &'static str| {
        move |command: clap::Command| {
            command.mut_args(|argument| {
                let is_taken = name == "hook" && argument.get_id() == "url";
                argument.global(!is_taken)
            })
        }
    };
    ["pull", "middleware", "archive", "hook"]
        .into_iter()
        .fold(Arguments::command(), |command, name| command.mut_subcommand(name, everywhere(name)))
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let matches = command_line().try_get_matches_from(arguments)?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command_line()))
}

/// Runs the command line and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version end here too, with exit code 0. If stdout is closed, nobody is left to report
            // an error to.
            let _ = error.print();
            return exit_code(error.exit_code());
        }
    };
    let outcome = run_command(arguments);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Told) => exit_code(1),
        Err(error) => {
            format::note(&error.to_string());
            exit_code(if matches!(error, CliError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run_command(arguments: Arguments) -> Result<(), CliError> {
    let Arguments { url: urls, json: is_json, command } = arguments;
    if let Some(name) = command.takes_nothing().filter(|_| is_json || !urls.is_empty()) {
        let option = if is_json { "--json" } else { "--url" };
        return Err(CliError::Usage(format!("{option}: not before {name}, which has no use for it there")));
    }
    let given = &Given { urls, is_json };
    let strange = environment::strange(&command_line(), std::env::vars_os());
    // A node names them in its log, whatever form that has.
    if !matches!(command, Command::Serve(_) | Command::Doctor(_)) {
        strange.iter().for_each(|variable| format::note(&format!("warning: {variable}")));
    }
    match command {
        Command::Serve(arguments) => serve::run(*arguments, &strange),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Pub(arguments) => publish::run(&arguments, given),
        Command::Sub(arguments) => subscribe::run(&arguments, given),
        Command::Get(arguments) => get::run(&arguments, given),
        Command::List(arguments) => list::run(&arguments, given),
        Command::Delete(arguments) => delete::run(&arguments, given),
        Command::History(arguments) => history::run(&arguments, given),
        Command::Export(arguments) => export::run(&arguments, given),
        Command::Import(arguments) => import::run(&arguments, given),
        Command::Pull(arguments) => extend::pull::run(&arguments, given),
        Command::Archive(arguments) => extend::archive::run(&arguments, given),
        Command::Hook(arguments) => extend::hook::run(&arguments, given),
        Command::Middleware(arguments) => extend::middleware::run(&arguments, given),
        Command::Health(arguments) => health::run(&arguments, given),
        Command::Members(arguments) => members::run(&arguments, given),
        Command::Top(arguments) => top::run(&arguments, given),
        Command::Doctor(arguments) => doctor::run(&arguments, given, &strange),
        Command::Keys(arguments) => keys::run(&arguments, given),
        Command::Token(arguments) => token::run(&arguments, given),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Completions(arguments) => completions::run_completions(&arguments, command_line()),
        Command::Man(arguments) => completions::run_man(&arguments, command_line()),
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
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn arguments_are_consistent() {
        command_line().debug_assert();
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
            "anode --url http://a:1,http://b:1 --json members --all",
            "anode get a/b --url http://a:1 --url http://b:1 --json",
            "anode list",
            "anode list a/** --names --limit 5",
            "anode delete a/b --ack stored",
            "anode export a/** --file f",
            "anode import f --ack replicated",
            "anode pub a/b --delete",
            "anode pub a/b --file f --ttl 5s",
            "anode pub a/b -- --delete",
            "anode completions bash",
            "anode man serve",
            "anode sub a --token x",
            "anode pull --url http://a:1 list",
            "anode pull list --url http://a:1 --json",
            "anode --url http://a:1 pull list",
            "anode pull --url http://a:1 put n f.toml",
            "anode pull put n f.toml --url http://a:1 --token x",
            "anode pull test f.toml --allow-exec d",
            "anode pull --url http://a:1 test f.toml",
            "anode archive --url http://a:1 list",
            "anode archive list n --url http://a:1",
            "anode middleware --url http://a:1 list",
            "anode middleware put n --on a --cel data --url http://a:1",
            "anode hook put n --on a --url http://b:1",
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
            "anode pub a --delte",
            "anode pub a 1 --delete",
            "anode pub a 1 --file f",
            "anode serve --url http://a:1",
            "anode get a --to http://a:1",
            "anode completions cmd",
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
