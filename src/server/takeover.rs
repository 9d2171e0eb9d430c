//! The part of this node in a store that all nodes share: gives [`Takeover`] the node's members, map and
//! publishes.
//!
//! The mark of a node is the sequence number up to which its records are stored. It is published as a record
//! under the system name `$anode/stored/NODE/BOOT`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::shared::Shared;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::record::{Now, SharedRecord};
use crate::store::{MARK_TTL_MS, NodeLife, Survivor, Takeover, Ticket};

/// The part of this node; `None` if its store is private, so that no node writes for another.
pub(super) fn of(shared: &Shared) -> Option<Takeover> {
    let own = NodeLife { node: shared.name.clone(), boot: shared.boot };
    shared.store().placement().is_shared().then(|| Takeover::new(own))
}

impl Survivor for Arc<Shared> {
    fn alive(&self) -> BTreeSet<NodeLife> {
        let members = self.cluster.members();
        // A member that takes no part here may write by itself all the same.
        let live = members.iter().filter(|member| !member.state.is_gone());
        // The records of a member have the boot number of its start, whatever number it has taken since.
        live.map(|member| NodeLife { node: member.identity.name.clone(), boot: member.identity.start_boot() })
            .collect()
    }

    fn last_seq(&self) -> u64 {
        let seq = self.ingest.outbox().lock().last_seq();
        // A record is numbered and pushed under its shard's lock. Once each lock was held, all records up to
        // `seq` are pushed.
        self.ingest.latest().barrier();
        seq
    }

    fn mark(&self, life: &NodeLife) -> u64 {
        let record = self.ingest.latest().get(&mark_name(life));
        let text = record.and_then(|record| String::from_utf8(record.payload.bytes().to_vec()).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn publish_mark(&self, now: Now, life: &NodeLife, seq: u64) -> Option<u64> {
        let text = seq.to_string();
        let draft = Draft {
            source: Cow::Owned(mark_name(life)),
            ts: None,
            payload: DraftPayload::Json(text.as_bytes()),
            ttl_ms: MARK_TTL_MS,
            ack: None,
        };
        match self.ingest.tell(now, &draft) {
            Ok(_) => {
                self.wake_gossip();
                Some(self.ingest.outbox().lock().last_seq())
            }
            Err(refusal) => {
                tracing::warn!(reason = refusal.message, "how far records are stored cannot be said");
                None
            }
        }
    }

    fn visit_shard(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord)) {
        self.ingest.latest().scan_shard(shard, each);
    }

    fn push(&self, record: &SharedRecord) -> Ticket {
        self.store().push(record)
    }

    fn barrier(&self) -> Ticket {
        self.store().barrier()
    }

    fn durable(&self) -> Ticket {
        self.store().durable()
    }

    fn is_lagging(&self) -> bool {
        self.store().is_lagging()
    }
}

fn mark_name(life: &NodeLife) -> String {
    format!("$anode/stored/{}/{}", life.node, life.boot)
}
