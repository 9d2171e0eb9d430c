//! The tools of the black-box tests: real nodes, clients that share no code with the server, and a network
//! between nodes that can be cut.
//!
//! A test starts the `anode` binary as a user would and talks to its ports. Everything that waits, waits for
//! an event and has a deadline. What still runs at the end of a test is killed.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub mod bucket;
pub mod clock;
pub mod command;
pub mod fabric;
pub mod file_size;
pub mod gossip;
pub mod http;
pub mod kubo;
pub mod node;
pub mod origin;
pub mod ports;
pub mod pulls;
pub mod raw;
pub mod receiver;
pub mod rights;
pub mod tls;
pub mod wait;
pub mod ws;

/// The messages of the client protocol, generated from the schema that users are given.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/anode.v1.rs"));
}

pub use command::{Output, anode};
pub use fabric::Fabric;
pub use http::Http;
pub use node::{Cluster, Node, NodeConfig};
pub use wait::{Deadline, eventually};
pub use ws::{Client, Event, ProtoClient};

/// Parses a JSON text. Fails if it is not JSON.
pub fn json(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("no JSON ({error}): {text}"),
    }
}

/// Returns the wall clock in microseconds since the Unix epoch.
#[allow(clippy::disallowed_methods)]
pub fn wall_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// Percent-encodes every byte of `text` that is not an unreserved character of URLs.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
