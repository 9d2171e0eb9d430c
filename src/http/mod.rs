//! The control plane: everything on the HTTP port that is no WebSocket.
//!
//! An event loop reads the head of every connection. What does not ask for a WebSocket it hands
//! over, with the bytes read so far, to one thread with a tokio runtime of its own ([`serve`]),
//! where hyper replays those bytes and goes on reading. There the connection stays: keep-alive,
//! timeouts and bodies are hyper's business, and no event loop ever waits for a slow `curl`.
//!
//! [`routes`] holds one function a path; what they answer with comes through [`Node`], so that they
//! are tested with a few records in a vector. Errors are RFC 9457 problems ([`problem`]).
//!
//! Any web page may read (`Access-Control-Allow-Origin: *` on answers to GET), so that a browser's
//! console is a client like any other; a node that holds what not everyone on its network may read
//! belongs behind a proxy.
//!
//! Rejected: HTTP inside the event loops (a second, hand-written HTTP server with keep-alive and
//! chunked bodies), and a port of its own (two ports to open, forward and document).

mod app;
mod page;
mod params;
mod problem;
mod publish;
mod routes;
mod serve;
mod stream;

use crate::cluster::members::MemberInfo;
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Published, Refusal};
use crate::protocol::draft::Draft;
use crate::record::{Now, Pattern, Record, SharedRecord};

pub use serve::{GRACE_US, HandOver, Http, HttpOptions, Reservation};
pub use stream::{ClientSocket, SocketLayer};

/// What the control plane asks of the node it belongs to. `list` and `history` may take their time:
/// they are called on threads of their own; everything else answers at once.
pub trait Node: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Now;
    /// Whether clients should be sent here; if not, why.
    fn readiness(&self) -> Result<(), String>;
    /// Whether the event loops turn.
    fn is_turning(&self) -> bool;
    /// Every member this node knows of, itself included, in order of name.
    fn members(&self) -> Vec<MemberInfo>;
    /// The latest record of a source, deletions and expired ones included.
    fn get(&self, source: &str) -> Option<SharedRecord>;
    /// At most `limit` records that match and are visible, whose names come after `after`, in order
    /// of name.
    fn list(&self, pattern: &Pattern, after: Option<&str>, limit: usize) -> Vec<SharedRecord>;
    /// One page of what a source was.
    fn history(&self, query: &HistoryQuery<'_>) -> Result<HistoryPage, Refusal>;
    /// Publishes a record and sends the answer when `level` is reached or refused, now or later,
    /// from any thread. Counting the outcome is the caller's business.
    fn publish(&self, draft: &Draft<'_>, level: AckLevel, answer: Answer);
    /// The counters, their gauges brought up to date.
    fn metrics(&self) -> &Metrics;
}

/// Which part of a source's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery<'a> {
    /// Whose.
    pub source: &'a str,
    /// Least `ts`, inclusive, in microseconds.
    pub from_us: u64,
    /// Greatest `ts`, inclusive, in microseconds.
    pub to_us: u64,
    /// Most records of the page; at least 1.
    pub limit: usize,
    /// Where the page before ended: a cursor of that page.
    pub after: Option<&'a str>,
}

/// Records, newest first, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub records: Vec<Record>,
    /// The cursor of the next page; `None`: that was all.
    pub after: Option<String>,
}

/// Where a publish's outcome goes. Dropped without one, the client is told that the node is going.
#[derive(Debug)]
pub struct Answer(tokio::sync::oneshot::Sender<Result<Published, Refusal>>);

impl Answer {
    /// Tells the client, if it is still there.
    pub fn send(self, outcome: Result<Published, Refusal>) {
        // An error means that the client has gone; nobody is left to be told.
        let _ = self.0.send(outcome);
    }
}

#[cfg(test)]
mod tests;
