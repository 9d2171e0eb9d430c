//! The node as the things that users add see it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use super::clock;
use super::map_walk::MapWalk;
use super::session::{Endpoint, Session};
use super::shared::Shared;
use crate::auth::SessionEntry;
use crate::cluster::members::MemberInfo;
use crate::extend::{Extend, ExtendHost};
use crate::ingest::{Accepted, Reviser};
use crate::latest::Listing;
use crate::limits::SCAN_STEPS_PER_TURN;
use crate::metrics::Metrics;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::record::{Now, Pattern, RecordWalk, SharedRecord};
use crate::server::framing::message::Codec;

/// Most records of one list.
const LIST_MAX: usize = 100_000;

/// The view that extensions have of a node.
pub struct ExtendNode(pub Arc<Shared>);

impl ExtendNode {
    /// Starts the thread that looks after what users add to the node.
    pub fn start(shared: Arc<Shared>) -> io::Result<Extend> {
        let changes = shared.ingest.downstream().system_changes.clone();
        Extend::start(Arc::new(ExtendNode(shared)), changes)
    }

    /// Wakes those who have something to do after a publish.
    fn wake(&self) {
        self.0.wake_wanted();
        self.0.wake_gossip();
    }
}

impl ExtendHost for ExtendNode {
    fn now(&self) -> Now {
        clock::now()
    }

    fn name(&self) -> &str {
        self.0.name.as_str()
    }

    fn is_ready(&self) -> bool {
        self.0.readiness().is_ok()
    }

    fn members(&self) -> Arc<[MemberInfo]> {
        self.0.cluster.members()
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.0.ingest.latest().get(source)
    }

    fn list(&self, pattern: &Pattern) -> Vec<SharedRecord> {
        let mut listing = Listing::new(pattern.clone(), None, LIST_MAX);
        loop {
            let mut steps = SCAN_STEPS_PER_TURN;
            if listing.advance(self.0.ingest.latest(), clock::now().wall_us, &mut steps) {
                return listing.into_records();
            }
        }
    }

    fn walk(&self, pattern: Pattern) -> Box<dyn RecordWalk> {
        Box::new(MapWalk::new(self.0.clone(), pattern, None))
    }

    fn tell(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        let told = self.0.ingest.tell(clock::now(), draft);
        self.wake();
        told
    }

    fn publish(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        let published = self.0.ingest.publish(clock::now(), draft);
        self.wake();
        published
    }

    fn restore(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        let restored = self.0.ingest.restore(clock::now(), draft);
        self.wake();
        restored
    }

    fn is_durable(&self, ticket: u64) -> bool {
        self.0.store().durable().0 >= ticket
    }

    fn is_congested(&self) -> bool {
        self.0.is_congested()
    }

    fn subscribe(&self, query: &str) -> Result<UnixStream, Refusal> {
        let shared = &self.0;
        let number = shared.guests.number();
        let id = format!("{}-extend-{number}", shared.boot);
        let mut session = Session::open(Endpoint::Subscribe, Codec::Json, query, id)?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        session.guard(SessionEntry::Open, address, clock::now())?;
        shared.invite(number, session, address)
    }

    fn exec_folder(&self) -> Option<&Path> {
        self.0.config.allow_exec.as_deref()
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn shared_metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    fn set_reviser(&self, reviser: Option<Arc<dyn Reviser>>) {
        self.0.ingest.set_reviser(reviser);
    }
}
