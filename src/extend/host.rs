//! What the things that users add may ask of their node.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tokio::sync::Notify;

use crate::cluster::members::MemberInfo;
use crate::ingest::{Accepted, Reviser};
use crate::metrics::Metrics;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::record::{Now, Pattern, RecordWalk, SharedRecord, Source};

/// The node as its extensions see it. No method waits, except that [`ExtendHost::list`] takes as long as there are records to
/// be found.
pub trait ExtendHost: Send + Sync + 'static {
    /// The time on the node's clocks.
    fn now(&self) -> Now;
    /// The name of this node, which is its id among the members.
    fn name(&self) -> &str;
    /// Returns whether the node is ready for clients. It runs nothing before.
    fn is_ready(&self) -> bool;
    /// Every member that this node knows of, itself included.
    fn members(&self) -> Arc<[MemberInfo]>;
    /// The latest record of a source, even if it is a deletion or has expired.
    fn get(&self, source: &str) -> Option<SharedRecord>;
    /// The latest records that match and are visible, in the order of their names.
    fn list(&self, pattern: &Pattern) -> Vec<SharedRecord>;
    /// Begins a walk through all records that match, deletions included.
    fn walk(&self, pattern: Pattern) -> Box<dyn RecordWalk>;
    /// Publishes a record of the system's names. It does not pass the gate.
    fn tell(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal>;
    /// Publishes a record as a client's: it passes the gate, and may be refused there.
    fn publish(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal>;
    /// Publishes a record that the cluster has held before. It passes the gate, but no middleware changes it again.
    fn restore(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal>;
    /// Returns whether the record with this ticket ([`Accepted::ticket`]) is durable.
    fn is_durable(&self, ticket: u64) -> bool;
    /// Returns whether publishers are to wait, because much waits for the cluster, the store or subscribers.
    fn is_congested(&self) -> bool;
    /// Opens a subscription to any sources, the system's included. `query` is the part of the URL after the `?` as a
    /// WebSocket on `/subscribe` has it. Returns the socket from which the frames are read that such a WebSocket would
    /// be sent; the subscription ends when the socket is closed.
    fn subscribe(&self, query: &str) -> Result<UnixStream, Refusal>;
    /// The directory of the programs that may be run, if any may.
    fn exec_folder(&self) -> Option<&Path> {
        None
    }
    /// The counters of the node.
    fn metrics(&self) -> &Metrics;
    /// The counters of the node, to be kept.
    fn shared_metrics(&self) -> Arc<Metrics>;
    /// Lets this change clients' drafts before they are judged from now on, or nothing.
    fn set_reviser(&self, reviser: Option<Arc<dyn Reviser>>);
}

/// Tells the thread of the extensions that records of the system's names have changed.
#[derive(Debug, Default)]
pub struct SystemChanges {
    has_changed: AtomicBool,
    /// A record that names the member which runs a definition has changed.
    claims_changed: AtomicBool,
    changed: Notify,
    /// The same for those who keep the middlewares.
    middlewares_changed: Notify,
}

impl SystemChanges {
    /// Notes a change of a source. To be called under the lock of its shard.
    #[inline]
    pub fn handle_change(&self, source: &str) {
        if Source::is_system(source) {
            self.note(source);
        }
    }

    /// States change all the time while definitions run, and nobody here reads them but those of middlewares, which
    /// say what is switched off. Records that name runners change by the thousand when a member dies: they wake nobody,
    /// and are looked at when the supervisor looks anyway.
    #[cold]
    fn note(&self, source: &str) {
        if source.ends_with("/runner") {
            self.claims_changed.store(true, Release);
        } else if !source.ends_with("/state") || source.starts_with("$middleware/") {
            self.has_changed.store(true, Release);
        }
    }

    /// Returns whether a record that names a runner has changed since the last call.
    pub fn take_claims_changed(&self) -> bool {
        self.claims_changed.load(Relaxed) && self.claims_changed.swap(false, Acquire)
    }

    /// Wakes the thread if something has changed since the last call. To be called at the end of a turn.
    pub fn wake_if_changed(&self) {
        if self.has_changed.load(Relaxed) && self.has_changed.swap(false, Acquire) {
            self.changed.notify_one();
            self.middlewares_changed.notify_one();
        }
    }

    /// Waits for the next change, on the side of the middlewares.
    pub async fn middlewares_changed(&self) {
        self.middlewares_changed.notified().await;
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn changes_of_definitions_wake_and_others_do_not() {
        let changes = SystemChanges::default();
        let is_woken = |changes: &SystemChanges| {
            changes.wake_if_changed();
            pin!(changes.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        for other in ["a", "pull/a", "$pull/a/state", "$pull/a/runner"] {
            changes.handle_change(other);
            assert!(!is_woken(&changes), "{other}");
        }
        assert!(changes.take_claims_changed() && !changes.take_claims_changed(), "once");
        changes.handle_change("$pull/a");
        changes.handle_change("$extend/n");
        assert!(is_woken(&changes) && !is_woken(&changes), "once for both");
    }
}
