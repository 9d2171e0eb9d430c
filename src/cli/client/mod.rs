//! The address of a node and the ways to talk to it, for all subcommands that are clients of a node.

mod access;
mod endpoint;
mod http;
mod nodes;
mod signal;
mod socket;
mod stream;
mod subscription;
mod token;
mod trust;

pub use access::{AccessArguments, URL_VARIABLE};
pub use endpoint::{NodeUrl, percent_encoded};
pub use http::{Answer, Body, fetch, fetch_from, open, post_lines, request};
pub use nodes::Nodes;
pub use signal::Interrupt;
pub use socket::{ConnectError, Sender, Socket, connect, connect_in_halves};
pub use subscription::{Event, Subscription, WantedSources};
pub use token::TOKEN_VARIABLE;
pub use trust::TrustArguments;

use serde::Deserialize;
use serde_json::value::RawValue;

/// URL of the node if the user gives none.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:7070";

/// The refusal of a request, as a node sends it in a frame or in the body of an HTTP answer.
#[derive(Debug, Deserialize)]
pub struct Refused {
    /// The kind of the refusal.
    #[serde(default)]
    pub code: String,
    /// The reason, named `message` in a frame and `detail` in an HTTP answer.
    #[serde(default, alias = "detail")]
    pub message: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub temporary: bool,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Returns the messages of a frame verbatim: the elements of an array, or else the frame itself.
pub fn items(frame: &str) -> Vec<&str> {
    if !frame.trim_start().starts_with('[') {
        return vec![frame];
    }
    match serde_json::from_str::<Vec<&RawValue>>(frame) {
        Ok(items) => items.into_iter().map(RawValue::get).collect(),
        Err(_) => vec![frame],
    }
}
