//! Deletes what runs have left behind: all sources beneath a prefix.
//!
//! A first connection is sent the sources as a snapshot, and a second one publishes a deletion of each. So the names are
//! those that the node has at this moment, whatever made them.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::access::AccessArgs;
use crate::client::{self, ServerStream};
use crate::{Outcome, usage};

/// Sources that are deleted by one frame.
const BATCH: usize = 500;
/// Most frames that may be unanswered.
const WINDOW: usize = 8;

/// Deletes all sources beneath `prefix` at the node `to`: `host:port`, with TLS `wss://host:port`. Every deletion is
/// stored before this returns. Returns the number of sources.
pub fn run(to: &str, access: &AccessArgs, prefix: &str) -> Outcome<usize> {
    check_prefix(prefix)?;
    let names = names(to, access, prefix)?;
    let mut socket = client::connect_with(to, access, "/publish?ack=stored")?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} sources, {per_sec}, {eta} left")?;
    let progress = ProgressBar::new(names.len() as u64).with_style(style);
    let mut unanswered = 0;
    for batch in names.chunks(BATCH) {
        if unanswered >= WINDOW {
            read_answer(&mut socket)?;
            unanswered -= 1;
        }
        socket.send(Message::text(deletions(batch)))?;
        unanswered += 1;
        progress.inc(batch.len() as u64);
    }
    for _ in 0..unanswered {
        read_answer(&mut socket)?;
    }
    progress.finish_and_clear();
    Ok(names.len())
}

/// A prefix that is empty or has wildcards would delete what others have published.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let is_plain = |segment: &str| !segment.is_empty() && !segment.contains('*');
    match prefix.split('/').all(is_plain) && !prefix.starts_with('$') {
        true => Ok(()),
        false => usage::wrong(
            "--prefix",
            prefix,
            "the first segments of names of sources, without * and empty ones",
        ),
    }
}

/// Asks for the names of all sources beneath the prefix.
fn names(to: &str, access: &AccessArgs, prefix: &str) -> Outcome<Vec<String>> {
    let mut socket = client::connect_with(to, access, "/subscribe")?;
    let pattern = format!("{prefix}/**");
    socket.send(Message::text(json!({"id": 1, "subscribe": {"sources": [pattern]}}).to_string()))?;
    let mut names = Vec::new();
    loop {
        let Message::Text(text) = socket.read()? else { continue };
        let frame: Value = serde_json::from_str(&text)?;
        if !frame["error"].is_null() {
            return Err(format!("the node refused: {text}").into());
        }
        if !frame["eos"].is_null() {
            return Ok(names);
        }
        let records = frame.as_array().map_or(std::slice::from_ref(&frame), Vec::as_slice);
        let is_there = |record: &&Value| record["deleted"] != true;
        let found = records.iter().filter(is_there).filter_map(|record| record["source"].as_str());
        names.extend(found.map(str::to_owned));
    }
}

/// A frame of deletions. The last has an id, so that the frame is answered when all of them are stored.
fn deletions(names: &[String]) -> String {
    let items = names.iter().enumerate().map(|(at, name)| match at + 1 == names.len() {
        true => json!({"id": 1, "source": name, "deleted": true}),
        false => json!({"source": name, "deleted": true}),
    });
    Value::from_iter(items).to_string()
}

/// Waits for the answer to one frame. Fails if a deletion was refused.
fn read_answer(socket: &mut WebSocket<ServerStream>) -> Outcome<()> {
    loop {
        match socket.read()? {
            Message::Text(text) if text.contains("\"error\"") => {
                return Err(format!("the node refused: {text}").into());
            }
            Message::Text(_) => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_name_of_its_own() {
        for fine in ["loadgen", "loadgen/1a2b3", "a b"] {
            assert_eq!(check_prefix(fine), Ok(()), "{fine}");
        }
        for bad in ["", "*", "**", "a/**", "a/", "/a", "a//b", "$node", "lo*"] {
            assert!(check_prefix(bad).expect_err(bad).contains("--prefix"), "{bad}");
        }
    }

    #[test]
    fn a_frame_is_answered_once() {
        let names = ["a/\"".to_owned(), "b".to_owned()];
        let frame = r#"[{"deleted":true,"source":"a/\""},{"deleted":true,"id":1,"source":"b"}]"#;
        assert_eq!(deletions(&names), frame);
    }
}
