//! The operations that run on one WebSocket.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::Response;
use futures_util::StreamExt;
use futures_util::stream::{self, AbortHandle, Abortable, BoxStream, SelectAll};

use super::requester::Requester;

/// Most operations that may run on one WebSocket at a time.
pub(super) const OPERATIONS_MAX: usize = 100;

/// The operations of one WebSocket, by their ids. None of them is asked for its next answer before the last one was
/// taken, so what waits for the client waits where it is bounded.
#[derive(Default)]
pub(super) struct Operations {
    running: BTreeMap<Arc<str>, RunningOperation>,
    streams: SelectAll<BoxStream<'static, OperationEvent>>,
}

struct RunningOperation {
    abort: AbortHandle,
    /// Holds the count of the memory of the operation's answer.
    requester: Requester,
}

/// An answer of an operation; without a response, its end.
pub(super) struct OperationEvent {
    pub(super) id: Arc<str>,
    pub(super) response: Option<Response>,
}

impl Operations {
    /// Returns whether an operation of this id runs.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    /// Returns whether no further operation may be started.
    pub(super) fn are_full(&self) -> bool {
        self.running.len() >= OPERATIONS_MAX
    }

    /// Returns whether none runs. What was stopped may not be freed yet.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Runs an operation whose answers are these.
    pub(super) fn start(&mut self, id: &str, answers: BoxStream<'static, Response>, requester: Requester) {
        let id: Arc<str> = id.into();
        let (abort, registration) = AbortHandle::new_pair();
        let answers = answers.map(Some).chain(stream::once(async { None }));
        let tagged = id.clone();
        let events = answers.map(move |response| OperationEvent { id: tagged.clone(), response });
        self.streams.push(Abortable::new(events, registration).boxed());
        self.running.insert(id, RunningOperation { abort, requester });
    }

    /// Ends an operation, if it runs. It brings nothing any more.
    pub(super) fn stop(&mut self, id: &str) {
        if let Some(operation) = self.running.remove(id) {
            operation.abort.abort();
        }
    }

    /// Waits for the next answer; `None` when nothing runs any longer.
    pub(super) async fn next(&mut self) -> Option<OperationEvent> {
        self.streams.next().await
    }

    /// Notes that an answer of an operation was sent, and its memory is free.
    pub(super) fn handle_sent(&mut self, id: &str) {
        if let Some(operation) = self.running.get(id) {
            operation.requester.release();
        }
    }
}
