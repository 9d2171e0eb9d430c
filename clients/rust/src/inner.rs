//! The parts of a client that all of its clones, publishes and subscriptions share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, watch};

use crate::dialer::Shared;
use crate::error::AnodeError;
use crate::outgoing::Outgoing;
use crate::publisher::PublisherState;
use crate::stamps::Stamps;
use crate::subscription::Callback;

/// Returns the error of a client that was closed.
pub(crate) fn closed() -> AnodeError {
    AnodeError::new("closed", "the client was closed")
}

/// The state of a client, which all its clones share.
pub(crate) struct ClientInner {
    pub(crate) shared: Shared,
    pub(crate) on_reset: Option<Callback>,
    pub(crate) stamps: Arc<Mutex<Stamps>>,
    pub(crate) state: watch::Receiver<PublisherState>,
    pub(crate) failure: watch::Receiver<Option<AnodeError>>,
    /// Takes records to publish; is closed with the client.
    pub(crate) publishing: Mutex<Option<mpsc::UnboundedSender<Outgoing>>>,
    /// Room for unanswered records, and for their bytes.
    pub(crate) room: Semaphore,
    pub(crate) room_bytes: Semaphore,
    /// Is closed when the client is closed.
    pub(crate) closed: Arc<Semaphore>,
}

impl ClientInner {
    /// Hands a record to the publisher.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<(), AnodeError> {
        let publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = publishing.as_ref().ok_or_else(closed)?;
        sender.send(outgoing).map_err(|_| match &*self.state.borrow() {
            PublisherState::Over(error) => error.clone(),
            _ => closed(),
        })
    }

    /// Returns an error if the client was closed.
    pub(crate) fn check_open(&self) -> Result<(), AnodeError> {
        match self.closed.is_closed() {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// Ends everything that belongs to the client.
    pub(crate) fn close(&self) {
        self.closed.close();
        self.room.close();
        self.room_bytes.close();
        self.publishing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

impl Drop for ClientInner {
    fn drop(&mut self) {
        self.close();
    }
}
