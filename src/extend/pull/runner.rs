//! Runs pull sources at a node.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::definition::{PullDefinition, PullKind};
use super::feed::Feed;
use super::target::NodeTarget;
use super::{exec, file, http, kafka, mqtt};
use crate::extend::definition::Definition;
use crate::extend::host::ExtendHost;
use crate::extend::runner::{Run, RunContext, Runner};

/// Runs the pull sources that are this member's.
pub(crate) struct PullRunner;

/// Counts a pull source for as long as it runs.
struct RunningPull(Arc<dyn ExtendHost>);

impl RunningPull {
    fn new(host: Arc<dyn ExtendHost>) -> RunningPull {
        host.metrics().pull.running.add(1);
        RunningPull(host)
    }
}

impl Drop for RunningPull {
    fn drop(&mut self) {
        self.0.metrics().pull.running.add(-1);
    }
}

impl Runner for PullRunner {
    fn cannot(&self, definition: &Definition, host: &dyn ExtendHost) -> Option<String> {
        match PullDefinition::read(&definition.body) {
            Err(bad) => Some(bad.to_string()),
            Ok(definition) => definition.cannot(host),
        }
    }

    fn run(&self, definition: Rc<Definition>, context: RunContext) -> Run {
        // What a former runner told is read before this one tells anything.
        let record = context.host.get(&definition.kind.state_name(&definition.name));
        let before: Option<Value> =
            record.and_then(|record| serde_json::from_slice(record.payload.bytes()).ok());
        Box::pin(async move {
            let _running = RunningPull::new(context.host.clone());
            let pull = match PullDefinition::read(&definition.body) {
                Ok(pull) => pull,
                Err(bad) => return context.state.set_error(Some(&bad.to_string())),
            };
            let target = Rc::new(NodeTarget(context.host.clone()));
            let feed = Feed::new(target, Some(context.state.clone()), pull.records_per_s_max, pull.is_always);
            let name = definition.name.as_str();
            tokio::select! {
                () = run_kind(&pull, name, &feed, context.host.exec_folder(), before.as_ref(), false) => {}
                () = feed.keep_telling() => {}
            }
        })
    }
}

/// Runs a pull source of any kind, for ever, or once.
pub(super) async fn run_kind(
    definition: &PullDefinition,
    name: &str,
    feed: &Feed,
    exec_folder: Option<&std::path::Path>,
    before: Option<&Value>,
    is_once: bool,
) {
    match &definition.kind {
        PullKind::Http(settings) => http::run(definition, settings, feed, is_once).await,
        PullKind::Mqtt(settings) => mqtt::run(definition, settings, name, feed, is_once).await,
        PullKind::Kafka(settings) => kafka::run(definition, settings, feed, before, is_once).await,
        PullKind::File(settings) => file::run(definition, settings, feed, before, is_once).await,
        PullKind::Exec(settings) => exec::run(definition, settings, exec_folder, feed, is_once).await,
    }
}
