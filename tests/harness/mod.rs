//! What a black-box test needs: real nodes, clients that know nothing of the server's code, and a
//! network between nodes that can be cut.
//!
//! A test starts the `anode` binary as a user would and speaks to its ports. Everything that waits
//! waits for an event and has a deadline; what is left running is killed when it goes out of scope.
#![allow(dead_code)]

pub mod command;
pub mod fabric;
pub mod http;
pub mod node;
pub mod ports;
pub mod raw;
pub mod wait;
pub mod ws;

/// The client protocol's messages, generated from the very schema that users are given.
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

/// The value of a JSON text; the test fails where it is none.
pub fn json(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("no JSON ({error}): {text}"),
    }
}

/// Microseconds since the Unix epoch.
#[allow(clippy::disallowed_methods)]
pub fn wall_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// `text` with every byte that is not unreserved percent-encoded.
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
