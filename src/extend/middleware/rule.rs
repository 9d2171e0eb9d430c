//! The face of what decides about records: an expression, or a module in WebAssembly.

use std::sync::Arc;

use crate::ingest::RevisedDraft;
use crate::protocol::draft::Draft;
use crate::record::{Payload, SharedRecord};

/// A draft as rules are shown it, with its circumstances.
#[derive(Clone, Copy, Debug)]
pub struct GivenDraft<'a> {
    /// What the client asks for, or what an earlier middleware made of it. Never a deletion.
    pub draft: &'a Draft<'a>,
    /// Wall clock of the node when the draft came, in microseconds since the Unix epoch.
    pub now_us: u64,
    /// Name of the token with which the draft came; empty if there is none.
    pub token: &'a str,
}

/// The records that rules may look up.
pub trait RecordReader: Send + Sync {
    /// The latest record of a source whose value is visible. The system's names have none.
    fn latest(&self, source: &str) -> Option<SharedRecord>;
}

/// What becomes of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It goes on as it is.
    Pass,
    /// It goes on with this data.
    Data(Payload),
    /// These take its place, in their order; none if the list is empty.
    #[cfg_attr(not(feature = "wasm"), allow(dead_code))]
    Records(Vec<RevisedDraft>),
    /// It is dropped.
    Drop,
    /// It is refused for this reason.
    Reject(String),
}

/// The reason why a rule could not decide, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFailure(pub String);

/// Something that decides about drafts. It takes at most some milliseconds, whatever it is shown.
pub trait MiddlewareRule: Send + Sync {
    /// Decides about a draft.
    fn decide(&self, given: &GivenDraft<'_>, reader: &Arc<dyn RecordReader>) -> Result<Ruling, RuleFailure>;
}
