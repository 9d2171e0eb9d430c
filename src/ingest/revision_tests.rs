//! A reviser between the gate and the map: what may come of a draft.

use super::tests::{NOW, Told, draft, json, node};
use super::*;
use crate::protocol::draft::DraftPayload;

/// Answers every draft in the same way.
struct Always(Result<Revision, Refusal>);

impl Reviser for Always {
    fn revise(&self, _: Now, _: &Draft<'_>, _: &str) -> Result<Revision, Refusal> {
        self.0.clone()
    }
}

fn revised(source: &str, data: &'static str) -> RevisedDraft {
    RevisedDraft {
        source: source.into(),
        ts: None,
        payload: Payload::Json(data.as_bytes().into()),
        ttl_ms: 0,
    }
}

fn with(answer: Result<Revision, Refusal>) -> Ingest<Told> {
    let node = node("a");
    node.set_reviser(Some(Arc::new(Always(answer))));
    node
}

fn data(node: &Ingest<Told>, source: &str) -> Option<String> {
    let record = node.latest.get(source)?;
    Some(String::from_utf8_lossy(record.payload.bytes()).into_owned())
}

#[test]
fn a_draft_is_replaced_before_it_is_judged() {
    let node = with(Ok(Revision::Changed(vec![revised("s", "2"), revised("t", "3")])));
    let accepted = node.publish(NOW, &draft("s", None, json("1"))).expect("accepted");
    assert_eq!((accepted.outcome, accepted.ts, accepted.ticket), (Outcome::Applied, NOW.wall_us, 2));
    assert_eq!((data(&node, "s"), data(&node, "t")), (Some("2".into()), Some("3".into())));
    node.set_reviser(None);
    assert!(node.publish(NOW, &draft("s", None, json("1"))).is_ok());
    assert_eq!(data(&node, "s"), Some("1".into()));
}

#[test]
fn an_unchanged_draft_is_merged_as_it_was_sent() {
    let node = with(Ok(Revision::Unchanged));
    assert!(node.publish(NOW, &draft("s", Some(5), json("1.50"))).is_ok());
    assert_eq!(data(&node, "s"), Some("1.50".into()));
}

#[test]
fn what_is_dropped_or_refused_changes_nothing() {
    let node = with(Ok(Revision::Changed(Vec::new())));
    let accepted = node.publish(NOW, &draft("s", Some(5), json("1"))).expect("answered");
    assert_eq!(accepted, Accepted { ts: 5, outcome: Outcome::Dropped, ticket: 0 });
    node.set_reviser(Some(Arc::new(Always(Err(Refusal::new(Code::Rejected, "no"))))));
    let refused = node.publish(NOW, &draft("s", None, json("1"))).expect_err("refused");
    assert_eq!((refused.code, &*refused.message), (Code::Rejected, "no"));
    assert!(node.latest.is_empty() && node.outbox.lock().last_seq() == 0);
    // Deletions have no data that could be changed.
    assert!(node.publish(NOW, &draft("s", None, DraftPayload::Deleted)).is_ok());
}

#[test]
fn what_comes_out_must_pass_the_guards_again() {
    let large: &'static str = Box::leak("1".repeat(1_001).into_boxed_str());
    for (made, code) in [
        (revised("s", large), Code::TooLarge),
        (revised("$s", "1"), Code::Forbidden),
        (RevisedDraft { ts: Some(NOW.wall_us + 60_000_000), ..revised("s", "1") }, Code::FutureTimestamp),
    ] {
        let node = with(Ok(Revision::Changed(vec![revised("first", "1"), made])));
        let refused = node.publish(NOW, &draft("s", None, json("1"))).expect_err("refused");
        assert_eq!(refused.code, code);
        assert!(node.latest.is_empty(), "nothing of the list is merged");
    }
}

#[test]
fn a_condition_holds_for_the_first_record() {
    let node = with(Ok(Revision::Changed(vec![revised("s", "2"), revised("t", "3")])));
    let none = |current: Option<&Record>| match current {
        None => Ok(()),
        Some(_) => Err(Refusal::new(Code::PreconditionFailed, "there is one")),
    };
    assert!(node.publish_if(NOW, &draft("s", None, json("1")), (None, None), none).is_ok());
    let refused =
        node.publish_if(NOW, &draft("s", None, json("1")), (None, None), none).expect_err("refused");
    assert_eq!(refused.code, Code::PreconditionFailed);
}
