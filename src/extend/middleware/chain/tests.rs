use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::super::link::LinkHealth;
use super::super::rule::MiddlewareRule;
use super::*;
use crate::protocol::draft::DraftPayload;
use crate::record::{Pattern, Payload, SharedRecord};

struct Nothing;

impl RecordReader for Nothing {
    fn latest(&self, _: &str) -> Option<SharedRecord> {
        None
    }
}

/// Decides by a function of the source and the text of the data.
struct By(fn(&str, &str) -> Result<Ruling, RuleFailure>);

impl MiddlewareRule for By {
    fn decide(&self, given: &GivenDraft<'_>, _: &Arc<dyn RecordReader>) -> Result<Ruling, RuleFailure> {
        self.0(&given.draft.source, &String::from_utf8_lossy(given.draft.payload.bytes()))
    }
}

fn json(text: impl Into<String>) -> Payload {
    Payload::Json(text.into().into_bytes().into())
}

fn made(source: &str, text: &str) -> RevisedDraft {
    RevisedDraft { source: source.into(), ts: None, payload: json(text), ttl_ms: 0 }
}

fn link(
    name: &str,
    order: i64,
    pattern: &str,
    rule: fn(&str, &str) -> Result<Ruling, RuleFailure>,
) -> MiddlewareLink {
    let pattern = Pattern::parse(pattern).expect(pattern);
    MiddlewareLink {
        name: name.into(),
        ts: 1,
        pattern,
        order,
        on_failure: OnFailure::Refuse,
        rule: Some(Arc::new(By(rule))),
        health: LinkHealth::default(),
    }
}

/// A chain whose clock goes on by `step_us` microseconds whenever it is read.
fn chain(links: Vec<MiddlewareLink>, step_us: u64) -> MiddlewareChain {
    let clock_us = AtomicU64::new(0);
    let env = ChainEnv {
        reader: Arc::new(Nothing),
        clock: Arc::new(move || {
            let us = clock_us.fetch_add(step_us, Relaxed);
            Now { mono_us: us, wall_us: us }
        }),
        metrics: Arc::default(),
        switched_off: Arc::default(),
    };
    MiddlewareChain::new(links.into_iter().map(Arc::new).collect(), env)
}

fn revise(chain: &MiddlewareChain, turn_us: u64, source: &str, text: &str) -> Result<Revision, Refusal> {
    let payload = DraftPayload::Json(text.as_bytes());
    let draft = Draft { source: source.into(), ts: None, payload, ttl_ms: 0, ack: None };
    chain.revise(Now { mono_us: turn_us, wall_us: 1 }, &draft, "")
}

fn append(_: &str, text: &str, by: &str) -> Result<Ruling, RuleFailure> {
    Ok(Ruling::Data(json(format!("{text}{by}"))))
}

#[test]
fn links_decide_in_the_order_of_numbers_and_names() {
    let chain = chain(
        vec![
            link("b", 1, "**", |source, text| append(source, text, "2")),
            link("a", 1, "**", |source, text| append(source, text, "1")),
            link("z", 0, "**", |source, text| append(source, text, "0")),
            link("other", 0, "t/**", |source, text| append(source, text, "9")),
        ],
        0,
    );
    assert_eq!(revise(&chain, 1, "s", "7"), Ok(Revision::Changed(vec![made("s", "7012")])));
}

#[test]
fn a_link_is_asked_about_what_earlier_ones_made() {
    let twice = |_: &str, text: &str| Ok(Ruling::Records(vec![made("s/1", text), made("t", "5")]));
    let chain = chain(
        vec![
            link("a", 0, "s", twice),
            link("b", 1, "t", |source, text| append(source, text, "0")),
            link("c", 2, "s/*", |_, _| Ok(Ruling::Drop)),
        ],
        0,
    );
    assert_eq!(revise(&chain, 1, "s", "7"), Ok(Revision::Changed(vec![made("t", "50")])));
    assert_eq!(revise(&chain, 1, "u", "7"), Ok(Revision::Unchanged));
    assert_eq!(chain.env.metrics.middlewares.dropped.get(), 0, "something is left of it");
    assert_eq!(revise(&chain, 1, "s/9", "7"), Ok(Revision::Changed(Vec::new())));
    assert_eq!(chain.env.metrics.middlewares.dropped.get(), 1);
}

#[test]
fn what_grows_beyond_the_bound_is_a_failure() {
    let tenfold = |_: &str, _: &str| Ok(Ruling::Records(vec![made("s", "1"); 20]));
    let chain = chain(vec![link("a", 0, "s", tenfold), link("b", 1, "s", tenfold)], 0);
    let refused = revise(&chain, 1, "s", "1").expect_err("400 records");
    assert_eq!(refused.code, Code::MiddlewareFailed);
}

#[test]
fn failures_refuse_or_pass_and_switch_off_after_ten() {
    let fails = |_: &str, _: &str| Err(RuleFailure("broken".into()));
    let chain_of = |on_failure| chain(vec![MiddlewareLink { on_failure, ..link("a", 0, "**", fails) }], 0);
    let strict = chain_of(OnFailure::Refuse);
    for _ in 0..10 {
        let refused = revise(&strict, 1, "s", "1").expect_err("refused");
        assert_eq!((refused.code, &*refused.message), (Code::MiddlewareFailed, "middleware \"a\": broken"));
    }
    assert_eq!(revise(&strict, 1, "s", "1"), Ok(Revision::Unchanged), "it is off");
    assert_eq!(strict.env.metrics.middlewares.failed.get(), 10);
    let lenient = chain_of(OnFailure::Pass);
    assert!((0..20).all(|_| revise(&lenient, 1, "s", "1") == Ok(Revision::Unchanged)));
    assert_eq!(lenient.env.metrics.middlewares.failed.get(), 10);
}

#[test]
fn a_link_that_is_being_prepared_lets_nothing_pass() {
    let unready = |on_failure| {
        let link = link("a", 0, "s", |_, _| Ok(Ruling::Pass));
        chain(vec![MiddlewareLink { rule: None, on_failure, ..link }], 0)
    };
    let refused = revise(&unready(OnFailure::Refuse), 1, "s", "1").expect_err("refused");
    assert!(refused.code == Code::Overloaded && refused.code.is_temporary());
    assert_eq!(revise(&unready(OnFailure::Refuse), 1, "t", "1"), Ok(Revision::Unchanged));
    assert_eq!(revise(&unready(OnFailure::Pass), 1, "s", "1"), Ok(Revision::Unchanged));
}

#[test]
fn the_time_of_one_turn_is_bounded() {
    let chain = chain(vec![link("a", 0, "**", |_, _| Ok(Ruling::Pass))], 10_000);
    let passed = (0..1_000).take_while(|_| revise(&chain, 77, "s", "1").is_ok()).count() as u64;
    assert_eq!(passed, MIDDLEWARES_US_PER_TURN / 10_000 + 1);
    assert_eq!(revise(&chain, 77, "s", "1").expect_err("too long").code, Code::Overloaded);
    assert!(revise(&chain, 78, "s", "1").is_ok(), "the next turn has its own time");
}

proptest! {
    /// Whatever rules say, no more comes out than may, and all of it from rules in force.
    #[test]
    fn chains_are_bounded(counts in prop::collection::vec(0usize..60, 1..5)) {
        let links = counts.iter().enumerate().map(|(at, _)| {
            link(&at.to_string(), at as i64, "**", |_, text| {
                let count = text.parse().unwrap_or(0);
                Ok(Ruling::Records(vec![made("s", text); count]))
            })
        });
        let chain = chain(links.collect(), 0);
        let count = counts[0];
        match revise(&chain, 1, "s", &count.to_string()) {
            Ok(Revision::Changed(drafts)) => prop_assert!(drafts.len() <= MANY_RECORDS_MAX),
            Ok(Revision::Unchanged) => prop_assert!(false),
            Err(refusal) => prop_assert_eq!(refusal.code, Code::MiddlewareFailed),
        }
    }
}
