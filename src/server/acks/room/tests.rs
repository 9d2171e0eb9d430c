use std::cell::{Cell, RefCell};

use super::super::judge::{Judged, judge_frame};
use super::*;
use crate::ingest::Accepted;
use crate::limits::{REPLICATED_US_MAX, STORED_US_MAX};
use crate::protocol::AckLevel;
use crate::protocol::answer::Outcome;
use crate::protocol::draft::Draft;
use crate::protocol::json;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;
use crate::server::acks::{AnswerState, ByWhom};

/// A node whose store is moved by hand. Tickets and tokens count from 1; the source `stale` is stale.
#[derive(Default)]
struct Fake {
    given: Cell<u64>,
    durable: Cell<u64>,
    sick: RefCell<Option<String>>,
    metrics: Metrics,
}

impl Fake {
    fn accept(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        if &*draft.source == "bad" {
            return Err(Refusal::new(Code::Overloaded, "full"));
        }
        self.given.set(self.given.get() + 1);
        let outcome =
            if &*draft.source == "stale" { Outcome::Stale { current_ts: 9 } } else { Outcome::Applied };
        Ok(Accepted { ts: 5, outcome, ticket: self.given.get() })
    }

    /// The open frame that `text` becomes.
    fn open(&self, text: &str) -> PendingFrame {
        let frame = json::publish_frame(text).expect("json");
        match judge_frame(self, Now::default(), &frame, AckLevel::Stored, ANYBODY) {
            Judged::Frame(frame) if frame.is_open() => frame,
            _ => panic!("{text} does not wait"),
        }
    }

    fn refusals(&self, code: &str) -> bool {
        let mut text = String::new();
        self.metrics.write(&mut text);
        text.contains(&format!("anode_refusals_total{{code=\"{code}\"}} 1\n"))
    }
}

const ANYBODY: ByWhom<'static> = ByWhom { connection: 0, rights: None };

impl PublishHost for Fake {
    fn publish(&self, _: Now, draft: &Draft<'_>, _: ByWhom<'_>) -> Result<Accepted, Refusal> {
        self.accept(draft)
    }

    fn publish_awaited(&self, _: Now, draft: &Draft<'_>, _: ByWhom<'_>) -> Result<(Accepted, u64), Refusal> {
        self.accept(draft).map(|accepted| (accepted, accepted.ticket))
    }

    fn state(&self) -> &dyn AnswerState {
        self
    }
}

impl AnswerState for Fake {
    fn durable(&self) -> u64 {
        self.durable.get()
    }

    fn store_health(&self) -> Result<(), String> {
        self.sick.borrow().clone().map_or(Ok(()), Err)
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn store_away(&self) -> Option<String> {
        None
    }
}

/// The answers of a frame, by item: `Ok` with the nodes, or the code and whether the item was applied.
fn told(frame: &PendingFrame) -> Vec<Result<Option<u32>, (Code, bool)>> {
    let told = frame.answers().map(|answer| match answer.answer {
        Ok(published) => Ok(published.nodes),
        Err(refusal) => Err((refusal.code, refusal.applied_ts.is_some())),
    });
    told.collect()
}

#[test]
fn what_holds_at_once_touches_no_room() {
    let host = Fake::default();
    host.durable.set(9);
    let levels = [r#","ack":"accepted""#, r#","ack":"stored""#, ""];
    for level in levels {
        let text = format!(r#"{{"source":"a","data":1{level}}}"#);
        let frame = json::publish_frame(&text).expect("json");
        let judged = judge_frame(&host, Now::default(), &frame, AckLevel::Stored, ANYBODY);
        assert!(matches!(judged, Judged::Whole { answer: Ok(_), .. }), "{text}");
    }
    let frame = json::publish_frame(r#"{"source":"bad","data":1}"#).expect("json");
    let judged = judge_frame(&host, Now::default(), &frame, AckLevel::Stored, ANYBODY);
    assert!(matches!(judged, Judged::Whole { answer: Err(_), .. }));
    assert!(host.refusals("overloaded"), "counted once");
}

#[test]
fn frames_are_handed_out_when_their_last_item_is_settled() {
    let (host, mut room, mut out) = (Fake::default(), WaitingRoom::default(), Vec::new());
    let both = r#"[{"source":"a","data":1},{"source":"b","data":1,"ack":"replicated"}]"#;
    room.insert(0, host.open(both), 'b');
    room.insert(0, host.open(r#"{"source":"c","data":1}"#), 's');
    assert!(room.bytes() > 0);
    let mut tell = |frame: PendingFrame, waiter| out.push((waiter, told(&frame)));
    host.durable.set(3);
    room.handle_durable(0, &host, &mut tell);
    room.handle_replicated(0, (1, Ok(7)), &host.metrics, &mut tell);
    room.handle_replicated(0, (2, Ok(7)), &host.metrics, &mut tell);
    assert_eq!(out, [('s', vec![Ok(None)]), ('b', vec![Ok(None), Ok(Some(7))])]);
    assert!(room.is_empty() && room.bytes() == 0 && room.next_timeout_us().is_none());
}

/// An item that is durable is answered so, whatever happens to the store: the batch was refused as a whole
/// before.
#[test]
fn a_failing_store_refuses_what_it_has_not_made_durable() {
    let (host, mut room, mut out) = (Fake::default(), WaitingRoom::default(), Vec::new());
    let batch = r#"[{"source":"a","data":1},{"source":"b","data":1},{"source":"stale","data":1}]"#;
    room.insert(0, host.open(batch), ());
    host.durable.set(1);
    *host.sick.borrow_mut() = Some("disk full".into());
    room.handle_durable(0, &host, &mut |frame, ()| out.extend(told(&frame)));
    let failed = |is_applied| Err((Code::StoreUnavailable, is_applied));
    assert_eq!(out, [Ok(None), failed(true), failed(false)]);
}

#[test]
fn each_condition_has_its_own_time() {
    let (host, mut room, mut out) = (Fake::default(), WaitingRoom::default(), Vec::new());
    let both = r#"[{"source":"a","data":1},{"source":"b","data":1,"ack":"replicated"}]"#;
    room.insert(0, host.open(both), 'b');
    room.insert(1, host.open(r#"{"source":"c","data":1}"#), 's');
    let mut tell = |frame: PendingFrame, waiter| out.push((waiter, told(&frame)));
    assert_eq!(room.next_timeout_us(), Some(STORED_US_MAX));
    room.handle_timeout(STORED_US_MAX, &host, &mut tell);
    room.handle_timeout(STORED_US_MAX + 1, &host, &mut tell);
    let end_us = REPLICATED_US_MAX + 1_000_000;
    assert_eq!(room.next_timeout_us(), Some(end_us));
    room.handle_timeout(end_us, &host, &mut tell);
    let late = Err((Code::Timeout, true));
    assert_eq!(out, [('s', vec![late]), ('b', vec![late, late])]);
    assert!(room.is_empty());
}
