//! The node as the control plane sees it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::acks::{AnswerState, ByWhom, PublishHost, Waiter};
use super::clock;
use super::extend_host::ExtendNode;
use super::forgetting;
use super::framing::message::Codec;
use super::lifecycle::Phase;
use super::mailbox::Mailbox;
use super::map_walk::MapWalk;
use super::session::{Endpoint, Session};
use super::shared::Shared;
use crate::auth::{Access, Door, PublishRights, SessionEntry};
use crate::cluster::members::MemberInfo;
use crate::extend::{self, ExtendHost, MiddlewareAsked};
use crate::http::{ForgetError, JobLines, NodeService, Nudge, PageRequest, PageSearch, Reply, SourceWatch};
use crate::ingest::Accepted;
use crate::latest::Listing;
use crate::limits::SCAN_STEPS_PER_TURN;
use crate::memory::{Budget, MemoryUse};
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, Item, Items, PublishFrame};
use crate::protocol::etag::Precondition;
use crate::protocol::extension::{
    ArchiveAsked, ExtensionKind, ExtensionName, ListedExtension, MiddlewareBody,
};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{HistoryPage, HistoryQuery, Now, Pattern, Record, RecordWalk, SharedRecord};
use crate::store::StoreHealth;

/// Pause of an admin's request while much waits for the cluster or the store, in microseconds.
const CONGESTED_US: u64 = 5_000;

/// The control plane's view of a node.
pub struct Control(pub Arc<Shared>);

impl Control {
    fn extend_host(&self) -> Arc<dyn ExtendHost> {
        Arc::new(ExtendNode(self.0.clone()))
    }
}

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

    fn tcp_reach(&self) -> Arc<BTreeMap<SocketAddr, bool>> {
        self.0.cluster.reached()
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.0.ingest.latest().get(source)
    }

    fn search(&self, wanted: PageRequest<'_>) -> Box<dyn PageSearch> {
        let PageRequest { pattern, after, limit, updated_since, reader } = wanted;
        let mut listing = Listing::new(pattern, after, limit);
        if let Some(since) = updated_since {
            listing = listing.updated_since(since);
        }
        if let Some(reader) = reader {
            listing = listing.only(Box::new(move |source| reader.rights().may_read(source)));
        }
        Box::new(MapSearch { shared: self.0.clone(), listing })
    }

    fn walk(&self, pattern: Pattern, reader: Option<Access>) -> Box<dyn RecordWalk> {
        Box::new(MapWalk::new(self.0.clone(), pattern, reader))
    }

    fn watch(&self, source: &str, nudge: Nudge) -> Option<Box<dyn SourceWatch>> {
        let number = self.0.watches().register(source, nudge)?;
        Some(Box::new(RegisteredWatch { shared: self.0.clone(), source: source.into(), number }))
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
        shared.invite(number, session, address)
    }

    fn publish(
        &self,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    ) {
        let host = HttpPublisher { shared: &self.0, way: Way::Client };
        self.0.acks.publish_http(&host, clock::now(), frame, level, (reply, rights));
        self.0.wake_wanted();
        self.0.wake_gossip();
    }

    fn publish_if(
        &self,
        condition: &Precondition,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    ) {
        let host = HttpPublisher { shared: &self.0, way: Way::IfHolds(condition) };
        self.0.acks.publish_http(&host, clock::now(), frame, level, (reply, rights));
        self.0.wake_wanted();
        self.0.wake_gossip();
    }

    fn extensions(&self, kind: ExtensionKind) -> Vec<ListedExtension> {
        extend::list(kind, &ExtendNode(self.0.clone()))
    }

    fn read_extension(&self, kind: ExtensionKind, body: &[u8], is_toml: bool) -> Result<Vec<u8>, Refusal> {
        extend::read_body(kind, body, is_toml)
    }

    fn try_pull(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        extend::pull::try_at_node(self.extend_host(), body)
    }

    fn archives(&self, name: &ExtensionName) -> Result<Vec<u8>, Refusal> {
        extend::listed_archives(&ExtendNode(self.0.clone()), name)
    }

    fn archive_job(&self, name: &ExtensionName, asked: ArchiveAsked) -> Result<JobLines, Refusal> {
        extend::begin_job(Arc::new(ExtendNode(self.0.clone())), name, asked)
    }

    fn prepare_middleware(
        &self,
        name: &ExtensionName,
        body: &MiddlewareBody<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        MiddlewareAsked::new(&self.extend_host(), name).prepare(body, || clock::sleep(CONGESTED_US))
    }

    fn roll_back_middleware(&self, name: &ExtensionName) -> Result<Vec<u8>, Refusal> {
        MiddlewareAsked::new(&self.extend_host(), name).roll_back()
    }

    fn try_middleware(&self, name: &ExtensionName, records: &[u8]) -> Result<Vec<u8>, Refusal> {
        MiddlewareAsked::new(&self.extend_host(), name).try_records(records)
    }

    fn clean_middleware(&self, name: &ExtensionName) {
        MiddlewareAsked::new(&self.extend_host(), name).clean();
    }

    fn tell(&self, draft: Draft<'_>, reply: Reply) {
        let host = HttpPublisher { shared: &self.0, way: Way::System };
        let frame = PublishFrame { items: Items::One(Item { id: None, draft: Ok(draft) }), is_batch: false };
        self.0.acks.publish_http(&host, clock::now(), &frame, AckLevel::Stored, (reply, None));
        self.0.wake_wanted();
        self.0.wake_gossip();
    }

    fn is_congested(&self) -> bool {
        self.0.is_congested()
    }

    fn drain(&self) {
        self.0.lifecycle.ask_to_stop();
    }

    fn forget(&self, member: &str) -> Result<u64, ForgetError> {
        forgetting::tell(&self.0, clock::now(), member)
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn fresh_metrics(&self) -> &Metrics {
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
        metrics.queues.store.set(stats.pending_bytes as i64);
        metrics.queues.outbox.set(self.0.ingest.outbox_bytes() as i64);
        metrics.queues.merges.set(self.0.merging.waiting_bytes() as i64);
        let mailboxes = self.0.mailboxes().iter().map(Mailbox::bytes).sum::<usize>();
        metrics.queues.mailboxes.set(mailboxes as i64);
        let spans = self.0.traces().map_or(0, |traces| traces.waiting_bytes());
        metrics.queues.traces.set(spans as i64);
        let is_up = store.health() == StoreHealth::Open && store.away().is_none();
        metrics.store_up.set(i64::from(is_up));
        metrics
    }

    fn memory(&self) -> &Arc<Budget> {
        &self.0.memory
    }

    fn refused(&self, status: u16, refusal: &Refusal, address: IpAddr) {
        self.0.metrics.clients.refused(status);
        self.0.complaints.refused(clock::mono_us(), status, refusal, address);
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

/// The place of one request among those that wait for a change, which it leaves when this is dropped.
struct RegisteredWatch {
    shared: Arc<Shared>,
    source: Box<str>,
    number: u64,
}

impl SourceWatch for RegisteredWatch {}

impl Drop for RegisteredWatch {
    fn drop(&mut self) {
        self.shared.watches().remove(&self.source, self.number);
    }
}

/// Answers the requests over HTTP that are settled by now. Worker 0 calls this in every turn.
pub(super) fn settle_http(shared: &Shared, now: Now) {
    if !shared.acks.is_http_empty() {
        let host = HttpPublisher { shared, way: Way::Client };
        shared.acks.settle_http(now.mono_us, &host);
    }
}

/// The node as a publish over HTTP sees it.
struct HttpPublisher<'a> {
    shared: &'a Shared,
    way: Way<'a>,
}

/// How a record comes to the map.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// Through the gate, as a client's.
    Client,
    /// Through the gate, if a condition holds for the latest record of its source.
    IfHolds(&'a Precondition),
    /// Past the gate, as a record of the system's names.
    System,
}

impl HttpPublisher<'_> {
    /// Refuses what comes before the store is loaded. Sessions are not read until then.
    fn check_loaded(&self) -> Result<(), Refusal> {
        match self.shared.lifecycle.phase() {
            Phase::Loading => Err(Refusal::new(Code::StoreUnavailable, "the store is being loaded")),
            _ => Ok(()),
        }
    }

    fn publish_here(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
        token: Option<u64>,
    ) -> Result<Accepted, Refusal> {
        let ingest = &self.shared.ingest;
        match (self.way, token) {
            (Way::System, _) => ingest.tell(now, draft),
            (Way::Client, None) => ingest.publish_by(now, draft, by.rights),
            (Way::Client, Some(token)) => ingest.publish_awaited(now, draft, by.rights, token),
            (Way::IfHolds(condition), _) => {
                let check = |current: Option<&Record>| condition.check(current, now.wall_us);
                ingest.publish_if(now, draft, (by.rights, token), check)
            }
        }
    }
}

impl PublishHost for HttpPublisher<'_> {
    fn publish(&self, now: Now, draft: &Draft<'_>, by: ByWhom<'_>) -> Result<Accepted, Refusal> {
        self.check_loaded()?;
        self.publish_here(now, draft, by, None)
    }

    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal> {
        self.check_loaded()?;
        let publish = |token| self.publish_here(now, draft, by, Some(token));
        self.shared.acks.publish_awaited(Waiter::Http, publish)
    }

    fn state(&self) -> &dyn AnswerState {
        self.shared
    }
}
