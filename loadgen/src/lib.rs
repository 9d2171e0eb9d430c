//! Load for a node or a cluster, and what came of it.
//!
//! Latencies count from the instant at which a record was *due* to be sent, not from when it was, so
//! that a server that holds its publisher up cannot hide it (coordinated omission).
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a load generator reads clocks and sleeps")]

pub mod client;
pub mod fill;
pub mod idle;
pub mod latency;

/// What a run fails with: a sentence for people.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Raises the limit of open files to what the system allows.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Failing to raise it is no failure: opening the files will say what is missing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
