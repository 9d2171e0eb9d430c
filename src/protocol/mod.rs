//! How clients say it: the JSON and protobuf forms of requests and answers, the parameters of URLs,
//! resume tokens, ack levels, and the codes of refusals.
//!
//! A frame is decoded into [`draft`]s (publishes) or [`request`]s (subscriptions), which borrow from
//! it, and is answered by what [`answer`] and [`reply`] have. [`json`] and [`protobuf`] are two forms of the same
//! things under the same names. The room knows only [`crate::record`]; the map, the store, the
//! cluster and the simulator do not know this room, since peers and disks speak forms of their own.

mod ack;
pub mod answer;
pub mod draft;
pub mod json;
pub mod protobuf;
pub mod query;
pub mod reply;
pub mod request;
pub mod token;
pub mod url;

pub use ack::AckLevel;
