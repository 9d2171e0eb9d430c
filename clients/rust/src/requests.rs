//! Publishes and subscriptions with their settings, before they begin.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::dialer::Dialer;
use crate::error::AnodeError;
use crate::inner::{ClientInner, closed};
use crate::options::end_of;
use crate::outgoing::{Outgoing, SharedProgress};
use crate::publisher::PublisherState;
use crate::record::{Ack, Data, Level, Mode};
use crate::stamps::wall_clock_us;
use crate::subscription::{Subscription, Wanted};

/// A record that is published when this is awaited. Made by [`Client::publish`](crate::Client::publish).
#[must_use = "it is published when it is awaited"]
pub struct Publish {
    client: Arc<ClientInner>,
    source: String,
    data: Data,
    ack: Option<Level>,
    ts: Option<u64>,
    ttl_ms: Option<u64>,
    timeout: Option<Duration>,
}

impl Publish {
    pub(crate) fn new(client: Arc<ClientInner>, source: String, data: Data) -> Publish {
        Publish { client, source, data, ack: None, ts: None, ttl_ms: None, timeout: None }
    }

    /// Sets the level at which the node answers. It is [`Level::Accepted`] if it is not set.
    pub fn ack(self, level: Level) -> Publish {
        Publish { ack: Some(level), ..self }
    }

    /// The timestamp, in microseconds since the Unix epoch. Without it the client stamps the record.
    pub fn ts(self, micros: u64) -> Publish {
        Publish { ts: Some(micros), ..self }
    }

    /// The time to live, in milliseconds.
    pub fn ttl_ms(self, millis: u64) -> Publish {
        Publish { ttl_ms: Some(millis), ..self }
    }

    /// How long it may take with all its attempts, in place of the client's setting.
    pub fn timeout(self, timeout: Duration) -> Publish {
        Publish { timeout: Some(timeout), ..self }
    }

    fn fields(&self) -> String {
        let mut fields = self.data.field();
        if let Some(ttl_ms) = self.ttl_ms {
            fields.push_str(&format!(",\"ttl_ms\":{ttl_ms}"));
        }
        if let Some(level) = self.ack {
            fields.push_str(&format!(",\"ack\":\"{}\"", level.name()));
        }
        fields
    }

    async fn send(self) -> Result<Ack, AnodeError> {
        let client = &*self.client;
        if let PublisherState::Over(error) = &*client.state.borrow() {
            return Err(error.clone());
        }
        let deadline = end_of(self.timeout.unwrap_or(client.shared.options.publish_timeout));
        let fields = self.fields();
        let bytes = u32::try_from(self.source.len() + fields.len()).unwrap_or(u32::MAX);
        let bytes = bytes.min(client.shared.options.outstanding_bytes_max);
        let room = async { Ok((client.room.acquire().await?, client.room_bytes.acquire_many(bytes).await?)) };
        let room: Result<_, tokio::sync::AcquireError> =
            timeout_at(deadline.into(), room).await.map_err(|_| {
                let message = "as many records as may be outstanding had no answer in time";
                AnodeError { ts: self.ts, ..AnodeError::new("timeout", message).temporary() }
            })?;
        let _room = room.map_err(|_| closed())?;
        let ts = match self.ts {
            Some(ts) => ts,
            None => {
                let mut stamps = client.stamps.lock().unwrap_or_else(PoisonError::into_inner);
                stamps.next(&self.source, wall_clock_us())?
            }
        };
        let progress = SharedProgress::new(ts);
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing {
            source: self.source,
            fields,
            is_stamped_here: self.ts.is_none(),
            deadline,
            progress: progress.clone(),
            answer,
            refusals: 0,
            waits: false,
        };
        client.send(outgoing)?;
        match timeout_at(deadline.into(), answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(progress.overdue(client.failure.borrow().as_ref())),
        }
    }
}

impl IntoFuture for Publish {
    type Output = Result<Ack, AnodeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A subscription that is about to begin. Made by [`Client::subscribe`](crate::Client::subscribe).
#[must_use = "it begins with `start`"]
pub struct Subscribe {
    client: Arc<ClientInner>,
    wanted: Wanted,
}

impl Subscribe {
    pub(crate) fn new(client: Arc<ClientInner>, pattern: String) -> Subscribe {
        let wanted = Wanted {
            sources: vec![pattern],
            mode: Mode::Latest,
            snapshot: true,
            filter: None,
            on_reset: client.on_reset.clone(),
            on_eos: None,
        };
        Subscribe { client, wanted }
    }

    /// Adds a pattern.
    pub fn and(mut self, pattern: impl Into<String>) -> Subscribe {
        self.wanted.sources.push(pattern.into());
        self
    }

    /// Sets whether every record comes or, for a slow reader, the newest of each source. It is [`Mode::Latest`] if it is
    /// not set.
    pub fn mode(mut self, mode: Mode) -> Subscribe {
        self.wanted.mode = mode;
        self
    }

    /// Whether to get what is there already. Default: `true`.
    pub fn snapshot(mut self, snapshot: bool) -> Subscribe {
        self.wanted.snapshot = snapshot;
        self
    }

    /// Only records for which this expression is true.
    pub fn filter(mut self, expression: impl Into<String>) -> Subscribe {
        self.wanted.filter = Some(expression.into());
        self
    }

    /// Is called when the subscription could not be resumed: forget what you hold, all of it comes again.
    pub fn on_reset(mut self, function: impl Fn() + Send + Sync + 'static) -> Subscribe {
        self.wanted.on_reset = Some(Arc::new(function));
        self
    }

    /// Is called when what was there at the beginning has come.
    pub fn on_eos(mut self, function: impl Fn() + Send + Sync + 'static) -> Subscribe {
        self.wanted.on_eos = Some(Arc::new(function));
        self
    }

    /// Begins. Must be called within a tokio runtime.
    pub fn start(self) -> Subscription {
        let dialer = Dialer::new("/subscribe", self.client.shared.clone());
        Subscription::start(dialer, self.wanted, self.client.closed.clone())
    }
}

impl fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe").field("sources", &self.wanted.sources).finish_non_exhaustive()
    }
}
