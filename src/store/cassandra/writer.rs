//! The turns of the store's thread: what waits is taken and written, or kept on the disk.
//!
//! As long as Cassandra answers, a turn takes what waits as one group and writes it; the next group
//! gathers meanwhile. When a request fails or takes too long, the group goes into the spill, and so
//! does every further one, a few times a second, until Cassandra answers again; then the spill is
//! written from its oldest record on, in parts, while new groups still line up behind it. A ticket is
//! durable when its group is in Cassandra and the spill is empty: nothing waits that was pushed before.
//!
//! A session whose requests keep failing for [`HUNG_US`] is given up and another is made: drivers
//! have been seen to hang for ever on a connection that was cut without a word.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::link::{Link, LinkSlot, Window};
use super::session::Fault;
use super::spill::Spill;
use crate::config::cassandra::Cassandra as Config;
use crate::limits::SHARDS;
use crate::store::Ticket;
use crate::store::embedded::Embedded;
use crate::store::engine::{Engine, Marks};
use crate::store::log::Group;
use crate::store::shared::{End, Shared};

/// Pauses between tries to reach Cassandra, in microseconds: the first, and the longest.
const BACKOFF_US_MIN: u64 = 100_000;
const BACKOFF_US_MAX: u64 = 3_000_000;
/// After so long without one good answer a session is given up.
const HUNG_US: u64 = 8_000_000;
/// How often an idle node looks whether Cassandra and its tables are still there.
const CHECK_US: u64 = 5_000_000;
/// While Cassandra is away: how often what came is put on the disk.
const SPILL_PAUSE: Duration = Duration::from_millis(200);
/// A group on its way when the node stops has so long; and how often that is looked at.
const STOP_GRACE: Duration = Duration::from_millis(300);
const STOP_PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether a try has ended.
const TRYING_PAUSE: Duration = Duration::from_millis(10);
/// Records of the spill written in one turn.
const DRAIN_RECORDS: usize = 4_096;
/// After a group of so many records the next one is left to gather as long as this one took, at
/// most [`REST_MAX`]: larger groups, and a core for the event loops.
const REST_RECORDS_MIN: usize = 64;
const REST_MAX: Duration = Duration::from_millis(2);

/// What the writer works with.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) slot: LinkSlot,
    pub(super) spill: Arc<Spill>,
    pub(super) identity: Embedded,
    pub(super) bell: Arc<Notify>,
}

/// How it stands with Cassandra.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// The last request was answered.
    Good { checked_us: u64 },
    /// It was not; when it is tried again.
    Away { next_us: u64 },
}

/// The map is written again, shard by shard.
struct Resync {
    shard: usize,
    /// The first ticket that was lost, if that is why.
    lost: Option<Ticket>,
}

/// The writer's own state.
pub(super) struct Writer {
    parts: Parts,
    clock_floor_us: u64,
    standing: Standing,
    /// Since when nothing was written that had to be, and the pause after the next failure. Only a
    /// write ends both: with too few copies alive Cassandra answers, and takes nothing.
    failing_since_us: Option<u64>,
    backoff_us: u64,
    window: Window,
    /// Which `latest` was written to.
    table_id: Option<String>,
    resync: Option<Resync>,
    /// A try to reach Cassandra.
    trying: Option<JoinHandle<Result<Arc<Link>, Fault>>>,
    /// The last group in Cassandra with nothing waiting before it.
    written: Ticket,
    was_open: bool,
}

impl Writer {
    pub(super) fn new(parts: Parts, clock_floor_us: u64) -> Writer {
        Writer {
            parts,
            clock_floor_us,
            standing: Standing::Away { next_us: 0 },
            failing_since_us: None,
            backoff_us: BACKOFF_US_MIN,
            window: Window::new(),
            table_id: None,
            resync: None,
            trying: None,
            written: Ticket(0),
            was_open: true,
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self) {
        let end = End(self.parts.shared.clone());
        self.parts.shared.set_away(Some("Cassandra is not reached yet".into()));
        loop {
            let (stop, abandon) = self.parts.shared.is_ending();
            if abandon {
                break;
            }
            let link = if stop { self.good_link() } else { self.reach().await };
            self.turn(link).await;
            self.announce_health();
            if stop && self.parts.shared.queue.is_empty() {
                self.finish();
                break;
            }
            self.wait().await;
        }
        *self.parts.slot.lock() = None;
        self.parts.identity.close();
        drop(end);
    }

    fn now_us(&self) -> u64 {
        (self.parts.shared.clock)().mono_us
    }

    fn good_link(&self) -> Option<Arc<Link>> {
        match self.standing {
            Standing::Good { .. } => self.parts.slot.lock().clone(),
            Standing::Away { .. } => None,
        }
    }

    /// The link, if Cassandra answers on it: looked after, or tried again, or made anew.
    async fn reach(&mut self) -> Option<Arc<Link>> {
        let now_us = self.now_us();
        let reached = match self.standing {
            Standing::Good { checked_us } if now_us < checked_us + CHECK_US => return self.good_link(),
            Standing::Good { .. } => self.attempt().await,
            // Meanwhile turns go on: what comes goes to the disk.
            Standing::Away { next_us } => match self.trying.take() {
                None if now_us < next_us => return None,
                Some(trying) if trying.is_finished() => {
                    trying.await.unwrap_or_else(|_| Err(Fault::Away("connecting to Cassandra failed".into())))
                }
                trying => {
                    self.trying = Some(trying.unwrap_or_else(|| tokio::spawn(self.attempt())));
                    return None;
                }
            },
        };
        match reached {
            Ok(link) => {
                self.handle_reached(&link);
                Some(link)
            }
            Err(fault) => {
                self.handle_fault(&fault);
                None
            }
        }
    }

    /// Asks on the link that there is, or makes one.
    fn attempt(&self) -> impl Future<Output = Result<Arc<Link>, Fault>> + Send + use<> {
        let (known, config) = (self.parts.slot.lock().clone(), self.parts.config.clone());
        async move {
            match known {
                Some(link) => link.check().await.map(|()| link),
                None => Link::open(&config).await.map(Arc::new),
            }
        }
    }

    /// Other tables than those written before are empty: everything is written again.
    fn handle_reached(&mut self, link: &Arc<Link>) {
        if self.table_id.as_ref().is_some_and(|known| *known != link.table_id) {
            tracing::warn!("the tables in Cassandra are others than before: everything is written again");
            self.start_resync(None);
        }
        self.table_id = Some(link.table_id.clone());
        *self.parts.slot.lock() = Some(link.clone());
        self.standing = Standing::Good { checked_us: self.now_us() };
        if self.parts.spill.is_empty() && self.resync.is_none() {
            self.handle_back();
        }
    }

    /// Cassandra takes what it is given, or there is nothing to give.
    fn handle_back(&mut self) {
        (self.failing_since_us, self.backoff_us) = (None, BACKOFF_US_MIN);
        if self.parts.shared.away().is_some() {
            tracing::info!(waiting = self.parts.spill.records(), "Cassandra answers");
            self.parts.shared.set_away(None);
        }
    }

    fn handle_fault(&mut self, fault: &Fault) {
        let now_us = self.now_us();
        let since_us = *self.failing_since_us.get_or_insert(now_us);
        let reason = fault.to_string();
        // Once for each reason: it may stay away for days.
        if self.parts.shared.away().as_ref() != Some(&reason) {
            tracing::warn!(reason, "Cassandra is away");
        }
        self.parts.shared.set_away(Some(reason));
        self.standing = Standing::Away { next_us: now_us + self.backoff_us };
        self.backoff_us = (self.backoff_us * 2).min(BACKOFF_US_MAX);
        self.window.handle_failure();
        if !matches!(fault, Fault::Away(_)) || now_us - since_us >= HUNG_US {
            *self.parts.slot.lock() = None;
        }
    }

    /// Takes what waits; writes it, or keeps it.
    async fn turn(&mut self, link: Option<Arc<Link>>) {
        let shared = self.parts.shared.clone();
        let (ticket, group) = shared.queue.take();
        let began_us = self.now_us();
        let is_direct = link.is_some() && self.parts.spill.is_empty();
        if !group.is_empty() {
            let is_written = is_direct && self.write(link.as_deref(), &group).await;
            if !is_written {
                self.spill(&group, ticket);
            }
            shared.set_commit_us(self.now_us() - began_us);
            shared.count_commit();
        }
        shared.queue.written();
        if !is_direct {
            self.drain(link.as_deref()).await;
        }
        self.write_marks();
        self.step_resync(link.as_deref()).await;
        if self.good_link().is_some() && self.parts.spill.is_empty() {
            self.written = ticket;
        }
        self.move_durable();
        if is_direct && group.records() >= REST_RECORDS_MIN {
            tokio::time::sleep(Duration::from_micros(self.now_us() - began_us).min(REST_MAX)).await;
        }
    }

    /// Writes a group; `false`: not, or not all of it.
    async fn write(&mut self, link: Option<&Link>, group: &Group) -> bool {
        let Some(link) = link.filter(|_| self.good_link().is_some()) else { return false };
        let wall_us = (self.parts.shared.clock)().wall_us;
        let shared = &self.parts.shared;
        let stopping = async {
            while !shared.is_stopping() {
                tokio::time::sleep(STOP_PAUSE).await;
            }
            tokio::time::sleep(STOP_GRACE).await;
        };
        let written = tokio::select! {
            written = link.write(group, wall_us, &self.window) => written,
            // There must be time to keep the group on the disk.
            () = stopping => Err(Fault::Away("Cassandra is too slow for a node that stops".into())),
        };
        match written {
            Ok(()) => {
                self.standing = Standing::Good { checked_us: self.now_us() };
                if !group.is_empty() {
                    self.handle_back();
                }
                true
            }
            Err(fault) => {
                self.handle_fault(&fault);
                false
            }
        }
    }

    fn spill(&mut self, group: &Group, ticket: Ticket) {
        if let Err(error) = self.parts.spill.put(group) {
            tracing::error!(%error, records = group.records(), "Cassandra is away and the disk takes no more");
            self.parts.shared.queue.lose(ticket);
        }
        self.parts.shared.set_spilled(self.parts.spill.records());
    }

    /// Writes the oldest of what waits on the disk.
    async fn drain(&mut self, link: Option<&Link>) {
        if self.good_link().is_none() || self.parts.spill.is_empty() {
            return;
        }
        let oldest = match self.parts.spill.oldest(DRAIN_RECORDS) {
            Ok(oldest) => oldest,
            Err(error) => {
                tracing::error!(%error, "what waits for Cassandra cannot be read");
                return self.handle_fault(&Fault::Away(error.to_string()));
            }
        };
        if self.write(link, &Group::of_records(&oldest.records)).await
            && let Err(error) = self.parts.spill.forget(&oldest)
        {
            tracing::error!(%error, "what was written to Cassandra will be written again");
        }
        self.parts.shared.set_spilled(self.parts.spill.records());
        if self.parts.spill.is_empty() {
            tracing::info!("everything that waited is in Cassandra");
        }
    }

    fn start_resync(&mut self, lost: Option<Ticket>) {
        let before = self.resync.take().and_then(|resync| resync.lost);
        let lost = [before, lost].into_iter().flatten().min();
        self.resync = Some(Resync { shard: 0, lost });
    }

    /// Writes the next shard of the map, if the map is to be written again: because something was
    /// dropped, or because the tables are new.
    async fn step_resync(&mut self, link: Option<&Link>) {
        if self.good_link().is_none() || !self.parts.spill.is_empty() {
            return;
        }
        let Some(latest) = self.parts.shared.latest() else { return };
        if let Some(lost) = self.parts.shared.queue.take_lost() {
            self.start_resync(Some(lost));
        }
        let Some(Resync { shard, lost }) = self.resync.take() else { return };
        self.parts.shared.set_resyncing(lost.is_some());
        let mut records = Vec::new();
        latest.visit(shard, &mut |record| {
            if !crate::record::Source::is_system(record.source.as_str()) {
                records.push(record.clone());
            }
        });
        let is_written = self.write(link, &Group::of_records(&records)).await;
        let next = shard + usize::from(is_written);
        if next < SHARDS {
            self.resync = Some(Resync { shard: next, lost });
        } else {
            self.parts.shared.set_resyncing(false);
            self.handle_back();
            tracing::info!("the whole map is in Cassandra");
        }
    }

    fn move_durable(&self) {
        let shared = &self.parts.shared;
        let lost = [self.resync.as_ref().and_then(|resync| resync.lost), shared.queue.lost_from()];
        shared.move_durable(self.written, lost.into_iter().flatten().min());
    }

    fn write_marks(&self) {
        let shared = &self.parts.shared;
        if !shared.marks_are_due() {
            return;
        }
        let marks = shared.marks();
        match self.parts.identity.commit(&Group::default(), marks) {
            Ok(()) => shared.keep_marks(marks),
            Err(error) => {
                tracing::error!(%error, "the node's marks cannot be kept");
                if let Err(error) = self.parts.identity.recover() {
                    tracing::error!(%error, "the data directory fails");
                }
            }
        }
    }

    /// Tells of a queue that became full, or is no more.
    fn announce_health(&mut self) {
        let is_open = self.parts.shared.health() == crate::store::Health::Open;
        if std::mem::replace(&mut self.was_open, is_open) != is_open {
            self.parts.shared.notify();
        }
    }

    /// Until there is something to do.
    async fn wait(&self) {
        let is_busy = self.resync.is_some() || !self.parts.spill.is_empty();
        match self.standing {
            Standing::Good { .. } if is_busy => tokio::task::yield_now().await,
            Standing::Good { checked_us } => {
                let left_us = (checked_us + CHECK_US).saturating_sub(self.now_us());
                let idle = Duration::from_micros(left_us);
                // An elapsed time is as good as the bell.
                let _ = tokio::time::timeout(idle, self.parts.bell.notified()).await;
            }
            Standing::Away { next_us } => match &self.trying {
                None => {
                    let left = Duration::from_micros(next_us.saturating_sub(self.now_us()));
                    tokio::time::sleep(left.min(SPILL_PAUSE)).await;
                }
                Some(trying) => {
                    let tried = async {
                        while !trying.is_finished() {
                            tokio::time::sleep(TRYING_PAUSE).await;
                        }
                    };
                    let _ = tokio::time::timeout(SPILL_PAUSE, tried).await;
                }
            },
        }
    }

    /// At an orderly end: exact marks. No heads: what the next life finds in Cassandra may lack records
    /// of peers that they have not stored yet.
    fn finish(&self) {
        let shared = &self.parts.shared;
        let marks =
            Marks { clock_high_water_us: shared.issued_us().max(self.clock_floor_us), ..shared.marks() };
        if let Err(error) = self.parts.identity.commit(&Group::default(), marks) {
            tracing::warn!(%error, "the last marks were not kept; the lease on the clock stands");
        }
    }
}
