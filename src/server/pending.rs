//! Publishes from outside the event loops that wait for the store (`ack=stored` over HTTP).
//!
//! A publish of a session waits in its session. One over HTTP has no session, so it waits here until
//! the store's mark passes its ticket, the store fails, or its time is over. Worker 0 looks after it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::http::Answer;
use crate::limits::STORED_US_MAX;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Code, Outcome, Published, Refusal};

/// Waiting answers.
#[derive(Default)]
pub struct PendingAnswers {
    line: Mutex<Line>,
}

/// Why a record is not stored after all the time there is.
pub fn too_late(away: Option<String>) -> Refusal {
    let late = format!("not stored within {} s", STORED_US_MAX / 1_000_000);
    match away {
        Some(reason) => Refusal::new(Code::StoreUnavailable, format!("{late}: {reason}")),
        None => Refusal::new(Code::Timeout, late),
    }
}

#[derive(Default)]
struct Line {
    /// By ticket, then by order of arrival.
    waiting: BTreeMap<(u64, u64), Waiting>,
    arrived: u64,
}

struct Waiting {
    ts: u64,
    outcome: Outcome,
    deadline_us: u64,
    answer: Answer,
}

impl PendingAnswers {
    /// Lets an answer wait until the store's mark reaches `ticket`.
    pub fn wait(&self, now_us: u64, ticket: u64, ts: u64, outcome: Outcome, answer: Answer) {
        let mut line = self.line.lock();
        line.arrived += 1;
        let place = (ticket, line.arrived);
        line.waiting.insert(place, Waiting { ts, outcome, deadline_us: now_us + STORED_US_MAX, answer });
    }

    /// Answers those that `durable` covers, and, if the store fails or their time is over, the others.
    /// `away`: why nothing becomes durable for now.
    pub fn handle_durable(
        &self,
        now_us: u64,
        durable: u64,
        health: Result<(), String>,
        away: impl Fn() -> Option<String>,
    ) {
        let waiting = &mut self.line.lock().waiting;
        while let Some(first) = waiting.first_entry()
            && first.key().0 <= durable
        {
            let Waiting { ts, outcome, answer, .. } = first.remove();
            answer.send(Ok(Published { ts, outcome, level: AckLevel::Stored, nodes: None }));
        }
        let late: Vec<_> = waiting
            .iter()
            .filter(|(_, waiting)| health.is_err() || waiting.deadline_us <= now_us)
            .map(|(place, _)| *place)
            .collect();
        for place in late {
            let Some(Waiting { ts, outcome, answer, .. }) = waiting.remove(&place) else { continue };
            let refusal = match (&health, away()) {
                (Err(reason), _) => Refusal::new(Code::StoreUnavailable, reason.clone()),
                (Ok(()), away) => too_late(away),
            };
            answer.send(Err(match outcome {
                Outcome::Applied | Outcome::Duplicate => refusal.after_applying(ts),
                // It was never applied: a retry is stale again.
                Outcome::Stale { .. } => refusal,
            }));
        }
    }

    /// When the next one's time is over.
    pub fn next_us(&self) -> Option<u64> {
        self.line.lock().waiting.values().map(|waiting| waiting.deadline_us).min()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.line.lock().waiting.is_empty()
    }
}
