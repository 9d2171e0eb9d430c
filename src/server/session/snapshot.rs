//! How a subscription gets from nothing to being up to date.
//!
//! Subscriptions of a connection start one after another, each as a [`Job`]. A job scans the map,
//! shard by shard (or source by source, if no pattern has a wildcard), as fast as the connection's
//! buffer takes it. Each scan tells the shard's version, and that is the seam: a change up to it is in
//! what was scanned and is skipped when it comes out of the mailbox; a later one is sent. Of a shard
//! that is not scanned yet, changes are skipped, for the scan will find them. After the last shard
//! the mailbox is drained up to where it ended then; from there on every change is later than the
//! seam, which is dropped, and the subscription is live.
//!
//! What an earlier, live subscription has sent is not sent again by a later one's scan. A live
//! subscription that came without a snapshot has sent only what changed since, so for it the names of
//! what was sent are remembered, as hashes. A subscription that ends while jobs wait stays behind as
//! a ghost: what it has sent must still not be repeated, and what it would have sent to both must
//! still come.
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

/// Expiries this long before a token was made are told again: clocks differ, and telling is late.
const EXPIRY_SLACK_US: u64 = 30_000_000;

/// The start of one subscription.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u32,
    /// Without repetition.
    pub(super) patterns: Vec<Pattern>,
    /// The request's id, and whether it had a token, until it is answered.
    pub(super) unanswered: Option<Unanswered>,
    /// What the subscriber has seen already, proved to hold here.
    pub(super) proved: Option<Token>,
    /// Whether there is anything to scan.
    pub(super) has_scan: bool,
    /// Its subscription ended: the job only sees its seam through.
    pub(super) is_cancelled: bool,
    stage: JobStage,
    /// Sources that the scan sent although a live subscription without a snapshot has them: changes
    /// up to the seam are not to follow.
    snapped: Names,
}

/// A request that waits for the store to be loaded.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) id: Option<OwnedRequestId>,
    pub(super) token: Option<Token>,
    pub(super) snapshot: bool,
}

#[derive(Debug)]
enum JobStage {
    Queued,
    Scanning(Seam, Eos),
    /// Until the mailbox is drained up to here.
    Settling(Seam, Eos, u64),
}

/// What the token at the end of the snapshot will say.
#[derive(Clone, Debug)]
pub(super) struct Eos {
    pub(super) heads: SharedHeads,
    pub(super) issued_us: u64,
}

/// Versions of what was scanned so far.
#[derive(Debug)]
enum Seam {
    /// Of the shards, from the first.
    Shards(Vec<u64>),
    /// Of the patterns, all of them names, from the first.
    Sources(Vec<u64>),
    /// There is nothing to scan.
    None,
}

/// A record that a scan found, and whether it is sent as a deletion.
pub(super) struct FoundRecord {
    pub(super) record: SharedRecord,
    pub(super) as_deleted: bool,
}

/// What one step of a job did.
pub(super) enum JobStep {
    /// It looked at so many records, and found these.
    Scanned(usize, Vec<FoundRecord>),
    /// It waits for the mailbox.
    Waits,
    /// It is done.
    Done(Eos),
}

impl Job {
    pub(super) fn new(number: u32, mut patterns: Vec<Pattern>, unanswered: Unanswered) -> Job {
        patterns.sort_unstable();
        patterns.dedup();
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

    pub(super) fn matches(&self, source: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(source))
    }

    /// Whether it is its turn already.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.stage, JobStage::Queued)
    }

    /// Begins. The heads of the token at its end are those of now: what they count is in the map.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        let is_exact = |pattern: &Pattern| pattern.segments().all(|s| matches!(s, Segment::Exact(_)));
        let issued_us = turn.now.wall_us;
        if self.has_scan && !self.patterns.iter().all(is_exact) {
            // The scan itself passes every shard's lock after the heads were looked at.
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

    /// Goes one step on.
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

    /// Its subscription ended. `true`: nothing is left to see through.
    pub(super) fn cancel(&mut self, host: &dyn Host) -> bool {
        self.is_cancelled = true;
        match std::mem::replace(&mut self.stage, JobStage::Queued) {
            JobStage::Queued => return true,
            JobStage::Scanning(seam, eos) => self.stage = JobStage::Settling(seam, eos, host.mailbox_end()),
            settling => self.stage = settling,
        }
        false
    }

    /// Scans the next shard or source: how many records were looked at (`None`: all is scanned), and
    /// those to be sent.
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
        // An empty shard is work, too.
        (Some(looked_at + 1), found)
    }

    /// Whether the snapshot has this record, and if so whether as a deletion.
    fn takes(&self, record: &Record, now: Now) -> Option<bool> {
        if !self.matches(record.source.as_str()) {
            return None;
        }
        let is_gone = !record.is_visible(now.wall_us);
        let Some(token) = &self.proved else { return (!is_gone).then_some(false) };
        if !token.covers_birth(&record.birth) {
            return Some(is_gone);
        }
        // Seen, but its time to live may have ended since.
        let expired_since = |at: u64| at.saturating_add(EXPIRY_SLACK_US) > token.issued_us;
        (is_gone && record.expires_us().is_some_and(expired_since)).then_some(true)
    }

    /// The scan sends a source that a live subscription without a snapshot matches.
    pub(super) fn remember_snapped(&mut self, key: u64) {
        self.snapped.insert(key);
    }

    /// Where a change of one of its sources stands to what was scanned.
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

/// Where a change stands to a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeamSide {
    /// The scan will find it, or something newer.
    NotScanned,
    /// The scan has found it, or something newer.
    Scanned {
        /// And has sent that, although a live subscription matches, too.
        was_snapped: bool,
    },
    /// It came after the scan.
    After,
}
