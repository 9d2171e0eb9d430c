//! The subscriber's side: what it wants, and what of all that changes it is sent.

mod deliver;

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::encode::EncodedChange;
use super::queue::{Entry, Queue, Waiting};
use super::resume::{Tokens, is_proved};
use super::snapshot::{Job, Names, Side, Step, Unanswered, name_key};
use super::{Codec, Turn};
use crate::latest::Change;
use crate::limits::{LATEST_BUFFER_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::protocol::answer::{Code, Refusal};
use crate::protocol::draft::{OwnedRequestId, RequestId};
use crate::protocol::json;
use crate::protocol::request::{Mode, Notice, Request, Subscribe, SubscribeFrame};
use crate::record::Pattern;
use crate::record::hash::NameState;
use crate::server::close::{CloseCode, CloseReason};

/// How often a subscription looks whether the store is loaded, in microseconds.
const LOAD_POLL_US: u64 = 20_000;

/// One subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    codec: Codec,
    /// The connection's; `None` until it is named or a subscription is accepted.
    mode: Option<Mode>,
    /// The URL's, until the upgrade is done.
    first: Option<Subscribe>,
    subscriptions: BTreeMap<u32, Subscription>,
    numbered: u32,
    /// Subscriptions on their way to being live; the first one runs.
    jobs: VecDeque<Job>,
    /// Subscriptions that were live when they ended, until no job is left.
    ghosts: Vec<Ghost>,
    /// While there is a live subscription (or ghost) without a snapshot: what was sent, and in which
    /// epoch last.
    sent: Option<Sent>,
    /// A new one begins whenever a subscription without a snapshot becomes live.
    epoch: u32,
    /// Checksums of records that a scan has told as expired, a moment before the map does.
    told_expired: Names,
    queue: Queue,
    is_batched: bool,
    tokens: Tokens,
    /// When to look again whether the store is loaded.
    poll_us: Option<u64>,
}

#[derive(Debug)]
struct Subscription {
    patterns: Vec<Pattern>,
    /// It came without a snapshot.
    is_bare: bool,
    /// In which epoch it became live, if it is bare.
    epoch: u32,
    is_live: bool,
}

/// The epochs in which sources were sent last, by [`name_key`].
#[derive(Debug, Default)]
struct Sent {
    epochs: HashMap<u64, u32, NameState>,
    /// What was noted last, which is often what comes next.
    last: Option<(u64, u32)>,
}

impl Sent {
    fn note(&mut self, key: u64, epoch: u32) {
        if self.last.replace((key, epoch)) != Some((key, epoch)) {
            self.epochs.insert(key, epoch);
        }
    }
}

/// A subscription that ended while others were on their way.
#[derive(Debug)]
struct Ghost {
    subscription: Subscription,
    /// It counts for the jobs up to this number: later ones began when it was over already.
    numbered: u32,
}

impl Subscription {
    fn matches(&self, source: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(source))
    }
}

impl Subscriber {
    pub(super) fn new(
        codec: Codec,
        first: Option<Subscribe>,
        mode: Option<Mode>,
        is_batched: bool,
    ) -> Subscriber {
        Subscriber {
            codec,
            mode,
            first,
            subscriptions: BTreeMap::new(),
            numbered: 0,
            jobs: VecDeque::new(),
            ghosts: Vec::new(),
            sent: None,
            epoch: 0,
            told_expired: Names::default(),
            queue: Queue::new(mode.unwrap_or_default()),
            is_batched,
            tokens: Tokens::default(),
            poll_us: None,
        }
    }

    pub(super) fn handle_open(&mut self, turn: &mut Turn<'_>) {
        if let Some(first) = self.first.take() {
            self.handle_frame(turn, SubscribeFrame { id: None, request: Ok(Request::Subscribe(first)) });
        }
    }

    pub(super) fn handle_text(&mut self, turn: &mut Turn<'_>, text: &str) {
        match json::subscribe_frame(text) {
            Ok(frame) => self.handle_frame(turn, frame),
            Err(error) => self.refuse(turn, None, &Refusal::new(Code::BadJson, error.to_string())),
        }
    }

    pub(super) fn handle_frame(&mut self, turn: &mut Turn<'_>, frame: SubscribeFrame<'_>) {
        let done = match frame.request {
            Ok(Request::Subscribe(subscribe)) => self.subscribe(turn, frame.id.as_ref(), subscribe),
            Ok(Request::Unsubscribe(number)) => self.unsubscribe(turn, frame.id.as_ref(), number),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = done {
            self.refuse(turn, frame.id, &refusal);
        }
    }

    fn refuse(&mut self, turn: &mut Turn<'_>, id: Option<RequestId<'_>>, refusal: &Refusal) {
        turn.host.metrics().refused(refusal.code);
        self.tell(turn, &Notice::Refused { id, refusal });
    }

    fn tell(&self, turn: &mut Turn<'_>, notice: &Notice<'_>) {
        turn.notice(self.codec, notice);
    }

    fn subscribe(
        &mut self,
        turn: &mut Turn<'_>,
        id: Option<&RequestId<'_>>,
        asked: Subscribe,
    ) -> Result<(), Refusal> {
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let message =
                format!("a connection has at most {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let mode = asked.mode.or(self.mode).unwrap_or_default();
        if let Some(current) = self.mode.filter(|current| *current != mode) {
            let message = format!("mode is {:?}; this connection's is {:?}", mode.as_str(), current.as_str());
            return Err(Refusal::new(Code::BadRequest, message));
        }
        if self.mode.is_none() {
            self.mode = Some(mode);
            self.queue = Queue::new(mode);
        }
        self.numbered += 1;
        let number = self.numbered;
        let unanswered =
            Unanswered { id: id.map(RequestId::to_owned), token: asked.resume, snapshot: asked.snapshot };
        let job = Job::new(number, asked.patterns, unanswered);
        for pattern in &job.patterns {
            turn.work.index.insert(pattern, turn.connection);
        }
        let patterns = job.patterns.clone();
        self.subscriptions
            .insert(number, Subscription { patterns, is_bare: false, epoch: 0, is_live: false });
        self.jobs.push_back(job);
        self.answer_subscriptions(turn);
        Ok(())
    }

    /// Answers the subscriptions that waited for the store, once it is loaded: only then can tokens
    /// be judged.
    fn answer_subscriptions(&mut self, turn: &mut Turn<'_>) {
        let is_waiting = self.jobs.back().is_some_and(|job| job.unanswered.is_some());
        self.poll_us = None;
        if !is_waiting {
            return;
        }
        if !turn.host.is_loaded() {
            self.poll_us = Some(turn.now.mono_us + LOAD_POLL_US);
            return;
        }
        for at in 0..self.jobs.len() {
            self.answer_job(turn, at, true);
        }
    }

    fn answer_job(&mut self, turn: &mut Turn<'_>, at: usize, may_recover: bool) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        let Some(Unanswered { id, token, snapshot }) = job.unanswered.take() else { return };
        let had_token = token.is_some();
        job.proved = token.filter(|token| may_recover && is_proved(token, &job.patterns, turn));
        // A token that proves nothing gives a full snapshot, whatever was asked for.
        job.has_scan = snapshot || had_token;
        let (subscription, recovered) = (job.number, had_token.then_some(job.proved.is_some()));
        if let Some(known) = self.subscriptions.get_mut(&subscription) {
            known.is_bare = !job.has_scan;
        }
        let id = id.as_ref().map(OwnedRequestId::as_id);
        self.tell(turn, &Notice::Subscribed { id, subscription, recovered });
    }

    fn unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        id: Option<&RequestId<'_>>,
        number: u32,
    ) -> Result<(), Refusal> {
        let Some(ended) = self.subscriptions.remove(&number) else {
            let message = format!("this connection has no subscription {number}");
            return Err(Refusal::new(Code::BadRequest, message));
        };
        for pattern in &ended.patterns {
            turn.work.index.remove(pattern, turn.connection);
        }
        if let Some(at) = self.jobs.iter().position(|job| job.number == number) {
            self.answer_job(turn, at, false);
            if self.jobs.get_mut(at).is_some_and(|job| job.cancel(turn.host)) {
                self.jobs.remove(at);
            }
        }
        if ended.is_live && !self.jobs.is_empty() {
            self.ghosts.push(Ghost { subscription: ended, numbered: self.numbered });
        }
        let subscriptions = &self.subscriptions;
        self.queue.retain(|entry| match entry {
            Entry::Record(waiting) => {
                let source = waiting.record.source.as_str();
                subscriptions.values().any(|subscription| subscription.matches(source))
            }
            Entry::Mark { eos, .. } => *eos != Some(number),
        });
        self.forget_what_is_over();
        self.tell(turn, &Notice::Subscribed { id: id.cloned(), subscription: number, recovered: None });
        Ok(())
    }

    /// Drops what only jobs or subscriptions without a snapshot needed.
    fn forget_what_is_over(&mut self) {
        if self.jobs.is_empty() {
            self.ghosts.clear();
        }
        let ghosts = self.ghosts.iter().map(|ghost| &ghost.subscription);
        let mut live = self.subscriptions.values().chain(ghosts);
        if !live.any(|subscription| subscription.is_live && subscription.is_bare) {
            self.sent = None;
        }
    }

    pub(super) fn handle_change(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> Result<(), CloseReason> {
        if !self.jobs.is_empty() && !self.wants(change) {
            return Ok(());
        }
        if change.is_expiry && self.told_expired.remove(&change.record.checksum) {
            return Ok(());
        }
        if let Some(sent) = &mut self.sent {
            sent.note(frames.key(change), self.epoch);
        }
        match self.mode.unwrap_or_default() {
            Mode::Latest => self.deliver_latest(turn, frames, change),
            Mode::All => return self.deliver_all(turn, frames, change),
        }
        Ok(())
    }

    /// Whether a change is to be sent while a job is under way.
    fn wants(&self, change: &Change) -> bool {
        let source = change.record.source.as_str();
        let running = self.jobs.front().filter(|job| job.matches(source));
        let side = running.map_or(Side::NotScanned, |job| job.side_of(change));
        let counts_for = |ghost: &Ghost, job: &Job| {
            job.number <= ghost.numbered && !job.is_cancelled && job.matches(source)
        };
        let haunts = |ghost: &&Ghost| {
            ghost.subscription.matches(source) && self.jobs.iter().any(|job| counts_for(ghost, job))
        };
        let live = self.subscriptions.values().filter(|s| s.is_live && s.matches(source));
        let ghosts = self.ghosts.iter().filter(haunts).map(|ghost| &ghost.subscription);
        let (mut is_live, mut is_whole) = (false, false);
        for subscription in live.chain(ghosts) {
            is_live = true;
            is_whole |= !subscription.is_bare;
        }
        if is_live {
            return is_whole || side != (Side::Scanned { was_snapped: true });
        }
        side == Side::After && running.is_some_and(|job| !job.is_cancelled)
    }

    pub(super) fn handle_turn(&mut self, turn: &mut Turn<'_>) {
        self.answer_subscriptions(turn);
        let mut budget = turn.work.scan_budget;
        loop {
            self.drain_queue(turn);
            let is_paced = self.queue.has_snapshot() || !self.has_room(turn);
            if is_paced || budget == 0 || !self.advance(turn, &mut budget) {
                break;
            }
        }
        if self.subscriptions.values().any(|s| s.is_live) && self.tokens.is_due(turn) {
            // What the map tells as expired, it tells within much less time.
            self.told_expired.clear();
            let live = self.subscriptions.values().filter(|s| s.is_live).flat_map(|s| &s.patterns);
            let token = self.tokens.take(turn, live);
            self.queue.mark(None, token);
        }
        self.drain_queue(turn);
    }

    /// Takes the running job one step on. `false`: it cannot go on now.
    fn advance(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> bool {
        let Some(job) = self.jobs.front_mut().filter(|job| job.unanswered.is_none()) else { return false };
        if !job.is_running() {
            job.start(turn);
            let number = job.number;
            if !job.has_scan
                && let Some(subscription) = self.subscriptions.get_mut(&number)
            {
                self.epoch += 1;
                (subscription.is_live, subscription.epoch) = (true, self.epoch);
                self.sent.get_or_insert_default();
            }
            return true;
        }
        match job.step(turn) {
            Step::Waits => false,
            Step::Scanned(looked_at, found) => {
                *budget = budget.saturating_sub(looked_at);
                for found in found {
                    let waiting =
                        Waiting { record: found.record, as_deleted: found.as_deleted, from_snapshot: true };
                    self.take_scanned(waiting);
                }
                true
            }
            Step::Done(eos) => {
                let Some(job) = self.jobs.pop_front() else { return false };
                if let Some(subscription) = self.subscriptions.get_mut(&job.number) {
                    subscription.is_live = true;
                    let live = self.subscriptions.values().filter(|s| s.is_live).flat_map(|s| &s.patterns);
                    let token = super::resume::token(turn, live, eos.heads, eos.issued_us);
                    self.queue.mark(Some(job.number), token);
                    self.tokens.start(turn.now);
                }
                self.forget_what_is_over();
                true
            }
        }
    }

    /// A record that the running job's scan found.
    fn take_scanned(&mut self, waiting: Waiting) {
        let source = waiting.record.source.as_str();
        let (mut is_bare, key) = (false, name_key(source));
        let number = self.jobs.front().map_or(u32::MAX, |job| job.number);
        let live = self.subscriptions.values().filter(|s| s.is_live);
        let ghosts = self.ghosts.iter().filter(|ghost| number <= ghost.numbered).map(|g| &g.subscription);
        for subscription in live.chain(ghosts).filter(|s| s.matches(source)) {
            // Of what was sent before it was live, it may have missed the changes since.
            let sent = self.sent.as_ref().and_then(|sent| sent.epochs.get(&key));
            if !subscription.is_bare || sent.is_some_and(|epoch| *epoch >= subscription.epoch) {
                return;
            }
            is_bare = true;
        }
        if is_bare && let Some(job) = self.jobs.front_mut() {
            job.remember_snapped(key);
        }
        if let Some(sent) = &mut self.sent {
            sent.note(key, self.epoch);
        }
        if waiting.as_deleted && !waiting.record.stamp.deleted {
            self.told_expired.insert(waiting.record.checksum);
        }
        self.queue.push(waiting);
    }

    pub(super) fn handle_overflow(&self) -> Result<(), CloseReason> {
        if self.subscriptions.is_empty() || self.mode != Some(Mode::All) {
            return Ok(());
        }
        Err(CloseReason::new(CloseCode::TooSlow, "the node could not keep up; resume with your token"))
    }

    pub(super) fn handle_closed(&mut self, turn: &mut Turn<'_>) {
        for subscription in std::mem::take(&mut self.subscriptions).values() {
            for pattern in &subscription.patterns {
                turn.work.index.remove(pattern, turn.connection);
            }
        }
        self.jobs.clear();
    }

    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        let is_live = self.subscriptions.values().any(|s| s.is_live);
        let token_us = self.tokens.next_timeout_us().filter(|_| is_live);
        [self.poll_us, token_us].into_iter().flatten().min()
    }

    pub(super) fn wants_turn(&self, out_len: usize) -> bool {
        let has_room = out_len <= LATEST_BUFFER_BYTES_MAX;
        let is_waiting = self.poll_us.is_some();
        let has_job = !self.jobs.is_empty() && !is_waiting;
        // Without a live subscription nobody would take the token that waits.
        let is_live = || self.subscriptions.values().any(|subscription| subscription.is_live);
        has_room && (has_job || !self.queue.is_empty()) || self.tokens.waits_for_mailbox() && is_live()
    }
}
