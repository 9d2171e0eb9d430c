//! How a subscription gets from nothing to being up to date.
//!
//! Subscriptions of a connection start one after another, each as a [`Job`]. A job scans the map, shard by
//! shard (or source by source, if no pattern has a wildcard), as fast as the connection's buffer takes it.
//! Each scan returns the shard's version, and that is the seam: a change up to it is part of the scan and is
//! skipped when it comes out of the mailbox; a later one is sent. Changes of a shard that is not scanned yet
//! are skipped, because the scan will find them. After the last shard the mailbox is drained up to the
//! position at which it ended then. From there on every change is later than the seam, which is dropped, and
//! the subscription is live.
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
use super::turn::Turn;
use crate::latest::Change;
use crate::limits::SHARDS;
use crate::protocol::draft::OwnedRequestId;
use crate::protocol::token::{SharedHeads, Token};
use crate::record::{Now, Pattern, Record, Segment, SharedRecord};

/// Expiries that lie up to this long before a token was made are reported again, in microseconds: clocks
/// differ, and expiries are reported a little late.
const EXPIRY_SLACK_US: u64 = 30_000_000;

/// The start of one subscription: its snapshot, and the seam between that and later changes.
#[derive(Debug)]
pub(super) struct Job {
    /// Number of the subscription.
    pub(super) number: u32,
    /// The patterns, sorted and without repetition.
    pub(super) patterns: Vec<Pattern>,
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
    /// Versions of the shards, from the first one on.
    Shards(Vec<u64>),
    /// Versions of the sources that the patterns name, from the first pattern on. No pattern has a wildcard.
    Sources(Vec<u64>),
    /// There is nothing to scan.
    None,
}

/// A record that a scan found.
pub(super) struct FoundRecord {
    pub(super) record: SharedRecord,
    /// Whether the record is sent as a deletion.
    pub(super) as_deleted: bool,
}

/// The result of one step of a job.
pub(super) enum JobStep {
    /// The number of records that were looked at, and those that were found.
    Scanned(usize, Vec<FoundRecord>),
    /// The job waits for the mailbox, or for the store to be loaded.
    Waits,
    /// The job is done.
    Done(Eos),
}

impl Job {
    pub(super) fn new(number: u32, patterns: Vec<Pattern>, unanswered: Unanswered) -> Job {
        debug_assert!(patterns.is_sorted_by(|a, b| a < b), "in order and without repetition");
        Job {
            number,
            patterns,
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

    /// Returns whether any of its patterns matches the source.
    pub(super) fn matches(&self, source: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(source))
    }

    /// Returns whether the job has been started.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.stage, JobStage::Queued)
    }

    /// Starts the job. The token at its end names the present heads: the records that they count are in the
    /// map.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        let is_exact = |pattern: &Pattern| pattern.segments().all(|s| matches!(s, Segment::Exact(_)));
        let issued_us = turn.now.wall_us;
        if self.has_scan && !self.patterns.iter().all(is_exact) {
            // The scan itself takes every shard's lock after the heads were read.
            let heads = turn.work.checkpoint.heads(turn.host);
            self.stage = JobStage::Scanning(Seam::Shards(Vec::new()), Eos { heads, issued_us });
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

    /// Takes the job one step further.
    pub(super) fn step(&mut self, turn: &Turn<'_>) -> JobStep {
        match std::mem::replace(&mut self.stage, JobStage::Queued) {
            JobStage::Queued => JobStep::Waits,
            JobStage::Scanning(mut seam, eos) => {
                let (looked_at, found) = self.scan(&mut seam, turn);
                self.stage = match looked_at {
                    None => JobStage::Settling(seam, eos, turn.host.mailbox_end()),
                    Some(_) => JobStage::Scanning(seam, eos),
                };
                JobStep::Scanned(looked_at.unwrap_or(0), found)
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

    /// Scans the next shard or source. Returns the number of records that were looked at (`None` when
    /// everything is scanned), and those that are to be sent.
    fn scan(&self, seam: &mut Seam, turn: &Turn<'_>) -> (Option<usize>, Vec<FoundRecord>) {
        let (latest, mut found, mut looked_at) = (turn.host.latest(), Vec::new(), 0);
        let mut look = |record: &SharedRecord| {
            looked_at += 1;
            if let Some(as_deleted) = self.takes(record, turn.now) {
                found.push(FoundRecord { record: record.clone(), as_deleted });
            }
        };
        match seam {
            Seam::Shards(versions) if versions.len() < SHARDS => {
                let shard = versions.len();
                versions.push(latest.scan_shard(shard, &mut look));
            }
            Seam::Sources(versions) if versions.len() < self.patterns.len() => {
                let pattern = &self.patterns[versions.len()];
                let (record, version) = latest.get_versioned(pattern.as_str());
                record.iter().for_each(look);
                versions.push(version);
            }
            _ => return (None, found),
        }
        // An empty shard counts as work, too.
        (Some(looked_at + 1), found)
    }

    /// Returns whether the record is sent as a deletion; `None` if it is not sent at all.
    fn takes(&self, record: &Record, now: Now) -> Option<bool> {
        if !self.matches(record.source.as_str()) {
            return None;
        }
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

    /// Compares a change of one of its sources with what was scanned.
    pub(super) fn side_of(&self, change: &Change) -> SeamSide {
        let (JobStage::Scanning(seam, _) | JobStage::Settling(seam, _, _)) = &self.stage else {
            return SeamSide::NotScanned;
        };
        let source = change.record.source.as_str();
        let version = match seam {
            Seam::Shards(versions) => versions.get(usize::from(change.shard)),
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
