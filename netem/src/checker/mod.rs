//! Decides from what clients saw whether a cluster kept its promises.
//!
//! A [`Checker`] is fed with [`Observation`]s while a run lasts: what publishers offered and were answered, what
//! subscribers got, what reads and lists of members showed, which faults began and ended, and in the end what every
//! node holds. It knows nothing of the inside of a node, opens no socket and reads no clock. [`Checker::judge`] then
//! gives a [`Report`] with a verdict on each [`Promise`]: how often it was checked, how often it was broken, and the
//! first witnesses.
//!
//! The checker never guesses. A record whose publish was not answered may have been applied or not, so it explains what
//! somebody sees, and nothing is owed for it. A node that was killed owes what it acknowledged at `stored` and nothing
//! else. A promise that was never checked is reported as such, and not as kept.

mod convergence;
mod costs;
mod ending;
mod evidence;
mod finals;
mod names;
mod observation;
mod pattern;
mod plot;
mod processes;
mod promise;
mod publishes;
mod replicated;
mod report;
mod series;
mod subscribers;
#[cfg(test)]
mod tests;
mod version;
mod views;
mod waits;

use std::collections::HashMap;

use self::evidence::{Evidence, FinalMap, ReadSeen};
use self::promise::{Ledger, say};
use self::publishes::PublishState;
use self::subscribers::DeliveryVerdict;

pub use self::observation::{
    Answer, Connection, Delivery, Fault, Level, MemberSeen, MemberState, Mode, Name, Observation, Offer,
    Outcome, Place, Seen,
};
pub use self::plot::timeline;
pub use self::promise::{Findings, Promise, Witness};
pub use self::report::{FaultTime, Figures, PromiseReport, Report, Settled};
pub use self::series::{Latencies, Second};
pub use self::version::Version;
pub use self::views::FalseSuspicions;
pub use self::waits::Scarcity;
pub(crate) use self::waits::Waits;

/// Difference between wall clocks that is no fault, in microseconds.
const CLOCK_SLACK_US: u64 = 2_000_000;

/// What a run is called, and the bounds that it must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the run, for people.
    pub name: String,
    /// The command that runs it again.
    pub command: String,
    /// Wall clock at the beginning of the run, in microseconds since the Unix epoch.
    pub began_wall_us: u64,
    /// Greatest difference between wall clocks that is no fault, in microseconds.
    pub clock_slack_us: u64,
    /// Longest time after the last fault until everybody has what was lacking, in microseconds; `None` without a bound.
    pub convergence_us_max: Option<u64>,
    /// Most memory of a node's process in bytes; `None` without a bound.
    pub memory_bytes_max: Option<u64>,
}

impl Settings {
    /// Settings without bounds.
    pub fn new(name: &str, command: &str, began_wall_us: u64) -> Settings {
        Settings {
            name: name.to_owned(),
            command: command.to_owned(),
            began_wall_us,
            clock_slack_us: CLOCK_SLACK_US,
            convergence_us_max: None,
            memory_bytes_max: None,
        }
    }
}

/// Takes in observations and judges them. Call [`Checker::observe`] for each, then [`Checker::judge`] once.
#[derive(Debug)]
pub struct Checker {
    settings: Settings,
    evidence: Evidence,
    ledger: Ledger,
}

impl Checker {
    /// Makes a checker that has seen nothing.
    pub fn new(settings: Settings) -> Checker {
        let evidence = Evidence {
            began_wall_us: settings.began_wall_us,
            clock_slack_us: settings.clock_slack_us,
            ..Evidence::default()
        };
        Checker { settings, evidence, ledger: Ledger::default() }
    }

    /// Takes in an observation.
    pub fn observe(&mut self, observation: Observation) {
        let Observation { at_us, seen } = observation;
        self.evidence.last_us = self.evidence.last_us.max(at_us);
        match seen {
            Seen::NodeStarted { node } => self.process(at_us, &node, true),
            Seen::NodeEnded { node } => self.process(at_us, &node, false),
            Seen::FaultBegan { fault } => {
                let nodes = fault.nodes.iter().map(|node| self.evidence.nodes.id(node)).collect();
                self.evidence.processes.handle_fault(at_us, &fault, nodes);
                self.evidence.convergence.interrupt();
            }
            Seen::FaultEnded { fault } => {
                if self.evidence.processes.handle_fault_end(at_us, fault) {
                    let lacking = self.evidence.lacking(at_us);
                    self.evidence.convergence.begin(at_us, lacking);
                }
            }
            Seen::Offered { publish, offer } => {
                let ids = (self.evidence.sources.id(&offer.source), self.evidence.nodes.id(&offer.node));
                self.evidence.publishes.handle_offer(at_us, publish, &offer, ids);
            }
            Seen::Answered { publish, answer } => self.answered(at_us, publish, &answer),
            // The publish stays unknown, which is what it is until it is answered.
            Seen::Unanswered { publish: _ } => {}
            Seen::Connected { subscriber, connection } => {
                let node = self.evidence.nodes.id(&connection.node);
                self.evidence.subscribers.handle_connected(at_us, subscriber, &connection, node);
            }
            Seen::SnapshotEnded { subscriber } => self.with(subscriber, |who| who.end_snapshot(at_us)),
            Seen::TokenTaken { subscriber } => self.with(subscriber, |who| who.take_token(at_us)),
            Seen::Disconnected { subscriber } => self.with(subscriber, |who| who.disconnect(at_us)),
            Seen::Delivered { subscriber, delivery } => self.delivered(at_us, subscriber, &delivery),
            Seen::Read { node, source, begun_us, found } => self.read(at_us, &node, &source, begun_us, found),
            Seen::Members { seen_by, begun_us, members } => {
                let nodes = &mut self.evidence.nodes;
                let list = members.into_iter().map(|member| (nodes.id(&member.node), member)).collect();
                self.evidence.views.handle_list((begun_us, at_us), nodes.id(&seen_by), list);
            }
            Seen::Wire { bytes } => self.evidence.costs.handle_wire(bytes),
            Seen::Waited { us } => self.evidence.waits.handle_waited(at_us, us),
            Seen::Memory { node, bytes } => {
                let node = self.evidence.nodes.id(&node);
                self.evidence.costs.handle_memory(at_us, node, bytes);
            }
            Seen::Final { node, place, records } => self.final_state(at_us, &node, place, records),
        }
    }

    /// Judges the run as a whole.
    pub fn judge(mut self) -> Report {
        self.evidence.publishes.attribute_deletions();
        finals::judge_refused(&self.evidence, &mut self.ledger);
        replicated::judge(&self.evidence, &mut self.ledger);
        ending::judge(&self.evidence, &mut self.ledger);
        ending::judge_convergence(&self.evidence, &mut self.ledger, self.settings.convergence_us_max);
        let false_suspicions = self.evidence.views.judge(&self.evidence, &mut self.ledger);
        self.judge_memory();
        report::report(&self.settings, &self.evidence, &self.ledger, false_suspicions)
    }

    /// Number of times that a promise was broken so far. Promises about the whole run are counted by
    /// [`Checker::judge`].
    pub fn broken(&self, promise: Promise) -> u64 {
        self.ledger.findings(promise).broken
    }

    fn with(&mut self, subscriber: u32, act: impl FnOnce(&mut subscribers::Subscriber)) {
        if let Some(who) = self.evidence.subscribers.get_mut(subscriber) {
            act(who);
        }
    }

    fn process(&mut self, at_us: u64, node: &Name, is_start: bool) {
        let node = self.evidence.nodes.id(node);
        self.evidence.processes.handle_process(at_us, node, is_start);
    }

    fn answered(&mut self, at_us: u64, publish: u64, answer: &Answer) {
        self.evidence.series.handle_answer(at_us);
        let Some(offered) = self.evidence.publishes.handle_answer(at_us, publish, answer) else { return };
        let (source, node) = (offered.source, offered.node);
        if let PublishState::Done(acked) = &offered.state
            && acked.winner.deleted
        {
            let version = acked.winner;
            self.evidence.handle_deletion(at_us, source, node, version);
        }
    }

    fn delivered(&mut self, at_us: u64, id: u32, delivery: &Delivery) {
        let source = self.evidence.sources.id(&delivery.source);
        let version = delivery.version;
        let Some(subscriber) = self.evidence.subscribers.get_mut(id) else { return };
        let (node, connected_us, mode) = (subscriber.node, subscriber.connected_us, subscriber.mode);
        let (verdict, is_twice) = subscriber.deliver(at_us, source, version);
        let is_wanted = subscriber.wants(&delivery.source);
        self.evidence.convergence.handle_delivery(at_us, id, source, version);
        let witness = |evidence: &Evidence, detail: String| {
            evidence.witness(at_us, source, version.ts, node, format!("subscriber {id} {detail}"))
        };
        if mode == Mode::All {
            let twice =
                is_twice.then(|| witness(&self.evidence, format!("gets {} twice", say(Some(version)))));
            self.ledger.check(Promise::AllOnce, twice);
        }
        let falls = match verdict {
            DeliveryVerdict::Falls(last) => {
                Some(format!("gets {} after {}", say(Some(version)), say(Some(last))))
            }
            DeliveryVerdict::Repeats if mode == Mode::Latest => {
                Some(format!("gets {} twice", say(Some(version))))
            }
            _ => None,
        };
        let falls = falls.map(|detail| witness(&self.evidence, detail));
        self.ledger.check(Promise::StampsRise, falls);
        if !is_wanted {
            let detail = "gets a source for which it did not ask".to_owned();
            self.ledger.check(Promise::OnlyAccepted, Some(witness(&self.evidence, detail)));
        }
        if let Some(returned) = self.evidence.returned((node, connected_us, at_us), source, version) {
            let returned = returned.map(|newest| {
                let detail =
                    format!("gets {} after the node answered {}", say(Some(version)), say(Some(newest)));
                witness(&self.evidence, detail)
            });
            self.ledger.check(Promise::NothingReturns, returned);
        }
        finals::judge_shown(&mut self.evidence, &mut self.ledger, (at_us, node), source, version);
        let offered = self.evidence.publishes.explain(source, version, (at_us, node));
        let live = offered.map(|offered| (offered.at_us, offered.node)).filter(|_| !delivery.is_snapshot);
        let processes = &self.evidence.processes;
        let is_healthy = live.is_some_and(|(_, by)| !processes.is_hit_now(by) && !processes.is_hit_now(node));
        let latency_us = live.map(|(offered_us, _)| at_us.saturating_sub(offered_us));
        self.evidence.series.handle_delivery(at_us, latency_us, is_healthy);
    }

    fn read(&mut self, at_us: u64, node: &Name, source: &Name, begun_us: u64, found: Option<Version>) {
        let (node, source) = (self.evidence.nodes.id(node), self.evidence.sources.id(source));
        self.evidence.reads.entry(source).or_default().push(ReadSeen { node, begun_us, found });
        let Some(found) = found else { return };
        if let Some(returned) = self.evidence.returned((node, begun_us, at_us), source, found) {
            let witness = returned.map(|newest| {
                let detail = format!("it has {} after it answered {}", say(Some(found)), say(Some(newest)));
                self.evidence.witness(at_us, source, found.ts, node, detail)
            });
            self.ledger.check(Promise::NothingReturns, witness);
        }
        finals::judge_shown(&mut self.evidence, &mut self.ledger, (at_us, node), source, found);
    }

    fn final_state(&mut self, at_us: u64, node: &Name, place: Place, records: Vec<(Name, Version)>) {
        let node = self.evidence.nodes.id(node);
        let sources = &mut self.evidence.sources;
        let records: HashMap<u32, Version> =
            records.iter().map(|(source, version)| (sources.id(source), *version)).collect();
        finals::judge(&mut self.evidence, &mut self.ledger, (at_us, node, place), &records);
        if place == Place::Map {
            self.evidence.maps.insert(node, FinalMap { at_us, records });
        }
    }

    fn judge_memory(&mut self) {
        let Some(most) = self.settings.memory_bytes_max else { return };
        for (node, memory) in self.evidence.costs.memory() {
            let witness = (memory.bytes_max > most).then(|| {
                let detail = format!("its process took {} bytes, and {most} are allowed", memory.bytes_max);
                self.evidence.witness(memory.at_us, u32::MAX, 0, node, detail)
            });
            self.ledger.check(Promise::MemoryBounded, witness);
        }
    }
}
