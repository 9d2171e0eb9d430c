//! What a connection subscribes to, and which records it must be sent for that.
//!
//! A subscription has a [`Job`] until it is live; the first job runs. What one subscription has sent, another
//! one's snapshot does not send again ([`super::super::snapshot`] explains this), so a subscription that ends
//! while jobs are under way is remembered as a ghost.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::latest::Change;
use crate::protocol::draft::OwnedRequestId;
use crate::protocol::token::Token;
use crate::record::Pattern;
use crate::record::hash::NameState;
use crate::server::session::host::Host;
use crate::server::session::names::name_key;
use crate::server::session::snapshot::{Job, JobStep, SeamSide, Unanswered};
use crate::server::session::turn::Turn;

/// All subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// The subscriptions that have not ended, by the number that the client knows.
    subscriptions: BTreeMap<u32, Interest>,
    /// Number of the newest subscription.
    last_number: u32,
    /// The jobs of subscriptions that are not live yet; the first one runs.
    jobs: VecDeque<Job>,
    /// Bytes of the jobs, as [`Job::held_bytes`] counts them.
    job_bytes: usize,
    /// Subscriptions that were live when they ended, until no job is left for which they count.
    ghosts: Vec<Ghost>,
    /// Bytes of the ghosts.
    ghost_bytes: usize,
    /// The sources that were sent, kept while there is a live subscription (or ghost) without a snapshot.
    sent: Option<SentEpochs>,
    /// Number of the present epoch. A new one begins whenever a subscription without a snapshot becomes
    /// live.
    epoch: u32,
}

/// One subscription of a connection.
#[derive(Debug)]
struct Interest {
    patterns: Vec<Pattern>,
    /// Whether the subscription came without a snapshot.
    is_bare: bool,
    /// The epoch that began when the subscription became live, if it came without a snapshot.
    epoch: u32,
    is_live: bool,
}

impl Interest {
    fn matches(&self, source: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(source))
    }

    /// Returns how many bytes the subscription holds if nobody shares its patterns.
    fn held_bytes(&self) -> usize {
        let patterns = self.patterns.iter().map(|pattern| SHARED_TEXT_BYTES + pattern.as_str().len());
        size_of::<Interest>() + self.patterns.capacity() * size_of::<Pattern>() + patterns.sum::<usize>()
    }
}

/// Bytes of a shared text besides the text: its two counts, and what the allocator adds.
const SHARED_TEXT_BYTES: usize = 4 * size_of::<usize>();

/// A subscription that ended while others were on their way.
#[derive(Debug)]
struct Ghost {
    interest: Interest,
    /// Number of the newest job for which the ghost counts: later jobs began after it had ended.
    last_job: u32,
}

/// The epochs in which sources were sent last, by [`name_key`].
#[derive(Debug, Default)]
struct SentEpochs {
    epochs: HashMap<u64, u32, NameState>,
    /// The source that was noted last, and its epoch. Often the next one is the same.
    last: Option<(u64, u32)>,
}

impl SentEpochs {
    fn note(&mut self, key: u64, epoch: u32) {
        if self.last.replace((key, epoch)) != Some((key, epoch)) {
            self.epochs.insert(key, epoch);
        }
    }
}

/// A subscription that can be answered now.
pub(super) struct AnsweredJob {
    /// The id of the request.
    pub(super) id: Option<OwnedRequestId>,
    /// Number of the subscription.
    pub(super) subscription: u32,
    /// Whether the resume token was accepted; `None` without a token.
    pub(super) recovered: Option<bool>,
}

impl Interests {
    /// Adds a subscription, to be started after those before it. Its patterns must be in order and without
    /// repetition.
    pub(super) fn add(&mut self, patterns: Vec<Pattern>, unanswered: Unanswered) {
        self.last_number += 1;
        let job = Job::new(self.last_number, patterns.clone(), unanswered);
        self.job_bytes += job.held_bytes();
        self.jobs.push_back(job);
        let interest = Interest { patterns, is_bare: false, epoch: 0, is_live: false };
        self.subscriptions.insert(self.last_number, interest);
    }

    /// Takes the request of the job at place `at`, if that is unanswered, and decides what its snapshot
    /// contains. `is_proved` returns whether a token holds here for these patterns.
    pub(super) fn answer_job(
        &mut self,
        at: usize,
        is_proved: impl FnOnce(&Token, &[Pattern]) -> bool,
    ) -> Option<AnsweredJob> {
        let job = self.jobs.get_mut(at)?;
        let before = job.held_bytes();
        let Unanswered { id, token, snapshot } = job.unanswered.take()?;
        let had_token = token.is_some();
        job.proved = token.filter(|token| is_proved(token, &job.patterns));
        self.job_bytes = self.job_bytes - before + job.held_bytes();
        // A token that proves nothing gives a full snapshot, whatever was asked for.
        job.has_scan = snapshot || had_token;
        if let Some(interest) = self.subscriptions.get_mut(&job.number) {
            interest.is_bare = !job.has_scan;
        }
        let recovered = had_token.then_some(job.proved.is_some());
        Some(AnsweredJob { id, subscription: job.number, recovered })
    }

    /// Place of the job of this subscription among the jobs, if it still has one.
    pub(super) fn job_of(&self, number: u32) -> Option<usize> {
        self.jobs.iter().position(|job| job.number == number)
    }

    /// Ends a subscription. Returns its patterns, or `None` if there is no subscription of this number.
    /// Its job must have been answered.
    pub(super) fn end(&mut self, number: u32, host: &dyn Host) -> Option<Vec<Pattern>> {
        let ended = self.subscriptions.remove(&number)?;
        if let Some(at) = self.job_of(number)
            && self.jobs.get_mut(at).is_some_and(|job| job.cancel(host))
            && let Some(dropped) = self.jobs.remove(at)
        {
            self.job_bytes -= dropped.held_bytes();
        }
        let patterns = ended.patterns.clone();
        if ended.is_live && !self.jobs.is_empty() {
            self.ghost_bytes += ended.held_bytes();
            self.ghosts.push(Ghost { interest: ended, last_job: self.last_number });
        }
        self.forget_what_is_over();
        Some(patterns)
    }

    /// Ends all subscriptions. Returns their patterns.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = Pattern> {
        self.jobs.clear();
        self.job_bytes = 0;
        std::mem::take(&mut self.subscriptions).into_values().flat_map(|interest| interest.patterns)
    }

    /// Drops what was kept for jobs that are done and for subscriptions without a snapshot that have ended.
    fn forget_what_is_over(&mut self) {
        let running = self.jobs.front().map(|job| job.number);
        // Jobs run in the order of their numbers, so later ones have greater numbers than the first.
        let counts = |ghost: &Ghost| running.is_some_and(|number| number <= ghost.last_job);
        if !self.ghosts.iter().all(counts) {
            self.ghosts.retain(counts);
            self.ghost_bytes = self.ghosts.iter().map(|ghost| ghost.interest.held_bytes()).sum();
        }
        let ghosts = self.ghosts.iter().map(|ghost| &ghost.interest);
        let mut live = self.subscriptions.values().chain(ghosts);
        if !live.any(|interest| interest.is_live && interest.is_bare) {
            self.sent = None;
        }
    }

    /// Notes that a record of a source is sent. `key` returns the hash of its name, and is called only if
    /// that is needed.
    pub(super) fn note_sent(&mut self, key: impl FnOnce() -> u64) {
        if let Some(sent) = &mut self.sent {
            sent.note(key(), self.epoch);
        }
    }

    /// Returns whether a change is to be sent while a job is under way.
    pub(super) fn wants(&self, change: &Change) -> bool {
        let source = change.record.source.as_str();
        let running = self.jobs.front().filter(|job| job.matches(source));
        let side = running.map_or(SeamSide::NotScanned, |job| job.side_of(change));
        let counts_for = |ghost: &Ghost, job: &Job| {
            job.number <= ghost.last_job && !job.is_cancelled && job.matches(source)
        };
        let haunts = |ghost: &&Ghost| {
            ghost.interest.matches(source) && self.jobs.iter().any(|job| counts_for(ghost, job))
        };
        let live = self.live().filter(|interest| interest.matches(source));
        let ghosts = self.ghosts.iter().filter(haunts).map(|ghost| &ghost.interest);
        let (mut is_live, mut is_whole) = (false, false);
        for interest in live.chain(ghosts) {
            is_live = true;
            is_whole |= !interest.is_bare;
        }
        if is_live {
            return is_whole || side != (SeamSide::Scanned { was_snapped: true });
        }
        side == SeamSide::After && running.is_some_and(|job| !job.is_cancelled)
    }

    /// Returns whether a record that the running job's scan found is to be sent, and notes that it is.
    pub(super) fn takes_scanned(&mut self, source: &str) -> bool {
        let (mut is_bare, key) = (false, name_key(source));
        let number = self.jobs.front().map_or(u32::MAX, |job| job.number);
        let live = self.subscriptions.values().filter(|interest| interest.is_live);
        let ghosts = self.ghosts.iter().filter(|ghost| number <= ghost.last_job).map(|g| &g.interest);
        for interest in live.chain(ghosts).filter(|interest| interest.matches(source)) {
            // What was sent before this subscription was live may have changed before it was live, too.
            let sent = self.sent.as_ref().and_then(|sent| sent.epochs.get(&key));
            if !interest.is_bare || sent.is_some_and(|epoch| *epoch >= interest.epoch) {
                return false;
            }
            is_bare = true;
        }
        if is_bare && let Some(job) = self.jobs.front_mut() {
            job.remember_snapped(key);
        }
        self.note_sent(|| key);
        true
    }

    /// Takes the running job one step further, or starts the next one.
    pub(super) fn step(&mut self, turn: &mut Turn<'_>) -> JobStep {
        let Some(job) = self.jobs.front_mut().filter(|job| job.unanswered.is_none()) else {
            return JobStep::Waits;
        };
        if job.is_running() {
            return job.step(turn);
        }
        job.start(turn);
        if !job.has_scan
            && let Some(interest) = self.subscriptions.get_mut(&job.number)
        {
            self.epoch += 1;
            (interest.is_live, interest.epoch) = (true, self.epoch);
            self.sent.get_or_insert_default();
        }
        JobStep::Scanned(0, Vec::new())
    }

    /// Ends the running job: its subscription is live. Returns the number of the subscription, or `None`
    /// if that has ended meanwhile.
    pub(super) fn finish_job(&mut self) -> Option<u32> {
        let job = self.jobs.pop_front()?;
        self.job_bytes -= job.held_bytes();
        debug_assert!(!self.jobs.is_empty() || self.job_bytes == 0, "jobs that are done hold nothing");
        let interest = self.subscriptions.get_mut(&job.number);
        let number = interest.map(|interest| {
            interest.is_live = true;
            job.number
        });
        self.forget_what_is_over();
        number
    }

    fn live(&self) -> impl Iterator<Item = &Interest> {
        self.subscriptions.values().filter(|interest| interest.is_live)
    }

    /// The patterns of all live subscriptions.
    pub(super) fn live_patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.live().flat_map(|interest| &interest.patterns)
    }

    /// Returns whether any subscription is live.
    pub(super) fn any_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// Returns whether any subscription, live or not yet, matches the source.
    pub(super) fn matches(&self, source: &str) -> bool {
        self.subscriptions.values().any(|interest| interest.matches(source))
    }

    /// Returns whether any job is left.
    pub(super) fn is_starting(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Returns whether any request waits for its answer. They are answered together.
    pub(super) fn has_unanswered(&self) -> bool {
        self.jobs.back().is_some_and(|job| job.unanswered.is_some())
    }

    /// Number of jobs: those of subscriptions that are not live yet, and cancelled ones that still run.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Returns how many bytes are held for the subscriptions besides their patterns, which the index counts.
    pub(super) fn held_bytes(&self) -> usize {
        let snapped = self.jobs.front().map_or(0, Job::snapped_bytes);
        let sent = self.sent.as_ref().map_or(0, |sent| sent.epochs.allocation_size());
        self.job_bytes + self.ghost_bytes + snapped + sent + self.subscriptions.len() * size_of::<Interest>()
    }

    /// Number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Returns whether there is no subscription.
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }
}
