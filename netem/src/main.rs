//! The program behind `netem/run`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anode_loadgen::Outcome;
use anode_netem::arguments::Arguments;
use anode_netem::compose;
use anode_netem::profile::{NAMES, Profile};
use anode_netem::suite::{self, Ended};
use clap::CommandFactory;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Exit code where a run is asked for that cannot be made.
const UNUSABLE: u8 = 2;
/// Exit code where the system does not permit what runs need.
const NOT_PERMITTED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("netem/run: {error}");
            bad(&arguments)
        }
    }
}

fn start(arguments: &Arguments) -> Outcome<ExitCode> {
    if arguments.list {
        for name in NAMES {
            writeln!(std::io::stdout(), "{name:16} {}", Profile::read(name)?.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, is_interrupted.clone())?;
    }
    if arguments.compose.is_some() {
        if let Some(reason) = compose::refusal() {
            eprintln!("netem/run --compose: {reason}");
            return Ok(ExitCode::from(UNUSABLE));
        }
    } else if let Some(reason) = suite::refusal() {
        println!("skipped: {reason}");
        // A test that cannot be made here is no failure; a run that was asked for is.
        return Ok(if arguments.ci { ExitCode::SUCCESS } else { ExitCode::from(NOT_PERMITTED) });
    }
    let cleaned = suite::clean();
    if arguments.clean {
        println!("removed: {}", if cleaned.is_empty() { "nothing".to_owned() } else { cleaned.join(" ") });
        return Ok(ExitCode::SUCCESS);
    }
    // Containers have their program from their image, and other systems have their own.
    let binary = match arguments.compose.is_some() || arguments.peer.is_some() {
        true => PathBuf::new(),
        false => suite::binary(arguments.binary.as_ref())?,
    };
    std::fs::create_dir_all(&arguments.out)?;
    if arguments.all {
        return Ok(code(suite::all(arguments, &binary, &is_interrupted)?, arguments));
    }
    if arguments.ci {
        let names = suite::CI.map(|(name, seconds)| (name, Some(seconds)));
        let arguments = Arguments { load: arguments.load.min(suite::CI_LOAD), ..arguments.clone() };
        return Ok(code(suite::many(&names, &arguments, &binary, &is_interrupted)?, &arguments));
    }
    let Some(name) = &arguments.profile else {
        eprint!("{}", Arguments::command().render_help());
        return Ok(ExitCode::from(UNUSABLE));
    };
    match suite::one(name, arguments, &binary, &is_interrupted)? {
        Ended::NothingLeft(_) => Ok(ExitCode::from(UNUSABLE)),
        ended => Ok(code(ended.is_good(), arguments)),
    }
}

fn code(is_good: bool, arguments: &Arguments) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { bad(arguments) }
}

/// Returns the exit code of what was not as it should be: beside another system, no promise can be broken.
fn bad(arguments: &Arguments) -> ExitCode {
    if arguments.peer.is_some() { ExitCode::from(UNUSABLE) } else { ExitCode::FAILURE }
}
