//! The control plane: everything on the HTTP port that is no WebSocket of publishers or subscribers.
//!
//! An event loop reads the head of every connection. A connection that does not ask for a WebSocket is
//! handed over, with the bytes read so far, to one thread with a tokio runtime of its own ([`serve`]).
//! There hyper takes those bytes first and goes on reading. The connection stays there: keep-alive,
//! timeouts and bodies are hyper's business, and no event loop ever waits for a slow client.
//!
//! [`routes`] holds one function for each path. They ask the node through [`NodeService`], so that tests can
//! replace it by a few records in a map. Errors are RFC 9457 problems ([`problem`]). Clients that are idle
//! or slow take nothing from others ([`places`], [`pace`], [`body`]).
//!
//! The page for browsers is in the binary, and only handed out here ([`web`]); it asks for everything that it shows by
//! the same paths as any other client.
//!
//! The paths by which a node is watched are answered by the event loops themselves ([`health`]).
//!
//! GraphQL is a room of its own ([`graphql`]), whose connections may change to WebSocket here ([`upgrade`]).
//!
//! Every request passes the door of the node first ([`entry`]), which says who sends it and whether the page that it
//! comes from may see the answer.
//!
//! Rejected: all of HTTP inside the event loops (a second, hand-written HTTP server with chunked bodies), and
//! a port of its own (two ports to open, forward and document).

mod admin;
mod api;
mod app;
mod archives;
mod authority;
mod body;
mod buffers;
mod entry;
mod exchange;
mod export;
mod extensions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod graphql;
mod health;
mod history;
mod import;
mod leased;
mod lines;
mod middleware;
mod pace;
mod page;
mod params;
mod places;
mod problem;
mod publish;
mod raw;
mod routes;
mod serve;
mod source;
mod stream;
mod system_record;
mod tally;
mod upgrade;
mod wait;
mod waiting;
mod web;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::auth::{Access, Door, PublishRights};
use crate::cluster::members::MemberInfo;
use crate::memory::{Budget, MemoryUse};
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, PublishFrame};
use crate::protocol::etag::Precondition;
use crate::protocol::extension::{
    ArchiveAsked, ExtensionKind, ExtensionName, ListedExtension, MiddlewareBody,
};
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::FrameReply;
use crate::record::{HistoryPage, HistoryQuery, Now, Pattern, RecordWalk, SharedRecord};

pub use app::HttpOptions;
pub use authority::check_host;
pub use health::HealthPath;
pub use raw::{HEAD_LATE, RawAnswer, raw_problem, stream_head};
pub use serve::{GRACE_US, HandOver, Http, IDLE, Reservation};
pub use stream::{ClientSocket, SocketLayer};
pub use wait::{Nudge, SourceWatch, WATCHES_MAX};

/// The records that a page is to have.
pub struct PageRequest<'a> {
    /// The pattern that their names match.
    pub pattern: Pattern,
    /// The name after which theirs come, if there is one.
    pub after: Option<&'a str>,
    /// Number of records after which the page ends.
    pub limit: usize,
    /// Timestamp, in microseconds, that theirs must exceed, if there is one.
    pub updated_since: Option<u64>,
    /// Who asks and may see only a part of them; `None` if everybody may see all.
    pub reader: Option<Access>,
}

/// A page of records that the node is looking for, in parts that take about a millisecond.
pub trait PageSearch: Send {
    /// Looks a little further. Returns whether the page is complete. Called on a thread for blocking work.
    fn advance(&mut self) -> bool;
    /// Returns the records that were found, in the order of their names.
    fn into_records(self: Box<Self>) -> Vec<SharedRecord>;
}

/// The lines of JSON by which long work tells how far it is. The work ends when they are dropped.
pub type JobLines = mpsc::Receiver<Bytes>;

/// Why a member is not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetError {
    /// The node knows no member of this name.
    Unknown,
    /// The member takes part, or is about to.
    Alive,
    /// The node cannot tell the others at the moment.
    Untold,
}

/// The interface through which the control plane uses its node. [`NodeService::history`] may block: it is called on
/// a thread for blocking work. Every other method returns at once.
pub trait NodeService: Send + Sync + 'static {
    /// The time on the node's clocks.
    fn now(&self) -> Now;
    /// Returns the reason if clients should not be sent to this node.
    fn readiness(&self) -> Result<(), String>;
    /// Returns whether the node was told to stop.
    fn is_stopping(&self) -> bool;
    /// Returns whether every event loop has turned lately; if one has not, it hangs.
    fn is_turning(&self) -> bool;
    /// The name of this node, which is its id among the members.
    fn name(&self) -> &str;
    /// Every member that this node knows of, itself included, in the order of names.
    fn members(&self) -> Vec<MemberInfo>;
    /// Whether the last connection over TCP to each gossip address succeeded; an address that was not tried is missing.
    fn tcp_reach(&self) -> Arc<BTreeMap<SocketAddr, bool>> {
        Arc::default()
    }
    /// The latest record of a source, even if it is a deletion or has expired.
    fn get(&self, source: &str) -> Option<SharedRecord>;
    /// Begins to look for visible records, in the order of their names.
    fn search(&self, wanted: PageRequest<'_>) -> Box<dyn PageSearch>;
    /// Begins a walk through all records whose names match. With a `reader`, only through those that it may read.
    fn walk(&self, pattern: Pattern, reader: Option<Access>) -> Box<dyn RecordWalk>;
    /// Registers a request that waits for a change of the source: `nudge` is woken at the next change, once. The source
    /// is to be looked at afterwards, since it may have changed before. Returns `None` if too many requests wait. The
    /// request waits until what is returned is dropped.
    fn watch(&self, source: &str, nudge: Nudge) -> Option<Box<dyn SourceWatch>>;
    /// One page of the history of a source.
    fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, Refusal>;
    /// Publishes the items of a frame with these rights, those that name no ack level with `level`, and sends the reply
    /// when all of them are answered: now or later, from any thread. The node counts what it refuses.
    fn publish(
        &self,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    );
    /// Publishes one item as [`NodeService::publish`] does, if the condition holds for the latest record of its source at
    /// this node.
    fn publish_if(
        &self,
        condition: &Precondition,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    );
    /// Returns whether publishers are to wait, because much waits for the cluster, the store or subscribers.
    fn is_congested(&self) -> bool;
    /// Begins to leave the cluster in good order, and ends the process.
    fn drain(&self);
    /// Tells all nodes to forget a member that will not come back. Returns the boot number of the life that is
    /// forgotten.
    fn forget(&self, member: &str) -> Result<u64, ForgetError>;
    /// Everything of this kind that users added, in the order of names. Called on a thread for blocking work.
    fn extensions(&self, kind: ExtensionKind) -> Vec<ListedExtension> {
        let _ = kind;
        Vec::new()
    }
    /// Reads the body of a request that puts a definition, which is TOML or JSON. Returns the JSON text that is kept, or
    /// what is wrong with the body.
    fn read_extension(&self, kind: ExtensionKind, body: &[u8], is_toml: bool) -> Result<Vec<u8>, Refusal> {
        let _ = (kind, body, is_toml);
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Runs the definition of a pull source once, and says what it would publish: the text of a JSON object. `body` is the JSON
    /// text of the definition. Takes half a minute at most; called on a thread for blocking work.
    fn try_pull(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let _ = body;
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// The archives of a definition, the newest first: the text of a JSON object. Called on a thread for blocking work.
    fn archives(&self, name: &ExtensionName) -> Result<Vec<u8>, Refusal> {
        let _ = name;
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Begins to verify or to restore archives. Returns lines of JSON that tell how far that is; the last one has `done`
    /// or `error`. The work ends when they are dropped. Called inside of the runtime of the control plane.
    fn archive_job(&self, name: &ExtensionName, asked: ArchiveAsked) -> Result<JobLines, Refusal> {
        let _ = (name, asked);
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Checks a middleware that is to be put, and makes everything ready for it. Returns the JSON text of the definition
    /// that is to be published. Takes up to seconds; called on a thread for blocking work, as the next three.
    fn prepare_middleware(
        &self,
        name: &ExtensionName,
        body: &MiddlewareBody<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        let _ = (name, body);
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Returns the JSON text of the definition by which the version before of a middleware is in force again.
    fn roll_back_middleware(&self, name: &ExtensionName) -> Result<Vec<u8>, Refusal> {
        let _ = name;
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Says what a middleware would make of records, of which nothing is published. Returns a JSON array.
    fn try_middleware(&self, name: &ExtensionName, records: &[u8]) -> Result<Vec<u8>, Refusal> {
        let _ = (name, records);
        Err(Refusal::new(Code::NotFound, "this node takes no extensions"))
    }
    /// Takes away what earlier versions of a middleware have left, or all of it if it was taken away.
    fn clean_middleware(&self, name: &ExtensionName) {
        let _ = name;
    }
    /// Publishes a record of the system's names, for an admin, and sends the reply once it is stored.
    fn tell(&self, draft: Draft<'_>, reply: Reply) {
        drop((draft, reply));
    }
    /// Opens a subscription for a client at `address` with these rights. `query` is the part of the URL after the `?`
    /// as a WebSocket on `/subscribe` has it. Returns the socket from which the frames are read that such a WebSocket
    /// would be sent; the subscription ends when the socket is closed.
    fn subscribe(&self, query: &str, access: Option<Access>, address: IpAddr) -> Result<UnixStream, Refusal>;
    /// The door that every request passes.
    fn door(&self) -> &Door;
    /// The metrics of the node. Gauges that are computed on demand may be old.
    fn metrics(&self) -> &Metrics;
    /// The metrics of the node, with all gauges brought up to date.
    fn fresh_metrics(&self) -> &Metrics;
    /// The memory that clients may make the node hold.
    fn memory(&self) -> &Arc<Budget>;
    /// Counts and logs a request of a client at `address` that the door has refused with this HTTP status.
    fn refused(&self, status: u16, refusal: &Refusal, address: IpAddr);
    /// Counts a request that was refused because it would have held too much memory.
    fn memory_refused(&self, wanted: MemoryUse);
}

/// The way back to a client that waits for the answers to its publish. If it is dropped unused, the client is
/// told that the node is shutting down.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<FrameReply>);

impl Reply {
    /// Makes a reply, and the receiver on which the request waits for it.
    pub(crate) fn channel() -> (Reply, oneshot::Receiver<FrameReply>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Sends the reply to the client, if it still waits.
    pub fn send(self, reply: FrameReply) {
        // An error means that the client has gone; nobody is left to be told.
        let _ = self.0.send(reply);
    }
}

#[cfg(test)]
mod tests;
