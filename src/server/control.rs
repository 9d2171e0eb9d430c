//! The node as the control plane sees it.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::acks::{AnswerState, ByWhom, PublishHost, Waiter};
use super::clock;
use super::framing::message::Codec;
use super::guests::{self, Guest};
use super::lifecycle::Phase;
use super::session::{Endpoint, Session};
use super::shared::Shared;
use crate::auth::{Access, Door, PublishRights, SessionEntry};
use crate::cluster::members::MemberInfo;
use crate::http::{NodeService, PageSearch, Reply};
use crate::ingest::Accepted;
use crate::latest::Listing;
use crate::limits::SCAN_STEPS_PER_TURN;
use crate::memory::{Budget, MemoryUse};
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, PublishFrame};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{HistoryPage, HistoryQuery, Now, Pattern, SharedRecord};
use crate::store::StoreHealth;

/// The control plane's view of a node.
pub struct Control(pub Arc<Shared>);

impl NodeService for Control {
    fn now(&self) -> Now {
        clock::now()
    }

    fn readiness(&self) -> Result<(), String> {
        self.0.readiness()
    }

    fn is_stopping(&self) -> bool {
        self.0.lifecycle.phase() >= Phase::Draining
    }

    fn is_turning(&self) -> bool {
        self.0.lifecycle.is_turning(clock::now())
    }

    fn name(&self) -> &str {
        self.0.name.as_str()
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.0.cluster.members().to_vec()
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.0.ingest.latest().get(source)
    }

    fn list(
        &self,
        pattern: Pattern,
        after: Option<&str>,
        limit: usize,
        reader: Option<Access>,
    ) -> Box<dyn PageSearch> {
        let mut listing = Listing::new(pattern, after, limit);
        if let Some(reader) = reader {
            listing = listing.only(Box::new(move |source| reader.rights().may_read(source)));
        }
        Box::new(MapSearch { shared: self.0.clone(), listing })
    }

    fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, Refusal> {
        let found = self.0.store().history(query);
        found.map_err(|error| Refusal::new(Code::StoreUnavailable, error.to_string()))
    }

    fn door(&self) -> &Door {
        &self.0.door
    }

    fn subscribe(&self, query: &str, access: Option<Access>, address: IpAddr) -> Result<UnixStream, Refusal> {
        let shared = &self.0;
        let number = shared.guests.number();
        let id = format!("{}-graphql-{number}", shared.boot);
        let mut session = Session::open(Endpoint::Subscribe, Codec::Json, query, id)?;
        session.guard(access.map_or(SessionEntry::Open, SessionEntry::Known), address, clock::now())?;
        let (socket, outer) = guests::socket_pair().map_err(|error| {
            Refusal::new(Code::Overloaded, format!("no further subscription can be opened: {error}"))
        })?;
        let worker = shared.guests.push(number, Guest { socket, session, address });
        if let Some(mailbox) = shared.mailboxes().get(worker) {
            mailbox.wake();
        }
        Ok(outer)
    }

    fn publish(
        &self,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    ) {
        let host = HttpPublisher(&self.0);
        self.0.acks.publish_http(&host, clock::now(), frame, level, (reply, rights));
        self.0.wake_wanted();
        self.0.wake_gossip();
    }

    fn metrics(&self) -> &Metrics {
        let metrics = &self.0.metrics;
        let latest = self.0.ingest.latest();
        metrics.sources.set(latest.len() as i64);
        metrics.map_bytes.set(latest.bytes() as i64);
        let memory = &self.0.memory;
        metrics.client_memory_bytes.set(memory.taken() as i64);
        metrics.client_memory_limit_bytes.set(memory.limit() as i64);
        metrics.guards.set(latest.guards() as i64);
        let store = self.0.store();
        let stats = store.stats();
        metrics.store_pending_records.set(stats.pending_records as i64);
        metrics.store_spilled_records.set(stats.spilled_records as i64);
        let is_up = store.health() == StoreHealth::Open && store.away().is_none();
        metrics.store_up.set(i64::from(is_up));
        metrics
    }

    fn memory(&self) -> &Arc<Budget> {
        &self.0.memory
    }

    fn memory_refused(&self, wanted: MemoryUse) {
        self.0.memory_refused(wanted);
    }
}

/// A page that is looked for in the map.
struct MapSearch {
    shared: Arc<Shared>,
    listing: Listing,
}

impl PageSearch for MapSearch {
    fn advance(&mut self) -> bool {
        let mut steps = SCAN_STEPS_PER_TURN;
        let is_complete = self.listing.advance(self.shared.ingest.latest(), clock::now().wall_us, &mut steps);
        self.shared.metrics.scan_steps.add((SCAN_STEPS_PER_TURN - steps) as u64);
        is_complete
    }

    fn into_records(self: Box<Self>) -> Vec<SharedRecord> {
        self.listing.into_records()
    }
}

/// Answers the requests over HTTP that are settled by now. Worker 0 calls this in every turn.
pub(super) fn settle_http(shared: &Shared, now: Now) {
    if !shared.acks.is_http_empty() {
        shared.acks.settle_http(now.mono_us, &HttpPublisher(shared));
    }
}

/// The node as a publish over HTTP sees it.
struct HttpPublisher<'a>(&'a Shared);

impl HttpPublisher<'_> {
    /// Refuses what comes before the store is loaded. Sessions are not read until then.
    fn check_loaded(&self) -> Result<(), Refusal> {
        match self.0.lifecycle.phase() {
            Phase::Loading => Err(Refusal::new(Code::StoreUnavailable, "the store is being loaded")),
            _ => Ok(()),
        }
    }
}

impl PublishHost for HttpPublisher<'_> {
    fn publish(&self, now: Now, draft: &Draft<'_>, by: ByWhom<'_>) -> Result<Accepted, Refusal> {
        self.check_loaded()?;
        self.0.ingest.publish_by(now, draft, by.rights)
    }

    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal> {
        self.check_loaded()?;
        let publish = |token| self.0.ingest.publish_awaited(now, draft, by.rights, token);
        self.0.acks.publish_awaited(Waiter::Http, publish)
    }

    fn state(&self) -> &dyn AnswerState {
        self.0
    }
}
