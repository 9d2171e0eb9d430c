//! The token that the client brings, and where it comes from.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::Mutex;

use crate::error::AnodeError;

/// Any error of a function that makes tokens.
pub(crate) type TokenError = Box<dyn std::error::Error + Send + Sync>;
type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where tokens come from.
pub(crate) enum TokenSource {
    /// There is none.
    None,
    /// Always the same.
    Fixed(String),
    /// The text of a file, which is read again when a fresh token is needed.
    File(PathBuf),
    /// What a function returns, which is called again when a fresh token is needed.
    Function(Box<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

/// The token in force. All connections of a client share it.
#[derive(Debug)]
pub(crate) struct Access {
    source: TokenSource,
    token: Mutex<Option<String>>,
}

impl Access {
    /// Takes the source of tokens. Without one, the environment's `ANODE_TOKEN` is used.
    pub(crate) fn new(source: TokenSource) -> Access {
        let source = match source {
            TokenSource::None => match std::env::var("ANODE_TOKEN") {
                Ok(token) if !token.is_empty() => TokenSource::Fixed(token),
                _ => TokenSource::None,
            },
            other => other,
        };
        let token = match &source {
            TokenSource::Fixed(token) => Some(token.clone()),
            _ => None,
        };
        Access { source, token: Mutex::new(token) }
    }

    /// Whether a fresh token can be had.
    pub(crate) fn renews(&self) -> bool {
        matches!(self.source, TokenSource::File(_) | TokenSource::Function(_))
    }

    /// Returns the token to bring; `None` if there is none.
    pub(crate) async fn token(&self) -> Result<Option<String>, AnodeError> {
        let token = self.token.lock().await.clone();
        match token {
            None if self.renews() => self.renew(None).await,
            token => Ok(token),
        }
    }

    /// Returns a token other than `used`: one that another connection has fetched meanwhile, or a fresh one.
    pub(crate) async fn renew(&self, used: Option<&str>) -> Result<Option<String>, AnodeError> {
        let mut token = self.token.lock().await;
        if !self.renews() || token.as_deref() != used {
            return Ok(token.clone());
        }
        let fresh = match &self.source {
            TokenSource::File(path) => {
                tokio::fs::read_to_string(path).await.map(|text| text.trim().to_owned()).map_err(Into::into)
            }
            TokenSource::Function(make) => make().await,
            TokenSource::None | TokenSource::Fixed(_) => return Ok(token.clone()),
        };
        let fresh = fresh.map_err(|error| {
            AnodeError::new("unauthorized", format!("no token could be had: {error}")).temporary()
        })?;
        *token = Some(fresh.clone());
        Ok(Some(fresh))
    }
}
