//! The access of one client: who it is, what it may do, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::jwt::ProvenClaims;
use super::rate::Rate;
use super::rights::Rights;
use crate::record::Now;

/// What a client is known by, so that it can be judged again when the file of rights changes.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// The client brought no token.
    None,
    /// The SHA-256 of a token that stands in the file.
    Digest([u8; 32]),
    /// The claims of a JWT whose signature was valid.
    Claims(Arc<ProvenClaims>),
    /// The name of a certificate that was verified.
    Certificate(Arc<str>),
}

/// The access of one client. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Access {
    pub(super) name: Arc<str>,
    pub(super) rights: Arc<Rights>,
    pub(super) expires_us: Option<u64>,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) proof: Proof,
}

impl Access {
    /// The name for logs, metrics and the client itself. It is no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rights that the client has: what it may publish, read, observe and administrate.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Wall-clock time at which the access ends, in microseconds since the Unix epoch; `None` for never.
    pub fn expires_us(&self) -> Option<u64> {
        self.expires_us
    }

    /// Returns whether the access has ended.
    pub fn is_over(&self, now: Now) -> bool {
        self.expires_us.is_some_and(|expires_us| now.wall_us >= expires_us)
    }

    /// Returns whether the client brought neither a token nor a certificate.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.proof, Proof::None)
    }

    /// The bucket of the records that the client may publish; `None` for no bound.
    pub(super) fn rate(&self) -> Option<&Rate> {
        self.rate.as_deref()
    }
}

/// How often the holder of one name was let in.
#[derive(Debug, Default)]
pub(super) struct Entries(AtomicU64);

impl Entries {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
