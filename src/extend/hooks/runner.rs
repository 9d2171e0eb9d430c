//! Runs a webhook: one part reads the records of a subscription, another one sends them.
//!
//! Between both is a queue with a bound. While the receiver keeps up, the subscription brings every record
//! (`mode=all`). If too much waits, the subscription is given up, what waits is sent, and the newest record of each
//! source that changed since is fetched (`mode=latest`, from the last token); then every record comes again. Batches are
//! sent one after the other, and a batch that is not taken is sent again before all others. So the records of a source
//! are taken in order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::backoff::{DEAD_US, delay_us};
use super::definition::HookDefinition;
use super::delivery::{Delivered, HookReceiver};
use super::frame::{HookEvent, read_hook_frame};
use super::keep::HookKeeper;
use super::queue::{HookBatch, HookQueue};
use crate::extend::definition::Definition;
use crate::extend::host::ExtendHost;
use crate::extend::http_client::http_client;
use crate::extend::runner::{Run, RunContext, Runner};
use crate::extend::state::StateWriter;
use crate::extend::subscription::{ExtensionFeed, FeedFrame, Subscribed, open_feed};
use crate::metrics::GaugeShare;

/// Waiting time before a subscription is opened again that was refused or lost, in microseconds.
const REOPEN_US: u64 = 1_000_000;

/// What runs the definitions of webhooks.
#[derive(Debug)]
pub struct HookRunner;

impl Runner for HookRunner {
    fn cannot(&self, definition: &Definition, _: &dyn ExtendHost) -> Option<String> {
        match HookDefinition::read(&definition.body) {
            Ok(hook) => hook.lack(),
            Err(bad) => Some(bad.to_string()),
        }
    }

    fn run(&self, definition: Rc<Definition>, context: RunContext) -> Run {
        Box::pin(async move {
            let (host, state) = (context.host.clone(), context.state.clone());
            if let Err(why) = run(&definition, context).await {
                host.metrics().hooks.ended.increment();
                tracing::warn!(webhook = definition.name.as_str(), why, "a webhook has ended");
                state.set("dead", true);
                state.set_error(Some(&why));
            }
        })
    }
}

/// Runs a webhook until it ends. Returns why it has ended.
async fn run(definition: &Definition, context: RunContext) -> Result<(), String> {
    let RunContext { host, state } = context;
    let hook = HookDefinition::read(&definition.body).map_err(|bad| bad.to_string())?;
    let name = definition.name.as_str();
    let keeper = HookKeeper::read(&*host, name, definition.ts, &hook);
    state.set("dead", false);
    if let Some(why) = keeper.ended() {
        return Err(why.to_owned());
    }
    let receiver = HookReceiver::new(http_client(|builder| builder)?, name, &hook)?;
    let records_max = hook.batch_records;
    let mut sender = HookSender {
        host: host.clone(),
        state: state.clone(),
        keeper,
        receiver,
        hook: &hook,
        seed: definition.ts,
        records_max,
        failures: 0,
        sent: SentCounts::default(),
    };
    let mut cursor = sender.keeper.resume().map(str::to_owned);
    let mut is_all = true;
    loop {
        let snapshot = cursor.is_some() || hook.snapshot;
        let asked = Subscribed {
            patterns: &hook.on,
            is_all,
            snapshot,
            resume: cursor.as_deref(),
            filter: hook.filter.as_deref(),
        };
        let feed = match open_feed(&host, &asked).await {
            Ok(feed) => feed,
            Err(refusal) => {
                state.set_error(Some(&refusal.to_string()));
                if !refusal.code.is_temporary() && cursor.take().is_some() {
                    sender.keeper.forget_token();
                }
                sleep(Duration::from_micros(REOPEN_US)).await;
                continue;
            }
        };
        let desk = Desk::new(GaugeShare::of(&host.metrics().queues.hooks));
        let ended = follow(&desk, feed, &asked, &mut sender).await?;
        cursor = desk.token.take().or(cursor);
        match &ended {
            FeedEnd::Full => is_all = false,
            FeedEnd::CaughtUp => is_all = true,
            FeedEnd::Lost(_) => {}
        }
        state.set("behind", !is_all);
        if let FeedEnd::Lost(why) = &ended {
            tracing::debug!(webhook = name, why, "the subscription of a webhook was lost");
            sleep(Duration::from_micros(REOPEN_US)).await;
        }
    }
}

/// Reads and sends until the subscription has ended and everything that it brought was taken. An error is the end of the
/// webhook.
async fn follow(
    desk: &Desk<'_>,
    mut feed: ExtensionFeed,
    asked: &Subscribed<'_>,
    sender: &mut HookSender<'_>,
) -> Result<FeedEnd, String> {
    let state = sender.state.clone();
    let reading = std::pin::pin!(async move { desk.fill(&mut feed, asked, &state).await });
    let sending = std::pin::pin!(sender.send_all(desk));
    match select(reading, sending).await {
        // The subscription itself is dropped with `reading`, which is over: nothing waits for it any longer.
        Either::Left((ended, sending)) => {
            desk.is_over.set(true);
            desk.changed.notify_one();
            sending.await.map(|()| ended)
        }
        Either::Right((sent, _)) => sent.map(|()| FeedEnd::Lost("the sender is done".into())),
    }
}

/// The reason why a subscription was given up.
#[derive(Debug)]
enum FeedEnd {
    /// More waits than may.
    Full,
    /// The newest record of each source has come.
    CaughtUp,
    /// It was lost, or refused.
    Lost(String),
}

/// What the part that reads and the part that sends share.
struct Desk<'a> {
    queue: RefCell<HookQueue>,
    /// The bytes of the queue in the metrics of the node.
    counted: GaugeShare<'a>,
    /// The last token that came.
    token: Cell<Option<String>>,
    /// Tells the sender that something has come, or that nothing will.
    changed: Notify,
    /// Tells the reader that there is room.
    taken: Notify,
    /// Nothing comes any more.
    is_over: Cell<bool>,
}

impl<'a> Desk<'a> {
    /// A desk with nothing on it, which is counted by `counted`.
    fn new(counted: GaugeShare<'a>) -> Desk<'a> {
        Desk {
            queue: RefCell::default(),
            counted,
            token: Cell::default(),
            changed: Notify::new(),
            taken: Notify::new(),
            is_over: Cell::default(),
        }
    }

    /// Changes the queue, and counts what waits in it then.
    fn change<T>(&self, act: impl FnOnce(&mut HookQueue) -> T) -> T {
        let mut queue = self.queue.borrow_mut();
        let done = act(&mut queue);
        self.counted.set(queue.bytes() as i64);
        done
    }

    /// Puts what a subscription brings into the queue, until it ends.
    async fn fill(&self, feed: &mut ExtensionFeed, asked: &Subscribed<'_>, state: &StateWriter) -> FeedEnd {
        loop {
            if self.queue.borrow().is_full() {
                if asked.is_all {
                    return FeedEnd::Full;
                }
                // The node keeps the newest record of each source meanwhile.
                self.taken.notified().await;
                continue;
            }
            let text = match feed.next().await {
                FeedFrame::Text(text) => text,
                FeedFrame::TooSlow => return FeedEnd::Full,
                FeedFrame::Over(why) => return FeedEnd::Lost(why),
            };
            let events = match read_hook_frame(&text) {
                Ok(events) => events,
                Err(error) => return FeedEnd::Lost(error.to_string()),
            };
            for event in events {
                match event {
                    HookEvent::Record(record) => self.change(|queue| queue.push(record)),
                    HookEvent::Token(token) => self.put_token(token),
                    HookEvent::Eos(token) => {
                        self.put_token(token);
                        if !asked.is_all {
                            return FeedEnd::CaughtUp;
                        }
                    }
                    HookEvent::Begun { recovered } if asked.resume.is_some() && !recovered => {
                        state.set("resynced", true);
                    }
                    HookEvent::Begun { .. } => {}
                    HookEvent::Refused(why) => return FeedEnd::Lost(why),
                }
            }
            self.changed.notify_one();
        }
    }

    fn put_token(&self, token: String) {
        self.change(|queue| queue.push_token(token.clone()));
        self.token.set(Some(token));
        self.changed.notify_one();
    }
}

/// What was taken since this node runs the webhook.
#[derive(Debug, Default)]
struct SentCounts {
    records: u64,
    batches: u64,
}

/// The part of a webhook that sends.
struct HookSender<'a> {
    host: Arc<dyn ExtendHost>,
    state: StateWriter,
    keeper: HookKeeper,
    receiver: HookReceiver,
    hook: &'a HookDefinition,
    /// Spreads the waiting times of different webhooks.
    seed: u64,
    /// Most records of a batch: fewer than the definition says if the receiver takes no larger ones.
    records_max: usize,
    /// Failures in a row.
    failures: u32,
    sent: SentCounts,
}

impl HookSender<'_> {
    /// Sends what is in the queue until nothing comes any more and all was taken. An error is the end of the webhook.
    async fn send_all(&mut self, desk: &Desk<'_>) -> Result<(), String> {
        loop {
            while let Some(token) = next_token(desk) {
                self.keeper.handle_token(&*self.host, token);
            }
            if desk.queue.borrow().has_no_records() {
                if desk.is_over.get() {
                    return Ok(());
                }
                desk.changed.notified().await;
                continue;
            }
            self.linger(desk).await;
            let batch = desk.change(|queue| queue.take_batch(self.records_max, self.hook.batch_bytes));
            if let Some(batch) = batch {
                desk.taken.notify_one();
                self.state.set("waiting", desk.queue.borrow().records() + batch.records.len());
                self.send(desk, batch).await?;
            }
        }
    }

    /// Waits until a batch is full, or for as long as records may wait for others.
    async fn linger(&self, desk: &Desk<'_>) {
        if self.hook.linger_us == 0 {
            return;
        }
        let full = async {
            let fills = || desk.queue.borrow().fills(self.records_max, self.hook.batch_bytes);
            while !fills() && !desk.is_over.get() {
                desk.changed.notified().await;
            }
        };
        let _ = timeout(Duration::from_micros(self.hook.linger_us), full).await;
    }

    /// Sends a batch until it is taken. If it is too large, it is put back.
    async fn send(&mut self, desk: &Desk<'_>, batch: HookBatch) -> Result<(), String> {
        let body = Bytes::from(batch.body());
        loop {
            let delivered = self.receiver.send(body.clone(), self.host.now()).await;
            let metrics = &self.host.metrics().hooks;
            let (why, asked_us) = match delivered {
                Delivered::Taken => {
                    metrics.records.add(batch.records.len() as u64);
                    metrics.batches.increment();
                    self.handle_taken(batch);
                    self.state.set("waiting", desk.queue.borrow().records());
                    return Ok(());
                }
                Delivered::Gone => return Err(self.end("the receiver answered 410 Gone")),
                Delivered::TooLarge if batch.records.len() > 1 => {
                    self.records_max = batch.records.len() / 2;
                    desk.change(|queue| queue.put_back(batch));
                    return Ok(());
                }
                Delivered::TooLarge => ("the receiver answered 413 to a single record".to_owned(), None),
                Delivered::Failed { why, asked_us } => (why, asked_us),
            };
            metrics.failures.increment();
            let wait_us = self.handle_failure(&why, asked_us)?;
            sleep(Duration::from_micros(wait_us)).await;
        }
    }

    fn handle_taken(&mut self, batch: HookBatch) {
        let host = &*self.host;
        self.failures = 0;
        self.sent.records += batch.records.len() as u64;
        self.sent.batches += 1;
        self.keeper.handle_delivered(host);
        if let Some(token) = batch.token {
            self.keeper.handle_token(host, token);
        }
        self.state.set("records", self.sent.records);
        self.state.set("batches", self.sent.batches);
        self.state.set("last_success", host.now().wall_us);
        self.state.set("failures", 0);
        self.state.set("failing_since", None::<u64>);
        self.state.set_error(None);
    }

    /// Notes a failure. Returns for how long to wait, in microseconds; or the end of the webhook.
    fn handle_failure(&mut self, why: &str, asked_us: Option<u64>) -> Result<u64, String> {
        let now = self.host.now();
        let since_us = self.keeper.handle_failure(&*self.host);
        self.failures = self.failures.saturating_add(1);
        self.state.set("failures", self.failures);
        self.state.set("failing_since", since_us);
        if now.wall_us.saturating_sub(since_us) >= DEAD_US {
            return Err(self.end(&format!("nothing was taken for a day; the last failure: {why}")));
        }
        self.state.set_error(Some(why));
        let chance = xxh3_64_with_seed(&now.wall_us.to_le_bytes(), self.seed);
        Ok(delay_us(self.failures, chance, asked_us))
    }

    fn end(&mut self, why: &str) -> String {
        self.keeper.end(&*self.host, why);
        why.to_owned()
    }
}

/// Takes a token that stands before all records.
fn next_token(desk: &Desk<'_>) -> Option<String> {
    desk.change(HookQueue::take_token)
}
