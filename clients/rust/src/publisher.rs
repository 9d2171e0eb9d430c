//! Publishing: every record is sent until it is answered, at most within its time, always with the same timestamp.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::dialer::Dialer;
use crate::error::{AnodeError, Lost, Refusal, Retry};
use crate::link::{Greeting, Link};
use crate::outgoing::Outgoing;
use crate::record::Ack;
use crate::stamps::{Stamps, wall_clock_us};

/// After so many refusals of one record that are about the node, the client goes to another node.
const REFUSALS_MAX: u32 = 4;

/// How far the publisher is.
#[derive(Clone, Debug)]
pub(crate) enum PublisherState {
    /// It has never been connected.
    Connecting,
    /// It has been connected.
    Begun,
    /// It cannot go on.
    Over(AnodeError),
}

/// An answer to a publish.
#[derive(Debug, Deserialize)]
struct AnswerBody {
    id: Option<u64>,
    result: Option<Ack>,
    error: Option<Refusal>,
}

/// Does something unless the client is closed before it is done; then returns `None`.
async fn unless_closed<T>(closed: &Semaphore, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // The semaphore has no permits, so this waits until it is closed.
        _ = closed.acquire() => None,
        done = work => Some(done),
    }
}

/// The task that owns the connection and all records on their way.
pub(crate) struct Publisher {
    dialer: Dialer,
    stamps: Arc<Mutex<Stamps>>,
    incoming: mpsc::UnboundedReceiver<Outgoing>,
    state: watch::Sender<PublisherState>,
    /// Is closed when the client is closed.
    closed: Arc<Semaphore>,
    outgoing: BTreeMap<u64, Outgoing>,
    next_id: u64,
    /// Those to send now.
    ready: VecDeque<u64>,
    /// Those to send again, by the time.
    again: BTreeSet<(Instant, u64)>,
}

impl Publisher {
    /// Makes the task. `incoming` is bounded by the room that those who publish must get first.
    pub(crate) fn new(
        dialer: Dialer,
        stamps: Arc<Mutex<Stamps>>,
        incoming: mpsc::UnboundedReceiver<Outgoing>,
        state: watch::Sender<PublisherState>,
        closed: Arc<Semaphore>,
    ) -> Publisher {
        Publisher {
            dialer,
            stamps,
            incoming,
            state,
            closed,
            outgoing: BTreeMap::new(),
            next_id: 1,
            ready: VecDeque::new(),
            again: BTreeSet::new(),
        }
    }

    /// Runs until the client is dropped, or until it makes no sense to go on.
    pub(crate) async fn run(mut self) {
        let error = match self.serve_always().await {
            Ok(()) => AnodeError::new("closed", "the client was closed"),
            Err(error) => error,
        };
        self.state.send_replace(PublisherState::Over(error.clone()));
        self.incoming.close();
        while let Ok(late) = self.incoming.try_recv() {
            late.fail(error.clone());
        }
        for (_, outgoing) in std::mem::take(&mut self.outgoing) {
            {
                let mut progress = outgoing.progress.lock();
                if progress.is_sent && progress.applied == Some(false) {
                    progress.applied = None;
                }
            }
            outgoing.fail(error.clone());
        }
    }

    /// Connects and serves until the client is closed. A client that is closed does not wait for a connection.
    async fn serve_always(&mut self) -> Result<(), AnodeError> {
        let closed = self.closed.clone();
        loop {
            let Some(dialled) = unless_closed(&closed, self.dialer.dial()).await else { return Ok(()) };
            let (mut link, greeting) = dialled?;
            self.state.send_replace(PublisherState::Begun);
            match self.serve(&mut link, &greeting).await {
                Ok(()) => {
                    link.close().await;
                    return Ok(());
                }
                Err(lost) => {
                    self.handle_lost_answers();
                    let handled = unless_closed(&closed, self.dialer.handle_loss(lost, Some(link))).await;
                    let Some(handled) = handled else { return Ok(()) };
                    handled?;
                }
            }
        }
    }

    /// Decides what becomes of the records that were sent on the connection that is lost.
    fn handle_lost_answers(&mut self) {
        let mut lost = Vec::new();
        for (id, outgoing) in &self.outgoing {
            let mut progress = outgoing.progress.lock();
            if !std::mem::take(&mut progress.is_sent) {
                continue;
            }
            if progress.applied == Some(false) {
                progress.applied = None;
            }
            if progress.ts.is_none() {
                lost.push(*id);
            }
        }
        for outgoing in lost.into_iter().filter_map(|id| self.outgoing.remove(&id)) {
            let message = "the connection was lost before the answer, and the record has no timestamp";
            outgoing.fail(AnodeError::new("unanswered", message).temporary());
        }
    }

    /// Sends and receives on one connection. Returns when the client was dropped.
    async fn serve(&mut self, link: &mut Link, greeting: &Greeting) -> Result<(), Lost> {
        let writer = link.writer().clone();
        self.outgoing.retain(|_, outgoing| !outgoing.answer.is_closed());
        self.ready =
            self.outgoing.iter().filter(|(_, outgoing)| !outgoing.waits).map(|(id, _)| *id).collect();
        loop {
            let again_at = self.again.first().map(|(at, _)| *at);
            let wake = again_at.unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(3_600));
            tokio::select! {
                frame = link.receive() => self.handle_frame(&frame?)?,
                incoming = self.incoming.recv() => match incoming {
                    None => return Ok(()),
                    Some(outgoing) => {
                        let id = self.next_id;
                        self.next_id += 1;
                        self.outgoing.insert(id, outgoing);
                        self.ready.push_back(id);
                    }
                },
                permit = writer.reserve(), if !self.ready.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(frame) = self.next_frame(greeting.max_frame_bytes) {
                            permit.send(frame);
                        }
                    }
                    Err(_) => return Err(Lost::closed(1006, "the socket takes nothing more", None)),
                },
                () = tokio::time::sleep_until(wake.into()) => self.handle_time(),
            }
        }
    }

    fn handle_time(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.again.first().copied()
            && at <= now
        {
            self.again.pop_first();
            if let Some(outgoing) = self.outgoing.get_mut(&id) {
                outgoing.waits = false;
                self.ready.push_back(id);
            }
        }
    }

    /// Returns the next frame to send; `None` if there is nothing to send any more.
    fn next_frame(&mut self, bytes_max: Option<usize>) -> Option<Message> {
        while let Some(id) = self.ready.pop_front() {
            let Some(outgoing) = self.outgoing.get_mut(&id) else { continue };
            if outgoing.answer.is_closed() {
                self.outgoing.remove(&id);
                continue;
            }
            let frame = outgoing.frame(id);
            if let Some(bytes_max) = bytes_max.filter(|bytes_max| frame.len() > *bytes_max) {
                let message =
                    format!("the frame has {} bytes; the node takes at most {bytes_max}", frame.len());
                self.fail(id, AnodeError::new("too_large", message));
                continue;
            }
            outgoing.progress.lock().is_sent = true;
            return Some(Message::text(frame));
        }
        None
    }

    fn fail(&mut self, id: u64, error: AnodeError) {
        if let Some(outgoing) = self.outgoing.remove(&id) {
            outgoing.fail(error);
        }
    }

    fn handle_frame(&mut self, text: &str) -> Result<(), Lost> {
        let body: AnswerBody = serde_json::from_str(text).map_err(|error| {
            let message = format!("the node sent an answer that cannot be read: {error}");
            Lost::new(AnodeError::new("protocol", message), Retry::BackOff)
        })?;
        let Some((id, outgoing)) = body.id.and_then(|id| Some((id, self.outgoing.get_mut(&id)?))) else {
            return Ok(());
        };
        outgoing.progress.lock().is_sent = false;
        match (body.result, body.error) {
            (Some(ack), _) => {
                self.handle_ack(id, ack);
                Ok(())
            }
            (None, Some(error)) => self.handle_refusal(id, error.into()),
            (None, None) => {
                self.fail(id, AnodeError::new("protocol", "the node sent an answer without a result"));
                Ok(())
            }
        }
    }

    fn handle_ack(&mut self, id: u64, ack: Ack) {
        let Some(outgoing) = self.outgoing.get(&id) else { return };
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if outgoing.progress.lock().ts.is_none() {
            stamps.handle_node_clock(ack.ts, wall_clock_us());
        }
        if let Some(current_ts) = ack.current_ts
            && ack.outcome == "stale"
            && outgoing.is_certain()
        {
            // The clock of this machine is behind. A record without a timestamp of the user wins over what is there.
            stamps.learn(&outgoing.source, current_ts);
            let stamped = stamps.next(&outgoing.source, wall_clock_us());
            drop(stamps);
            match stamped {
                Ok(ts) => {
                    outgoing.progress.lock().ts = Some(ts);
                    self.ready.push_back(id);
                }
                Err(error) => self.fail(id, error),
            }
            return;
        }
        if !outgoing.is_stamped_here {
            stamps.learn(&outgoing.source, ack.ts);
        }
        drop(stamps);
        if let Some(outgoing) = self.outgoing.remove(&id) {
            // The program may have stopped waiting.
            let _ = outgoing.answer.send(Ok(ack));
        }
    }

    fn handle_refusal(&mut self, id: u64, error: AnodeError) -> Result<(), Lost> {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return Ok(()) };
        if error.code == "future_timestamp" && outgoing.is_certain() && outgoing.progress.lock().ts.is_some()
        {
            // The clock of this machine is ahead. The node stamps this record, and tells its clock so.
            outgoing.progress.lock().ts = None;
            self.ready.push_back(id);
            return Ok(());
        }
        if error.applied == Some(true) {
            outgoing.progress.lock().applied = Some(true);
        }
        let at = if error.temporary { outgoing.handle_refusal(&error) } else { None };
        let Some(at) = at else {
            self.fail(id, error);
            return Ok(());
        };
        outgoing.waits = true;
        self.again.insert((at, id));
        let is_of_the_node = matches!(error.code.as_str(), "clock_skew" | "overloaded" | "store_unavailable");
        if is_of_the_node && outgoing.refusals % REFUSALS_MAX == 0 && self.dialer.has_others() {
            return Err(Lost::new(error, Retry::Soon));
        }
        Ok(())
    }
}
