//! Up to where a node has all records: the resume token that a subscriber at it would be given now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::error::ArchiveError;
use crate::extend::host::ExtendHost;
use crate::extend::subscription::{FeedFrame, Subscribed, open_feed};
use crate::protocol::token::Token;
use crate::record::Pattern;

/// Longest time for an answer, in microseconds. A node that lacks what a token covers waits for it for three seconds.
const CHECKPOINT_US_MAX: u64 = 15_000_000;

/// Where an archive begins and ends.
#[derive(Debug)]
pub struct ArchiveCheckpoint {
    /// What the archive before covers, if this node can tell what has changed since.
    pub covered: Option<Token>,
    /// Everything that this archive is to cover.
    pub token: String,
    /// Time at which the token was given, in microseconds since the Unix epoch.
    pub at: u64,
}

/// Asks the node whether it knows what has changed since `before`, and up to where it has everything now.
pub async fn checkpoint(
    host: &Arc<dyn ExtendHost>,
    pattern: &Pattern,
    before: Option<&str>,
) -> Result<ArchiveCheckpoint, ArchiveError> {
    let asked = async {
        let is_known = match before {
            Some(before) => is_known(host, pattern, before).await?,
            None => false,
        };
        let covered = before.filter(|_| is_known).and_then(|text| Token::decode(text).ok());
        let token = fresh(host, pattern).await?;
        Ok(ArchiveCheckpoint { covered, token, at: host.now().wall_us })
    };
    let late = |_| ArchiveError::Node("this node does not say what it has".into());
    timeout(Duration::from_micros(CHECKPOINT_US_MAX), asked).await.map_err(late)?
}

/// Returns whether the node can tell what has changed since a token.
async fn is_known(host: &Arc<dyn ExtendHost>, pattern: &Pattern, before: &str) -> Result<bool, ArchiveError> {
    if Token::decode(before).is_err() {
        return Ok(false);
    }
    let answer = first(host, pattern, Some(before), "result").await?;
    Ok(answer.get("recovered").and_then(serde_json::Value::as_bool).unwrap_or(false))
}

/// A token that covers everything that the node has.
async fn fresh(host: &Arc<dyn ExtendHost>, pattern: &Pattern) -> Result<String, ArchiveError> {
    let answer = first(host, pattern, None, "eos").await?;
    let token = answer.get("resume").and_then(serde_json::Value::as_str);
    token.map(str::to_owned).ok_or_else(|| ArchiveError::Node("this node gives no resume token".into()))
}

/// Subscribes, and returns the first message with this member.
async fn first(
    host: &Arc<dyn ExtendHost>,
    pattern: &Pattern,
    resume: Option<&str>,
    member: &str,
) -> Result<serde_json::Value, ArchiveError> {
    let patterns = std::slice::from_ref(pattern);
    let asked = Subscribed { patterns, is_all: false, snapshot: false, resume, filter: None };
    let node = |why: String| ArchiveError::Node(why);
    let mut feed = open_feed(host, &asked).await.map_err(|refusal| node(refusal.to_string()))?;
    loop {
        let text = match feed.next().await {
            FeedFrame::Text(text) => text,
            FeedFrame::TooSlow => return Err(node("this node has too much to do".into())),
            FeedFrame::Over(why) => return Err(node(why)),
        };
        // Records come as arrays, or have no such member.
        let mut value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| node(error.to_string()))?;
        if let Some(refused) = value.get("error") {
            return Err(node(refused.to_string()));
        }
        if let Some(found) = value.get_mut(member) {
            return Ok(found.take());
        }
    }
}
