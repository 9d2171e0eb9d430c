//! The program `anode-planted`: a node with bugs that were built in on purpose, for the tests of the checks in `netem/`.
//! It is built with the feature `planted-bugs` alone, and is never part of a release.

use std::process::ExitCode;

fn main() -> ExitCode {
    anode::cli::run(std::env::args_os())
}
