//! The settings of a client, and its first connection.

use std::error::Error;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::access::{Access, TokenSource};
use crate::address::NodeAddress;
use crate::client::Client;
use crate::dialer::Shared;
use crate::error::AnodeError;
use crate::options::Options;
use crate::roster::Roster;
use crate::subscription::Callback;
use crate::transport::{Opener, TlsFiles};

/// Connects to a node. `urls` are nodes to begin with, in order of preference: `ws://HOST:PORT`, with TLS `wss://`.
///
/// The result is awaited, after further settings if there are any:
///
/// ```no_run
/// # async fn f() -> Result<(), anode_client::AnodeError> {
/// let client = anode_client::connect(["wss://a:7070", "wss://b:7070"]).token("…").ca("ca.pem").await?;
/// # Ok(()) }
/// ```
pub fn connect<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Connect {
    Connect {
        urls: urls.into_iter().map(Into::into).collect(),
        token: TokenSource::None,
        files: TlsFiles::default(),
        options: Options::default(),
        on_reset: None,
    }
}

/// A client that is about to connect. Made by [`connect`].
#[must_use = "it connects when it is awaited"]
pub struct Connect {
    urls: Vec<String>,
    token: TokenSource,
    files: TlsFiles,
    options: Options,
    on_reset: Option<Callback>,
}

impl Connect {
    /// Brings this token. Without any, the environment's `ANODE_TOKEN` is used.
    pub fn token(self, token: impl Into<String>) -> Connect {
        Connect { token: TokenSource::Fixed(token.into()), ..self }
    }

    /// Brings the token in this file, which is read again when a fresh one is needed.
    pub fn token_file(self, path: impl Into<PathBuf>) -> Connect {
        Connect { token: TokenSource::File(path.into()), ..self }
    }

    /// Brings the token that this function returns. It is called again when a fresh one is needed.
    pub fn token_with<F, R, E>(self, function: F) -> Connect
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let source = TokenSource::Function(Box::new(move || {
            let token = function();
            Box::pin(async move { token.await.map_err(Into::into) })
        }));
        Connect { token: source, ..self }
    }

    /// Trusts the authorities in this file, in PEM, in place of the system's.
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Connect {
        self.files.ca = Some(path.into());
        self
    }

    /// Shows nodes this certificate of the client, with its key, in PEM.
    pub fn cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Connect {
        self.files.own = Some((cert.into(), key.into()));
        self
    }

    /// Is called when a subscription that has no such function of its own could not be resumed.
    pub fn on_reset(self, function: impl Fn() + Send + Sync + 'static) -> Connect {
        Connect { on_reset: Some(Arc::new(function)), ..self }
    }

    /// Is called with every failure that the client handles by itself.
    pub fn on_error(mut self, function: impl Fn(&AnodeError) + Send + Sync + 'static) -> Connect {
        self.options.on_error = Some(Arc::new(function));
        self
    }

    /// How long the first connection may take. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Connect {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a publish may take with all its attempts. Default: 30 s.
    pub fn publish_timeout(mut self, timeout: Duration) -> Connect {
        self.options.publish_timeout = timeout;
        self
    }

    /// How long a read may take with all its attempts. Default: 10 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Connect {
        self.options.read_timeout = timeout;
        self
    }

    /// How many publishes may be unanswered at a time; further ones wait. Default: 1,024.
    pub fn max_outstanding(mut self, records: u32) -> Connect {
        self.options.outstanding_max = records.max(1);
        self
    }

    /// How many bytes unanswered publishes may have together; further ones wait. Default: 4 MiB.
    pub fn max_outstanding_bytes(mut self, bytes: u32) -> Connect {
        self.options.outstanding_bytes_max = bytes.max(1);
        self
    }

    async fn open(self) -> Result<Client, AnodeError> {
        let seeds: Vec<NodeAddress> =
            self.urls.iter().map(|url| NodeAddress::parse(url)).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(AnodeError::new("bad_url", "no node is named; allowed: one URL or more"));
        }
        let opener = Opener::new(seeds.iter().any(|seed| seed.is_tls), &self.files)?;
        let shared = Shared {
            roster: Arc::new(Roster::new(seeds)),
            access: Arc::new(Access::new(self.token)),
            opener,
            options: self.options,
        };
        let limit = shared.options.connect_timeout;
        let (client, failure) = Client::start(shared, self.on_reset);
        match timeout(limit, client.begun()).await {
            Ok(begun) => begun.map(|()| client),
            Err(_) => {
                let why = failure
                    .borrow()
                    .as_ref()
                    .map_or_else(String::new, |why| format!("; the last failure: {}", why.message));
                Err(AnodeError::unavailable(format!(
                    "no node has greeted within {} s{why}",
                    limit.as_secs_f64()
                )))
            }
        }
    }
}

impl IntoFuture for Connect {
    type Output = Result<Client, AnodeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("urls", &self.urls).finish_non_exhaustive()
    }
}
