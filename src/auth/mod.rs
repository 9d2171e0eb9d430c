//! Who may come in, and what they may do.
//!
//! A request passes the [`Door`]: it checks the name that the request is addressed to, the page that it comes from,
//! and who sends it, and asks for the right that the table of all paths ([`Resource`]) names. The event loops and the
//! control plane use the same door. What comes of it is an [`Access`]: a name, [`Rights`], and a time at which it
//! ends.
//!
//! The rights stand in a file ([`Auth`]), which is read again when it changes. Tokens stand there by their SHA-256.
//! JWTs that others issue are verified by their keys. Whoever was let in is judged again when the file changes.
//!
//! An access is decided at the upgrade, at the frame that brings a token, or at the request. Which sources a client
//! may read is decided at each subscription, and which ones it may publish to at each record ([`PublishRights`]),
//! where what was allowed is remembered. A node without a file of rights has no access to look at, and pays one
//! branch.
//!
//! The room reads its files, but is handed the time. Rejected: rights as a list of checks that are called one after
//! the other by each path, of which one is forgotten sooner or later.

mod access;
mod address;
mod caller;
mod door;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod jwt;
mod keeper;
mod keys;
mod patterns;
mod policy;
mod provider;
mod publisher;
mod rate;
mod resources;
mod rights;

pub use access::Access;
pub use address::{AddressPlace, AddressPlaces};
pub use caller::{Caller, Peer, is_token_subprotocol};
pub use door::{Door, PageOrigin, SessionEntry};
pub use error::AuthFileError;
pub use keeper::Auth;
pub use policy::ANONYMOUS;
pub use publisher::PublishRights;
pub use resources::Resource;
pub use rights::Right;

#[cfg(test)]
mod tests;
