//! Restores an archive into the running cluster.
//!
//! The archive and those that it goes on from are read from the newest to the oldest, and of each source the first record
//! that is found is published: the newest, or the newest up to a moment. Records keep their timestamps, so what is newer
//! in the cluster stays, and a restore that was interrupted can be repeated. With `as_new`, records are published
//! as if they came now, which takes a cluster back to how it was, unless they are there already.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_128;

use super::chain::ArchiveChain;
use super::error::ArchiveError;
use super::frame::{ArchivedRecord, ReadFrame};
use super::lineage::{ReadArchive, read_lineage};
use super::progress::JobProgress;
use super::store::ArchiveStore;
use crate::extend::host::ExtendHost;
use crate::limits::TTL_MS_MAX;
use crate::protocol::answer::Outcome;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::refusal::Refusal;
use crate::record::hash::NameState;
use crate::record::{Pattern, Record, Source};

/// Most sources whose records in later archives are remembered, so that older ones are passed over: some 300 MB.
const DECIDED_MAX: usize = 8 * 1024 * 1024;
/// Records that are published before it is looked whether publishers are to wait.
const RECORDS_AT_A_TIME: usize = 256;
/// Waiting time while publishers are to wait, or after a refusal that passes, in microseconds.
const ROOM_US: u64 = 20_000;
/// Waiting times in a row without a single record that is taken, before the restore fails.
const VAIN_MAX: u32 = 1_500;
/// Longest time that is waited until the last records are durable, in waiting times.
const DURABLE_WAITS_MAX: u32 = 500;
/// Most refusals that are told one by one.
const REFUSALS_TOLD_MAX: usize = 20;

/// The archive that an admin asks to restore, and which of its records.
#[derive(Clone, Debug)]
pub struct RestoreAsked {
    /// Id of the archive.
    pub id: String,
    /// Pattern of the sources; all without it.
    pub pattern: Option<Pattern>,
    /// The moment: no record with a later timestamp is restored.
    pub at: Option<u64>,
    /// Whether records are published with new timestamps.
    pub as_new: bool,
}

/// Numbers of the records of a restore by their outcome.
#[derive(Debug, Default)]
struct RestoredCounts {
    applied: u64,
    duplicate: u64,
    stale: u64,
    expired: u64,
    refused: u64,
    bytes: u64,
    refusals: Vec<Value>,
    /// The store's ticket of the last record.
    ticket: u64,
}

impl RestoredCounts {
    fn to_json(&self) -> Value {
        json!({
            "applied": self.applied, "duplicate": self.duplicate, "stale": self.stale, "expired": self.expired,
            "refused": self.refused, "bytes": self.bytes,
        })
    }

    fn sum(&self) -> u64 {
        self.applied + self.duplicate + self.stale + self.expired + self.refused
    }
}

/// Restores an archive. Returns what became of the records.
pub async fn restore(
    host: &Arc<dyn ExtendHost>,
    store: &ArchiveStore,
    chain: &ArchiveChain,
    asked: &RestoreAsked,
    progress: &mut JobProgress,
) -> Result<Value, ArchiveError> {
    let expected = chain.get(&asked.id).map(|entry| entry.sha256.as_str());
    let lineage = read_lineage(store, &asked.id, expected).await?;
    if let (Some(at), Some(full)) = (asked.at, lineage.last())
        && full.manifest.records > 0
        && full.manifest.frames.iter().all(|frame| frame.ts.0 > at)
    {
        let why = format!("archive {} has nothing as old as {at}; name an older one", asked.id);
        return Err(ArchiveError::Node(why));
    }
    let mut restorer = Restorer {
        host: host.clone(),
        asked: asked.clone(),
        made_at: 0,
        is_last: false,
        decided: HashSet::default(),
        counts: RestoredCounts::default(),
    };
    let total: u64 = lineage.iter().map(|archive| archive.manifest.records).sum();
    for (place, archive) in lineage.iter().enumerate() {
        restorer.made_at = archive.manifest.at;
        restorer.is_last = place + 1 == lineage.len();
        restorer = restore_one(restorer, store, archive, total, progress).await?;
    }
    let mut waits = 0;
    while !host.is_durable(restorer.counts.ticket) && waits < DURABLE_WAITS_MAX {
        sleep(Duration::from_micros(ROOM_US)).await;
        waits += 1;
    }
    let mut done = restorer.counts.to_json();
    done["archives"] = lineage.len().into();
    done["stored"] = host.is_durable(restorer.counts.ticket).into();
    done["refusals"] = restorer.counts.refusals.into();
    Ok(done)
}

async fn restore_one(
    mut restorer: Restorer,
    store: &ArchiveStore,
    archive: &ReadArchive,
    total: u64,
    progress: &mut JobProgress,
) -> Result<Restorer, ArchiveError> {
    for entry in &archive.manifest.frames {
        let mut frame = Arc::new(store.frame(&archive.id, entry).await?);
        restorer.counts.bytes += entry.stored_bytes;
        let what = Arc::new(format!("{}/{}", archive.id, entry.name));
        let (mut from, mut vain) = (0, 0);
        loop {
            while restorer.host.is_congested() && vain < VAIN_MAX {
                sleep(Duration::from_micros(ROOM_US)).await;
                vain += 1;
            }
            let (mut own, named) = (restorer, what.clone());
            let part = spawn_blocking(move || {
                let place = own.publish_part(&frame, &named, from);
                (own, frame, place)
            });
            let (back, same, place) = part.await.map_err(|error| ArchiveError::Node(error.to_string()))?;
            (restorer, frame) = (back, same);
            let PlaceInFrame { next, refusal } = place?;
            vain = if next > from { 0 } else { vain + 1 };
            from = next;
            let counts = &restorer.counts;
            let done = || json!({"done": counts.to_json(), "records": counts.sum(), "of": total});
            progress.tell(done).await?;
            match refusal {
                Some(refusal) if vain >= VAIN_MAX => return Err(ArchiveError::Node(refusal.to_string())),
                Some(_) => sleep(Duration::from_micros(ROOM_US)).await,
                None if next >= frame.bytes() => break,
                None => {}
            }
        }
    }
    Ok(restorer)
}

/// How far the publishing of a frame has come.
struct PlaceInFrame {
    /// Place of the next line, in bytes.
    next: usize,
    /// The reason why that line is to be tried again later.
    refusal: Option<Refusal>,
}

/// Decides about records, and publishes them.
struct Restorer {
    host: Arc<dyn ExtendHost>,
    asked: RestoreAsked,
    /// Time at which the archive was made that is being read, in microseconds since the Unix epoch.
    made_at: u64,
    /// The archive is the oldest one, after which no source needs to be remembered.
    is_last: bool,
    /// Hashes of the sources that later archives have decided about.
    decided: HashSet<u128, NameState>,
    counts: RestoredCounts,
}

impl Restorer {
    /// Publishes some records of a frame from a place on. Called on a thread for blocking work.
    fn publish_part(
        &mut self,
        frame: &ReadFrame,
        what: &str,
        from: usize,
    ) -> Result<PlaceInFrame, ArchiveError> {
        let mut next = from;
        for _ in 0..RECORDS_AT_A_TIME {
            let Some((record, after)) = frame.record_at(what, next)? else { break };
            if self.is_asked_for(&record) {
                let key = xxh3_128(record.draft.source.as_bytes());
                if !self.decided.contains(&key) {
                    if let Err(refusal) = self.publish(record) {
                        return Ok(PlaceInFrame { next, refusal: Some(refusal) });
                    }
                    self.remember(key)?;
                }
            }
            next = after;
        }
        Ok(PlaceInFrame { next, refusal: None })
    }

    fn is_asked_for(&self, record: &ArchivedRecord<'_>) -> bool {
        let source: &str = &record.draft.source;
        self.asked.at.is_none_or(|at| record.ts <= at)
            && self.asked.pattern.as_ref().is_none_or(|pattern| pattern.matches(source))
    }

    fn remember(&mut self, key: u128) -> Result<(), ArchiveError> {
        if self.is_last {
            return Ok(());
        }
        if self.decided.len() < DECIDED_MAX {
            self.decided.insert(key);
        } else if self.asked.as_new {
            // Older records would be published after newer ones. With their own timestamps they do no harm.
            let why =
                format!("more than {DECIDED_MAX} sources have changed since the full archive; use a pattern");
            return Err(ArchiveError::Node(why));
        }
        Ok(())
    }

    /// Publishes one record. An error is a refusal that passes.
    fn publish(&mut self, record: ArchivedRecord<'_>) -> Result<(), Refusal> {
        let ArchivedRecord { ts, mut draft } = record;
        let now_us = self.host.now().wall_us;
        match life(draft.ttl_ms, ts, self.made_at, &self.asked, now_us) {
            Some(ttl_ms) => draft.ttl_ms = ttl_ms,
            None => {
                self.counts.expired += 1;
                return Ok(());
            }
        }
        draft.ts = (!self.asked.as_new).then_some(ts);
        if self.asked.as_new && self.is_there(&draft, now_us) {
            self.counts.duplicate += 1;
            return Ok(());
        }
        // Names of the system's can be restored as well, and no client may publish these.
        let published = match Source::is_system(&draft.source) {
            true => self.host.tell(&draft),
            false => self.host.restore(&draft),
        };
        match published {
            Ok(accepted) => {
                self.counts.ticket = self.counts.ticket.max(accepted.ticket);
                match accepted.outcome {
                    Outcome::Applied => self.counts.applied += 1,
                    Outcome::Duplicate => self.counts.duplicate += 1,
                    Outcome::Stale { .. } => self.counts.stale += 1,
                    // Only middlewares drop records, and a restored one passes none.
                    Outcome::Dropped => {}
                }
                self.host.metrics().archives.restored.increment();
                Ok(())
            }
            Err(refusal) if refusal.code.is_temporary() && refusal.applied_ts.is_none() => Err(refusal),
            Err(refusal) => {
                self.counts.refused += 1;
                if self.counts.refusals.len() < REFUSALS_TOLD_MAX {
                    let (code, message) = (refusal.code.as_str(), refusal.message);
                    self.counts
                        .refusals
                        .push(json!({"source": draft.source, "code": code, "message": message}));
                }
                Ok(())
            }
        }
    }

    /// Returns whether the cluster has the same value of the source already, or no more than the draft deletes.
    fn is_there(&self, draft: &Draft<'_>, now_us: u64) -> bool {
        let latest = self.host.get(&draft.source).filter(|record| record.is_visible(now_us));
        match latest {
            None => draft.payload == DraftPayload::Deleted,
            Some(record) => is_same(&record, draft),
        }
    }
}

fn is_same(record: &Record, draft: &Draft<'_>) -> bool {
    record.payload == draft.payload.to_payload() && (record.ttl_ms > 0) == (draft.ttl_ms > 0)
}

/// The time to live with which a record is published, in milliseconds; `None` if its life is over. `left_ms` is what was
/// left when the archive was made, 0 for a value that never ends.
fn life(left_ms: u64, ts: u64, made_at: u64, asked: &RestoreAsked, now_us: u64) -> Option<u64> {
    if left_ms == 0 {
        return Some(0);
    }
    let ends_us = made_at.saturating_add(left_ms.saturating_mul(1_000));
    // As new, a value has the life that was left to it at the moment that is gone back to. The life of a value with its
    // own timestamp is counted from that.
    let from_us = if asked.as_new { asked.at.unwrap_or(made_at).max(ts) } else { ts };
    let is_over = !asked.as_new && ends_us <= now_us;
    let life_ms = ends_us.saturating_sub(from_us).div_ceil(1_000);
    (!is_over && life_ms > 0).then_some(life_ms.min(TTL_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_end_when_they_would_have_ended() {
        let asked = |at, as_new| RestoreAsked { id: "x".into(), pattern: None, at, as_new };
        // Published at 10 s, archived at 20 s with 30 s left: it ends at 50 s.
        let of = |at, as_new, now| life(30_000, 10_000_000, 20_000_000, &asked(at, as_new), now);
        assert_eq!(of(None, false, 40_000_000), Some(40_000), "counted from its timestamp");
        assert_eq!(of(None, false, 50_000_000), None);
        assert_eq!(of(None, true, 90_000_000), Some(30_000), "what was left in the archive");
        assert_eq!(of(Some(45_000_000), true, 90_000_000), Some(5_000), "what was left at that moment");
        assert_eq!(of(Some(60_000_000), true, 90_000_000), None, "it was over by then");
        assert_eq!(life(0, 1, 2, &asked(None, false), 3), Some(0));
    }
}
