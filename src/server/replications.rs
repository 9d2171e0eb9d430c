//! Publishes that wait until every live member holds their records, by the token under which the
//! cluster machine knows them.
//!
//! A publisher is registered before its record is published, since the answer may come from worker 0
//! before the publish has returned. An answer for a session goes to its worker, which hands it on; one
//! for a request over HTTP goes straight to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::cluster::Replicated;
use crate::http::Answer;
use crate::limits::{REPLICATED_US_MAX, REPLICATED_WAITING_MAX};
use crate::protocol::AckLevel;
use crate::protocol::answer::{Code, Outcome, Published, Refusal};

/// What the answer of a session says: `Ok` with all members, or `Err` with those that were reached.
pub type Reached = Result<u32, u32>;

/// A session's answer: its connection on its worker, the token, and what is to be said.
pub type Settled = (usize, u64, Reached);

/// Who waits.
enum Waiter {
    Session { worker: usize, connection: usize },
    // Boxed, since sessions need not pay for it.
    Http(Box<HttpWaiter>),
}

/// Either part may come first.
struct HttpWaiter {
    answer: Answer,
    published: Option<(u64, Outcome)>,
    reached: Option<Reached>,
}

#[derive(Default)]
struct Table {
    last_token: u64,
    waiting: BTreeMap<u64, Waiter>,
}

/// All that wait; at most [`REPLICATED_WAITING_MAX`].
pub struct Replications {
    table: Mutex<Table>,
    /// By worker.
    settled: Vec<Mailslot>,
}

#[derive(Default)]
struct Mailslot {
    /// Looked at in every turn, so that the lock is not.
    is_filled: AtomicBool,
    settled: Mutex<Vec<Settled>>,
}

impl Replications {
    /// None wait. For a node with so many workers.
    pub fn new(workers: usize) -> Replications {
        Replications { table: Mutex::default(), settled: (0..workers).map(|_| Mailslot::default()).collect() }
    }

    /// A publish of a session is about to wait; its token.
    pub fn register_session(&self, worker: usize, connection: usize) -> Result<u64, Refusal> {
        self.register(Waiter::Session { worker, connection }).map_err(|_| overloaded())
    }

    /// A publish over HTTP is about to wait; its token. `None`: it was refused.
    pub fn register_http(&self, answer: Answer) -> Option<u64> {
        let waiter = HttpWaiter { answer, published: None, reached: None };
        match self.register(Waiter::Http(Box::new(waiter))) {
            Ok(token) => Some(token),
            Err(waiter) => {
                if let Waiter::Http(waiter) = waiter {
                    waiter.answer.send(Err(overloaded()));
                }
                None
            }
        }
    }

    fn register(&self, waiter: Waiter) -> Result<u64, Waiter> {
        let table = &mut *self.table.lock();
        if table.waiting.len() >= REPLICATED_WAITING_MAX {
            return Err(waiter);
        }
        table.last_token += 1;
        table.waiting.insert(table.last_token, waiter);
        Ok(table.last_token)
    }

    /// The record was refused: nobody waits. Tells a request over HTTP.
    pub fn refuse(&self, token: u64, refusal: &Refusal) {
        let waiter = self.table.lock().waiting.remove(&token);
        if let Some(Waiter::Http(waiter)) = waiter {
            waiter.answer.send(Err(refusal.clone()));
        }
    }

    /// The record of a request over HTTP was published.
    pub fn handle_published(&self, token: u64, ts: u64, outcome: Outcome) {
        let mut table = self.table.lock();
        let Some(Waiter::Http(waiter)) = table.waiting.get_mut(&token) else { return };
        waiter.published = Some((ts, outcome));
        if waiter.reached.is_some()
            && let Some(Waiter::Http(waiter)) = table.waiting.remove(&token)
        {
            drop(table);
            waiter.send();
        }
    }

    /// The cluster machine has an answer. The worker that is to be woken for it, if any.
    pub fn handle_replicated(&self, replicated: Replicated) -> Option<usize> {
        let Replicated { token, nodes, is_whole } = replicated;
        let reached = if is_whole { Ok(nodes) } else { Err(nodes) };
        let mut table = self.table.lock();
        match table.waiting.get_mut(&token)? {
            Waiter::Session { worker, connection } => {
                let (worker, connection) = (*worker, *connection);
                table.waiting.remove(&token);
                let slot = self.settled.get(worker)?;
                slot.settled.lock().push((connection, token, reached));
                (!slot.is_filled.swap(true, Relaxed)).then_some(worker)
            }
            Waiter::Http(waiter) => {
                waiter.reached = Some(reached);
                if waiter.published.is_some()
                    && let Some(Waiter::Http(waiter)) = table.waiting.remove(&token)
                {
                    drop(table);
                    waiter.send();
                }
                None
            }
        }
    }

    /// Answers for the sessions of a worker since the last call.
    pub fn take_settled(&self, worker: usize) -> Vec<Settled> {
        match self.settled.get(worker) {
            // What is pushed after the swap sets it again, and wakes the worker.
            Some(slot) if slot.is_filled.swap(false, Relaxed) => std::mem::take(&mut slot.settled.lock()),
            _ => Vec::new(),
        }
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.table.lock().waiting.is_empty()
    }
}

impl HttpWaiter {
    fn send(self) {
        let (Some((ts, outcome)), Some(reached)) = (self.published, self.reached) else { return };
        self.answer.send(answer(ts, outcome, reached));
    }
}

/// What a publisher is told.
pub fn answer(ts: u64, outcome: Outcome, reached: Reached) -> Result<Published, Refusal> {
    match reached {
        Ok(nodes) => Ok(Published { ts, outcome, level: AckLevel::Replicated, nodes: Some(nodes) }),
        Err(nodes) => {
            let message = format!("not on every node within {} s", REPLICATED_US_MAX / 1_000_000);
            let refusal = Refusal { nodes: Some(nodes), ..Refusal::new(Code::Timeout, message) };
            Err(match outcome {
                Outcome::Applied | Outcome::Duplicate => refusal.after_applying(ts),
                // It was never applied: a retry is stale again.
                Outcome::Stale { .. } => refusal,
            })
        }
    }
}

fn overloaded() -> Refusal {
    let message = format!("{REPLICATED_WAITING_MAX} publishes wait for ack=\"replicated\" already");
    Refusal::new(Code::Overloaded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicated(token: u64, nodes: u32, is_whole: bool) -> Replicated {
        Replicated { token, nodes, is_whole }
    }

    #[test]
    fn a_session_is_told_on_its_worker() {
        let replications = Replications::new(2);
        let first = replications.register_session(1, 7).expect("room");
        let second = replications.register_session(1, 8).expect("room");
        assert_eq!(replications.handle_replicated(replicated(first, 3, true)), Some(1));
        assert_eq!(replications.handle_replicated(replicated(second, 2, false)), None, "woken already");
        assert_eq!(replications.handle_replicated(replicated(first, 3, true)), None, "unknown by now");
        assert!(replications.take_settled(0).is_empty());
        assert_eq!(replications.take_settled(1), [(7, first, Ok(3)), (8, second, Err(2))]);
        assert!(replications.take_settled(1).is_empty() && replications.is_empty());
    }

    /// hashicorp/consul#9927: queues without bound.
    #[test]
    fn so_many_may_wait_and_no_more() {
        let replications = Replications::new(1);
        let tokens: Vec<u64> = (0..REPLICATED_WAITING_MAX)
            .map(|connection| replications.register_session(0, connection).expect("room"))
            .collect();
        let refusal = replications.register_session(0, 0).expect_err("full");
        assert_eq!((refusal.code, refusal.applied_ts), (Code::Overloaded, None));
        replications.refuse(tokens[5], &refusal);
        assert!(replications.register_session(0, 0).is_ok());
    }
}
