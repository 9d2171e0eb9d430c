//! Keeps the middlewares that are in force at this node as the records of the system say.
//!
//! A definition that is new, or another version, is compiled on a thread of its own while the old version goes on, and
//! takes its place when it is ready. So no record is lost or left out by a change. A middleware that was switched off
//! by any node is off at every node, because all follow the record that says so.
//!
//! While the node is not ready, a middleware that is not compiled yet refuses the records that it is for: they would
//! pass it otherwise, between the start of the node and the moment at which it is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::definition::Definition;
use super::super::host::{ExtendHost, SystemChanges};
use super::bounds::MIDDLEWARES_MAX;
use super::build::{RuleBuilder, module_of};
use super::chain::{ChainEnv, MiddlewareChain};
use super::definition::{MiddlewareDefinition, RuleText};
use super::link::{LinkHealth, MiddlewareLink};
use super::rule::{MiddlewareRule, RecordReader};
use super::telling::tell_json;
use crate::ingest::Reviser;
use crate::protocol::extension::{ExtensionKind, ExtensionName};
use crate::record::{Pattern, SharedRecord, Source};

/// Interval at which the keeper looks while the node is not ready, or a module is not complete, in milliseconds.
const COMPLETE_LOOK_MS: u64 = 50;

/// A middleware as it is known here.
struct KnownMiddleware {
    /// Timestamp of the record with the definition that was looked at last, in microseconds.
    ts: u64,
    definition: Result<MiddlewareDefinition, String>,
    progress: Readying,
    /// The version in force, which may be an older one.
    link: Option<Arc<MiddlewareLink>>,
}

/// How far a definition is from being in force.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readying {
    /// It waits for parts of its module.
    Waiting,
    /// It is being compiled.
    Compiling,
    /// It is in force, or cannot be.
    Done,
}

/// A rule that was compiled, and for which definition.
type BuiltRule = (ExtensionName, u64, Result<Arc<dyn MiddlewareRule>, String>);

/// Keeps the middlewares of a node.
pub struct MiddlewareKeeper {
    host: Arc<dyn ExtendHost>,
    builder: Arc<RuleBuilder>,
    known: BTreeMap<ExtensionName, KnownMiddleware>,
    compiling: JoinSet<BuiltRule>,
    switched_off: Arc<Notify>,
    /// Whether the links have changed since the chain was made.
    is_changed: bool,
    was_ready: bool,
}

/// The node's records, as rules may look them up.
struct HostReader(Arc<dyn ExtendHost>);

impl RecordReader for HostReader {
    fn latest(&self, source: &str) -> Option<SharedRecord> {
        if Source::is_system(source) {
            return None;
        }
        let record = self.0.get(source)?;
        record.is_visible(self.0.now().wall_us).then_some(record)
    }
}

/// The records of a node, as rules may look them up.
pub fn reader(host: &Arc<dyn ExtendHost>) -> Arc<dyn RecordReader> {
    Arc::new(HostReader(host.clone()))
}

/// Makes the environment of chains at a node.
fn env(host: &Arc<dyn ExtendHost>, switched_off: Arc<Notify>) -> ChainEnv {
    let clock = host.clone();
    ChainEnv {
        reader: reader(host),
        clock: Arc::new(move || clock.now()),
        metrics: host.shared_metrics(),
        switched_off,
    }
}

/// The records with the definitions of all middlewares that count.
fn records(host: &dyn ExtendHost) -> Vec<SharedRecord> {
    let Ok(pattern) = Pattern::parse(ExtensionKind::Middleware.pattern()) else { return Vec::new() };
    let mut records = host.list(&pattern);
    records.truncate(MIDDLEWARES_MAX);
    records
}

/// Puts expressions in force, and refuses the records that modules are for until these are compiled. To be called when
/// the store is loaded, before the node takes records.
pub fn hold_back(host: &Arc<dyn ExtendHost>) {
    let mut links = Vec::new();
    for record in records(&**host) {
        let Some(definition) = Definition::of_record(&record) else { continue };
        if let Ok(read) = MiddlewareDefinition::read(&definition.body) {
            // An expression is compiled in some microseconds.
            let rule = match &read.current.rule {
                RuleText::Cel(_) => RuleBuilder::default().build(&read.current, None).ok(),
                RuleText::Wasm(_) => None,
            };
            links.push(Arc::new(link_of(&definition.name, record.stamp.ts, &read, rule)));
        }
    }
    if !links.is_empty() {
        let env = env(host, Arc::default());
        host.set_reviser(Some(Arc::new(MiddlewareChain::new(links, env))));
    }
}

fn link_of(
    name: &ExtensionName,
    ts: u64,
    definition: &MiddlewareDefinition,
    rule: Option<Arc<dyn MiddlewareRule>>,
) -> MiddlewareLink {
    let version = &definition.current;
    MiddlewareLink {
        name: name.to_string(),
        ts,
        pattern: version.pattern.clone(),
        order: version.order,
        on_failure: version.on_failure,
        rule,
        health: LinkHealth::default(),
    }
}

impl MiddlewareKeeper {
    /// A keeper that knows of no middleware so far.
    pub fn new(host: Arc<dyn ExtendHost>) -> MiddlewareKeeper {
        MiddlewareKeeper {
            host,
            builder: Arc::default(),
            known: BTreeMap::new(),
            compiling: JoinSet::new(),
            switched_off: Arc::default(),
            is_changed: false,
            was_ready: false,
        }
    }

    /// Keeps the middlewares for ever.
    pub async fn run(&mut self, changes: &SystemChanges) {
        let switched_off = self.switched_off.clone();
        loop {
            self.look();
            self.install();
            let is_waiting = self.known.values().any(|known| known.progress == Readying::Waiting);
            let pause = tokio::time::sleep(Duration::from_millis(COMPLETE_LOOK_MS));
            tokio::select! {
                () = changes.middlewares_changed() => {}
                Some(built) = self.compiling.join_next() => self.handle_built(built),
                () = switched_off.notified() => self.tell_switched_off(),
                () = pause, if is_waiting || !self.was_ready => {}
            }
        }
    }

    /// Looks at all definitions and states.
    fn look(&mut self) {
        let is_ready = self.host.is_ready();
        self.is_changed |= is_ready != self.was_ready;
        self.was_ready = is_ready;
        let records = records(&*self.host);
        let mut gone: Vec<ExtensionName> = self.known.keys().cloned().collect();
        for record in &records {
            let Some(definition) = Definition::of_record(record) else { continue };
            gone.retain(|name| *name != definition.name);
            self.handle_definition(&definition);
        }
        for name in gone {
            self.is_changed = true;
            self.known.remove(&name);
            tracing::info!(%name, "a middleware is no longer in force");
        }
        let waiting = self.known.iter().filter(|(_, known)| known.progress == Readying::Waiting);
        for name in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.begin(&name);
        }
        self.follow_states();
    }

    fn handle_definition(&mut self, definition: &Definition) {
        let known = self.known.get(&definition.name);
        if known.is_some_and(|known| known.ts == definition.ts) {
            return;
        }
        let read = MiddlewareDefinition::read(&definition.body).map_err(|bad| bad.to_string());
        let progress = match &read {
            Ok(_) => Readying::Waiting,
            Err(error) => {
                tracing::warn!(name = %definition.name, error, "a middleware cannot be used here");
                Readying::Done
            }
        };
        let link = self.known.remove(&definition.name).and_then(|known| known.link);
        self.is_changed = true;
        let known = KnownMiddleware { ts: definition.ts, definition: read, progress, link };
        self.known.insert(definition.name.clone(), known);
    }

    /// Begins to compile a definition whose module is complete.
    fn begin(&mut self, name: &ExtensionName) {
        let Some(known) = self.known.get_mut(name) else { return };
        let Ok(definition) = &known.definition else { return };
        let Ok(module) = module_of(&*self.host, name, &definition.current) else { return };
        known.progress = Readying::Compiling;
        let (builder, version, name, ts) =
            (self.builder.clone(), definition.current.clone(), name.clone(), known.ts);
        self.compiling.spawn_blocking(move || {
            let rule = builder.build(&version, module.as_deref());
            (name, ts, rule)
        });
    }

    fn handle_built(&mut self, built: Result<BuiltRule, tokio::task::JoinError>) {
        let (name, ts, rule) = match built {
            Ok(built) => built,
            Err(error) => return tracing::error!(%error, "a middleware could not be compiled by a defect"),
        };
        // Another version may have come in the meantime, whose turn is next.
        let Some(known) = self.known.get_mut(&name).filter(|known| known.ts == ts) else { return };
        known.progress = Readying::Done;
        let Ok(definition) = &known.definition else { return };
        match rule {
            Ok(rule) => {
                let version = definition.current.version;
                known.link = Some(Arc::new(link_of(&name, ts, definition, Some(rule))));
                self.is_changed = true;
                tracing::info!(%name, version, "a middleware is in force");
            }
            Err(error) => tracing::warn!(%name, error, "a middleware cannot be used here"),
        }
    }

    /// Switches off what another node has switched off.
    fn follow_states(&mut self) {
        for (name, known) in &self.known {
            let Some(link) = known.link.as_ref().filter(|link| !link.health.is_off()) else { continue };
            let Some(state) = self.host.get(&ExtensionKind::Middleware.state_name(name)) else { continue };
            let state: Value = serde_json::from_slice(state.payload.bytes()).unwrap_or_default();
            let is_off = state.get("off") == Some(&Value::Bool(true));
            if is_off && state.get("definition_ts").and_then(Value::as_u64) == Some(link.ts) {
                link.health.switch_off();
                self.is_changed = true;
                let reason = state.get("reason").and_then(Value::as_str).unwrap_or_default();
                let by = state.get("node").and_then(Value::as_str).unwrap_or_default();
                tracing::warn!(%name, reason, by, "a middleware is switched off, because another node has");
            }
        }
    }

    /// Tells the cluster what this node has switched off.
    fn tell_switched_off(&mut self) {
        for (name, known) in &self.known {
            let Some(link) = &known.link else { continue };
            let Some(reason) = link.health.take_reason() else { continue };
            self.is_changed = true;
            let version = known.definition.as_ref().map_or(0, |definition| definition.current.version);
            tracing::warn!(%name, reason, "a middleware has failed too often in a row and is switched off everywhere");
            let state = json!({
                "off": true,
                "reason": reason,
                "node": self.host.name(),
                "version": version,
                "definition_ts": link.ts,
                "at": self.host.now().wall_us,
            });
            tell_json(&*self.host, &ExtensionKind::Middleware.state_name(name), &state.to_string());
        }
    }

    fn count_switched_off(&self) {
        let links = self.known.values().filter_map(|known| known.link.as_ref());
        let off = links.filter(|link| link.health.is_off()).count();
        self.host.metrics().middlewares.switched_off.set(off as i64);
    }

    /// Puts the links in force that there are by now.
    fn install(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let mut links = Vec::new();
        for (name, known) in &self.known {
            match (&known.link, &known.definition) {
                (Some(link), _) => links.push(link.clone()),
                (None, Ok(definition)) if !self.was_ready => {
                    links.push(Arc::new(link_of(name, known.ts, definition, None)));
                }
                (None, _) => {}
            }
        }
        self.host.metrics().middlewares.in_force.set(links.len() as i64);
        self.count_switched_off();
        let chain = (!links.is_empty()).then(|| {
            let env = env(&self.host, self.switched_off.clone());
            Arc::new(MiddlewareChain::new(links, env)) as Arc<dyn Reviser>
        });
        self.host.set_reviser(chain);
    }
}
