//! The program `anode`. Everything, from the arguments to the exit code, is in the library's `cli` module.

use std::process::ExitCode;

/// Records are allocated by one thread and freed by another all the time. The C library's allocator takes a
/// lock for that, and grows a thread's heap page by page by a system call each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anode::cli::run(std::env::args_os())
}
