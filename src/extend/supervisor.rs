//! Runs the definitions that are this member's to run, and no others.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};

use super::ability::{Abilities, Ability, candidates, own_boot};
use super::definition::{BadField, Definition};
use super::directory::Directory;
use super::election;
use super::host::{ExtendHost, SystemChanges};
use super::kinds;
use super::runner::{RunContext, Runner};
use super::state::{self, StateWriter};
use crate::protocol::extension::{ExtensionKind, ExtensionName};

/// Interval at which the supervisor looks at members and states while there are definitions, and for the readiness of the
/// node before, in milliseconds. A runner that died is followed so soon after its death was seen.
const LOOK_MS: u64 = 200;
/// Interval at which it is asked anew what the node cannot run, in microseconds.
const ABILITY_US: u64 = 10_000_000;
/// Time from when a node tells that it is a candidate until it runs anything, in microseconds. Meanwhile the others hear
/// of it, and it hears of them, so that two do not begin the same.
const SETTLE_US: u64 = 1_000_000;
/// Time after which a definition that panicked is run again, in microseconds.
const AGAIN_US: u64 = 5_000_000;

/// What runs the definitions of each kind.
pub(super) type Runners = BTreeMap<ExtensionKind, Box<dyn Runner>>;

/// The name of a definition among those of all kinds.
type Key = (ExtensionKind, ExtensionName);

/// One definition that this member runs.
struct Running {
    definition: Rc<Definition>,
    state: StateWriter,
    task: JoinHandle<()>,
    /// The task was found to have ended, by itself or by a panic.
    has_ended: bool,
    /// Monotonic time at which it was found to have ended by a panic, in microseconds.
    failed_us: Option<u64>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Finds out what is wrong with a definition.
type DefinitionCheck = fn(ExtensionKind, &serde_json::Value) -> Result<(), BadField>;

/// The definitions of a node and what it does about them.
pub struct Supervisor {
    host: Arc<dyn ExtendHost>,
    runners: Runners,
    check: DefinitionCheck,
    directory: Directory,
    running: BTreeMap<Key, Running>,
    /// What the node has told that it can run, and the monotonic time from which on it has told so in this life.
    told: Option<(Ability, u64)>,
    /// Monotonic time at which it was last asked what the node cannot run, in microseconds.
    asked_us: u64,
    candidates: Abilities,
}

impl Supervisor {
    /// A supervisor that runs nothing so far.
    pub fn new(host: Arc<dyn ExtendHost>) -> Supervisor {
        Supervisor { check: kinds::check, ..Supervisor::with_runners(host, kinds::runners()) }
    }

    /// A supervisor of the kinds that these runners are for, which finds every definition good.
    pub(super) fn with_runners(host: Arc<dyn ExtendHost>, runners: Runners) -> Supervisor {
        Supervisor {
            host,
            runners,
            check: |_, _| Ok(()),
            directory: Directory::default(),
            running: BTreeMap::new(),
            told: None,
            asked_us: 0,
            candidates: Abilities::new(),
        }
    }

    /// Runs what is this member's to run, for ever.
    pub async fn run(&mut self, changes: &SystemChanges) {
        let mut has_changed = true;
        loop {
            if self.host.is_ready() {
                self.look(has_changed);
                has_changed = false;
            } else {
                self.stop_all();
                has_changed = true;
            }
            let look = tokio::time::sleep(Duration::from_millis(LOOK_MS));
            let is_idle = !has_changed && self.directory.is_empty() && self.running.is_empty();
            tokio::select! {
                () = changes.changed() => has_changed = true,
                () = look, if !is_idle => {}
            }
        }
    }

    /// Stops everything, and tells the last state of each.
    pub fn stop_all(&mut self) {
        for (_, one) in std::mem::take(&mut self.running) {
            one.state.tell_if_due(&*self.host);
        }
    }

    fn look(&mut self, has_changed: bool) {
        let now_us = self.host.now().mono_us;
        let mut is_new = has_changed && self.directory.refresh(&*self.host);
        if self.directory.is_empty() && self.running.is_empty() {
            return;
        }
        if is_new || now_us >= self.asked_us + ABILITY_US {
            self.asked_us = now_us;
            self.tell_ability(now_us);
        }
        let candidates = candidates(&*self.host);
        is_new |= candidates != self.candidates;
        self.candidates = candidates;
        let is_settled = self.told.as_ref().is_some_and(|(_, since_us)| now_us >= since_us + SETTLE_US);
        if is_settled && (is_new || self.running.is_empty() || self.has_failed()) {
            self.elect(now_us);
        }
        for one in self.running.values() {
            one.state.tell_if_due(&*self.host);
        }
    }

    /// Tells what this node can run, if that has changed.
    fn tell_ability(&mut self, now_us: u64) {
        let Some(boot) = own_boot(&*self.host) else { return };
        let cannot = self.directory.all().filter_map(|definition| {
            let runner = self.runners.get(&definition.kind)?;
            let reason = match (self.check)(definition.kind, &definition.body) {
                Ok(()) => runner.cannot(definition, &*self.host),
                Err(bad) => Some(bad.to_string()),
            };
            Some((definition.task(), reason?))
        });
        let ability = Ability::new(boot, cannot);
        let told = self.told.as_ref();
        if told.is_some_and(|(told, _)| *told == ability) {
            return;
        }
        match ability.tell(&*self.host) {
            Ok(()) => {
                let since_us =
                    told.filter(|(told, _)| told.boot == boot).map_or(now_us, |(_, since_us)| *since_us);
                self.told = Some((ability, since_us));
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "the cluster cannot be told now what this node can run")
            }
        }
    }

    /// Begins to run what is this member's by now, and stops what is not any longer.
    fn elect(&mut self, now_us: u64) {
        let mut wanted = BTreeMap::<Key, Rc<Definition>>::new();
        for definition in self.directory.all() {
            let task = definition.task();
            let able = self.candidates.iter().filter(|(_, ability)| !ability.cannot.contains_key(&task));
            let elected = election::runner(&task, able.map(|(member, _)| member.as_str()));
            if elected == Some(self.host.name()) && self.runners.contains_key(&definition.kind) {
                wanted.insert((definition.kind, definition.name.clone()), definition.clone());
            }
        }
        let is_over = |key: &Key, one: &mut Running| {
            let is_wanted = wanted.get(key).is_some_and(|definition| definition.ts == one.definition.ts);
            !is_wanted || one.failed_us.is_some_and(|failed_us| now_us >= failed_us + AGAIN_US)
        };
        let over: Vec<(Key, Running)> = self.running.extract_if(.., is_over).collect();
        for ((kind, name), one) in over {
            let is_defined = self.directory.all().any(|other| other.kind == kind && other.name == name);
            match is_defined {
                true => one.state.tell_if_due(&*self.host),
                false => state::tell_end(&kind.state_name(&name), &*self.host),
            }
            tracing::info!(kind = kind.as_str(), %name, "this member stops running a definition");
        }
        for (key, definition) in wanted {
            if !self.running.contains_key(&key)
                && let Some(one) = self.begin(definition)
            {
                self.running.insert(key, one);
            }
        }
    }

    fn begin(&self, definition: Rc<Definition>) -> Option<Running> {
        let runner = self.runners.get(&definition.kind)?;
        let state = StateWriter::new(&definition, &*self.host);
        let context = RunContext { host: self.host.clone(), state: state.clone() };
        let task = spawn_local(runner.run(definition.clone(), context));
        let (kind, name) = (definition.kind.as_str(), &definition.name);
        tracing::info!(kind, %name, "this member runs a definition");
        Some(Running { definition, state, task, has_ended: false, failed_us: None })
    }

    /// Returns whether a definition has failed for long enough to be run again.
    fn has_failed(&mut self) -> bool {
        let now_us = self.host.now().mono_us;
        let mut has_failed = false;
        for ((kind, name), one) in &mut self.running {
            // A task that ended by itself is done; only a panic leaves its state as it was. The outcome of a task can be
            // asked for once.
            if !one.has_ended && one.task.is_finished() {
                one.has_ended = true;
                if has_panicked(&mut one.task) {
                    tracing::error!(kind = kind.as_str(), %name, "a definition failed by a defect; it is run again");
                    one.state.set_error(Some("the program failed; see the log of the runner"));
                    one.failed_us = Some(now_us);
                }
            }
            has_failed |= one.failed_us.is_some_and(|failed_us| now_us >= failed_us + AGAIN_US);
        }
        has_failed
    }
}

/// Returns whether a task that has ended did so by a panic.
fn has_panicked(task: &mut JoinHandle<()>) -> bool {
    use std::future::Future;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    matches!(std::pin::pin!(task).poll(&mut context), std::task::Poll::Ready(Err(error)) if error.is_panic())
}
