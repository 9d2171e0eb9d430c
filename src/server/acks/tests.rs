use super::*;
use crate::ingest::Accepted;
use crate::limits::{REPLICATED_WAITING_MAX, STORED_US_MAX};
use crate::protocol::answer::Outcome;
use crate::protocol::draft::Draft;
use crate::protocol::json;
use crate::protocol::refusal::Code;

fn acks(workers: usize) -> (Acks, Metrics) {
    (Acks::new(workers), Metrics::default())
}

/// Registers a record of a session; publishing it does nothing.
fn register(acks: &Acks, worker: usize, connection: usize) -> Result<u64, Refusal> {
    let accepted = Accepted { ts: 5, outcome: Outcome::Applied, ticket: 0 };
    let waiter = Waiter::Session { worker, connection };
    acks.publish_awaited(waiter, |_| Ok(accepted)).map(|(_, token)| token)
}

fn replicated(token: u64, nodes: u32, is_whole: bool) -> Replicated {
    Replicated { token, nodes, is_whole }
}

#[test]
fn a_session_is_told_on_its_worker() {
    let (acks, metrics) = acks(2);
    let first = register(&acks, 1, 7).expect("room");
    let second = register(&acks, 1, 8).expect("room");
    assert_eq!(acks.handle_replicated(0, replicated(first, 3, true), &metrics), Some(1));
    assert_eq!(acks.handle_replicated(0, replicated(second, 2, false), &metrics), None, "woken already");
    assert_eq!(acks.handle_replicated(0, replicated(first, 3, true), &metrics), None, "unknown by now");
    assert!(acks.take_settled(0).is_empty());
    assert_eq!(
        acks.take_settled(1),
        [
            Settled { connection: 7, token: first, reached: Ok(3) },
            Settled { connection: 8, token: second, reached: Err(2) },
        ]
    );
    assert!(acks.take_settled(1).is_empty() && acks.is_empty());
}

/// hashicorp/consul#9927: queues without bound.
#[test]
fn so_many_may_wait_and_no_more() {
    let (acks, metrics) = acks(1);
    let tokens: Vec<u64> =
        (0..REPLICATED_WAITING_MAX).map(|connection| register(&acks, 0, connection).expect("room")).collect();
    let refusal = register(&acks, 0, 0).expect_err("full");
    assert_eq!((refusal.code, refusal.applied_ts), (Code::Overloaded, None));
    acks.handle_replicated(0, replicated(tokens[5], 1, true), &metrics);
    assert!(register(&acks, 0, 0).is_ok());
}

#[test]
fn a_refused_record_waits_for_nothing() {
    let (acks, metrics) = acks(1);
    for waiter in [Waiter::Session { worker: 0, connection: 3 }, Waiter::Http] {
        let refusal = Refusal::new(Code::TooLarge, "too large");
        let refused = acks.publish_awaited(waiter, |_| Err(refusal.clone()));
        assert_eq!(refused, Err(refusal));
        let dropped = Accepted { ts: 5, outcome: Outcome::Dropped, ticket: 0 };
        assert!(acks.publish_awaited(waiter, |_| Ok(dropped)).is_ok());
    }
    assert!(acks.is_empty());
    assert_eq!(acks.handle_replicated(0, replicated(1, 3, true), &metrics), None);
    assert!(acks.take_settled(0).is_empty());
}

/// A node without a store, whose cluster machine answers for token 1 while the record is still being
/// published.
struct Hasty<'a>(&'a Acks, &'a Metrics);

impl PublishHost for Hasty<'_> {
    fn publish(&self, _: Now, _: &Draft<'_>, _: ByWhom<'_>) -> Result<Accepted, Refusal> {
        Ok(Accepted { ts: 5, outcome: Outcome::Applied, ticket: u64::MAX })
    }

    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal> {
        self.0.publish_awaited(Waiter::Http, |token| {
            if token == 1 {
                self.0.handle_replicated(0, replicated(1, 3, true), self.1);
            }
            self.publish(now, draft, by)
        })
    }

    fn state(&self) -> &dyn AnswerState {
        self
    }
}

impl AnswerState for Hasty<'_> {
    fn durable(&self) -> u64 {
        0
    }

    fn store_health(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> &Metrics {
        self.1
    }

    fn store_away(&self) -> Option<String> {
        None
    }
}

/// The reply to a request over HTTP, if it has come.
fn publish_http(acks: &Acks, host: &Hasty<'_>, text: &str) -> impl FnMut() -> Option<FrameReply> + use<> {
    let (reply, mut receiver) = Reply::channel();
    let frame = json::publish_frame(text).expect("json");
    acks.publish_http(host, Now::default(), &frame, AckLevel::Replicated, (reply, None));
    move || receiver.try_recv().ok()
}

#[test]
fn an_answer_that_comes_before_the_publish_returns_is_not_lost() {
    let (acks, metrics) = acks(1);
    let host = Hasty(&acks, &metrics);
    let batch = r#"[{"id":1,"source":"a","data":1},{"source":"b","data":1},{"source":"c","data":1}]"#;
    let mut reply = publish_http(&acks, &host, batch);
    assert_eq!(reply(), None);
    acks.handle_replicated(0, replicated(2, 3, true), &metrics);
    assert_eq!(reply(), None);
    acks.handle_replicated(0, replicated(3, 2, false), &metrics);
    let Some(FrameReply::Batch(items)) = reply() else { panic!("no reply") };
    let told: Vec<_> = items.iter().map(|item| (item.index, item.answer.is_ok())).collect();
    assert_eq!(told, [(0, true), (2, false)], "what has no id is told when it is refused");
    assert!(acks.is_empty() && acks.next_http_timeout_us().is_none());
    // A single object is always answered.
    let mut reply = publish_http(&acks, &host, r#"{"source":"a","data":1,"ack":"accepted"}"#);
    assert!(matches!(reply(), Some(FrameReply::One(Ok(_)))));
}

#[test]
fn a_request_that_the_store_does_not_answer_is_told_so_in_time() {
    let (acks, metrics) = acks(1);
    let host = Hasty(&acks, &metrics);
    let mut reply = publish_http(&acks, &host, r#"{"source":"a","data":1,"ack":"stored"}"#);
    let due_us = acks.next_http_timeout_us().expect("waits");
    assert_eq!(due_us, STORED_US_MAX);
    acks.settle_http(due_us - 1, &host);
    assert!(reply().is_none() && !acks.is_http_empty());
    acks.settle_http(due_us, &host);
    let Some(FrameReply::One(Err(refusal))) = reply() else { panic!("no refusal") };
    assert_eq!((refusal.code, refusal.applied_ts), (Code::Timeout, Some(5)));
    assert!(acks.is_empty());
}
