//! How a subscription gets from nothing to being up to date.
//!
//! Subscriptions of a connection start one after another, each as a [`Job`]. A job scans the map, shard by
//! shard (or source by source, if no pattern has a wildcard), as fast as the connection's buffer takes it. A shard
//! is scanned pattern by pattern and in parts, which the worker gives to its sessions in turn, so that many jobs at
//! a time do not hold up anybody else.
//!
//! The version that the shard had when its first part was scanned is the seam: a change up to it is part of the
//! scan and is skipped when it comes out of the mailbox; a later one is sent. The further parts leave out what has
//! changed since, because that comes out of the mailbox. Changes of a shard that is not scanned yet are skipped,
//! because the scan will find them. After the last shard the mailbox is drained up to the position at which it
//! ended then. From there on every change is later than the seam, which is dropped, and the subscription is live.
//!
//! What an earlier, live subscription has sent is not sent again by a later one's scan. A live subscription
//! that came without a snapshot has sent only what changed since, so for it the names of the sources that
//! were sent are remembered, as hashes. A subscription that ends while jobs wait is kept as a ghost: the
//! jobs' scans do not repeat what it has sent, so changes that match both the ghost and a job must still be
//! sent.
//!
//! Rejected: to copy the matching part of the map at once (a hundred thousand sources for each of a
//! thousand clients that reconnect), and to buffer changes while the scan runs (without bound).

use super::host::Host;
use super::names::{Names, name_key};
use super::resume::EXPIRY_SLACK_US;
use super::turn::Turn;
use crate::latest::{Change, Cursor, shard_of};
use crate::limits::SHARDS;
use crate::protocol::draft::OwnedRequestId;
use crate::protocol::token::{SharedHeads, Token};
use crate::record::{Now, Pattern, Record, SharedRecord};
use crate::subscriptions::FilterSlot;

/// Bytes of records after which a part of a shard ends, so that a client that does not read holds few records
/// that have newer ones by now.
const PART_BYTES_MAX: usize = 256 * 1024;
/// Steps that looking up one source counts as.
const LOOKUP_STEPS: usize = 4;
/// Number of patterns that a name is compared with in the time of a step.
const COMPARED_PER_STEP: usize = 4;

/// The start of one subscription: its snapshot, and the seam between that and later changes.
#[derive(Debug)]
pub(super) struct Job {
    /// Number of the subscription.
    pub(super) number: u32,
    /// The patterns, sorted and without repetition.
    pub(super) patterns: Vec<Pattern>,
    /// The filter of the subscription.
    pub(super) filter: JobFilter,
    /// The request, until it is answered.
    pub(super) unanswered: Option<Unanswered>,
    /// The token of what the subscriber has seen already, if it holds here.
    pub(super) proved: Option<Token>,
    /// Whether there is anything to scan.
    pub(super) has_scan: bool,
    /// Whether the subscription has ended. The job then only lasts until no change is before its seam.
    pub(super) is_cancelled: bool,
    stage: JobStage,
    /// Sources that the scan sent although a live subscription without a snapshot matches them: changes of
    /// these up to the seam must not follow.
    snapped: Names,
}

/// The filter of a subscription, as its start knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JobFilter {
    /// The place of the filter among those of its connection.
    pub(super) slot: FilterSlot,
    /// The hash of its text; 0 without a filter.
    pub(super) key: u64,
}

/// Returns how many bytes a token holds besides its struct.
fn token_bytes(token: &Token) -> usize {
    token.patterns.capacity() * size_of::<u64>() + token.heads.len() * size_of::<(u64, u64)>()
}

/// A request to subscribe that waits until the store is loaded.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// The id of the request.
    pub(super) id: Option<OwnedRequestId>,
    /// The resume token that the request brings.
    pub(super) token: Option<Token>,
    /// Whether the request asks for a snapshot.
    pub(super) snapshot: bool,
}

#[derive(Debug)]
enum JobStage {
    Queued,
    Scanning(Seam, Eos),
    /// Waits until the mailbox is drained up to this position.
    Settling(Seam, Eos, u64),
}

/// The content of the token that is sent at the end of the snapshot.
#[derive(Clone, Debug)]
pub(super) struct Eos {
    /// The heads up to which the subscriber has seen every record that matches.
    pub(super) heads: SharedHeads,
    /// The wall clock at which the heads were read, in microseconds.
    pub(super) issued_us: u64,
}

/// The versions at which shards or sources were scanned.
#[derive(Debug)]
enum Seam {
    /// Versions of the shards, from the first one on, at which the scan of each began, and how far the last of them
    /// is scanned.
    Shards(Vec<u64>, ShardScan),
    /// Versions of the sources that the patterns name, from the first pattern on. No pattern has a wildcard.
    Sources(Vec<u64>),
    /// There is nothing to scan.
    None,
}

/// How far a shard is scanned.
#[derive(Debug, Default)]
struct ShardScan {
    /// Place of the pattern whose sources are looked for.
    pattern: usize,
    cursor: Cursor,
    /// Whether the scan of the shard has begun and not ended.
    is_under_way: bool,
}

/// A record that a scan found.
pub(super) struct FoundRecord {
    pub(super) record: SharedRecord,
    pub(super) kind: FoundKind,
}

/// What is to become of a record that a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundKind {
    /// The record is sent.
    Value,
    /// The record is sent as a deletion.
    Deletion,
    /// The subscriber has the record already. Only its filter must know.
    Covered,
}

/// The result of one step of a job.
pub(super) enum JobStep {
    /// The records that were found.
    Scanned(Vec<FoundRecord>),
    /// The job waits for the mailbox, or for the store to be loaded.
    Waits,
    /// The job is done.
    Done(Eos),
}

impl Job {
    pub(super) fn new(number: u32, patterns: Vec<Pattern>, filter: JobFilter, unanswered: Unanswered) -> Job {
        debug_assert!(patterns.is_sorted_by(|a, b| a < b), "in order and without repetition");
        Job {
            number,
            patterns,
            filter,
            unanswered: Some(unanswered),
            proved: None,
            has_scan: false,
            is_cancelled: false,
            stage: JobStage::Queued,
            snapped: Names::default(),
        }
    }

    /// Returns how many bytes the job itself and its token hold. Its patterns are counted by the index.
    pub(super) fn held_bytes(&self) -> usize {
        let asked = self.unanswered.as_ref().and_then(|unanswered| unanswered.token.as_ref());
        size_of::<Job>() + asked.into_iter().chain(&self.proved).map(token_bytes).sum::<usize>()
    }

    /// Returns how many bytes the memory of the sources that its scan has sent holds. It grows while the job
    /// runs.
    pub(super) fn snapped_bytes(&self) -> usize {
        self.snapped.allocation_size()
    }

    /// Returns whether the job has been started.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.stage, JobStage::Queued)
    }

    /// Starts the job. The token at its end names the present heads: the records that they count are in the
    /// map.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        let issued_us = turn.now.wall_us;
        if self.has_scan && self.patterns.iter().any(has_wildcard) {
            // The scan itself takes every shard's lock after the heads were read.
            let heads = turn.work.checkpoint.heads(turn.host);
            let seam = Seam::Shards(Vec::new(), ShardScan::default());
            self.stage = JobStage::Scanning(seam, Eos { heads, issued_us });
            return;
        }
        let proof = turn.work.checkpoint.fresh(turn.now, turn.host);
        let eos = Eos { heads: proof.heads, issued_us };
        self.stage = if self.has_scan {
            JobStage::Scanning(Seam::Sources(Vec::new()), eos)
        } else {
            JobStage::Settling(Seam::None, eos, proof.position)
        };
    }

    /// Takes the job a little further, and the steps that this takes off `steps`.
    pub(super) fn step(&mut self, turn: &Turn<'_>, steps: &mut usize) -> JobStep {
        match std::mem::replace(&mut self.stage, JobStage::Queued) {
            JobStage::Queued => JobStep::Waits,
            JobStage::Scanning(mut seam, eos) => {
                let found = self.scan(&mut seam, turn, steps);
                self.stage = match found {
                    None => JobStage::Settling(seam, eos, turn.host.mailbox_end()),
                    Some(_) => JobStage::Scanning(seam, eos),
                };
                JobStep::Scanned(found.unwrap_or_default())
            }
            JobStage::Settling(_, eos, position) if turn.mailbox_position >= position => JobStep::Done(eos),
            JobStage::Settling(seam, eos, position) => {
                self.stage = JobStage::Settling(seam, eos, position);
                JobStep::Waits
            }
        }
    }

    /// Cancels the job of a subscription that has ended. Returns `true` if the job can be dropped at once.
    pub(super) fn cancel(&mut self, host: &dyn Host) -> bool {
        self.is_cancelled = true;
        match std::mem::replace(&mut self.stage, JobStage::Queued) {
            JobStage::Queued => return true,
            JobStage::Scanning(seam, eos) => self.stage = JobStage::Settling(seam, eos, host.mailbox_end()),
            settling => self.stage = settling,
        }
        false
    }

    /// Scans the next part of a shard, or the next source. Returns the records that are to be sent, or `None` when
    /// everything is scanned.
    fn scan(&self, seam: &mut Seam, turn: &Turn<'_>, steps: &mut usize) -> Option<Vec<FoundRecord>> {
        let mut records = Vec::new();
        match seam {
            Seam::Shards(versions, scan) if scan.is_under_way || versions.len() < SHARDS => {
                self.scan_shard(versions, scan, turn, steps, &mut records);
            }
            Seam::Sources(versions) if versions.len() < self.patterns.len() => {
                *steps = steps.saturating_sub(LOOKUP_STEPS);
                let pattern = &self.patterns[versions.len()];
                let (record, version) = turn.host.latest().get_versioned(pattern.as_str());
                records.extend(record);
                versions.push(version);
            }
            _ => return None,
        }
        let found = |record: SharedRecord| {
            let kind = match self.takes(&record, turn.now) {
                Some(false) => FoundKind::Value,
                Some(true) => FoundKind::Deletion,
                None if self.filter.slot.is_filter() && record.is_visible(turn.now.wall_us) => {
                    FoundKind::Covered
                }
                None => return None,
            };
            Some(FoundRecord { record, kind })
        };
        Some(records.into_iter().filter_map(found).collect())
    }

    /// Scans the next part of a shard: looks for sources that one pattern matches, and no pattern before it.
    fn scan_shard(
        &self,
        versions: &mut Vec<u64>,
        scan: &mut ShardScan,
        turn: &Turn<'_>,
        steps: &mut usize,
        records: &mut Vec<SharedRecord>,
    ) {
        let shard = if scan.is_under_way { versions.len() - 1 } else { versions.len() };
        // A source without wildcards belongs to one shard.
        let is_elsewhere = |pattern: &&Pattern| !has_wildcard(pattern) && shard_of(pattern.as_str()) != shard;
        let here = self.patterns.iter().skip(scan.pattern).position(|pattern| !is_elsewhere(&pattern));
        let skipped = here.unwrap_or(self.patterns.len() - scan.pattern);
        *steps = steps.saturating_sub(skipped);
        scan.pattern += skipped;
        if let Some(pattern) = self.patterns.get(scan.pattern) {
            // What changed since the scan of the shard began comes out of the mailbox.
            let upto = if scan.is_under_way { versions.last().copied() } else { None };
            let upto = upto.unwrap_or(u64::MAX);
            let latest = turn.host.latest();
            let mut bytes = 0;
            let version = latest.scan(shard, pattern, &mut scan.cursor, steps, &mut |record, version| {
                if version <= upto {
                    bytes += record.cost_bytes();
                    records.push(record.clone());
                }
                bytes < PART_BYTES_MAX
            });
            if !scan.is_under_way {
                versions.push(version);
                scan.is_under_way = true;
            }
            let before = &self.patterns[..scan.pattern];
            *steps = steps.saturating_sub(records.len() * before.len() / COMPARED_PER_STEP);
            records.retain(|record| {
                let name = record.source.as_str();
                !before.iter().any(|pattern| pattern.matches(name))
            });
            if scan.cursor.is_over() {
                scan.pattern += 1;
                scan.cursor = Cursor::default();
            }
        }
        if scan.pattern == self.patterns.len() {
            *scan = ShardScan::default();
        }
    }

    /// Returns whether a record that the scan found is sent as a deletion; `None` if it is not sent at all.
    fn takes(&self, record: &Record, now: Now) -> Option<bool> {
        let is_gone = !record.is_visible(now.wall_us);
        let Some(token) = &self.proved else { return (!is_gone).then_some(false) };
        if !token.covers_birth(&record.birth) {
            return Some(is_gone);
        }
        // The subscriber has seen the record, but its time to live may have ended since.
        let expired_since = |at: u64| at.saturating_add(EXPIRY_SLACK_US) > token.issued_us;
        (is_gone && record.expires_us().is_some_and(expired_since)).then_some(true)
    }

    /// Notes that the scan sends a source that a live subscription without a snapshot matches.
    pub(super) fn remember_snapped(&mut self, key: u64) {
        self.snapped.insert(key);
    }

    /// Compares a change with what was scanned, as if it were of one of the job's sources.
    pub(super) fn side_of(&self, change: &Change) -> SeamSide {
        let (JobStage::Scanning(seam, _) | JobStage::Settling(seam, _, _)) = &self.stage else {
            return SeamSide::NotScanned;
        };
        let source = change.record.source.as_str();
        let version = match seam {
            Seam::Shards(versions, _) => versions.get(usize::from(change.shard)),
            Seam::Sources(versions) => {
                let place = self.patterns.binary_search_by(|pattern| pattern.as_str().cmp(source));
                place.ok().and_then(|place| versions.get(place))
            }
            Seam::None => Some(&0),
        };
        match version {
            None => SeamSide::NotScanned,
            Some(version) if change.version > *version => SeamSide::After,
            Some(_) => SeamSide::Scanned { was_snapped: self.snapped.contains(&name_key(source)) },
        }
    }
}

fn has_wildcard(pattern: &Pattern) -> bool {
    // Names of sources contain no `*`.
    pattern.as_str().contains('*')
}

/// The side of the seam on which a change lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeamSide {
    /// The scan will find the change, or something newer.
    NotScanned,
    /// The scan has found the change, or something newer.
    Scanned {
        /// Whether the scan has sent the source although a live subscription without a snapshot matches it,
        /// too.
        was_snapped: bool,
    },
    /// The change came after the scan.
    After,
}
