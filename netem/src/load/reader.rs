//! Reads records back at all nodes after they were acknowledged at `replicated`.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::frames::Frame;
use super::shared::Shared;
use crate::checker::{Name, Seen};
use crate::http;

/// How long a node may take to answer; one that stands still does not.
const ANSWER: Duration = Duration::from_millis(300);
/// How long the reader waits for something to read, so that it sees that the run ends.
const WAIT: Duration = Duration::from_millis(100);

/// Reads back what `sources` brings until the run ends.
pub fn run(shared: &Shared, sources: &Receiver<Name>) {
    while shared.is_running.load(Relaxed) {
        let Ok(source) = sources.recv_timeout(WAIT) else { continue };
        for (node, _, target) in &shared.plan.nodes {
            let begun_us = shared.recorder.now_us();
            let answer = http::get(target, &format!("/v1/sources/{source}"), ANSWER);
            // A node that does not answer says nothing, and neither does the end of a source, which has no version.
            let found = match answer {
                Ok((200, body)) => {
                    match serde_json::from_slice::<Frame>(&body).ok().and_then(|frame| frame.version()) {
                        Some(version) => Some(version),
                        None => {
                            shared.surprise(format!("{node} shows {}", String::from_utf8_lossy(&body)));
                            continue;
                        }
                    }
                }
                Ok((404, body)) if !String::from_utf8_lossy(&body).contains("\"deleted\":true") => None,
                _ => continue,
            };
            shared.recorder.see(Seen::Read { node: node.clone(), source: source.clone(), begun_us, found });
        }
    }
}
