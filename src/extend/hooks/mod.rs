//! Webhooks: records are posted to an address outside the cluster.
//!
//! A webhook is run by one member, which subscribes at its own node as a client does ([`runner`]), sends batches with a
//! signature ([`delivery`], [`signature`]), and keeps in a record how far it came ([`keep`]).

mod backoff;
mod definition;
mod delivery;
mod frame;
mod keep;
mod queue;
mod runner;
mod signature;

#[cfg(any(test, fuzzing))]
pub use backoff::{delay_us, retry_after_us};
pub use definition::HookDefinition;
pub use runner::HookRunner;
