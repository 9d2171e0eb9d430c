//! The program `anode`. Everything, from the arguments to the exit code, is in the library's `cli` module.

use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Records are allocated by one thread and freed by another all the time. The C library's allocator takes a
/// lock for that, and grows a thread's heap page by page by a system call each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of mimalloc's option `mi_option_purge_delay`, for which the bindings have no name: the time after which free
/// memory goes back to the operating system, in milliseconds.
const PURGE_DELAY: mi_option_t = 15;
/// Number of mimalloc's option `mi_option_arena_purge_mult`: how many times as long that takes for large pieces.
const ARENA_PURGE_FACTOR: mi_option_t = 24;

fn main() -> ExitCode {
    // By default free memory is kept for up to 100 ms, and looked at only when memory is asked for: what clients held
    // that were closed for want of memory could stay for long.
    // SAFETY: these are two of the numbers that mimalloc reads as its options, and there is no other thread yet.
    unsafe {
        mi_option_set(PURGE_DELAY, 1);
        mi_option_set(ARENA_PURGE_FACTOR, 1);
    }
    anode::cli::run(std::env::args_os())
}
