//! Frames of a publisher that wait, for some of their records at least, until every member holds them.
//!
//! Their records are done in any order, so each is found by its token. Records of the same frame may
//! wait for the store; the frame is answered when its slowest is done.

use std::collections::{BTreeMap, BTreeSet};

use super::publish::{Awaits, Entry, failed};
use crate::limits::{REPLICATED_US_MAX, STORED_US_MAX};
use crate::protocol::answer::{Code, Refusal};
use crate::server::replications::{Reached, answer};

/// The cluster machine says itself when the time is over; after so much more it is not waited for, in
/// microseconds.
const GRACE_US: u64 = 1_000_000;

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Frame {
    pub entries: Vec<Entry>,
    pub is_batch: bool,
    pub bytes: usize,
    since_us: u64,
    due_us: u64,
}

impl Frame {
    fn is_done(&self) -> bool {
        self.entries.iter().all(|entry| entry.awaits.is_none())
    }

    fn awaits_store(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.awaits, Some(Awaits::Store(_))))
    }
}

/// All such frames of one connection, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    frames: BTreeMap<u64, Frame>,
    by_token: BTreeMap<u64, u64>,
    due: BTreeSet<(u64, u64)>,
    next: u64,
}

impl Everywhere {
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Lets a frame wait.
    pub fn insert(&mut self, now_us: u64, entries: Vec<Entry>, is_batch: bool, bytes: usize) {
        let number = self.next;
        self.next += 1;
        for entry in &entries {
            if let Some(Awaits::Members(token)) = entry.awaits {
                self.by_token.insert(token, number);
            }
        }
        let mut frame = Frame { entries, is_batch, bytes, since_us: now_us, due_us: 0 };
        let is_stored_first = frame.awaits_store();
        frame.due_us = now_us + if is_stored_first { STORED_US_MAX } else { REPLICATED_US_MAX + GRACE_US };
        self.due.insert((frame.due_us, number));
        self.frames.insert(number, frame);
    }

    /// A record of a frame is done; the frame, if it is done with it.
    pub fn handle_replicated(&mut self, token: u64, reached: Reached) -> Option<Frame> {
        let number = self.by_token.remove(&token)?;
        let entries = &mut self.frames.get_mut(&number)?.entries;
        let entry = entries.iter_mut().find(|entry| entry.awaits == Some(Awaits::Members(token)))?;
        entry.settle(reached);
        self.take_if_done(number)
    }

    /// The store's mark or health moved; the frames that are done with it.
    pub fn handle_durable(&mut self, durable: u64, health: &Result<(), String>) -> Vec<Frame> {
        let mut touched = Vec::new();
        for (number, frame) in self.frames.iter_mut().filter(|frame| frame.1.awaits_store()) {
            for entry in &mut frame.entries {
                match (entry.awaits, health) {
                    (Some(Awaits::Store(ticket)), _) if ticket <= durable => entry.awaits = None,
                    (Some(Awaits::Store(_)), Err(reason)) => entry.fail(Code::StoreUnavailable, reason),
                    _ => {}
                }
            }
            touched.push(*number);
        }
        touched.into_iter().filter_map(|number| self.take_if_done(number)).collect()
    }

    /// The frames whose time is over; [`Everywhere::handle_durable`] is to be called before. `late`: why
    /// what is not stored now is refused.
    pub fn handle_timeout(&mut self, now_us: u64, late: &Refusal) -> Vec<Frame> {
        let mut done = Vec::new();
        while let Some(&(due_us, number)) = self.due.first()
            && due_us <= now_us
        {
            self.due.pop_first();
            let Some(frame) = self.frames.get_mut(&number) else { continue };
            let end_us = frame.since_us + REPLICATED_US_MAX + GRACE_US;
            for entry in &mut frame.entries {
                match entry.awaits {
                    Some(Awaits::Store(_)) => entry.fail(late.code, &late.message),
                    // This node at least holds it.
                    Some(Awaits::Members(_)) if due_us >= end_us => entry.settle(Err(1)),
                    _ => {}
                }
            }
            frame.due_us = end_us;
            self.due.insert((end_us, number));
            done.extend(self.take_if_done(number));
        }
        done
    }

    /// When [`Everywhere::handle_timeout`] has something to do.
    pub fn next_timeout_us(&self) -> Option<u64> {
        self.due.first().map(|due| due.0)
    }

    fn take_if_done(&mut self, number: u64) -> Option<Frame> {
        if !self.frames.get(&number).is_some_and(Frame::is_done) {
            return None;
        }
        let frame = self.frames.remove(&number)?;
        self.due.remove(&(frame.due_us, number));
        Some(frame)
    }
}

impl Entry {
    /// What every member was awaited for is over.
    fn settle(&mut self, reached: Reached) {
        self.awaits = None;
        if let Ok(published) = &self.answer {
            self.answer = answer(published.ts, published.outcome, reached);
            self.is_late = self.answer.is_err();
        }
    }

    /// The level was not reached.
    pub(super) fn fail(&mut self, code: Code, reason: &str) {
        if let (Some(_), Ok(published)) = (self.awaits.take(), &self.answer) {
            self.answer = Err(failed(published, code, reason.to_owned()));
            self.is_late = true;
        }
    }
}
