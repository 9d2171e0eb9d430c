//! The turns of the store's thread: what waits is taken and written, or kept on the disk.
//!
//! As long as Cassandra answers, a turn takes what waits as one group and writes it; the next group
//! gathers meanwhile. When a request fails or takes too long, the group is put into the spill, and so
//! is every further one, a few times a second, until Cassandra answers again; then the spill is
//! written from its oldest record on, in parts, while new groups still line up behind it. A ticket is
//! durable when its group is in Cassandra and the spill is empty: nothing waits that was pushed before.
//!
//! A session whose requests keep failing for some seconds is given up and another is made ([`Reach`]):
//! drivers have been seen to hang for ever on a connection that was cut without a word.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::fault::CassandraFault;
use super::link::{CassandraLink, LinkSlot};
use super::reach::{Look, Reach};
use super::requests::RequestWindow;
use super::spill::Spill;
use crate::config::cassandra::Cassandra as Config;
use crate::limits::SHARDS;
use crate::record::Source;
use crate::store::embedded::Embedded;
use crate::store::engine::StoreEngine;
use crate::store::queue::{Ticket, WriteGroup};
use crate::store::write_path::{WritePath, WriterGuard};

/// Time that a group that is on its way may still take when the node stops.
const STOP_GRACE: Duration = Duration::from_millis(300);
/// Interval at which the writer checks whether the node stops.
const STOP_PAUSE: Duration = Duration::from_millis(50);
/// Number of records of the spill written in one turn.
const DRAIN_RECORDS: usize = 4_096;
/// Least number of records in a group after which the next one is left to gather for as long as this one
/// took: groups become larger, and a core is left to the event loops.
const GATHERED_GROUP_RECORDS_MIN: usize = 64;
/// Longest time for which the next group is left to gather.
const REST_MAX: Duration = Duration::from_millis(2);

/// Parts that the writer is made of.
pub(super) struct WriterParts {
    pub(super) config: Config,
    pub(super) path: Arc<WritePath>,
    pub(super) slot: LinkSlot,
    pub(super) spill: Arc<Spill>,
    /// The file of the node's identity, which also keeps the marks.
    pub(super) identity: Embedded,
    /// Notified when the bell of the write path rings.
    pub(super) bell: Arc<Notify>,
}

/// A pass over the map in which all of it is written again, shard by shard.
struct MapRewrite {
    /// The next shard to write.
    shard: usize,
    /// The first ticket that was lost, if that is why the map is written again.
    lost: Option<Ticket>,
}

/// The writer, on the store's thread.
pub(super) struct CassandraWriter {
    path: Arc<WritePath>,
    spill: Arc<Spill>,
    identity: Embedded,
    bell: Arc<Notify>,
    reach: Reach,
    window: RequestWindow,
    rewrite: Option<MapRewrite>,
    /// Ticket of the last group that is in Cassandra with nothing waiting before it.
    written: Ticket,
}

impl CassandraWriter {
    /// Makes a writer that has written nothing.
    pub(super) fn new(parts: WriterParts) -> CassandraWriter {
        let WriterParts { config, path, slot, spill, identity, bell } = parts;
        CassandraWriter {
            reach: Reach::new(config, slot, path.clone()),
            path,
            spill,
            identity,
            bell,
            window: RequestWindow::new(),
            rewrite: None,
            written: Ticket(0),
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self) {
        let guard = WriterGuard(self.path.clone());
        self.path.set_away(Some("Cassandra is not reached yet".into()));
        loop {
            let orders = self.path.bell.take_orders();
            if orders.abandon {
                break;
            }
            let link = if orders.stop { self.reach.good_link() } else { self.reach().await };
            self.turn(link).await;
            self.path.announce_health();
            if orders.stop && self.path.queue.is_empty() {
                // Heads are not kept: the records that the next run finds in Cassandra may lack those that peers
                // have not stored yet.
                self.identity.keep_last_marks(self.path.marks.current());
                break;
            }
            let is_busy = self.rewrite.is_some() || !self.spill.is_empty();
            self.reach.wait(is_busy, &self.bell).await;
        }
        self.reach.drop_link();
        self.identity.close();
        drop(guard);
    }

    fn now_us(&self) -> u64 {
        (self.path.clock)().mono_us
    }

    /// Returns the link if Cassandra answers on it.
    async fn reach(&mut self) -> Option<Arc<CassandraLink>> {
        match self.reach.look().await {
            Look::Same(link) => link,
            Look::Tried(Ok(link)) => {
                self.handle_link(&link);
                Some(link)
            }
            Look::Tried(Err(fault)) => {
                self.handle_fault(&fault);
                None
            }
        }
    }

    /// Notes that Cassandra answers on a link. If its tables are others than before, they are empty, and
    /// everything is written again.
    fn handle_link(&mut self, link: &Arc<CassandraLink>) {
        if self.reach.handle_link(link) {
            tracing::warn!("the tables in Cassandra are others than before: everything is written again");
            self.start_rewrite(None);
        }
        if self.spill.is_empty() && self.rewrite.is_none() {
            self.reach.handle_back(self.spill.records());
        }
    }

    fn handle_fault(&mut self, fault: &CassandraFault) {
        self.reach.handle_fault(fault);
        self.window.handle_failure();
    }

    /// Takes everything that waits in the queue as one group, and writes it or keeps it on the disk.
    async fn turn(&mut self, link: Option<Arc<CassandraLink>>) {
        let path = self.path.clone();
        let (ticket, group) = path.queue.take();
        let began_us = self.now_us();
        let is_direct = link.is_some() && self.spill.is_empty();
        if !group.is_empty() {
            let is_written = is_direct && self.write(link.as_deref(), &group).await;
            match is_written {
                true => path.note_commit(self.now_us() - began_us),
                false => self.keep(&group, ticket),
            }
        }
        path.queue.handle_written();
        if !is_direct {
            self.drain(link.as_deref()).await;
        }
        self.write_marks();
        self.step_rewrite(link.as_deref()).await;
        if self.reach.good_link().is_some() && self.spill.is_empty() {
            debug_assert!(self.written < ticket, "groups are written in their order");
            self.written = ticket;
        }
        self.raise_durable();
        if is_direct && group.records() >= GATHERED_GROUP_RECORDS_MIN {
            tokio::time::sleep(Duration::from_micros(self.now_us() - began_us).min(REST_MAX)).await;
        }
    }

    /// Writes a group. Returns `false` if that failed; some of it may be written.
    async fn write(&mut self, link: Option<&CassandraLink>, group: &WriteGroup) -> bool {
        let Some(link) = link.filter(|_| self.reach.good_link().is_some()) else { return false };
        let wall_us = (self.path.clock)().wall_us;
        let bell = &self.path.bell;
        let stopping = async {
            while !bell.is_stopping() {
                tokio::time::sleep(STOP_PAUSE).await;
            }
            tokio::time::sleep(STOP_GRACE).await;
        };
        let written = tokio::select! {
            written = link.write(group, wall_us, &self.window) => written,
            // The group is given up so that there is time to keep it on the disk.
            () = stopping => Err(CassandraFault::Away("Cassandra is too slow for a node that stops".into())),
        };
        match written {
            Ok(()) => {
                self.reach.handle_answer();
                if !group.is_empty() {
                    self.reach.handle_back(self.spill.records());
                }
                true
            }
            Err(fault) => {
                self.handle_fault(&fault);
                false
            }
        }
    }

    /// Keeps a group on the disk.
    fn keep(&mut self, group: &WriteGroup, ticket: Ticket) {
        if let Err(error) = self.spill.put(group) {
            tracing::error!(%error, records = group.records(), "Cassandra is away and the disk takes no more");
            self.path.queue.lose(ticket);
        }
        self.path.set_spilled(self.spill.records());
    }

    /// Writes the oldest of what waits on the disk.
    async fn drain(&mut self, link: Option<&CassandraLink>) {
        if self.reach.good_link().is_none() || self.spill.is_empty() {
            return;
        }
        let oldest = match self.spill.oldest(DRAIN_RECORDS) {
            Ok(oldest) => oldest,
            Err(error) => {
                tracing::error!(%error, "what waits for Cassandra cannot be read");
                return self.handle_fault(&CassandraFault::Away(error.to_string()));
            }
        };
        if self.write(link, &WriteGroup::of_records(&oldest.records)).await
            && let Err(error) = self.spill.forget(&oldest)
        {
            tracing::error!(%error, "what was written to Cassandra will be written again");
        }
        self.path.set_spilled(self.spill.records());
        if self.spill.is_empty() {
            tracing::info!("everything that waited is in Cassandra");
        }
    }

    /// Begins to write the whole map again, because `lost` was dropped or because the tables are new.
    fn start_rewrite(&mut self, lost: Option<Ticket>) {
        let before = self.rewrite.take().and_then(|rewrite| rewrite.lost);
        let lost = [before, lost].into_iter().flatten().min();
        self.rewrite = Some(MapRewrite { shard: 0, lost });
    }

    /// Writes the next shard of the map, if the map is to be written again.
    async fn step_rewrite(&mut self, link: Option<&CassandraLink>) {
        if self.reach.good_link().is_none() || !self.spill.is_empty() {
            return;
        }
        let Some(latest) = self.path.latest() else { return };
        if let Some(lost) = self.path.queue.take_lost() {
            self.start_rewrite(Some(lost));
        }
        let Some(MapRewrite { shard, lost }) = self.rewrite.take() else { return };
        self.path.set_resyncing(lost.is_some());
        let mut records = Vec::new();
        latest.visit(shard, &mut |record| {
            if !Source::is_system(record.source.as_str()) {
                records.push(record.clone());
            }
        });
        let is_written = self.write(link, &WriteGroup::of_records(&records)).await;
        let next = shard + usize::from(is_written);
        if next < SHARDS {
            self.rewrite = Some(MapRewrite { shard: next, lost });
        } else {
            self.path.set_resyncing(false);
            self.reach.handle_back(self.spill.records());
            tracing::info!("the whole map is in Cassandra");
        }
    }

    fn raise_durable(&self) {
        let lost = [self.rewrite.as_ref().and_then(|rewrite| rewrite.lost), self.path.queue.lost_from()];
        self.path.raise_durable(self.written, lost.into_iter().flatten().min());
    }

    /// Writes the marks, if they are due.
    fn write_marks(&self) {
        let marks = &self.path.marks;
        if !marks.are_due() {
            return;
        }
        let current = marks.current();
        match self.identity.commit(&WriteGroup::default(), current) {
            Ok(()) => marks.handle_kept(current),
            Err(error) => {
                tracing::error!(%error, "the node's marks cannot be kept");
                if let Err(error) = self.identity.recover() {
                    tracing::error!(%error, "the data directory fails");
                }
            }
        }
    }
}
