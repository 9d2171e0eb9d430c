//! Connections that change from HTTP to another protocol.
//!
//! A handler that agrees to the change leaves here what is to be done with the connection afterwards. When hyper has sent
//! the answer (101) it gives the connection back, and the task that served it goes on with that. So the connection keeps
//! its place, its count and its end.

use std::future::Future;
use std::pin::Pin;

use hyper::upgrade::{OnUpgrade, Upgraded};
use parking_lot::Mutex;

/// Becomes ready when the control plane is to end.
pub(super) type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Speaks the other protocol, to the end of the connection.
pub(super) type Speak = Box<dyn FnOnce(Upgraded, Ending) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The change of protocol that one connection makes, if it makes one.
#[derive(Default)]
pub(super) struct ProtocolChange(Mutex<Option<(OnUpgrade, Speak)>>);

impl ProtocolChange {
    /// Agrees to the change. The handler answers with 101 afterwards.
    pub(super) fn agree(&self, upgrade: OnUpgrade, speak: Speak) {
        *self.0.lock() = Some((upgrade, speak));
    }

    /// Takes the change that was agreed to.
    pub(super) fn take(&self) -> Option<(OnUpgrade, Speak)> {
        self.0.lock().take()
    }
}
