//! Middlewares: what changes or refuses records on their way in.
//!
//! A middleware is run at the node that accepts a record, behind the guards of the gate and before the record is
//! stamped and compared with others, so what it makes of the record is the same everywhere. [`chain`] is what the gate
//! calls: the middlewares in their order, each a [`link`] with a rule ([`rule`]) that is an expression ([`cel`]) or a
//! module in WebAssembly ([`wasm`]). [`keeper`] follows the records that define them ([`definition`], [`parts`]), and
//! compiles new versions while the old ones go on ([`build`]). [`service`] is what admins ask for.
//!
//! Everything that runs in an event loop has a bound ([`bounds`]): the work of an expression, the time of a guest, and
//! the time of all middlewares together in one turn.
//!
//! Rejected: to run middlewares on threads of their own. A record would cross two queues, and the order of a source's
//! records would have to be kept by other means.

mod bounds;
mod build;
mod cel;
mod chain;
mod definition;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keeper;
mod link;
mod parts;
mod produced;
mod rule;
mod service;
mod telling;
mod trial;
#[cfg(feature = "wasm")]
mod wasm;

pub use definition::MiddlewareDefinition;
pub use keeper::{MiddlewareKeeper, hold_back};
pub use service::MiddlewareAsked;
