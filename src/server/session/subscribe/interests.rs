//! What a connection subscribes to, and which records it must be sent for that.
//!
//! A subscription has a [`Job`] until it is live; the first job runs. What one subscription has sent, another
//! one's snapshot does not send again ([`super::super::snapshot`] explains this), so a subscription that ends
//! while jobs are under way is remembered as a ghost.
//!
//! Which of the subscriptions match a record is asked of the worker's index, where each pattern is listed in the
//! role of its subscription ([`Role`]). So the answer takes a bounded time, however many patterns there are.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::numbered::Numbered;
use crate::latest::Change;
use crate::protocol::draft::OwnedRequestId;
use crate::protocol::token::{Token, subscription_key};
use crate::record::Pattern;
use crate::record::hash::NameState;
use crate::server::session::names::name_key;
use crate::server::session::snapshot::{Job, JobFilter, JobStep, SeamSide, Unanswered};
use crate::server::session::turn::Turn;
use crate::subscriptions::{Excess, FilteredRole, LeavingPattern, Role, SlotSet};

/// Steps that starting a job counts as. It may take the lock of every shard once.
const START_STEPS: usize = 32;

/// All subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// The subscriptions that have not ended, by the number that the client knows.
    subscriptions: Numbered<Interest>,
    /// Number of the newest subscription.
    last_number: u32,
    /// Number of the live subscriptions.
    live: usize,
    /// The jobs of subscriptions that are not live yet; the first one runs.
    jobs: VecDeque<Job>,
    /// Bytes of the jobs, as [`Job::held_bytes`] counts them.
    job_bytes: usize,
    /// Subscriptions that were live when they ended, until no job is left for which they count, in the order in
    /// which they ended.
    ghosts: VecDeque<Ghost>,
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
    filter: JobFilter,
    /// The role in which the index lists the patterns.
    role: Role,
    /// A second role in which it does.
    extra: Option<Role>,
}

impl Interest {
    /// Adds the patterns to those with which a connection leaves: `plain` ones, and `extra` ones, which go first.
    fn leave(self, plain: &mut Vec<LeavingPattern>, extra: &mut Vec<LeavingPattern>) {
        let (role, added) = (self.listed(self.role), self.extra.map(|role| self.listed(role)));
        for pattern in self.patterns {
            let added = added.map(|role| (pattern.clone(), role));
            extra.extend(added.map(|(pattern, role)| LeavingPattern { pattern, role, is_extra: true }));
            plain.push(LeavingPattern { pattern, role, is_extra: false });
        }
    }

    /// The role as the index lists it: with the filter.
    fn listed(&self, role: Role) -> FilteredRole {
        FilteredRole { role, slot: self.filter.slot }
    }

    /// Takes the patterns out of the index.
    fn remove(&self, turn: &mut Turn<'_>) {
        let (index, connection) = (&mut turn.work.index, turn.connection);
        if let Some(extra) = self.extra {
            index.take_role(&self.patterns, connection, self.listed(extra));
        }
        for pattern in &self.patterns {
            let was_there = index.remove(pattern, connection, self.listed(self.role));
            debug_assert!(was_there, "a subscription is in the index until it ends");
        }
    }

    /// Lists the patterns in this role instead of the one that they have.
    fn change_role(&mut self, turn: &mut Turn<'_>, role: Role) {
        let (old, new) = (self.listed(self.role), self.listed(role));
        turn.work.index.change_role(&self.patterns, turn.connection, old, new);
        self.role = role;
    }

    /// Lists the patterns in this second role, or in none.
    fn set_extra(&mut self, turn: &mut Turn<'_>, role: Option<Role>) {
        if let Some(old) = std::mem::replace(&mut self.extra, role) {
            turn.work.index.take_role(&self.patterns, turn.connection, self.listed(old));
        }
        if let Some(new) = role {
            turn.work.index.add_role(&self.patterns, turn.connection, self.listed(new));
        }
    }
}

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
    /// Adds a subscription, to be started after those before it, and its patterns to the index. They must be in
    /// order and without repetition.
    pub(super) fn add(
        &mut self,
        turn: &mut Turn<'_>,
        patterns: Vec<Pattern>,
        filter: JobFilter,
        unanswered: Unanswered,
    ) -> Result<(), Excess> {
        let number = self.last_number + 1;
        let role = Role::Starting(number);
        let listed = FilteredRole { role, slot: filter.slot };
        turn.work.index.insert(&patterns, turn.connection, listed)?;
        self.last_number = number;
        let job = Job::new(number, patterns.clone(), filter, unanswered);
        self.job_bytes += job.held_bytes();
        self.jobs.push_back(job);
        let interest =
            Interest { patterns, is_bare: false, epoch: 0, is_live: false, filter, role, extra: None };
        self.subscriptions.push(number, interest);
        Ok(())
    }

    /// Takes the request of the job at place `at`, if that is unanswered, and decides what its snapshot
    /// contains. `is_proved` returns whether a token holds here for these patterns.
    pub(super) fn answer_job(
        &mut self,
        at: usize,
        is_proved: impl FnOnce(&Token, &[Pattern], u64) -> bool,
    ) -> Option<AnsweredJob> {
        let job = self.jobs.get_mut(at)?;
        let before = job.held_bytes();
        let Unanswered { id, token, snapshot } = job.unanswered.take()?;
        let had_token = token.is_some();
        job.proved = token.filter(|token| is_proved(token, &job.patterns, job.filter.key));
        self.job_bytes = self.job_bytes - before + job.held_bytes();
        // A token that proves nothing gives a full snapshot, whatever was asked for.
        job.has_scan = snapshot || had_token;
        if let Some(interest) = self.subscriptions.get_mut(job.number) {
            interest.is_bare = !job.has_scan;
        }
        let recovered = had_token.then_some(job.proved.is_some());
        Some(AnsweredJob { id, subscription: job.number, recovered })
    }

    /// Place of the job of this subscription among the jobs, if it still has one.
    pub(super) fn job_of(&self, number: u32) -> Option<usize> {
        self.jobs.iter().position(|job| job.number == number)
    }

    /// Ends a subscription. Returns `false` if there is no subscription of this number. Its job must have been
    /// answered.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, number: u32) -> bool {
        let Some(mut ended) = self.subscriptions.remove(number) else { return false };
        self.live -= usize::from(ended.is_live);
        if let Some(at) = self.job_of(number)
            && self.jobs.get_mut(at).is_some_and(|job| job.cancel(turn.host))
            && let Some(dropped) = self.jobs.remove(at)
        {
            self.job_bytes -= dropped.held_bytes();
            self.free_jobs();
        }
        if ended.is_live && !self.jobs.is_empty() {
            let last_job = self.last_number;
            if ended.is_bare {
                ended.change_role(turn, Role::BareGhost(last_job));
                let epoch = ended.epoch;
                ended.set_extra(turn, Some(Role::BareGhostEpoch(epoch)));
            } else {
                ended.change_role(turn, Role::Ghost(last_job));
            }
            self.ghosts.push_back(Ghost { interest: ended, last_job });
        } else {
            ended.remove(turn);
        }
        self.forget_what_is_over(turn);
        true
    }

    /// Ends all subscriptions. Returns their patterns, for [`crate::subscriptions::Index::leave`].
    pub(super) fn end_all(&mut self) -> Vec<LeavingPattern> {
        let (mut plain, mut extra) = (Vec::new(), Vec::new());
        let ghosts = std::mem::take(&mut self.ghosts).into_iter().map(|ghost| ghost.interest);
        for interest in self.subscriptions.take_values().chain(ghosts) {
            interest.leave(&mut plain, &mut extra);
        }
        self.jobs = VecDeque::new();
        self.job_bytes = 0;
        self.live = 0;
        plain.append(&mut extra);
        plain
    }

    /// Drops what was kept for jobs that are done and for subscriptions without a snapshot that have ended.
    fn forget_what_is_over(&mut self, turn: &mut Turn<'_>) {
        // A ghost counts for the jobs that were there when it ended.
        let first = self.jobs.front().map_or(u32::MAX, |job| job.number);
        while let Some(ghost) = self.ghosts.pop_front_if(|ghost| ghost.last_job < first) {
            ghost.interest.remove(turn);
        }
        let ghosts = self.ghosts.iter().map(|ghost| &ghost.interest);
        let mut live = self.subscriptions.values().chain(ghosts);
        if self.sent.is_some() && !live.any(|interest| interest.is_live && interest.is_bare) {
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

    /// Returns whether a change is to be sent while a job is under way. `slots` are the filters that let it through.
    pub(super) fn wants(&self, turn: &Turn<'_>, change: &Change, slots: SlotSet) -> bool {
        let wants = turn.work.index.wants(change.record.source.as_str(), turn.connection, slots);
        let running = self.jobs.front();
        let side = running.map_or(SeamSide::NotScanned, |job| job.side_of(change));
        // A ghost counts if a job that was there when it ended matches, too. Jobs are in the order of numbers.
        let haunts =
            |ghost: Option<u32>| ghost.zip(wants.starting).is_some_and(|(last, first)| first <= last);
        if wants.whole || haunts(wants.ghost) {
            return true;
        }
        if wants.bare.is_some() || haunts(wants.bare_ghost) {
            return side != (SeamSide::Scanned { was_snapped: true });
        }
        side == SeamSide::After && wants.starting == running.map(|job| job.number)
    }

    /// Returns whether a record that the running job's scan found is to be sent, and notes that it is. `slots` are the
    /// filters that let it through.
    pub(super) fn takes_scanned(&mut self, turn: &Turn<'_>, source: &str, slots: SlotSet) -> bool {
        if self.live == 0 && self.ghosts.is_empty() {
            debug_assert!(self.sent.is_none(), "what is sent matters only to other subscriptions");
            return true;
        }
        let wants = turn.work.index.wants(source, turn.connection, slots);
        // All ghosts that are left count for the running job.
        if wants.whole || wants.ghost.is_some() {
            return false;
        }
        let key = name_key(source);
        if let Some(epoch) = [wants.bare, wants.ghost_epoch].into_iter().flatten().min() {
            // What was sent before this subscription was live may have changed before it was live, too.
            let sent = self.sent.as_ref().and_then(|sent| sent.epochs.get(&key));
            if sent.is_some_and(|sent| *sent >= epoch) {
                return false;
            }
            if let Some(job) = self.jobs.front_mut() {
                job.remember_snapped(key);
            }
        }
        self.note_sent(|| key);
        true
    }

    /// Takes the running job a little further, or starts the next one. Takes the steps of that off `steps`.
    pub(super) fn step(&mut self, turn: &mut Turn<'_>, steps: &mut usize) -> JobStep {
        let Some(job) = self.jobs.front_mut().filter(|job| job.unanswered.is_none()) else {
            return JobStep::Waits;
        };
        if job.is_running() {
            return job.step(turn, steps);
        }
        job.start(turn);
        *steps = steps.saturating_sub(START_STEPS);
        if !job.has_scan
            && let Some(interest) = self.subscriptions.get_mut(job.number)
        {
            self.epoch += 1;
            (interest.is_live, interest.epoch) = (true, self.epoch);
            interest.set_extra(turn, Some(Role::Bare(self.epoch)));
            self.live += 1;
            self.sent.get_or_insert_default();
        }
        JobStep::Scanned(Vec::new())
    }

    /// Ends the running job: its subscription is live. Returns the number of the subscription, or `None`
    /// if that has ended meanwhile.
    pub(super) fn finish_job(&mut self, turn: &mut Turn<'_>) -> Option<u32> {
        let job = self.jobs.pop_front()?;
        self.job_bytes -= job.held_bytes();
        self.free_jobs();
        debug_assert!(!self.jobs.is_empty() || self.job_bytes == 0, "jobs that are done hold nothing");
        let number = self.subscriptions.get_mut(job.number).map(|interest| {
            if interest.is_bare {
                interest.set_extra(turn, None);
                interest.change_role(turn, Role::Bare(interest.epoch));
            } else {
                interest.change_role(turn, Role::Whole);
                interest.is_live = true;
                self.live += 1;
            }
            job.number
        });
        self.forget_what_is_over(turn);
        number
    }

    /// Gives the memory of the jobs back once all are done: most connections have one job in their life.
    fn free_jobs(&mut self) {
        if self.jobs.is_empty() {
            self.jobs = VecDeque::new();
        }
    }

    fn live(&self) -> impl Iterator<Item = &Interest> {
        self.subscriptions.values().filter(|interest| interest.is_live)
    }

    /// The hashes of the patterns of all live subscriptions, with their filters, for tokens.
    pub(super) fn live_keys(&self) -> impl Iterator<Item = u64> {
        self.live().flat_map(|interest| {
            let key = interest.filter.key;
            interest.patterns.iter().map(move |pattern| subscription_key(pattern, key))
        })
    }

    /// The filter of the job that runs, and whether a token that it brought holds.
    pub(super) fn running_filter(&self) -> Option<(JobFilter, bool)> {
        self.jobs.front().map(|job| (job.filter, job.proved.is_some()))
    }

    /// The slots of the filters of all subscriptions, with those that have ended and still count.
    pub(super) fn used_slots(&self) -> SlotSet {
        let mut used = self.starting_slots();
        let ghosts = self.ghosts.iter().map(|ghost| &ghost.interest);
        self.subscriptions.values().chain(ghosts).for_each(|interest| used.insert(interest.filter.slot));
        used
    }

    /// The slots of the filters of the subscriptions that are starting.
    pub(super) fn starting_slots(&self) -> SlotSet {
        let mut starting = SlotSet::default();
        self.jobs.iter().for_each(|job| starting.insert(job.filter.slot));
        starting
    }

    /// Returns whether any subscription is live.
    pub(super) fn any_live(&self) -> bool {
        debug_assert_eq!(self.live, self.live().count(), "live subscriptions are counted");
        self.live > 0
    }

    /// Returns whether any job is left.
    pub(super) fn is_starting(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Returns whether any request waits for its answer. They are answered together.
    pub(super) fn has_unanswered(&self) -> bool {
        self.jobs.back().is_some_and(|job| job.unanswered.is_some())
    }

    /// Returns whether any request that waits for its answer brings a token of this kind.
    pub(super) fn any_asked_token(&self, mut is_such: impl FnMut(&Token) -> bool) -> bool {
        let asked = self.jobs.iter().filter_map(|job| job.unanswered.as_ref()?.token.as_ref());
        asked.into_iter().any(&mut is_such)
    }

    /// Returns whether the running job is answered, so that it can go on.
    pub(super) fn has_answered_job(&self) -> bool {
        self.jobs.front().is_some_and(|job| job.unanswered.is_none())
    }

    /// Number of jobs: those of subscriptions that are not live yet, and cancelled ones that still run.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Returns how many bytes are held for the subscriptions besides their patterns, which the index counts.
    pub(super) fn held_bytes(&self) -> usize {
        let snapped = self.jobs.front().map_or(0, Job::snapped_bytes);
        let sent = self.sent.as_ref().map_or(0, |sent| sent.epochs.allocation_size());
        let ghosts = self.ghosts.len() * size_of::<Ghost>();
        self.job_bytes + snapped + sent + ghosts + self.subscriptions.held_bytes()
    }

    /// The patterns of each subscription, whether it is live or not.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &[Pattern]> {
        self.subscriptions.values().map(|interest| interest.patterns.as_slice())
    }

    /// Number of the patterns of all subscriptions.
    pub(super) fn pattern_count(&self) -> usize {
        self.patterns().map(<[Pattern]>::len).sum()
    }

    /// Number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Returns whether there is no subscription.
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.len() == 0
    }
}
