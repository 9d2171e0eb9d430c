//! Opens the connections of one kind, one after the other, at whichever node answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, RETRY_AFTER};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::{Error, http};

use crate::access::Access;
use crate::address::NodeAddress;
use crate::error::{AnodeError, Lost, RETRY_AFTER_MS_MAX, Refusal, Retry};
use crate::link::{Greeting, Link};
use crate::options::{OPEN_MAX, Options};
use crate::roster::{Attempts, Roster};
use crate::transport::Opener;

/// After so many refused tokens in a row the client gives up.
const REFUSED_TOKENS_MAX: u32 = 3;

/// The addresses and secrets with which a client opens its connections. All of them share it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) roster: Arc<Roster>,
    pub(crate) access: Arc<Access>,
    pub(crate) opener: Opener,
    pub(crate) options: Options,
}

/// The maker of the connections to one path.
#[derive(Debug)]
pub(crate) struct Dialer {
    path: &'static str,
    shared: Shared,
    attempts: Attempts,
    wait: Duration,
    /// The token of the last attempt.
    token: Option<String>,
    /// How many tokens were refused in a row.
    refused_tokens: u32,
    /// The failure of the last attempt, for whoever gives up waiting.
    failure: tokio::sync::watch::Sender<Option<AnodeError>>,
}

impl Dialer {
    /// Makes a dialer of one path. It has not connected yet.
    pub(crate) fn new(path: &'static str, shared: Shared) -> Dialer {
        let failure = tokio::sync::watch::Sender::new(None);
        let (attempts, wait) = (Attempts::default(), Duration::ZERO);
        Dialer { path, shared, attempts, wait, token: None, refused_tokens: 0, failure }
    }

    /// Returns the failure of the last attempt, which changes as the dialer goes on.
    pub(crate) fn failure(&self) -> tokio::sync::watch::Receiver<Option<AnodeError>> {
        self.failure.subscribe()
    }

    /// Whether there is more than one node to connect to.
    pub(crate) fn has_others(&self) -> bool {
        self.shared.roster.candidates(None).len() > 1
    }

    /// Returns a new connection to any node, or an error if it makes no sense to go on trying. May be dropped at any
    /// time; then the attempt that was under way is lost.
    pub(crate) async fn dial(&mut self) -> Result<(Link, Greeting), AnodeError> {
        loop {
            tokio::time::sleep(self.wait).await;
            let Some(node) = self.attempts.next(&self.shared.roster) else {
                return Err(AnodeError::new("bad_url", "no node is named; allowed: one URL or more"));
            };
            match self.open(node).await {
                Ok(opened) => return Ok(opened),
                Err(lost) => self.handle_loss(lost, None).await?,
            }
        }
    }

    /// Notes why a connection was lost. Returns an error if it makes no sense to connect again.
    pub(crate) async fn handle_loss(&mut self, lost: Lost, link: Option<Link>) -> Result<(), AnodeError> {
        if link.as_ref().is_some_and(Link::has_served) {
            self.attempts.succeed();
            self.refused_tokens = 0;
        }
        let used = link.map_or_else(|| self.token.clone(), |link| link.token().map(str::to_owned));
        let Lost { error, mut retry } = lost;
        self.failure.send_replace(Some(error.clone()));
        if retry == Retry::Never {
            let may_renew = self.shared.access.renews() && self.refused_tokens < REFUSED_TOKENS_MAX;
            if error.code != "unauthorized" || !may_renew {
                return Err(error);
            }
            retry = self.renew(used).await;
        }
        self.wait = self.attempts.wait(retry);
        if let Some(after_ms) = error.retry_after_ms {
            self.wait = self.wait.max(Duration::from_millis(after_ms));
        }
        self.shared.options.report(&error);
        Ok(())
    }

    /// Fetches another token after one was refused. A fresh one may be known to some nodes before others.
    async fn renew(&mut self, used: Option<String>) -> Retry {
        match self.shared.access.renew(used.as_deref()).await {
            Ok(fresh) => {
                self.refused_tokens += 1;
                if fresh == used { Retry::BackOff } else { Retry::Soon }
            }
            Err(error) => {
                self.shared.options.report(&error);
                Retry::BackOff
            }
        }
    }

    async fn open(&mut self, node: NodeAddress) -> Result<(Link, Greeting), Lost> {
        let token = self.shared.access.token().await.map_err(|error| Lost::new(error, Retry::BackOff))?;
        self.token.clone_from(&token);
        let late = || {
            let message = format!("{node}: no greeting within {} s", OPEN_MAX.as_secs());
            Lost::new(AnodeError::unavailable(message), Retry::Soon)
        };
        let opening = async {
            let unreachable = |error: io::Error| {
                Lost::new(AnodeError::unavailable(format!("{node}: {error}")), Retry::Soon)
            };
            let transport = self.shared.opener.open(&node).await.map_err(unreachable)?;
            let request = self.request(&node, token.as_deref())?;
            let (socket, _) = client_async_with_config(request, transport, None)
                .await
                .map_err(|error| refused_handshake(&node, error))?;
            let Shared { access, options, .. } = self.shared.clone();
            let mut link = Link::new(socket, node.clone(), token, access, options);
            let greeting = link.begin().await?;
            Ok((link, greeting))
        };
        let (link, greeting) = timeout(OPEN_MAX, opening).await.map_err(|_| late())??;
        self.shared.roster.handle_greeting(&node, &greeting.members());
        Ok((link, greeting))
    }

    fn request(&self, node: &NodeAddress, token: Option<&str>) -> Result<Request, Lost> {
        let bad = |error: &dyn std::fmt::Display| {
            Lost::new(AnodeError::new("bad_url", format!("{node}: {error}")), Retry::Never)
        };
        let uri = format!("ws://{}{}", node.authority(), node.path(self.path));
        let mut request = uri.into_client_request().map_err(|error| bad(&error))?;
        request
            .headers_mut()
            .insert(http::header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("anode.v1.json"));
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                let message = "the token has characters that no token has";
                Lost::new(AnodeError::new("unauthorized", message), Retry::Never)
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// Returns the loss for a handshake that failed, or that was answered with a status.
fn refused_handshake(node: &NodeAddress, error: Error) -> Lost {
    let Error::Http(response) = error else {
        return Lost::new(AnodeError::unavailable(format!("{node}: {error}")), Retry::Soon);
    };
    let response: &Response = &response;
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let mut error = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => AnodeError::from(refusal),
        Err(_) => AnodeError::unavailable(format!("{node} answered the handshake with {status}")),
    };
    if matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // The body may not have come with the head, so the status must do.
        if error.code == "unavailable" {
            error.temporary = false;
            error.code = match status {
                StatusCode::UNAUTHORIZED => "unauthorized",
                StatusCode::FORBIDDEN => "forbidden",
                _ => "bad_request",
            }
            .to_owned();
        }
        return Lost::new(error, Retry::Never);
    }
    let after =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    error.retry_after_ms =
        error.retry_after_ms.or(after.map(|seconds| seconds.saturating_mul(1_000).min(RETRY_AFTER_MS_MAX)));
    Lost::new(error, Retry::BackOff)
}
