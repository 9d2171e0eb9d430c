//! The thread that sends spans to the receiver.
//!
//! Spans are sent together, at the latest a second after the first. A batch that the receiver does not take for now is
//! tried again for about fifteen seconds and then dropped; meanwhile spans wait in the queue, up to its bound. Nothing
//! of this is ever waited for by a thread that serves clients or peers.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, select};

use super::super::clock;
use super::super::log_limit::LogLimit;
use super::intake::Traces;
use super::otlp;
use super::post::{PostError, PostTarget};
use super::span::TraceSpan;

/// Most spans of one batch.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time that a span waits for others, in microseconds.
const BATCH_US: u64 = 1_000_000;
/// Longest wait for a first span. Afterwards the thread waits again.
const IDLE: Duration = Duration::from_secs(3600);
/// Longest time that each step of sending takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same when the node ends: it does not wait longer for its threads.
const LAST_TIMEOUT: Duration = Duration::from_millis(200);
/// Number of times that a batch is tried.
const POST_TRIES: u32 = 5;
/// Pause before the second try. It doubles with every further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Starts the thread, if the node traces records. It ends when the other side of `ended` is dropped.
pub fn start(
    traces: Option<&Arc<Traces>>,
    ended: Receiver<()>,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<()> {
    let Some(traces) = traces else { return Ok(()) };
    let target = PostTarget::new(traces.config.endpoint.clone())?;
    let sending = Sending { traces: traces.clone(), target, ended, log: LogLimit::default() };
    threads.push(std::thread::Builder::new().name("traces".into()).spawn(move || sending.run())?);
    Ok(())
}

/// The state of the thread.
struct Sending {
    traces: Arc<Traces>,
    target: PostTarget,
    ended: Receiver<()>,
    log: LogLimit,
}

impl Sending {
    fn run(self) {
        loop {
            let (batch, has_ended) = self.collect();
            if !batch.is_empty() {
                self.send(&batch, has_ended);
            }
            if has_ended {
                return;
            }
        }
    }

    /// Collects spans of one batch. Also returns whether the node ends.
    fn collect(&self) -> (Vec<TraceSpan>, bool) {
        let spans = self.traces.waiting();
        let mut batch = Vec::new();
        let mut due_us = None;
        while batch.len() < BATCH_SPANS_MAX {
            let now_us = clock::mono_us();
            let wait = due_us.map_or(IDLE, |due: u64| Duration::from_micros(due.saturating_sub(now_us)));
            select! {
                recv(spans) -> span => {
                    batch.extend(span);
                    due_us = due_us.or(Some(now_us + BATCH_US));
                }
                recv(self.ended) -> _ => {
                    batch.extend(spans.try_iter().take(BATCH_SPANS_MAX));
                    return (batch, true);
                }
                default(wait) => break,
            }
        }
        (batch, false)
    }

    /// Sends a batch, or drops it and counts its spans.
    fn send(&self, batch: &[TraceSpan], has_ended: bool) {
        let body = otlp::request(&self.traces.name, batch);
        let counters = &self.traces.metrics.traces;
        match self.try_to_send(&body, has_ended) {
            Ok(()) => counters.sent.add(batch.len() as u64),
            Err(error) => {
                counters.dropped_endpoint.add(batch.len() as u64);
                if let Some(batches) = self.log.count(clock::mono_us()) {
                    tracing::warn!(
                        endpoint = %self.traces.config.endpoint,
                        %error,
                        batches,
                        "traces could not be sent and were dropped; this is logged once a minute"
                    );
                }
            }
        }
    }

    fn try_to_send(&self, body: &[u8], has_ended: bool) -> Result<(), PostError> {
        if has_ended {
            return self.target.post(body, LAST_TIMEOUT);
        }
        let mut tries = 1;
        loop {
            let error = match self.target.post(body, TIMEOUT) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let pause = PAUSE_FIRST * (1 << (tries - 1));
            tries += 1;
            let may_retry = error.is_temporary() && tries <= POST_TRIES;
            if !may_retry || !matches!(self.ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                return Err(error);
            }
        }
    }
}
