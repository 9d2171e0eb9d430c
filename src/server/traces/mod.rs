//! Traces of sampled records on their way over the nodes, for OpenTelemetry.
//!
//! A record is traced if its checksum is small enough. The checksum is the same on every node, so all nodes with the
//! same `--trace-sample` trace the same records, and nothing is sent along with them. What the threads of a node see of
//! a traced record goes as a span into a bounded
//! queue ([`intake`]), and a thread of its own sends it ([`sender`]) as the JSON of OTLP.
//!
//! Without traces, there is no [`Traces`]: a change is looked at behind the check for requests that wait for it, and what
//! is handed to peers and subscribers costs one look at a pointer for each batch. Rejected: the crates of
//! OpenTelemetry, which bring an HTTP client and a runtime, and want to carry a context with every record.

mod intake;
mod otlp;
mod post;
mod sender;
mod span;

pub use self::intake::Traces;
pub use self::sender::start;
