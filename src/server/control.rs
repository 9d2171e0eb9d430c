//! The node as the control plane sees it.

use std::str::FromStr;
use std::sync::Arc;

use super::clock;
use super::lifecycle::Phase;
use super::shared::Shared;
use crate::cluster::members::MemberInfo;
use crate::http::{Answer, HistoryPage, HistoryQuery, Node};
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Code, Published, Refusal};
use crate::protocol::draft::Draft;
use crate::record::{Now, Pattern, SharedRecord};
use crate::store::{Health, HistoryCursor};

/// The control plane's view of a node.
pub struct Control(pub Arc<Shared>);

impl Node for Control {
    fn now(&self) -> Now {
        clock::now()
    }

    fn readiness(&self) -> Result<(), String> {
        self.0.readiness()
    }

    fn is_turning(&self) -> bool {
        self.0.lifecycle.is_turning(clock::now())
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.0.cluster.members().to_vec()
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.0.ingest.latest().get(source)
    }

    fn list(&self, pattern: &Pattern, after: Option<&str>, limit: usize) -> Vec<SharedRecord> {
        self.0.ingest.latest().list(pattern, after, limit, clock::now().wall_us)
    }

    fn history(&self, query: &HistoryQuery<'_>) -> Result<HistoryPage, Refusal> {
        let after = match query.after {
            None => None,
            Some(text) => Some(HistoryCursor::from_str(text).map_err(|_| {
                Refusal::new(Code::BadRequest, format!("after {text:?} is no cursor of a history"))
            })?),
        };
        let HistoryQuery { source, from_us, to_us, limit, .. } = *query;
        let (records, after) = self
            .0
            .store()
            .history(source, from_us, to_us, limit, after)
            .map_err(|error| Refusal::new(Code::StoreUnavailable, error.to_string()))?;
        Ok(HistoryPage { records, after: after.map(|cursor| cursor.to_string()) })
    }

    fn publish(&self, draft: &Draft<'_>, level: AckLevel, answer: Answer) {
        if self.0.lifecycle.phase() == Phase::Loading {
            let refusal = Refusal::new(Code::StoreUnavailable, "the store is being loaded");
            return answer.send(Err(refusal));
        }
        if level == AckLevel::Replicated {
            return self.publish_awaited(draft, answer);
        }
        let now = clock::now();
        let accepted = self.0.ingest.publish(now, draft);
        self.0.wake_wanted();
        match accepted {
            Err(refusal) => answer.send(Err(refusal)),
            Ok(accepted) if level == AckLevel::Stored => {
                self.0.pending.wait(now.mono_us, accepted.ticket, accepted.ts, accepted.outcome, answer);
                self.0.wake_gossip();
            }
            Ok(accepted) => {
                self.0.wake_gossip();
                let (ts, outcome) = (accepted.ts, accepted.outcome);
                answer.send(Ok(Published { ts, outcome, level, nodes: None }));
            }
        }
    }

    fn metrics(&self) -> &Metrics {
        let metrics = &self.0.metrics;
        let latest = self.0.ingest.latest();
        metrics.sources.set(latest.len() as i64);
        metrics.map_bytes.set(latest.bytes() as i64);
        let store = self.0.store();
        let stats = store.stats();
        metrics.store_pending_records.set(stats.pending_records as i64);
        metrics.store_spilled_records.set(stats.spilled_records as i64);
        let is_up = store.health() == Health::Open && store.away().is_none();
        metrics.store_up.set(i64::from(is_up));
        metrics
    }
}

impl Control {
    /// Publishes a record that every live member is to hold before it is answered.
    fn publish_awaited(&self, draft: &Draft<'_>, answer: Answer) {
        let replications = &self.0.replications;
        let Some(token) = replications.register_http(answer) else { return };
        match self.0.ingest.publish_awaited(clock::now(), draft, token) {
            Ok(accepted) => replications.handle_published(token, accepted.ts, accepted.outcome),
            Err(refusal) => replications.refuse(token, &refusal),
        }
        self.0.wake_wanted();
        self.0.wake_gossip();
    }
}
