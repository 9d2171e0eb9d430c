//! What a webhook must not forget when its runner dies: the record `$hook/NAME/token`.
//!
//! It has the resume token up to which everything was taken by the receiver, since when the receiver takes nothing, and
//! whether the webhook has ended. It is written after the receiver has taken what it says, so whoever goes on from it
//! sends some records twice, and leaves none out.

use serde::{Deserialize, Serialize};

use super::definition::HookDefinition;
use crate::extend::host::ExtendHost;
use crate::extend::system_record::{read_kept, tell_system};
use crate::protocol::draft::DraftPayload;

/// Least time between two tokens that are kept while nothing is delivered, in microseconds. Tokens are valid for hours.
const IDLE_TOKEN_US: u64 = 300_000_000;

/// What is kept in the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptHook {
    /// Patterns and filter that the token is about.
    on: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// Token up to which everything was taken.
    #[serde(default)]
    resume: Option<String>,
    /// Time from which on the receiver has taken nothing, in microseconds since the Unix epoch.
    #[serde(default)]
    failing_since: Option<u64>,
    /// The end of the webhook, if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<HookEnd>,
}

/// The end of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HookEnd {
    /// Timestamp of the definition that has ended. One that is put anew begins again.
    definition: u64,
    why: String,
}

/// The record of a webhook.
#[derive(Debug)]
pub struct HookKeeper {
    source: String,
    kept: KeptHook,
    /// Timestamp of the definition.
    definition: u64,
    written_us: u64,
    /// Something was delivered since the record was written.
    has_delivered: bool,
}

/// The name of the record that keeps where a webhook is.
fn token_name(hook: &str) -> String {
    format!("$hook/{hook}/token")
}

impl HookKeeper {
    /// Reads the record. What was kept of other patterns, or by another filter, is of no use.
    pub fn read(host: &dyn ExtendHost, name: &str, definition: u64, hook: &HookDefinition) -> HookKeeper {
        let source = token_name(name);
        let on: Vec<String> = hook.on.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        let fresh = KeptHook { on, filter: hook.filter.clone(), ..KeptHook::default() };
        let kept: Option<KeptHook> = host.get(&source).and_then(|record| read_kept(&record));
        let mut kept =
            kept.filter(|kept| (&kept.on, &kept.filter) == (&fresh.on, &fresh.filter)).unwrap_or(fresh);
        // A definition that is put anew is another beginning for a receiver that was given up.
        if kept.ended.as_ref().is_some_and(|end| end.definition != definition) {
            (kept.ended, kept.failing_since) = (None, None);
        }
        HookKeeper { source, kept, definition, written_us: 0, has_delivered: false }
    }

    /// The token to go on from.
    pub fn resume(&self) -> Option<&str> {
        self.kept.resume.as_deref()
    }

    /// The reason why the webhook has ended; `None` if it has not.
    pub fn ended(&self) -> Option<&str> {
        self.kept.ended.as_ref().map(|end| end.why.as_str())
    }

    /// Forgets the token, because the node does not accept it.
    pub fn forget_token(&mut self) {
        self.kept.resume = None;
    }

    /// Notes that the receiver has taken something.
    pub fn handle_delivered(&mut self, host: &dyn ExtendHost) {
        self.has_delivered = true;
        if self.kept.failing_since.take().is_some() {
            self.write(host);
        }
    }

    /// Notes that the receiver did not take something. Returns since when it has taken nothing, in microseconds since
    /// the Unix epoch.
    pub fn handle_failure(&mut self, host: &dyn ExtendHost) -> u64 {
        let now_us = host.now().wall_us;
        match self.kept.failing_since {
            // A clock that was wrong then must not make the day longer.
            Some(since) if since <= now_us => since,
            _ => {
                self.kept.failing_since = Some(now_us);
                self.write(host);
                now_us
            }
        }
    }

    /// Keeps a token up to which everything was taken. It is written at once if anything was delivered since the last.
    pub fn handle_token(&mut self, host: &dyn ExtendHost, token: String) {
        let is_first = self.kept.resume.is_none();
        self.kept.resume = Some(token);
        let is_old = host.now().mono_us.saturating_sub(self.written_us) >= IDLE_TOKEN_US;
        if is_first || self.has_delivered || is_old {
            self.write(host);
        }
    }

    /// Ends the webhook until its definition is put anew.
    pub fn end(&mut self, host: &dyn ExtendHost, why: &str) {
        self.kept.ended = Some(HookEnd { definition: self.definition, why: why.into() });
        self.write(host);
    }

    /// Writes the record. If that fails, it is written with the next token; nothing is lost meanwhile. Of a webhook that
    /// was taken away nothing is kept.
    fn write(&mut self, host: &dyn ExtendHost) {
        let definition = self.source.strip_suffix("/token").and_then(|name| host.get(name));
        if !definition.is_some_and(|record| record.is_visible(host.now().wall_us)) {
            return;
        }
        let text = match serde_json::to_vec(&self.kept) {
            Ok(text) => text,
            Err(error) => return tracing::debug!(%error, "where a webhook is cannot be written"),
        };
        match tell_system(host, &self.source, DraftPayload::Json(&text)) {
            Ok(()) => (self.written_us, self.has_delivered) = (host.now().mono_us, false),
            Err(refusal) => {
                tracing::debug!(source = self.source, %refusal, "where a webhook is cannot be told")
            }
        }
    }
}
