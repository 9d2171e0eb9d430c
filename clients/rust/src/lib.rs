#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a client reads clocks")]

mod access;
mod address;
mod client;
mod connect;
mod dialer;
mod error;
mod feed;
mod inner;
mod link;
mod options;
mod outgoing;
mod publisher;
mod reads;
mod record;
mod requests;
mod roster;
mod seen;
mod stamps;
mod subscription;
mod transport;

pub use client::Client;
pub use connect::{Connect, connect};
pub use error::AnodeError;
pub use reads::Pages;
pub use record::{Ack, Data, Level, Mode, Record};
pub use requests::{Publish, Subscribe};
pub use serde_json::value::RawValue;
pub use subscription::Subscription;
