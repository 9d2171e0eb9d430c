//! The program `anode`. Everything, from the arguments to the exit code, is in the library's `cli` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    anode::cli::run(std::env::args_os())
}
