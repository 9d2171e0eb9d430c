//! Sends one batch to its receiver, and judges the answer.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};

use super::backoff::retry_after_us;
use super::definition::{HeaderValueOf, HookDefinition};
use super::signature::{HookSecret, message_id};
use crate::extend::outgoing::told;
use crate::record::Now;

/// Most bytes of an answer that are read, so that its connection can be used again.
const ANSWER_READ_BYTES_MAX: usize = 64 * 1024;
/// Longest time for which an answer is read whose status is known, in microseconds. The status alone decides.
const ANSWER_READ_US_MAX: u64 = 1_000_000;
/// Most characters of an answer that an error repeats.
const ANSWER_CHARS_MAX: usize = 200;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The receiver has taken it.
    Taken,
    /// The receiver wants no more messages, ever.
    Gone,
    /// The receiver takes no messages of this size.
    TooLarge,
    /// It was not taken, and is to be sent again.
    Failed {
        /// The failure in words.
        why: String,
        /// Time for which the receiver asks to be left alone, in microseconds.
        asked_us: Option<u64>,
    },
}

/// A receiver, and all that its messages need.
#[derive(Debug)]
pub struct HookReceiver {
    client: Client,
    name: String,
    url: String,
    secret: Option<HookSecret>,
    headers: HeaderMap,
    timeout: Duration,
}

impl HookReceiver {
    /// The receiver of a webhook. Reads the secrets from the environment.
    pub fn new(client: Client, name: &str, hook: &HookDefinition) -> Result<HookReceiver, String> {
        let secret = match &hook.secret {
            Some(name) => {
                let text = name.read().ok_or_else(|| name.lack().unwrap_or_default())?;
                let named = |error| format!("variable {}: {error}", name.variable());
                Some(HookSecret::parse(&text).map_err(named)?)
            }
            None => None,
        };
        let timeout = Duration::from_micros(hook.timeout_us);
        let headers = headers(hook)?;
        Ok(HookReceiver { client, name: name.into(), url: hook.url.clone(), secret, headers, timeout })
    }

    /// Sends a batch once.
    pub async fn send(&self, body: Bytes, now: Now) -> Delivered {
        let id = message_id(&self.name, &body);
        let seconds = now.wall_us / 1_000_000;
        let mut request = self.client.post(&self.url).timeout(self.timeout).headers(self.headers.clone());
        request = request.header("webhook-id", &id).header("webhook-timestamp", seconds);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", secret.sign(&id, seconds, &body));
        }
        match request.header(CONTENT_TYPE, "application/json").body(body).send().await {
            Ok(answer) => judge(answer, now).await,
            Err(error) => Delivered::Failed { why: told(&error), asked_us: None },
        }
    }
}

fn headers(hook: &HookDefinition) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &hook.headers {
        let text = match value {
            HeaderValueOf::Text(text) => text.clone(),
            HeaderValueOf::Secret(name) => name.read().ok_or_else(|| name.lack().unwrap_or_default())?,
        };
        let bad = |_| format!("the value of the header {name} has characters that no header may have");
        let mut value = HeaderValue::from_str(text.trim()).map_err(bad)?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?, value);
    }
    Ok(headers)
}

async fn judge(answer: Response, now: Now) -> Delivered {
    let status = answer.status();
    let asked_us = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked_us = asked_us.and_then(|text| retry_after_us(text, now.wall_us));
    let read = tokio::time::timeout(Duration::from_micros(ANSWER_READ_US_MAX), read(answer));
    let text = read.await.unwrap_or_default();
    if status.is_success() {
        return Delivered::Taken;
    }
    match status {
        StatusCode::GONE => Delivered::Gone,
        StatusCode::PAYLOAD_TOO_LARGE => Delivered::TooLarge,
        _ => {
            let why = if status.is_redirection() { "; redirects are not followed" } else { "" };
            let text = if text.is_empty() { text } else { format!(": {text}") };
            Delivered::Failed { why: format!("the receiver answered {status}{why}{text}"), asked_us }
        }
    }
}

/// Reads an answer up to a bound. Returns the beginning of its text.
async fn read(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_READ_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().filter(|c| !c.is_control()).take(ANSWER_CHARS_MAX).collect()
}
