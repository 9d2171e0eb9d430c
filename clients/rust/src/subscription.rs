//! Subscribing: one connection for each subscription, which is resumed by a token at any node.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::dialer::Dialer;
use crate::error::{AnodeError, Lost, Retry};
use crate::feed::{FeedFrame, read_frame};
use crate::link::Link;
use crate::options::{READ_AHEAD_BYTES, READ_AHEAD_RECORDS};
use crate::record::{Mode, Record};
use crate::seen::Seen;

/// A function of the program that is called at a place between two records of a subscription.
pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// The patterns and settings with which a subscription was started.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) sources: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) snapshot: bool,
    pub(crate) filter: Option<String>,
    pub(crate) on_reset: Option<Callback>,
    pub(crate) on_eos: Option<Callback>,
}

impl Wanted {
    fn frame(&self, resume: Option<&str>) -> String {
        let mut request = serde_json::json!({
            "sources": self.sources, "mode": self.mode.name(), "snapshot": self.snapshot
        });
        for (name, value) in [("filter", self.filter.as_deref()), ("resume", resume)] {
            if let Some(value) = value {
                request[name] = value.into();
            }
        }
        serde_json::json!({"id": 1, "subscribe": request}).to_string()
    }
}

/// What comes out of a feed, in its order.
enum Item {
    /// A record, with the room that it takes in the queue.
    Record(Record, OwnedSemaphorePermit),
    /// The state begins anew.
    Reset,
    /// The state at the beginning has come.
    Eos,
    /// The subscription cannot go on.
    Over(AnodeError),
}

/// The records of a subscription, as a stream or by [`Subscription::next`].
///
/// It ends when it or the client is closed, or with an error if it cannot go on. Dropping it closes it.
pub struct Subscription {
    items: mpsc::Receiver<Item>,
    task: AbortHandle,
    on_reset: Option<Callback>,
    on_eos: Option<Callback>,
}

impl Subscription {
    /// Begins to connect.
    pub(crate) fn start(dialer: Dialer, wanted: Wanted, closed: Arc<Semaphore>) -> Subscription {
        let (sender, items) = mpsc::channel(READ_AHEAD_RECORDS);
        let (on_reset, on_eos) = (wanted.on_reset.clone(), wanted.on_eos.clone());
        let room = Arc::new(Semaphore::new(READ_AHEAD_BYTES as usize));
        let feed = Feed {
            dialer,
            wanted,
            items: sender,
            room,
            seen: Seen::default(),
            token: None,
            was_accepted: false,
            is_snapshot: true,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = feed.run() => {}
                // The client closes this semaphore when it is closed itself.
                _ = closed.acquire() => {}
            }
        });
        Subscription { items, task: task.abort_handle(), on_reset, on_eos }
    }

    /// Returns the next record; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Record, AnodeError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Ends the subscription.
    pub fn close(self) {}
}

impl Stream for Subscription {
    type Item = Result<Record, AnodeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = std::task::ready!(self.items.poll_recv(context));
            let callback = match item {
                None => return Poll::Ready(None),
                Some(Item::Record(record, _room)) => return Poll::Ready(Some(Ok(record))),
                Some(Item::Over(error)) => return Poll::Ready(Some(Err(error))),
                Some(Item::Reset) => self.on_reset.as_ref(),
                Some(Item::Eos) => self.on_eos.as_ref(),
            };
            if let Some(callback) = callback {
                callback();
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// The task that reads records from nodes, connection after connection.
struct Feed {
    dialer: Dialer,
    wanted: Wanted,
    items: mpsc::Sender<Item>,
    /// Room for the bytes of records that are read and not delivered yet.
    room: Arc<Semaphore>,
    seen: Seen,
    token: Option<String>,
    was_accepted: bool,
    /// Whether what comes belongs to the state at the beginning.
    is_snapshot: bool,
}

/// The reasons for which one connection of a feed ends.
enum FeedEnd {
    Lost(Lost),
    Over(AnodeError),
    /// Nobody reads any more.
    Dropped,
}

impl From<Lost> for FeedEnd {
    fn from(lost: Lost) -> FeedEnd {
        FeedEnd::Lost(lost)
    }
}

impl Feed {
    async fn run(mut self) {
        loop {
            let over = match self.dialer.dial().await {
                Err(error) => error,
                Ok((mut link, _)) => match self.serve(&mut link).await {
                    FeedEnd::Dropped => return link.close().await,
                    FeedEnd::Over(error) => {
                        link.close().await;
                        error
                    }
                    FeedEnd::Lost(lost) => match self.dialer.handle_loss(lost, Some(link)).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                },
            };
            // If nobody reads any more, nobody needs to know.
            let _ = self.items.send(Item::Over(over)).await;
            return;
        }
    }

    async fn serve(&mut self, link: &mut Link) -> FeedEnd {
        let is_resumed = self.token.is_some();
        let request = self.wanted.frame(self.token.as_deref());
        if link.writer().send(Message::text(request)).await.is_err() {
            return FeedEnd::Lost(Lost::closed(1006, "the socket takes nothing more", None));
        }
        loop {
            let text = match link.receive().await {
                Ok(text) => text,
                Err(lost) => return FeedEnd::Lost(lost),
            };
            if let Err(end) = self.handle_frame(link, &text, is_resumed).await {
                return end;
            }
        }
    }

    async fn handle_frame(&mut self, link: &mut Link, text: &str, is_resumed: bool) -> Result<(), FeedEnd> {
        match read_frame(text, self.is_snapshot).map_err(FeedEnd::Over)? {
            FeedFrame::Record(record) => {
                if !self.seen.admit(&record) {
                    return Ok(());
                }
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).min(READ_AHEAD_BYTES);
                let room = self.room.clone().acquire_many_owned(bytes);
                let room = tokio::select! {
                    room = room => room.map_err(|_| FeedEnd::Dropped)?,
                    () = link.keep_alive() => return Err(FeedEnd::Dropped),
                };
                self.deliver(link, Item::Record(record, room)).await
            }
            FeedFrame::Resume(token) => {
                self.token = Some(token);
                Ok(())
            }
            FeedFrame::Eos(token) => {
                self.token = Some(token);
                if std::mem::take(&mut self.is_snapshot) {
                    return self.deliver(link, Item::Eos).await;
                }
                Ok(())
            }
            FeedFrame::Accepted { recovered } if is_resumed && recovered => Ok(()),
            FeedFrame::Accepted { .. } => {
                // All there is comes again. Deletions since then do not, so the program must forget what it held. If
                // this state does not come whole, the old token must not be used on top of a part of it.
                self.token = None;
                self.is_snapshot = true;
                if std::mem::replace(&mut self.was_accepted, true) {
                    self.seen.forget();
                    return self.deliver(link, Item::Reset).await;
                }
                Ok(())
            }
            FeedFrame::Refused(error) if error.temporary => Err(Lost::new(error, Retry::BackOff).into()),
            FeedFrame::Refused(error) => Err(FeedEnd::Over(error)),
            FeedFrame::Other => Ok(()),
        }
    }

    /// Puts an item into the queue. While the program is slow, the node is shown that this client lives.
    async fn deliver(&mut self, link: &mut Link, item: Item) -> Result<(), FeedEnd> {
        tokio::select! {
            sent = self.items.send(item) => sent.map_err(|_| FeedEnd::Dropped),
            () = link.keep_alive() => Err(FeedEnd::Dropped),
        }
    }
}
