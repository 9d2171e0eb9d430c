//! Heads that can be vouched for.
//!
//! A token says: everything up to these heads that matches was sent. So heads are looked at first,
//! then every shard's lock is passed once (what the heads count has been pushed into the mailboxes by
//! then), then the mailbox's end is read: a session that has been handed everything up to that end
//! may send these heads. One look serves all sessions of a worker whose tokens are due within a
//! second of it.

use std::sync::Arc;

use super::host::Host;
use crate::cluster::Heads;
use crate::protocol::token::{SharedHeads, head_key};
use crate::record::Now;

/// How long one look serves, in microseconds.
const CHECKPOINT_US: u64 = 1_000_000;

/// Heads, and from when on they may be sent.
#[derive(Clone, Debug)]
pub(super) struct HeadsProof {
    pub(super) heads: SharedHeads,
    /// The wall clock when they were looked at.
    pub(super) issued_us: u64,
    /// The mailbox's position up to which a session must have been handed everything.
    pub(super) position: u64,
}

/// A worker's last look at the heads.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The heads last seen, and the same by their keys.
    seen: Option<(Arc<Heads>, SharedHeads)>,
    /// The last proof, and when it was made on the monotonic clock.
    proof: Option<(u64, HeadsProof)>,
}

impl Checkpoint {
    /// The heads as they are now, by their keys.
    pub(super) fn heads(&mut self, host: &dyn Host) -> SharedHeads {
        let heads = host.heads();
        if let Some((seen, keys)) = &self.seen
            && (Arc::ptr_eq(seen, &heads) || **seen == *heads)
        {
            return keys.clone();
        }
        let mut keys: Vec<_> =
            heads.iter().map(|((origin, boot), seq)| (head_key(origin, *boot), *seq)).collect();
        keys.sort_unstable();
        let keys: SharedHeads = keys.into();
        self.seen = Some((heads, keys.clone()));
        keys
    }

    /// A proof of the heads as they are now.
    pub(super) fn fresh(&mut self, now: Now, host: &dyn Host) -> HeadsProof {
        let heads = self.heads(host);
        host.latest().barrier();
        let proof = HeadsProof { heads, issued_us: now.wall_us, position: host.mailbox_end() };
        self.proof = Some((now.mono_us, proof.clone()));
        proof
    }

    /// A proof of the heads as they were within the last second.
    pub(super) fn recent(&mut self, now: Now, host: &dyn Host) -> HeadsProof {
        match &self.proof {
            Some((at, proof)) if now.mono_us.saturating_sub(*at) < CHECKPOINT_US => proof.clone(),
            _ => self.fresh(now, host),
        }
    }
}
