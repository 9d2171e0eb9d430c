//! Arguments → configuration → run → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    anode::cli::run(std::env::args_os())
}
