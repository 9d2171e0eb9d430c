//! What the client commands share: where a node is, and how one talks to it.

mod endpoint;
mod http;
mod signal;
mod socket;
mod subscription;

pub use endpoint::{Endpoint, percent_encoded};
pub use http::{Answer, fetch};
pub use signal::Interrupt;
pub use socket::{Half, Sender, Socket, connect, connect_in_halves};
pub use subscription::{Event, Subscription, Wanted};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Where a node is when nothing is said.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:7070";

/// What a node says of a refusal, in a frame or a problem.
#[derive(Debug, Deserialize)]
pub struct Refused {
    /// What kind.
    #[serde(default)]
    pub code: String,
    /// Why, in a frame.
    #[serde(default, alias = "detail")]
    pub message: String,
    /// Whether trying again may help.
    #[serde(default)]
    pub temporary: bool,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// The items of a frame: of an array its elements, verbatim, else the frame itself.
pub fn items(frame: &str) -> Vec<&str> {
    if !frame.trim_start().starts_with('[') {
        return vec![frame];
    }
    match serde_json::from_str::<Vec<&RawValue>>(frame) {
        Ok(items) => items.into_iter().map(RawValue::get).collect(),
        Err(_) => vec![frame],
    }
}
