//! The thread that loads the store into the map. Afterwards it works at intervals: it reports expired records
//! to subscribers, removes deletions that are old enough, stores the records of nodes that died, where the
//! store is shared, reads files of the operator again that have changed, and notices a wall clock that jumps.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::clock_watch::ClockWatch;
use super::extend_host::ExtendNode;
use super::lifecycle::{Fatal, Phase};
use super::process::ProcessSampler;
use super::reload::Reloader;
use super::shared::Shared;
use super::{clock, takeover};
use crate::cluster::Heads;
use crate::config::StoreKind;
use crate::extend::{self, ExtendHost};
use crate::record::SharedRecord;
use crate::store::LatestRecords;

/// Number of records of each shard that one sweep handles, so that no lock is held for long.
const SWEPT_PER_SHARD: usize = 256;
/// Shortest pause between two sweeps, in microseconds.
const SWEEP_US_MIN: u64 = 5_000;
/// Longest pause between two sweeps, in microseconds: how late an expiry may be reported, and a stop noticed.
const SWEEP_US_MAX: u64 = 50_000;

/// Loads the store into the map; then sweeps the map until the node leaves or `ended` is disconnected.
/// `heads` are those that the node kept when it last stopped.
pub fn run(shared: &Arc<Shared>, heads: Heads, mut reloader: Reloader, ended: &Receiver<()>) {
    let has_disk = shared.config.store != StoreKind::Memory;
    let mut process = ProcessSampler::new(has_disk.then_some(shared.config.data_dir.as_path()));
    process.handle_turn(clock::now(), &shared.metrics.process);
    let mut clocks = ClockWatch::default();
    if let Err(fatal) = load(shared, heads) {
        return shared.lifecycle.fail(fatal);
    }
    let host: Arc<dyn ExtendHost> = Arc::new(ExtendNode(shared.clone()));
    extend::hold_back(&host);
    drop(host);
    shared.store().attach(Arc::new(MapOf(Arc::downgrade(shared))));
    shared.advance(Phase::Serving);
    let mut takeover = takeover::of(shared);
    while shared.lifecycle.phase() < Phase::Leaving {
        let now = clock::now();
        let may_collect = shared.cluster.may_collect();
        let next_us = shared.ingest.sweep(now, may_collect, SWEPT_PER_SHARD);
        shared.wake_wanted();
        reloader.handle_turn(now);
        process.handle_turn(now, &shared.metrics.process);
        clocks.handle_turn(now, &shared.metrics.clock_jumps);
        shared.store().note_use(now);
        if let Some(takeover) = &mut takeover {
            takeover.look(now, shared);
        }
        if shared.store().is_load_owed() {
            load_late(shared);
        }
        let wait_us = next_us.map_or(SWEEP_US_MAX, |at_us| at_us.saturating_sub(now.wall_us));
        let wait = Duration::from_micros(wait_us.clamp(SWEEP_US_MIN, SWEEP_US_MAX));
        if !matches!(ended.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// Loads the store into the map before anyone is served.
fn load(shared: &Shared, heads: Heads) -> Result<(), Fatal> {
    let start_us = clock::mono_us();
    let loaded = shared.store().load(&mut |record| {
        shared.ingest.load(clock::now(), record);
    });
    let report = loaded.map_err(|error| Fatal::Load(error.to_string()))?;
    shared.ingest.handle_loaded(clock::now());
    let ms = (clock::mono_us() - start_us) / 1_000;
    tracing::info!(records = report.records, damaged = report.damaged, ms, "the store is loaded");
    // If a record is missing, the heads would claim records that this node does not hold.
    if report.damaged == 0 && !report.is_partial {
        shared.cluster.set_heads(heads);
    }
    Ok(())
}

/// Loads what the store could not read at the start. It is merged like a peer's records, since clients are
/// served already.
fn load_late(shared: &Shared) {
    let loaded = shared.store().load(&mut |record| {
        shared.ingest.load_late(clock::now(), record);
    });
    shared.wake_wanted();
    match loaded {
        Ok(report) if !report.is_partial => {
            tracing::info!(records = report.records, "the store is loaded, late")
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "the store cannot be read"),
    }
}

/// The map, for a store that has to catch up. The reference is weak, since the map owns the store.
struct MapOf(Weak<Shared>);

impl LatestRecords for MapOf {
    fn visit(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord)) {
        if let Some(shared) = self.0.upgrade() {
            shared.ingest.latest().scan_shard(shard, each);
        }
    }

    fn holds(&self, source: &str) -> bool {
        // Without the map nothing may be concluded: what is stored stays.
        self.0.upgrade().is_none_or(|shared| shared.ingest.latest().get(source).is_some())
    }
}
