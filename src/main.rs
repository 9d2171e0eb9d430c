//! The program `anode`. Everything, from the arguments to the exit code, is in the library's `cli` module.

use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Records are allocated by one thread and freed by another all the time. The C library's allocator takes a
/// lock for that, and grows a thread's heap page by page by a system call each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of mimalloc's option `mi_option_purge_delay`, for which the bindings have no name.
const PURGE_DELAY: mi_option_t = 15;
/// Time after which free memory goes back to the operating system, in milliseconds. By default it is ten times as long,
/// and the memory of clients that were closed because there was too little of it would count for as long.
const PURGE_DELAY_MS: std::ffi::c_long = 1;

fn main() -> ExitCode {
    // SAFETY: this sets one of the numbers that mimalloc reads as its options, before there is another thread.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
    anode::cli::run(std::env::args_os())
}
