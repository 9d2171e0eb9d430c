//! Who asks, what they may do, and the memory that their request holds.

use std::net::IpAddr;
use std::sync::Arc;

use async_graphql::Context;
use parking_lot::Mutex;

use super::permits::Permits;
use crate::auth::{Access, PublishRights, Right};
use crate::http::app::App;
use crate::http::entry::Sender;
use crate::memory::{Lease, MemoryUse, OverBudget};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;

/// Who sends a request or has opened a WebSocket, as every field of the schema sees it. Clones are cheap, and share the
/// memory that is counted.
#[derive(Clone)]
pub(super) struct Requester {
    app: App,
    permits: Arc<Permits>,
    sender: Sender,
    address: IpAddr,
    /// The rights to publish, with the count of what was published; `None` if the node has no file of rights.
    publisher: Option<Arc<Mutex<PublishRights>>>,
    /// The memory of the records of the answer.
    held: Arc<Mutex<Lease>>,
}

impl Requester {
    /// A requester whose request holds nothing yet. `access` is `None` if the node has no file of rights.
    pub(super) fn new(app: App, permits: Arc<Permits>, access: Option<Access>, address: IpAddr) -> Requester {
        let held = Arc::new(Mutex::new(app.node.memory().lease()));
        let publisher = access.clone().map(|access| Arc::new(Mutex::new(PublishRights::new(access))));
        Requester { app, permits, sender: Sender(access), address, publisher, held }
    }

    /// The same requester for another request, which holds nothing yet.
    pub(super) fn for_request(&self) -> Requester {
        let held = Arc::new(Mutex::new(self.app.node.memory().lease()));
        Requester { held, ..self.clone() }
    }

    /// The requester of the request that a field is resolved for.
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Requester, Refusal> {
        let unknown = |_| Refusal::new(Code::Internal, "the request has no requester");
        context.data::<Requester>().map_err(unknown)
    }

    /// The node and the settings of the control plane.
    pub(super) fn app(&self) -> &App {
        &self.app
    }

    /// The places for WebSockets and subscriptions.
    pub(super) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// The access; `None` if the node has no file of rights.
    pub(super) fn access(&self) -> Option<&Access> {
        self.sender.0.as_ref()
    }

    /// Address that the request comes from.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Takes another access, after a fresh token has come or the file of rights has changed.
    pub(super) fn set_access(&mut self, access: Access) {
        if let Some(publisher) = &self.publisher {
            publisher.lock().set_access(access.clone());
        }
        self.sender = Sender(Some(access));
    }

    /// Lets `publish` work with the rights to publish.
    pub(super) fn with_publisher<R>(&self, publish: impl FnOnce(Option<&PublishRights>) -> R) -> R {
        match &self.publisher {
            Some(publisher) => publish(Some(&publisher.lock())),
            None => publish(None),
        }
    }

    /// Returns whether the client publishes at many times its rate, and has done so for long.
    pub(super) fn is_flooding(&self) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| publisher.lock().is_flooding())
    }

    /// Refuses a field that needs a right which the requester does not have.
    pub(super) fn check(&self, right: Right, what: &str) -> Result<(), Refusal> {
        match self.access() {
            Some(access) if !access.rights().may(right) => Err(self.may_not(what)),
            _ => Ok(()),
        }
    }

    /// Refuses to read a source that the requester may not read.
    pub(super) fn check_readable(&self, source: &str) -> Result<(), Refusal> {
        self.sender.check_readable(source)
    }

    /// Refuses patterns of which any can match a source that the requester may not read.
    pub(super) fn check_patterns(&self, patterns: &[Pattern]) -> Result<(), Refusal> {
        let Some(access) = self.access() else { return Ok(()) };
        match patterns.iter().find(|pattern| !access.rights().may_read_all(pattern)) {
            None => Ok(()),
            Some(pattern) => {
                Err(self.may_not(&format!("read every source that pattern {pattern:?} can match")))
            }
        }
    }

    fn may_not(&self, what: &str) -> Refusal {
        match self.access() {
            Some(access) if !access.is_anonymous() => {
                Refusal::new(Code::Forbidden, format!("{} may not {what}", access.name()))
            }
            _ => Refusal::new(Code::Unauthorized, format!("to {what} needs a token")),
        }
    }

    /// Counts memory that the answer holds until it is sent, or refuses the field that would need it.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Refusal> {
        let mut held = self.held.lock();
        let wanted = held.bytes().saturating_add(bytes);
        held.set(wanted).map_err(|over| {
            self.app.node.memory_refused(MemoryUse::Pages);
            let code = if let OverBudget::Holder(_) = over { Code::TooLarge } else { Code::Overloaded };
            Refusal::new(code, over.to_string())
        })
    }

    /// Notes that nothing is held any longer, because the answer was written.
    pub(super) fn release(&self) {
        // To hold less is never refused.
        let _ = self.held.lock().set(0);
    }
}
