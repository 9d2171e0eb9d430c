//! The heads that a resume token may name.
//!
//! A token says: of all records up to these heads, those that match were sent. So the heads are read
//! first. Then every shard's lock is taken once; by then, everything that the heads count has been
//! pushed into the mailboxes. Then the mailbox's end is read. A session that has been handed everything
//! up to that end may send these heads. One such proof serves all sessions of a worker whose tokens are
//! due within a second of it.

use std::sync::Arc;

use super::host::Host;
use crate::cluster::Heads;
use crate::protocol::token::{SharedHeads, head_key};
use crate::record::Now;

/// Time for which a proof is used, in microseconds.
const CHECKPOINT_US: u64 = 1_000_000;

/// Heads, and the condition on which they may be sent.
#[derive(Clone, Debug)]
pub(super) struct HeadsProof {
    /// The heads, as pairs of a key and a sequence number.
    pub(super) heads: SharedHeads,
    /// The wall clock at which the heads were read, in microseconds.
    pub(super) issued_us: u64,
    /// The position of the mailbox up to which a session must have been handed every change.
    pub(super) position: u64,
}

/// The heads that a worker read last.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The heads read last, and the same heads by their keys.
    seen: Option<(Arc<Heads>, SharedHeads)>,
    /// The monotonic time of the last proof, in microseconds, and the proof.
    proof: Option<(u64, HeadsProof)>,
}

impl Checkpoint {
    /// The present heads, as pairs of a key and a sequence number, in the order of keys.
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

    /// Makes a proof of the present heads.
    pub(super) fn fresh(&mut self, now: Now, host: &dyn Host) -> HeadsProof {
        let heads = self.heads(host);
        host.latest().barrier();
        let proof = HeadsProof { heads, issued_us: now.wall_us, position: host.mailbox_end() };
        self.proof = Some((now.mono_us, proof.clone()));
        proof
    }

    /// A proof of the heads that is at most a second old.
    pub(super) fn recent(&mut self, now: Now, host: &dyn Host) -> HeadsProof {
        match &self.proof {
            Some((at, proof)) if now.mono_us.saturating_sub(*at) < CHECKPOINT_US => proof.clone(),
            _ => self.fresh(now, host),
        }
    }
}
