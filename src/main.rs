//! Arguments → configuration → run → exit code.

use std::process::ExitCode;

/// Records are made on one thread and freed on another, and simulated worlds are made of millions of small
/// things: with glibc's allocator they take a quarter more time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anode::cli::run(std::env::args_os())
}
