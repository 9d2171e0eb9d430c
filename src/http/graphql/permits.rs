//! How many WebSockets and subscriptions GraphQL may have at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most subscriptions of all WebSockets of GraphQL of a node together. Each takes two of the files that a process may
/// have open.
const FEEDS_MAX: usize = 4_096;

/// The places for WebSockets and subscriptions.
#[derive(Debug)]
pub(super) struct Permits {
    sockets: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
}

impl Permits {
    /// Places for `sockets_max` WebSockets.
    pub(super) fn new(sockets_max: usize) -> Permits {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Permits { sockets: semaphore(sockets_max), feeds: semaphore(FEEDS_MAX) }
    }

    /// Takes the place of a WebSocket; `None` if there is no place left.
    pub(super) fn socket(&self) -> Option<OwnedSemaphorePermit> {
        self.sockets.clone().try_acquire_owned().ok()
    }

    /// Takes the place of a subscription; `None` if there is no place left.
    pub(super) fn feed(&self) -> Option<OwnedSemaphorePermit> {
        self.feeds.clone().try_acquire_owned().ok()
    }
}
