//! Memory in huge pages.
//!
//! A large world is gone through at random, and most of what a datagram touches is in no cache: half of the
//! time goes by waiting for memory, and much of that for finding the page. In pages of 2 MiB a world of a
//! thousand nodes takes a fifth less time. The C library can be asked for them only before a process begins.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Read by the C library when a process begins.
const VARIABLE: &str = "GLIBC_TUNABLES";
const IN_HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// Begins this process anew with memory in huge pages. Returns if the user has said what they want of the
/// C library, if that is done already, or if it cannot be done.
pub fn ask_for() {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // It comes back only if it failed, and without it all goes as well, only slower.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(VARIABLE, IN_HUGE_PAGES).exec();
    }
}
