//! Runs the definitions that are this member's to run, and no others.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};

use super::ability::{self, Abilities, Ability, SeenMember, candidates, seen_members};
use super::claim::{ClaimBook, ClaimView, PendingRun, RunClaim, RunStep, decide};
use super::definition::{BadField, Definition};
use super::directory::Directory;
use super::election;
use super::host::{ExtendHost, SystemChanges};
use super::kinds;
use super::runner::{RunContext, Runner};
use super::state::StateWriter;
use super::system_record::tell_system;
use crate::protocol::draft::DraftPayload;
use crate::protocol::extension::{ExtensionKind, ExtensionName};

/// Interval at which the supervisor looks at members and states while there are definitions, and for the readiness of the
/// node before, in milliseconds. A runner that died is followed so soon after its death was seen.
const LOOK_MS: u64 = 200;
/// The same while the node is elected for something that it does not run yet.
const PENDING_LOOK_MS: u64 = 50;
/// Interval at which it is asked anew what the node cannot run, in microseconds.
const ABILITY_US: u64 = 10_000_000;
/// Time from when a node tells that it is a candidate until it takes what nobody runs, in microseconds. Meanwhile most of the
/// others hear of it, and it hears of them, so that few definitions move twice.
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

/// The moment at which it is decided what this node runs.
struct AssignTime {
    /// The monotonic time, in microseconds.
    now_us: u64,
    /// Boot number of the present life of this node.
    boot: u64,
    /// Whether the node has been a candidate for [`SETTLE_US`].
    may_claim: bool,
}

/// The definitions of a node and what it does about them.
pub struct Supervisor {
    host: Arc<dyn ExtendHost>,
    runners: Runners,
    check: DefinitionCheck,
    directory: Directory,
    running: BTreeMap<Key, Running>,
    /// The definitions that the node is elected for and does not run yet, each with the monotonic time from which on it has
    /// been so, in microseconds.
    pending: BTreeMap<Key, (PendingRun, u64)>,
    /// What the node has told that it can run, and the monotonic time from which on it has told so in this life.
    told: Option<(Ability, u64)>,
    /// Monotonic time at which it was last asked what the node cannot run, in microseconds.
    asked_us: u64,
    members: Vec<SeenMember>,
    candidates: Abilities,
    claims: ClaimBook,
    /// The member that is elected for each definition that one member runs, if any can run it.
    elected: BTreeMap<Key, Option<Rc<str>>>,
    /// Something has changed since it was last looked who is to run what.
    is_due: bool,
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
            pending: BTreeMap::new(),
            told: None,
            asked_us: 0,
            members: Vec::new(),
            candidates: Abilities::new(),
            claims: ClaimBook::default(),
            elected: BTreeMap::new(),
            is_due: true,
        }
    }

    /// Runs what is this member's to run, for ever.
    pub async fn run(&mut self, changes: &SystemChanges) {
        let mut has_changed = true;
        loop {
            if self.host.is_ready() {
                self.is_due |= changes.take_claims_changed();
                self.look(has_changed);
                has_changed = false;
            } else {
                self.stop_all();
                has_changed = true;
            }
            let look_ms = if self.pending.is_empty() { LOOK_MS } else { PENDING_LOOK_MS };
            let look = tokio::time::sleep(Duration::from_millis(look_ms));
            let is_idle = !has_changed && self.directory.is_empty() && self.running.is_empty();
            tokio::select! {
                () = changes.changed() => has_changed = true,
                () = look, if !is_idle => {}
            }
        }
    }

    /// Stops everything, tells the last state of each, and then that the node is no candidate, so that others go on.
    pub fn stop_all(&mut self) {
        for (_, one) in std::mem::take(&mut self.running) {
            one.state.tell_last(&*self.host);
        }
        self.pending.clear();
        self.is_due = true;
        if self.told.take().is_some()
            && let Err(refusal) = ability::withdraw(&*self.host)
        {
            tracing::debug!(%refusal, "the cluster cannot be told now that this node runs nothing");
        }
    }

    fn look(&mut self, has_changed: bool) {
        let now_us = self.host.now().mono_us;
        let is_new = has_changed && self.directory.refresh(&*self.host);
        if self.directory.is_empty() && self.running.is_empty() {
            return;
        }
        let members = seen_members(&*self.host);
        let has_changed = has_changed || members != self.members;
        self.is_due |= members != self.members;
        self.members = members;
        self.tell_ability(now_us, is_new);
        if has_changed {
            let candidates = candidates(&*self.host, &self.members);
            if is_new || candidates != self.candidates {
                self.candidates = candidates;
                self.elect();
            }
        }
        self.is_due |= self.has_failed(now_us) | !self.pending.is_empty();
        let told = self.told.as_ref().map(|(told, since_us)| (told.boot, now_us >= since_us + SETTLE_US));
        if self.is_due
            && let Some((boot, may_claim)) = told
        {
            self.is_due = !may_claim;
            self.assign(&AssignTime { now_us, boot, may_claim });
        }
        for one in self.running.values() {
            one.state.tell_if_due(&*self.host);
        }
    }

    /// Tells what this node can run if that is due and has changed: at once in a new life, when definitions have changed, and
    /// from time to time.
    fn tell_ability(&mut self, now_us: u64, is_new: bool) {
        let own = self.members.iter().find(|member| member.name.as_str() == self.host.name());
        let Some(boot) = own.map(|member| member.boot) else { return };
        let is_same_life = self.told.as_ref().is_some_and(|(told, _)| told.boot == boot);
        if is_same_life && !is_new && now_us < self.asked_us + ABILITY_US {
            return;
        }
        self.asked_us = now_us;
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
                let since_us = told.filter(|_| is_same_life).map_or(now_us, |(_, since_us)| *since_us);
                self.told = Some((ability, since_us));
            }
            Err(refusal) => {
                self.asked_us = 0;
                tracing::debug!(%refusal, "the cluster cannot be told now what this node can run")
            }
        }
    }

    /// Elects a member for every definition that one member runs.
    fn elect(&mut self) {
        let definitions = self.directory.all().filter(|one| self.runners.contains_key(&one.kind));
        let elect = |definition: &Rc<Definition>| {
            let elected = election::elect(&definition.task(), &self.candidates);
            ((definition.kind, definition.name.clone()), elected.map(Rc::from))
        };
        self.elected = definitions.map(elect).collect();
        self.pending.retain(|key, _| self.elected.contains_key(key));
        self.is_due = true;
    }

    /// Begins to run what is this member's by now, and stops what is not any longer.
    fn assign(&mut self, at: &AssignTime) {
        self.stop_changed(at.now_us);
        for (key, elected) in std::mem::take(&mut self.elected) {
            if let Some(definition) = self.directory.get(&key).cloned() {
                self.assign_one(&key, definition, elected.as_deref(), at);
            }
            self.elected.insert(key, elected);
        }
    }

    /// Stops what was taken away, what is defined anew, and what has failed for long enough to be run again.
    fn stop_changed(&mut self, now_us: u64) {
        let directory = &self.directory;
        let is_over = |key: &Key, one: &mut Running| {
            let is_same = directory.get(key).is_some_and(|definition| definition.ts == one.definition.ts);
            !is_same || one.failed_us.is_some_and(|failed_us| now_us >= failed_us + AGAIN_US)
        };
        let over: Vec<(Key, Running)> = self.running.extract_if(.., is_over).collect();
        for ((kind, name), one) in over {
            if self.directory.get(&(kind, name.clone())).is_some() {
                one.state.tell_last(&*self.host);
            } else {
                self.tell_end(&kind.state_name(&name));
                self.tell_end(&kind.claim_name(&name));
                self.claims.forget(&kind.claim_name(&name));
            }
            tracing::info!(kind = kind.as_str(), %name, "this member stops running a definition");
        }
    }

    /// Deletes a record of a definition that was taken away.
    fn tell_end(&self, source: &str) {
        let wall_us = self.host.now().wall_us;
        if self.host.get(source).is_some_and(|record| record.is_visible(wall_us))
            && let Err(refusal) = tell_system(&*self.host, source, DraftPayload::Deleted)
        {
            tracing::debug!(source, %refusal, "the end of a record cannot be told now");
        }
    }

    /// Does what is to be done about one definition.
    fn assign_one(&mut self, key: &Key, definition: Rc<Definition>, elected: Option<&str>, at: &AssignTime) {
        let AssignTime { now_us, boot, may_claim } = *at;
        let record = key.0.claim_name(&key.1);
        let claim = self.claims.look(&*self.host, &record);
        let name = self.host.name();
        let pending = self.pending.get(key).map(|(pending, since_us)| (*pending, now_us - since_us));
        let is_running = self.running.contains_key(key);
        let own = ClaimView { name, boot, is_running, may_claim, pending };
        let is_named = claim.is_some_and(|claim| claim.runner == name);
        let step = decide(&definition.task(), claim, elected, &self.candidates, &self.members, own);
        match step {
            RunStep::Run | RunStep::Renew => {}
            _ => self.leave(key, is_named),
        }
        let claimed = match step {
            RunStep::Claim | RunStep::Renew => Some(RunClaim { runner: self.host.name().to_owned(), boot }),
            RunStep::PassOn(member, boot) => Some(RunClaim { runner: member.to_owned(), boot }),
            _ => None,
        };
        if let Some(Err(refusal)) = claimed.map(|claimed| claimed.tell(&*self.host, &record)) {
            tracing::debug!(record, %refusal, "the cluster cannot be told now who runs a definition");
            self.is_due = true;
            return;
        }
        match step {
            RunStep::Claim => _ = self.pending.insert(key.clone(), (PendingRun::Claimed, now_us)),
            RunStep::Wait(waits) if pending.is_some_and(|(before, _)| before == waits) => {}
            RunStep::Wait(waits) => _ = self.pending.insert(key.clone(), (waits, now_us)),
            _ => _ = self.pending.remove(key),
        }
        if step == RunStep::Run
            && !self.running.contains_key(key)
            && let Some(one) = self.begin(definition)
        {
            self.running.insert(key.clone(), one);
        }
    }

    /// Stops running a definition, if it is run. Its last state is told as long as nobody else runs it.
    fn leave(&mut self, key: &Key, is_named: bool) {
        let Some(one) = self.running.remove(key) else { return };
        if is_named {
            one.state.tell_last(&*self.host);
        }
        tracing::info!(kind = key.0.as_str(), name = %key.1, "this member stops running a definition");
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
    fn has_failed(&mut self, now_us: u64) -> bool {
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
