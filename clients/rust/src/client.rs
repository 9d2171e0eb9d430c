//! The client: one connection for publishing, one for each subscription, and requests over HTTP for reading.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc, watch};

use crate::dialer::{Dialer, Shared};
use crate::error::AnodeError;
use crate::inner::ClientInner;
use crate::publisher::{Publisher, PublisherState};
use crate::reads::{self, Pages, encoded};
use crate::record::{Data, Record};
use crate::requests::{Publish, Subscribe};
use crate::stamps::Stamps;
use crate::subscription::Callback;

/// A client of a cluster. Made by [`connect`](crate::connect). Clones are the same client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<ClientInner>,
}

impl Client {
    /// Begins to connect. Also returns where the dialer tells its last failure.
    pub(crate) fn start(
        shared: Shared,
        on_reset: Option<Callback>,
    ) -> (Client, watch::Receiver<Option<AnodeError>>) {
        let dialer = Dialer::new("/publish", shared.clone());
        let failure = dialer.failure();
        let stamps = Arc::new(Mutex::new(Stamps::default()));
        let (sender, incoming) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(PublisherState::Connecting);
        let closed = Arc::new(Semaphore::new(0));
        let publisher = Publisher::new(dialer, stamps.clone(), incoming, state_sender, closed.clone());
        tokio::spawn(publisher.run());
        let options = &shared.options;
        let inner = ClientInner {
            on_reset,
            stamps,
            state,
            failure: failure.clone(),
            publishing: Mutex::new(Some(sender)),
            room: Semaphore::new(options.outstanding_max as usize),
            room_bytes: Semaphore::new(options.outstanding_bytes_max as usize),
            closed,
            shared,
        };
        (Client { inner: Arc::new(inner) }, failure)
    }

    /// Waits for the first connection. A token that may not publish is tried as one that may subscribe.
    pub(crate) async fn begun(&self) -> Result<(), AnodeError> {
        let mut state = self.inner.state.clone();
        // The guard that is returned must not live on while the client waits for something else.
        let begun = state.wait_for(|state| !matches!(state, PublisherState::Connecting)).await;
        let begun = begun.map(|state| state.clone());
        let error = match begun {
            Ok(PublisherState::Over(error)) => error,
            Ok(_) => return Ok(()),
            Err(_) => AnodeError::new("protocol", "the client failed"),
        };
        if error.code != "forbidden" {
            return Err(error);
        }
        let mut dialer = Dialer::new("/subscribe", self.inner.shared.clone());
        let (link, _) = dialer.dial().await?;
        link.close().await;
        Ok(())
    }

    /// Publishes a value. It is sent when the result is awaited, after further settings if there are any.
    ///
    /// ```no_run
    /// # async fn f(client: anode_client::Client) -> Result<(), anode_client::AnodeError> {
    /// use anode_client::{Data, Level};
    /// let ack = client.publish("sensors/7/temp", 21.5).ack(Level::Stored).await?;
    /// println!("{} {}", ack.ts, ack.outcome);
    /// client.publish("sensors/7/raw", vec![0u8, 255]).ttl_ms(60_000).await?;
    /// client.publish("sensors/7/all", Data::json(&[1.0, 2.0])?).await?;
    /// # Ok(()) }
    /// ```
    pub fn publish(&self, source: impl Into<String>, data: impl Into<Data>) -> Publish {
        Publish::new(self.inner.clone(), source.into(), data.into())
    }

    /// Marks a source as deleted, when the result is awaited.
    pub fn delete(&self, source: impl Into<String>) -> Publish {
        Publish::new(self.inner.clone(), source.into(), Data::Deleted)
    }

    /// Subscribes to one pattern. Further ones and settings are added to the result.
    ///
    /// ```no_run
    /// # async fn f(client: anode_client::Client) -> Result<(), anode_client::AnodeError> {
    /// let mut records = client.subscribe("sensors/**").start();
    /// while let Some(record) = records.next().await {
    ///     let record = record?;
    ///     println!("{} {} {:?}", record.source, record.ts, record.data);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn subscribe(&self, pattern: impl Into<String>) -> Subscribe {
        Subscribe::new(self.inner.clone(), pattern.into())
    }

    /// Returns the latest record of a source; `None` if there is none.
    pub async fn get(&self, source: &str) -> Result<Option<Record>, AnodeError> {
        self.inner.check_open()?;
        reads::get(&self.inner.shared, source).await
    }

    /// Returns the latest records of all sources that match, in the order of their names.
    pub fn list(&self, pattern: &str) -> Pages {
        Pages::new(self.inner.shared.clone(), format!("/v1/sources?pattern={}", encoded(pattern)))
    }

    /// Returns the past records of a source, the newest first, with timestamps within the bounds.
    pub fn history(&self, source: &str, from: impl Into<Option<u64>>, to: impl Into<Option<u64>>) -> Pages {
        let mut path = format!("/v1/sources/{}/history?from={}", encoded(source), from.into().unwrap_or(0));
        if let Some(to) = to.into() {
            path.push_str(&format!("&to={to}"));
        }
        Pages::new(self.inner.shared.clone(), path)
    }

    /// Closes all connections. Subscriptions end; publishes without an answer return `closed`.
    pub async fn close(&self) {
        self.inner.close();
        let mut state = self.inner.state.clone();
        // An error means that the publisher is gone already.
        let _ = state.wait_for(|state| matches!(state, PublisherState::Over(_))).await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
