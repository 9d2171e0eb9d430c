//! The subscriber's side: its requests, and the records that it is sent for them.
//!
//! What it subscribes to is in [`interests`], and how records reach its buffer in [`deliver`].

mod deliver;
mod interests;
mod numbered;
mod own_filters;

use self::deliver::{Delivery, form_of};
use self::interests::{AnsweredJob, Interests};
use self::own_filters::OwnFilters;
use super::encode::{EncodedChange, SentForm};
use super::names::Names;
use super::order::ChangeOrder;
use super::queue::QueuedRecord;
use super::resume::{self, Reach, TokenSchedule, is_proved};
use super::rights::check_readable;
use super::snapshot::{FoundKind, FoundRecord, JobFilter, JobStep, Unanswered};
use super::turn::Turn;
use crate::auth::{Access, PublishRights};
use crate::latest::Change;
use crate::limits::{LATEST_BUFFER_BYTES_MAX, RESUME_WAIT_US, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::memory::{MemoryUse, OverBudget};
use crate::protocol::draft::{OwnedRequestId, RequestId};
use crate::protocol::json;
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::request::{AuthFrame, Mode, Notice, Request, Subscribe, SubscribeFrame};
use crate::record::{Pattern, Record};
use crate::server::account::Holdings;
use crate::server::close::{CloseCode, CloseReason};
use crate::server::framing::message::Codec;
use crate::subscriptions::{Excess, SlotSet, bytes_of};

/// Interval at which a subscription checks whether the store is loaded, in microseconds.
const LOAD_POLL_US: u64 = 20_000;
/// Interval at which a subscription checks whether the node has what its token says was seen, in microseconds.
const REACH_POLL_US: u64 = 50_000;

/// One connection on `/subscribe`.
#[derive(Debug)]
pub(super) struct Subscriber {
    codec: Codec,
    /// The mode of the connection; `None` until it is named or a subscription is accepted.
    mode: Option<Mode>,
    /// The subscription that the URL asks for, until the upgrade is done.
    // Boxed, so that its memory is given back then.
    first: Option<Box<Subscribe>>,
    interests: Interests,
    /// The filters of the subscriptions; `None` while none has a filter.
    filters: Option<Box<OwnFilters>>,
    /// Bytes that the patterns hold in the index and here.
    pattern_bytes: usize,
    delivery: Delivery,
    /// Checksums of records that a scan has sent as expired. The map's own report of these expiries is
    /// skipped.
    told_expired: Names,
    tokens: TokenSchedule,
    order: ChangeOrder,
    /// Monotonic time at which to look again whether the store is loaded, or has what tokens speak of.
    poll_us: Option<u64>,
    /// Monotonic time until which tokens are waited for; `None` while none is.
    reach_due_us: Option<u64>,
}

/// The refusal of patterns that exceed a bound. What one connection has too much of is `bad_request`, as for
/// too many subscriptions, because waiting does not help; what all connections of the worker share is
/// `overloaded`, because it is free again when others leave.
fn refusal_of(excess: Excess) -> Refusal {
    let code = if excess.is_temporary() { Code::Overloaded } else { Code::BadRequest };
    Refusal::new(code, excess.to_string())
}

impl Subscriber {
    /// Makes the subscriber of a connection. `first` is the subscription that the URL asks for.
    pub(super) fn new(
        codec: Codec,
        first: Option<Subscribe>,
        mode: Option<Mode>,
        is_batched: bool,
    ) -> Subscriber {
        Subscriber {
            codec,
            mode,
            first: first.map(Box::new),
            interests: Interests::default(),
            filters: None,
            pattern_bytes: 0,
            delivery: Delivery::new(codec, mode.unwrap_or_default(), is_batched),
            told_expired: Names::default(),
            tokens: TokenSchedule::default(),
            order: ChangeOrder::default(),
            poll_us: None,
            reach_due_us: None,
        }
    }

    /// Starts the subscription that the URL asks for, if it asks for one.
    pub(super) fn handle_open(&mut self, turn: &mut Turn<'_>, rights: Option<&PublishRights>) {
        if let Some(first) = self.first.take() {
            let request = Ok(Request::Subscribe(*first));
            self.handle_frame(turn, SubscribeFrame { id: None, request }, rights);
        }
    }

    /// Starts the subscription of a stream of events, which was found to be allowed.
    pub(super) fn start_stream(&mut self, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        self.first.take().map_or(Ok(()), |first| self.subscribe(turn, None, *first))
    }

    /// The patterns of the subscription that the URL asks for, until that is started.
    pub(super) fn first_patterns(&self) -> &[Pattern] {
        self.first.as_ref().map_or(&[], |first| &first.patterns)
    }

    /// Refuses if any subscription can match a source that may not be read.
    pub(super) fn check_readable(&self, access: &Access) -> Result<(), Refusal> {
        self.interests.patterns().try_for_each(|patterns| check_readable(access, patterns))
    }

    /// Handles a request in JSON with these rights. Returns the token if the frame brings one instead.
    pub(super) fn handle_text<'t>(
        &mut self,
        turn: &mut Turn<'_>,
        text: &'t str,
        rights: Option<&PublishRights>,
    ) -> Option<AuthFrame<'t>> {
        match json::subscribe_frame(text) {
            Ok(frame) => {
                if frame.request.is_err()
                    && let Some(auth) = json::auth_frame(text)
                {
                    return Some(auth);
                }
                self.handle_frame(turn, frame, rights);
            }
            Err(error) => self.refuse(turn, None, &Refusal::new(Code::BadJson, error.to_string())),
        }
        None
    }

    /// Handles a request with these rights: subscribes, unsubscribes, or tells the client why not.
    pub(super) fn handle_frame(
        &mut self,
        turn: &mut Turn<'_>,
        frame: SubscribeFrame<'_>,
        rights: Option<&PublishRights>,
    ) {
        let done = match frame.request {
            Ok(Request::Subscribe(subscribe)) => {
                let is_allowed =
                    rights.map_or(Ok(()), |rights| check_readable(rights.access(), &subscribe.patterns));
                is_allowed.and_then(|()| self.subscribe(turn, frame.id.as_ref(), subscribe))
            }
            Ok(Request::Unsubscribe(number)) => self.unsubscribe(turn, frame.id.as_ref(), number),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = done {
            self.refuse(turn, frame.id, &refusal);
        }
    }

    fn refuse(&mut self, turn: &mut Turn<'_>, id: Option<RequestId<'_>>, refusal: &Refusal) {
        turn.host.state().metrics().refused(refusal.code);
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
        if self.interests.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let message =
                format!("a connection has at most {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let mode = asked.mode.or(self.mode).unwrap_or_default();
        if let Some(current) = self.mode.filter(|current| *current != mode) {
            let message = format!("mode is {:?}; this connection's is {:?}", mode.as_str(), current.as_str());
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let mut patterns = asked.patterns;
        patterns.sort_unstable();
        patterns.dedup();
        let (wanted, allowed) =
            (self.interests.pattern_count() + patterns.len(), turn.host.facts().max_subscriptions);
        if wanted > allowed {
            let message =
                format!("{wanted} patterns; a connection has at most {allowed} (--max-subscriptions)");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let expression_bytes = asked.filter.as_ref().map_or(0, |filter| filter.held_bytes());
        self.check_memory(turn, bytes_of(&patterns) + expression_bytes)?;
        let filter = match &asked.filter {
            Some(filter) => self.filters.get_or_insert_default().enter(&mut turn.work.filters, filter),
            None => Ok(JobFilter::default()),
        };
        let unanswered =
            Unanswered { id: id.map(RequestId::to_owned), token: asked.resume, snapshot: asked.snapshot };
        let added = filter
            .and_then(|filter| self.interests.add(turn, patterns, filter, unanswered).map_err(refusal_of));
        self.follow_filters(turn);
        added?;
        self.pattern_bytes = turn.work.index.bytes_of(turn.connection);
        if self.mode.is_none() {
            self.mode = Some(mode);
            self.delivery.set_mode(mode);
        }
        self.answer_subscriptions(turn);
        Ok(())
    }

    /// Gives up the filters that no subscription has any more, and tells the others which ones are starting.
    fn follow_filters(&mut self, turn: &mut Turn<'_>) {
        let Some(filters) = &mut self.filters else { return };
        let (used, starting) = (self.interests.used_slots(), self.interests.starting_slots());
        filters.follow(&mut turn.work.filters, used, starting);
        if filters.is_empty() {
            self.filters = None;
        }
        self.delivery.set_slots(self.slots());
    }

    /// The slots of the filters of all subscriptions.
    fn slots(&self) -> SlotSet {
        self.filters.as_ref().map_or(SlotSet::UNFILTERED, |filters| filters.used())
    }

    /// Checks that the node has memory for `added` bytes of patterns and filters more of this connection.
    fn check_memory(&self, turn: &Turn<'_>, added: usize) -> Result<(), Refusal> {
        let held = self.holdings().total() + turn.out.held_bytes();
        turn.work.account.admits(held, added).map_err(|over| {
            turn.host.state().memory_refused(MemoryUse::Subscriptions);
            // What this connection has too much of does not change by waiting.
            let code = if let OverBudget::Holder(_) = over { Code::BadRequest } else { Code::Overloaded };
            Refusal::new(code, over.to_string())
        })
    }

    /// Returns what the subscriber makes its node hold.
    pub(super) fn holdings(&self) -> Holdings {
        let filters = self.filters.as_ref().map_or(0, |filters| filters.held_bytes());
        let remembered = self.interests.held_bytes() + self.told_expired.allocation_size() + filters;
        Holdings {
            unsent: self.delivery.held_bytes(),
            subscriptions: self.pattern_bytes + remembered,
            ..Holdings::default()
        }
    }

    /// Answers the subscriptions that waited for the store, once it is loaded: only then can tokens
    /// be judged. Those with a token also wait for a short time until the node has what the token says was seen.
    fn answer_subscriptions(&mut self, turn: &mut Turn<'_>) {
        self.poll_us = None;
        if !self.interests.has_unanswered() {
            return;
        }
        if !turn.host.is_loaded() {
            self.poll_us = Some(turn.now.mono_us + LOAD_POLL_US);
            return;
        }
        let now_us = turn.now.mono_us;
        let is_late = self.reach_due_us.is_some_and(|due_us| now_us >= due_us);
        if !is_late && self.interests.any_asked_token(|token| resume::reach(token, turn) == Reach::Soon) {
            self.reach_due_us.get_or_insert(now_us + RESUME_WAIT_US);
            self.poll_us = Some(now_us + REACH_POLL_US);
            return;
        }
        self.reach_due_us = None;
        for at in 0..self.interests.jobs() {
            self.answer_job(turn, at, true);
        }
    }

    fn answer_job(&mut self, turn: &mut Turn<'_>, at: usize, may_recover: bool) {
        let is_proved =
            |token: &_, patterns: &_, filter| may_recover && is_proved(token, patterns, filter, turn);
        let Some(answered) = self.interests.answer_job(at, is_proved) else { return };
        let AnsweredJob { id, subscription, recovered } = answered;
        let id = id.as_ref().map(OwnedRequestId::as_id);
        self.tell(turn, &Notice::Subscribed { id, subscription, recovered });
    }

    fn unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        id: Option<&RequestId<'_>>,
        number: u32,
    ) -> Result<(), Refusal> {
        if let Some(at) = self.interests.job_of(number) {
            self.answer_job(turn, at, false);
        }
        if !self.interests.end(turn, number) {
            let message = format!("this connection has no subscription {number}");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        self.pattern_bytes = turn.work.index.bytes_of(turn.connection);
        self.follow_filters(turn);
        self.delivery.forget(number);
        self.tell(turn, &Notice::Subscribed { id: id.cloned(), subscription: number, recovered: None });
        Ok(())
    }

    /// Sends a change, or queues it, unless a snapshot covers it. An error closes the connection.
    pub(super) fn handle_change(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> Result<(), CloseReason> {
        self.order.check(change);
        let mut form = form_of(change);
        if let Some(filters) = &self.filters {
            let verdict = filters.judge(&mut turn.work.filters, frames, change);
            if !self.wants_by(turn, change, verdict.is) {
                // In `mode=all` the client is told what happened, and not what to show.
                let is_latest = self.mode.unwrap_or_default() == Mode::Latest;
                if !is_latest || !self.wants_by(turn, change, verdict.was) {
                    turn.work.filters.note_skipped();
                    return Ok(());
                }
                form = SentForm::Gone;
            }
        } else if self.interests.is_starting() && !self.interests.wants(turn, change, SlotSet::UNFILTERED) {
            return Ok(());
        }
        if change.is_expiry && self.told_expired.remove(&change.record.checksum) {
            return Ok(());
        }
        if form != SentForm::Gone {
            self.interests.note_sent(|| frames.key(change));
        }
        match self.mode.unwrap_or_default() {
            Mode::Latest => self.delivery.deliver_latest(turn, frames, change, form),
            Mode::All => {
                return self.delivery.deliver_all(turn, frames, change, self.interests.is_starting());
            }
        }
        Ok(())
    }

    /// Returns whether a change is to be sent to subscriptions with these filters.
    fn wants_by(&self, turn: &Turn<'_>, change: &Change, slots: SlotSet) -> bool {
        let Some(filters) = &self.filters else { return true };
        let slots = slots.both(filters.used());
        if slots.is_empty() {
            false
        } else if self.interests.is_starting() {
            self.interests.wants(turn, change, slots)
        } else {
            // If all subscriptions have the same filter, one of them matches, or the change would not be here.
            let source = change.record.source.as_str();
            filters.is_uniform() || turn.work.index.wants(source, turn.connection, slots).any()
        }
    }

    /// Continues snapshots, sends what waits for room in the buffer, and sends a token if one is due.
    pub(super) fn handle_turn(&mut self, turn: &mut Turn<'_>) {
        if let Some(filters) = &mut self.filters {
            filters.count(&turn.work.filters);
        }
        self.answer_subscriptions(turn);
        let share = turn.work.scans.share();
        let mut steps = share;
        loop {
            self.delivery.drain(turn, &mut self.tokens);
            if self.delivery.holds_snapshots(turn) || steps == 0 || !self.advance(turn, &mut steps) {
                break;
            }
        }
        turn.work.scans.use_up(share - steps);
        if self.interests.any_live() && self.tokens.is_due(turn) {
            // By now the map has reported these expiries: that takes much less time than lies between two
            // tokens.
            self.told_expired.clear();
            let token = self.tokens.take(turn, self.interests.live_keys());
            self.delivery.push_token(None, token);
        }
        self.delivery.drain(turn, &mut self.tokens);
    }

    /// Takes the running job a little further, and the steps of that off `steps`. Returns `false` if the job cannot
    /// go on now.
    fn advance(&mut self, turn: &mut Turn<'_>, steps: &mut usize) -> bool {
        match self.interests.step(turn, steps) {
            JobStep::Waits => return false,
            JobStep::Scanned(found) => {
                let cost = self.filters.as_ref().map_or(0, |filters| filters.steps());
                *steps = steps.saturating_sub(found.len() * cost);
                found.into_iter().for_each(|found| self.take_scanned(turn, found));
            }
            JobStep::Done(eos) => {
                let finished = self.interests.finish_job(turn);
                // Subscriptions that had ended may have left the index with it.
                self.pattern_bytes = turn.work.index.bytes_of(turn.connection);
                self.follow_filters(turn);
                if let Some(number) = finished {
                    let live = self.interests.live_keys();
                    // The token holds the hashes of all patterns.
                    *steps = steps.saturating_sub(self.interests.live_keys().count());
                    let token = resume::token(turn, live, eos.heads, eos.issued_us);
                    self.delivery.push_token(Some(number), token);
                    self.tokens.start(turn.now);
                }
            }
        }
        true
    }

    /// Queues a record that the running job's scan found, unless another subscription has sent it.
    fn take_scanned(&mut self, turn: &mut Turn<'_>, FoundRecord { record, kind }: FoundRecord) {
        let Some((slots, form)) = self.judge_scanned(turn, &record, kind) else { return };
        if self.interests.takes_scanned(turn, record.source.as_str(), slots) {
            if form == SentForm::Deleted && !record.stamp.deleted {
                self.told_expired.insert(record.checksum);
            }
            self.delivery.push_snapshot(QueuedRecord { record, form, from_snapshot: true });
        }
    }

    /// Judges a record that the running job's scan found. Returns the filters that let it through, and the form in
    /// which it is sent; `None` if it is not. Who resumes may show a source that the filter is not true of any longer,
    /// so it is told that it is gone.
    fn judge_scanned(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record,
        kind: FoundKind,
    ) -> Option<(SlotSet, SentForm)> {
        let form = if kind == FoundKind::Deletion { SentForm::Deleted } else { SentForm::Whole };
        let Some(filters) = self.filters.as_ref().filter(|_| form != SentForm::Deleted) else {
            return Some((self.slots(), form));
        };
        let (job, is_resumed) = self.interests.running_filter()?;
        let slots = filters.judge_scanned(&mut turn.work.filters, job.slot, record);
        match (slots.contains(job.slot), kind) {
            (_, FoundKind::Covered) => None,
            (true, _) => Some((slots, form)),
            (false, _) => {
                let is_latest = self.mode.unwrap_or_default() == Mode::Latest;
                (is_resumed && is_latest).then_some((slots, SentForm::Gone))
            }
        }
    }

    /// Returns an error, which closes the connection, if the client wants every change.
    pub(super) fn handle_overflow(&self) -> Result<(), CloseReason> {
        if self.interests.is_empty() || self.mode != Some(Mode::All) {
            return Ok(());
        }
        Err(CloseReason::new(CloseCode::TooSlow, "the node could not keep up; resume with your token"))
    }

    /// Lets the worker take the patterns of the connection out of the index, and free what waits.
    pub(super) fn handle_closed(&mut self, turn: &mut Turn<'_>) {
        turn.work.remains.add(self.delivery.take_queue());
        turn.work.index.leave(turn.connection, self.interests.end_all());
        self.follow_filters(turn);
        self.pattern_bytes = 0;
    }

    /// Monotonic time at which [`Subscriber::handle_turn`] is to be called, in microseconds.
    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        let token_us = self.tokens.next_timeout_us().filter(|_| self.interests.any_live());
        [self.poll_us, token_us].into_iter().flatten().min()
    }

    /// Returns whether [`Subscriber::handle_turn`] has something to do now; `out_len` bytes wait to be sent.
    pub(super) fn wants_turn(&self, out_len: usize) -> bool {
        let has_room = out_len <= LATEST_BUFFER_BYTES_MAX;
        let has_job = self.has_job();
        // Without a live subscription there is nobody to send the token to.
        let has_token = || self.tokens.waits_for_mailbox() && self.interests.any_live();
        has_room && (has_job || !self.delivery.is_empty()) || has_token()
    }

    /// Returns whether a subscription is starting, so that a turn may scan the map.
    pub(super) fn has_job(&self) -> bool {
        self.interests.is_starting() && (self.poll_us.is_none() || self.interests.has_answered_job())
    }
}
