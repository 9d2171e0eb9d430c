//! Generates load for a node or a cluster, or for another broker, and measures how it was served.
//!
//! `args` → `plan` (what each connection does, pure) → `engine` (event loops that do it, speaking
//! `wire`) → `report`. `schedule`, `payload`, `zipf`, `sequence`, `window` and `find_max`
//! are pure: the same seed makes the same load.
//!
//! Latencies count from the instant at which a message was *due* to be sent, not from when it was, so
//! that a server that holds its publisher up cannot hide it (coordinated omission).
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a load generator reads clocks and sleeps")]

pub mod access;
pub mod args;
pub mod clean;
pub mod client;
pub mod engine;
pub mod fill;
pub mod find_max;
pub mod idle;
pub mod latency;
pub mod machine;
mod measure;
mod names;
mod payload;
pub mod plan;
pub mod progress;
pub mod random;
pub mod replay;
pub mod report;
mod schedule;
mod sequence;
pub mod tls;
pub mod token;
mod usage;
mod window;
mod wire;
pub mod zipf;

pub use self::wire::websocket::mask;

/// The result of something that may fail. The error is a sentence for people.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Raises the limit of open files to what the system allows.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // It does not matter if this fails: opening too many files will tell.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
