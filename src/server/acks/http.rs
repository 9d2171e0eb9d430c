//! Requests over HTTP that wait for their answers.
//!
//! These requests have no event loop of their own, so their frames stand behind a lock. The thread of the
//! control plane adds frames, and worker 0 answers them.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::condition::{PublishHost, Reached};
use super::frame::PendingFrame;
use super::room::WaitingRoom;
use crate::http::Reply;
use crate::metrics::Metrics;

/// All requests over HTTP whose answers wait.
#[derive(Default)]
pub(super) struct HttpRoom {
    frames: Mutex<HttpFrames>,
}

#[derive(Default)]
struct HttpFrames {
    frames: WaitingRoom<Reply>,
    /// Tokens whose frame is still being published, with the cluster machine's answer if it has come already.
    early: BTreeMap<u64, Option<Reached>>,
}

impl HttpRoom {
    /// Notes that a record is about to be published under this token. Its frame follows by
    /// [`HttpRoom::insert`].
    pub(super) fn expect(&self, token: u64) {
        self.frames.lock().early.insert(token, None);
    }

    /// Forgets a token whose record was refused.
    pub(super) fn release(&self, token: u64) {
        self.frames.lock().early.remove(&token);
    }

    /// Lets an open frame wait, and settles those of its items that were answered early.
    pub(super) fn insert(&self, now_us: u64, frame: PendingFrame, reply: Reply, metrics: &Metrics) {
        let HttpFrames { frames, early } = &mut *self.frames.lock();
        let tokens: Vec<u64> = frame.tokens().collect();
        frames.insert(now_us, frame, reply);
        for token in tokens {
            if let Some(Some(reached)) = early.remove(&token) {
                frames.handle_replicated(now_us, (token, reached), metrics, &mut tell);
            }
        }
    }

    /// Takes the cluster machine's answer for the token of a request over HTTP.
    pub(super) fn handle_replicated(&self, now_us: u64, (token, reached): (u64, Reached), metrics: &Metrics) {
        let HttpFrames { frames, early } = &mut *self.frames.lock();
        match early.get_mut(&token) {
            Some(answer) => *answer = Some(reached),
            None => frames.handle_replicated(now_us, (token, reached), metrics, &mut tell),
        }
    }

    /// Answers the requests that are settled, and those whose time has run out.
    pub(super) fn settle(&self, now_us: u64, host: &impl PublishHost) {
        let frames = &mut self.frames.lock().frames;
        frames.handle_durable(now_us, host, &mut tell);
        frames.handle_timeout(now_us, host, &mut tell);
    }

    /// Monotonic time at which the next request times out, in microseconds.
    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        self.frames.lock().frames.next_timeout_us()
    }

    /// Returns whether no request waits, and none is being published.
    pub(super) fn is_empty(&self) -> bool {
        let HttpFrames { frames, early } = &*self.frames.lock();
        frames.is_empty() && early.is_empty()
    }
}

fn tell(frame: PendingFrame, reply: Reply) {
    reply.send(frame.into_reply());
}
