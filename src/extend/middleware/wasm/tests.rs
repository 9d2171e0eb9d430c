use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::super::bounds::MANY_RECORDS_MAX;
use super::super::rule::{GivenDraft, MiddlewareRule, RecordReader, RuleFailure, Ruling};
use super::module::{WasmEngine, WasmModule};
use crate::ingest::RevisedDraft;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};

const BEHAVIOURS: &[u8] = include_bytes!("../../../../tests/guests/behaviours.wasm");
const TEMPLATE: &[u8] = include_bytes!("../../../../tests/guests/template.wasm");

/// Holds one record, of the source `table/a`. A look for `table/slow` finds nothing and takes [`SLOW_LOOK`].
struct OneRecord;

/// Time that a look for `table/slow` takes, which is several times what a guest may take for one record.
const SLOW_LOOK: Duration = Duration::from_millis(40);

impl RecordReader for OneRecord {
    #[expect(clippy::disallowed_methods, reason = "the test is about time that passes without work")]
    fn latest(&self, source: &str) -> Option<SharedRecord> {
        if source == "table/slow" {
            std::thread::sleep(SLOW_LOOK);
        }
        let payload = Payload::Json("{\"a\":1.0}".into());
        let stamp = Stamp::of_data(5, payload.bytes());
        let birth = Birth { origin: NodeName::parse("n").ok()?, boot: 1, seq: 1 };
        let record = Record::new(Source::parse("table/a").ok()?, stamp, payload, birth, 5, 0);
        (source == "table/a").then(|| Arc::new(record))
    }
}

/// Holds no record. A look for one takes until the awaited number of guests look at the same time.
#[derive(Default)]
struct Meeting {
    awaited: usize,
    come: Mutex<usize>,
    has_come: Condvar,
}

impl RecordReader for Meeting {
    fn latest(&self, _: &str) -> Option<SharedRecord> {
        let mut come = self.come.lock();
        *come += 1;
        self.has_come.notify_all();
        let is_alone = |come: &mut usize| *come < self.awaited;
        let waited = self.has_come.wait_while_for(&mut come, is_alone, Duration::from_secs(60));
        assert!(!waited.timed_out(), "{} of {} guests ran at the same time", *come, self.awaited);
        None
    }
}

/// A compiled module, which keeps [`IDLE_MAX`] instances that nobody uses.
struct TriedModule(WasmModule);

const IDLE_MAX: usize = 2;

impl TriedModule {
    fn new(module: &[u8]) -> TriedModule {
        let engine = WasmEngine::new().expect("an engine");
        TriedModule(engine.compile(module, IDLE_MAX).unwrap_or_else(|error| panic!("{error}")))
    }

    fn decide(&self, text: &str) -> Result<Ruling, RuleFailure> {
        self.decide_about(DraftPayload::Json(text.as_bytes()))
    }

    fn decide_about(&self, payload: DraftPayload<'_>) -> Result<Ruling, RuleFailure> {
        let reader: Arc<dyn RecordReader> = Arc::new(OneRecord);
        self.decide_with(payload, &reader)
    }

    fn decide_with(
        &self,
        payload: DraftPayload<'_>,
        reader: &Arc<dyn RecordReader>,
    ) -> Result<Ruling, RuleFailure> {
        let draft = Draft { source: "s".into(), ts: Some(7), payload, ttl_ms: 9, ack: None };
        self.0.decide(&GivenDraft { draft: &draft, now_us: 8, token: "who" }, reader)
    }

    /// Lets this number of threads be in the midst of a call at one time, each with a guest that looks a record up.
    fn decide_at_once(&self, threads: usize) {
        let meeting: Arc<dyn RecordReader> = Arc::new(Meeting { awaited: threads, ..Meeting::default() });
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let decided = self.decide_with(DraftPayload::Json(b"\"look all\""), &meeting);
                    assert!(matches!(decided, Ok(Ruling::Records(_))), "{decided:?}");
                });
            }
        });
    }

    fn order(&self, order: &str) -> Result<Ruling, RuleFailure> {
        self.decide(&format!("\"{order}\""))
    }

    fn failure(&self, order: &str) -> String {
        self.order(order).expect_err(order).0
    }

    /// The text of the only record that comes out.
    fn text(&self, order: &str) -> String {
        match self.order(order) {
            Ok(Ruling::Records(records)) if records.len() == 1 => {
                String::from_utf8_lossy(records[0].payload.bytes()).into_owned()
            }
            other => panic!("{order}: {other:?}"),
        }
    }
}

fn record(source: &str, text: &str) -> RevisedDraft {
    let payload = Payload::Json(text.to_owned().into());
    RevisedDraft { source: source.into(), ts: Some(7), payload, ttl_ms: 9 }
}

#[test]
fn every_verdict_comes_through() {
    let world = TriedModule::new(BEHAVIOURS);
    assert_eq!(world.order("pass"), Ok(Ruling::Pass));
    assert_eq!(world.order("drop"), Ok(Ruling::Drop));
    assert_eq!(world.order("reject too bad"), Ok(Ruling::Reject("too bad".into())));
    assert_eq!(world.order("replace [1.50]"), Ok(Ruling::Records(vec![record("s", "[1.50]")])));
    assert_eq!(world.order("rename t/u"), Ok(Ruling::Records(vec![record("t/u", "1")])));
    assert_eq!(world.order("many 2"), Ok(Ruling::Records(vec![record("s/0", "0"), record("s/1", "1")])));
    assert_eq!(world.order("many 0"), Ok(Ruling::Records(Vec::new())));
    let binary = world.decide_about(DraftPayload::Binary((&b"\x00"[..]).into()));
    let made = RevisedDraft { payload: Payload::Binary((&b"\x01\x02\xff"[..]).into()), ..record("s", "") };
    assert_eq!(binary, Ok(Ruling::Records(vec![made])));
}

#[test]
fn a_guest_sees_its_node_through_the_interface_alone() {
    let world = TriedModule::new(BEHAVIOURS);
    assert_eq!(world.text("look table/a"), "[{\"a\":1.0},\"who\",true]");
    assert_eq!(world.text("look nothing"), "[null,\"who\",true]");
    assert_eq!(world.text("hash"), "1", "hash tables work");
    for (order, named) in [("clock", "clock"), ("file", ""), ("network", "")] {
        match world.order(order) {
            // The standard library may say that there is no such thing without asking the node.
            Ok(Ruling::Records(records)) => {
                assert_eq!(records[0].payload.bytes(), b"false", "{order}");
            }
            Err(failure) => assert!(failure.0.contains(named), "{order}: {}", failure.0),
            other => panic!("{order}: {other:?}"),
        }
    }
    assert_eq!(world.order("pass"), Ok(Ruling::Pass), "the next record has another instance");
}

#[test]
fn what_goes_wrong_is_stopped_and_named() {
    let world = TriedModule::new(BEHAVIOURS);
    assert!(world.failure("loop").contains("more than 10 ms"), "{}", world.failure("loop"));
    assert!(world.failure("panic").contains("panicked"), "{}", world.failure("panic"));
    assert!(!world.failure("memory").is_empty());
    assert!(world.failure("stack").contains("stack"), "{}", world.failure("stack"));
    assert!(world.failure("replace {").contains("no JSON"));
    assert!(world.failure("rename a//b").contains("source"));
    assert!(world.failure("rename $a/b").contains("system"));
    assert!(world.failure(&format!("many {}", MANY_RECORDS_MAX + 1)).contains("at most 100"));
    assert!(!world.failure("large 9000000").is_empty(), "answers are bounded");
    assert_eq!(world.text("large 1000").len(), 1_002);
    assert_eq!(world.order("pass"), Ok(Ruling::Pass));
}

/// The bound of a call was time by the clock once. Where other programs kept the processors busy, the thread of a guest
/// stood still for longer than the bound, the record was refused, and after ten such records the middleware was switched
/// off in the whole cluster. A thread that sleeps stands still in the same way.
#[test]
fn time_without_a_processor_is_not_counted() {
    let world = TriedModule::new(BEHAVIOURS);
    assert_eq!(world.text("look table/slow"), "[null,\"who\",true]");
    assert_eq!(world.order("pass"), Ok(Ruling::Pass));
}

#[test]
fn what_is_no_module_of_the_world_is_refused() {
    let engine = WasmEngine::new().expect("an engine");
    for bad in [&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0", &BEHAVIOURS[..BEHAVIOURS.len() / 2]] {
        assert!(engine.compile(bad, 1).is_err());
    }
}

#[test]
fn the_template_does_what_it_says() {
    let world = TriedModule::new(TEMPLATE);
    let decided = world.decide("{\"f\":70.7}");
    assert_eq!(decided, Ok(Ruling::Records(vec![record("s", "{\"c\":21.5}")])));
    let alarm = world.decide("{\"f\":212.0}");
    assert_eq!(
        alarm,
        Ok(Ruling::Records(vec![record("s", "{\"c\":100.0}"), record("alarms/s", "{\"c\":100.0}")]))
    );
    assert_eq!(world.decide("{\"x\":1}"), Ok(Ruling::Pass));
    assert!(matches!(world.decide("{\"f\":-1000}"), Ok(Ruling::Reject(_))));
}

#[test]
fn threads_share_a_module() {
    let world = TriedModule::new(BEHAVIOURS);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert_eq!(world.text("replace [1]"), "[1]")));
        }
    });
}

#[test]
fn calls_one_after_another_share_one_instance() {
    let world = TriedModule::new(BEHAVIOURS);
    assert_eq!(world.0.instances(), (1, 1), "the first one is made with the module");
    for order in ["pass", "drop", "reject no", "replace [1]", "look table/a", "many 3"].repeat(100) {
        assert!(world.order(order).is_ok(), "{order}");
    }
    assert_eq!(world.0.instances(), (1, 1));
}

#[test]
fn there_are_as_many_instances_as_calls_at_the_same_time_and_few_are_kept() {
    const THREADS: usize = 5;
    let world = TriedModule::new(BEHAVIOURS);
    world.decide_at_once(IDLE_MAX);
    assert_eq!(world.0.instances(), (IDLE_MAX, IDLE_MAX), "one more than was there");
    world.decide_at_once(IDLE_MAX);
    assert_eq!(world.0.instances(), (IDLE_MAX, IDLE_MAX), "those that are there suffice");
    world.decide_at_once(THREADS);
    assert_eq!(world.0.instances(), (THREADS, IDLE_MAX), "the others are given up");
    world.decide_at_once(THREADS);
    assert_eq!(world.0.instances(), (2 * THREADS - IDLE_MAX, IDLE_MAX));
}

/// What a guest leaves behind that was stopped in the midst of its work is not known.
#[test]
fn an_instance_that_failed_is_not_used_again() {
    let world = TriedModule::new(BEHAVIOURS);
    for (failed, order) in ["panic", "loop", "memory", "stack", "large 9000000"].into_iter().enumerate() {
        world.failure(order);
        assert_eq!(world.0.instances(), (failed + 1, 0), "{order}");
        assert_eq!(world.order("pass"), Ok(Ruling::Pass), "{order}");
        assert_eq!(world.0.instances(), (failed + 2, 1), "{order}");
    }
}
