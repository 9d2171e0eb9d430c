//! The supervisors of several nodes that share one map, in virtual time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::definition::Definition;
use super::host::{ExtendHost, SystemChanges};
use super::runner::{Run, RunContext, Runner};
use super::supervisor::Supervisor;
use crate::cluster::members::{Identity, MemberInfo, State};
use crate::ingest::{Accepted, Reviser};
use crate::metrics::Metrics;
use crate::protocol::answer::Outcome;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::extension::ExtensionKind;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{
    Birth, NodeName, Now, Pattern, Payload, Record, RecordWalk, SharedRecord, Source, Stamp,
};

/// The map and the members that all nodes of a test see.
#[derive(Default)]
struct World {
    records: Mutex<BTreeMap<String, SharedRecord>>,
    members: Mutex<BTreeMap<String, State>>,
    changes: Mutex<Vec<Arc<SystemChanges>>>,
    ts: Mutex<u64>,
    metrics: Metrics,
}

/// One node of a test.
struct FakeHost {
    name: String,
    world: Arc<World>,
    start: Instant,
}

/// The moment on the clock of the runtime, which the tests drive.
#[expect(clippy::disallowed_methods, reason = "it is virtual time")]
fn started() -> Instant {
    Instant::now()
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

impl World {
    fn publish(&self, source: &str, payload: Payload) {
        let mut ts = self.ts.lock();
        *ts += 1;
        let stamp = match &payload {
            Payload::Deleted => Stamp::of_deletion(*ts),
            payload => Stamp::of_data(*ts, payload.bytes()),
        };
        let birth = Birth { origin: name("w"), boot: 1, seq: *ts };
        let parsed = Source::parse(source).expect("a source");
        let record = Arc::new(Record::new(parsed, stamp, payload, birth, 0, 0));
        self.records.lock().insert(source.to_owned(), record);
        for changes in &*self.changes.lock() {
            changes.handle_change(source);
            changes.wake_if_changed();
        }
    }

    fn put(&self, source: &str, json: &str) {
        self.publish(source, Payload::Json(json.to_owned().into()));
    }
}

impl ExtendHost for FakeHost {
    fn now(&self) -> Now {
        let us = self.start.elapsed().as_micros() as u64 + 1;
        Now { mono_us: us, wall_us: us }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn members(&self) -> Arc<[MemberInfo]> {
        let address = "127.0.0.1:1".parse().expect("an address");
        let members = self.world.members.lock();
        let info = members.iter().map(|(member, state)| {
            MemberInfo::new(Arc::new(Identity::new(name(member), 1, address, "", "", "")), *state)
        });
        info.collect()
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.world.records.lock().get(source).cloned()
    }

    fn list(&self, pattern: &Pattern) -> Vec<SharedRecord> {
        let records = self.world.records.lock();
        let found = records.values().filter(|record| pattern.matches(record.source.as_str()));
        found.filter(|record| !record.stamp.deleted).cloned().collect()
    }

    fn walk(&self, _: Pattern) -> Box<dyn RecordWalk> {
        unreachable!("nothing walks here")
    }

    fn tell(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        let payload = match &draft.payload {
            DraftPayload::Deleted => Payload::Deleted,
            other => Payload::Json(other.bytes().to_vec().into()),
        };
        self.world.publish(&draft.source, payload);
        Ok(Accepted { ts: 1, outcome: Outcome::Applied, ticket: 0 })
    }

    fn publish(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.tell(draft)
    }

    fn restore(&self, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.tell(draft)
    }

    fn is_durable(&self, _: u64) -> bool {
        true
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn subscribe(&self, _: &str) -> Result<UnixStream, Refusal> {
        Err(Refusal::new(Code::Overloaded, "nothing subscribes here"))
    }

    fn metrics(&self) -> &Metrics {
        &self.world.metrics
    }

    fn shared_metrics(&self) -> Arc<Metrics> {
        Arc::default()
    }

    fn set_reviser(&self, _: Option<Arc<dyn Reviser>>) {}
}

/// Which nodes run which definitions, and how often one began.
#[derive(Default)]
struct Log {
    running: BTreeMap<String, Vec<String>>,
    begun: usize,
}

struct LoggingRunner(Rc<RefCell<Log>>);

/// Notes that a definition runs no longer when it is dropped.
struct Logged(Rc<RefCell<Log>>, String, String);

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some(nodes) = self.0.borrow_mut().running.get_mut(&self.1) {
            nodes.retain(|node| *node != self.2);
        }
    }
}

impl Runner for LoggingRunner {
    fn cannot(&self, definition: &Definition, host: &dyn ExtendHost) -> Option<String> {
        (definition.body["not"] == host.name()).then(|| "it says so".to_owned())
    }

    fn run(&self, definition: Rc<Definition>, context: RunContext) -> Run {
        let log = self.0.clone();
        Box::pin(async move {
            let node = context.host.name().to_owned();
            log.borrow_mut().begun += 1;
            log.borrow_mut().running.entry(definition.task()).or_default().push(node.clone());
            let _logged = Logged(log.clone(), definition.task(), node);
            context.state.set("runs", 1);
            match definition.body["panics"] == true && log.borrow().begun < 2 {
                true => panic!("as the definition says"),
                false => std::future::pending::<()>().await,
            }
        })
    }
}

/// A cluster of nodes with supervisors.
struct Cluster {
    world: Arc<World>,
    log: Rc<RefCell<Log>>,
    nodes: BTreeMap<String, JoinHandle<()>>,
}

impl Cluster {
    fn start(names: &[&str]) -> Cluster {
        let mut cluster = Cluster { world: Arc::default(), log: Rc::default(), nodes: BTreeMap::new() };
        names.iter().for_each(|name| cluster.join(name));
        cluster
    }

    fn join(&mut self, name: &str) {
        self.world.members.lock().insert(name.to_owned(), State::Alive);
        let changes = Arc::new(SystemChanges::default());
        self.world.changes.lock().push(changes.clone());
        let host = FakeHost { name: name.to_owned(), world: self.world.clone(), start: started() };
        let runner: Box<dyn Runner> = Box::new(LoggingRunner(self.log.clone()));
        let mut supervisor =
            Supervisor::with_runners(Arc::new(host), BTreeMap::from([(ExtensionKind::Pull, runner)]));
        let run = spawn_local(async move { supervisor.run(&changes).await });
        self.nodes.insert(name.to_owned(), run);
    }

    async fn die(&mut self, name: &str) {
        let run = self.nodes.remove(name).expect("a node");
        run.abort();
        let _ = run.await;
        self.world.members.lock().insert(name.to_owned(), State::Dead);
    }

    /// The nodes that run a definition.
    fn runners(&self, task: &str) -> Vec<String> {
        self.log.borrow().running.get(task).cloned().unwrap_or_default()
    }
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test);
}

async fn seconds(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

#[test]
fn each_definition_is_run_by_one_member_and_goes_on_at_another() {
    in_virtual_time(async {
        let mut cluster = Cluster::start(&["a", "b", "c"]);
        for index in 0..30 {
            cluster.world.put(&format!("$pull/{index}"), "{}");
        }
        seconds(1.5).await;
        let tasks: Vec<String> = (0..30).map(|index| format!("pull/{index}")).collect();
        let of_a = tasks.iter().filter(|task| cluster.runners(task) == ["a"]).count();
        assert!(
            tasks.iter().all(|task| cluster.runners(task).len() == 1),
            "{:?}",
            cluster.log.borrow().running
        );
        assert_eq!(cluster.log.borrow().begun, 30, "nothing began twice");
        assert!((3..=20).contains(&of_a), "{of_a}");
        cluster.die("a").await;
        seconds(0.5).await;
        assert!(
            tasks.iter().all(|task| cluster.runners(task).len() == 1),
            "{:?}",
            cluster.log.borrow().running
        );
        assert_eq!(cluster.log.borrow().begun, 30 + of_a, "only those of the dead member moved");
        cluster.join("a");
        seconds(2.0).await;
        assert_eq!(tasks.iter().filter(|task| cluster.runners(task) == ["a"]).count(), of_a);
    });
}

#[test]
fn what_a_member_cannot_run_goes_to_another() {
    in_virtual_time(async {
        let cluster = Cluster::start(&["a", "b"]);
        for index in 0..10 {
            cluster.world.put(&format!("$pull/{index}"), r#"{"not":"a"}"#);
        }
        seconds(1.5).await;
        for index in 0..10 {
            assert_eq!(cluster.runners(&format!("pull/{index}")), ["b"]);
        }
        let host = FakeHost { name: "a".into(), world: cluster.world.clone(), start: started() };
        let listed = super::list(ExtensionKind::Pull, &host);
        assert_eq!(listed.len(), 10);
        assert_eq!(listed[0].runner.as_deref(), Some("b"));
        assert_eq!(listed[0].cannot, [("a".to_owned(), "it says so".to_owned())]);
    });
}

#[test]
fn changed_definitions_run_anew_and_those_taken_away_leave_no_state() {
    in_virtual_time(async {
        let cluster = Cluster::start(&["a"]);
        let state = |world: &World| world.records.lock().get("$pull/x/state").cloned();
        cluster.world.put("$pull/x", "{}");
        seconds(2.5).await;
        let told = state(&cluster.world).expect("a state");
        let told: serde_json::Value = serde_json::from_slice(told.payload.bytes()).expect("JSON");
        assert_eq!((told["runner"].as_str(), told["runs"].as_u64()), (Some("a"), Some(1)), "{told}");
        cluster.world.put("$pull/x", r#"{"every":"1s"}"#);
        seconds(0.5).await;
        assert_eq!((cluster.log.borrow().begun, cluster.runners("pull/x").len()), (2, 1));
        cluster.world.publish("$pull/x", Payload::Deleted);
        seconds(0.5).await;
        assert_eq!(cluster.runners("pull/x").len(), 0);
        assert!(state(&cluster.world).is_some_and(|state| state.stamp.deleted));
    });
}

#[test]
fn what_fails_by_a_defect_is_run_again() {
    in_virtual_time(async {
        let cluster = Cluster::start(&["a"]);
        cluster.world.put("$pull/x", r#"{"panics":true}"#);
        seconds(2.0).await;
        assert_eq!(cluster.runners("pull/x").len(), 0);
        let text = cluster.world.records.lock()["$pull/x/state"].payload.bytes().to_vec();
        assert!(String::from_utf8_lossy(&text).contains("the program failed"), "{text:?}");
        seconds(6.0).await;
        assert_eq!((cluster.runners("pull/x").len(), cluster.log.borrow().begun), (1, 2));
    });
}

#[test]
fn nothing_is_told_while_there_is_no_definition() {
    in_virtual_time(async {
        let cluster = Cluster::start(&["a", "b"]);
        seconds(30.0).await;
        assert!(cluster.world.records.lock().is_empty());
    });
}
