//! The node as a session of one worker sees it.

use std::cell::Cell;
use std::sync::Arc;

use super::acks::{AnswerState, ByWhom, PublishHost, Waiter};
use super::lifecycle::Phase;
use super::mailbox::Mailbox;
use super::session::{Facts, Host};
use super::shared::Shared;
use crate::auth::Auth;
use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;
use crate::ingest::Accepted;
use crate::latest::Latest;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::protocol::token::cluster_key;
use crate::record::Now;

/// The node as the sessions of one worker see it.
pub struct WorkerHost {
    /// The state that all threads of the node share.
    pub shared: Arc<Shared>,
    /// Number of the worker.
    pub worker: usize,
    facts: Facts,
    /// Whether anything was published since [`WorkerHost::take_published`] was called last.
    has_published: Cell<bool>,
}

impl WorkerHost {
    /// Makes the view of the worker with number `worker`.
    pub fn new(shared: Arc<Shared>, worker: usize) -> WorkerHost {
        let config = &shared.config;
        let facts = Facts {
            node: shared.name.clone(),
            cluster: cluster_key(&config.cluster_name),
            max_record_bytes: config.max_record_bytes,
            max_frame_bytes: config.max_frame_bytes,
            max_subscriptions: config.access.subscriptions_max,
            tombstones_us: config.tombstones_us,
        };
        WorkerHost { shared, worker, facts, has_published: Cell::new(false) }
    }

    /// The worker's own mailbox.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        self.shared.mailboxes().get(self.worker)
    }

    /// Returns whether anything was published since the last call; if so, worker 0 is to be woken.
    pub fn take_published(&self) -> bool {
        self.has_published.replace(false)
    }
}

impl PublishHost for WorkerHost {
    fn publish(&self, now: Now, draft: &Draft<'_>, by: ByWhom<'_>) -> Result<Accepted, Refusal> {
        self.has_published.set(true);
        self.shared.ingest.publish_by(now, draft, by.rights)
    }

    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal> {
        self.has_published.set(true);
        let waiter = Waiter::Session { worker: self.worker, connection: by.connection };
        let publish = |token| self.shared.ingest.publish_awaited(now, draft, by.rights, token);
        self.shared.acks.publish_awaited(waiter, publish)
    }

    fn state(&self) -> &dyn AnswerState {
        &*self.shared
    }
}

impl Host for WorkerHost {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn latest(&self) -> &Latest {
        self.shared.ingest.latest()
    }

    fn is_loaded(&self) -> bool {
        self.shared.lifecycle.phase() > Phase::Loading
    }

    fn heads(&self) -> Arc<Heads> {
        self.shared.heads()
    }

    fn members(&self) -> Arc<[MemberInfo]> {
        self.shared.cluster.members()
    }

    fn auth(&self) -> Option<&Auth> {
        self.shared.door.auth()
    }

    fn mailbox_end(&self) -> u64 {
        self.mailbox().map_or(0, Mailbox::position)
    }
}
