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

fn main() -> ExitCode {
    // By default free memory is kept for some time, and looked at only when memory is asked for again. A node whose
    // clients were closed for want of memory then still held theirs: 62 MiB where 17 were counted. Free memory goes
    // back at once instead, which costs nothing that could be measured.
    // SAFETY: this is one of the numbers that mimalloc reads as its options, and there is no other thread yet.
    unsafe {
        mi_option_set(PURGE_DELAY, 0);
    }
    anode::cli::run(std::env::args_os())
}
