//! The protocol between clients and nodes: the JSON and protobuf forms of requests and answers, the
//! parameters of URLs, resume tokens, ack levels, and the codes of refusals.
//!
//! A frame is decoded into [`draft`]s (publishes) or [`request`]s (subscriptions), which borrow from it, and
//! is answered with the types of [`answer`] and [`reply`]. Over HTTP, [`etag`] has the versions of a source and the
//! conditions on them. [`json`] and [`protobuf`] are two forms of the
//! same messages with the same names. This room knows only [`crate::record`]. The map, the store, the
//! cluster and the simulator do not know this room, because peers and disks have forms of their own.

mod ack;
pub mod answer;
pub mod draft;
pub mod etag;
pub mod extension;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod json;
pub mod protobuf;
pub mod query;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod token;
pub mod url;

pub use ack::AckLevel;
