//! The plan of a run: checked parameters, and what follows from them for each connection. Pure.

use std::sync::Arc;

use crate::names::{Names, Pattern, Separator};
use crate::payload::{Payloads, Sizes};
use crate::random::Random;
use crate::replay::Recording;
use crate::schedule::{Schedule, Shape};
use crate::tls::TlsSettings;
use crate::wire::anode_json::AnodeJson;
use crate::wire::anode_proto::AnodeProto;
use crate::wire::mqtt::Mqtt;
use crate::wire::nats::Nats;
use crate::wire::redis::Redis;
use crate::wire::tunnel::Tunnel;
use crate::wire::{Common, Role, Wire};
use crate::zipf::Zipf;

/// The server that is put under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// aNode
    Anode,
    /// nats-server
    Nats,
    /// any MQTT 3.1.1 broker
    Mqtt,
    /// Redis pub/sub
    Redis,
}

/// The transport under the protocol of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Plain TCP
    Tcp,
    /// WebSocket
    Ws,
}

/// The encoding of the messages in aNode's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text frames of JSON
    Json,
    /// Binary frames of protobuf
    Protobuf,
}

/// The choice of the sources that a subscriber subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Patterns {
    /// Every subscriber gets every source (with one source: asks for it by name)
    All,
    /// Subscriber i gets the sources of group i modulo --groups
    Group,
    /// Subscriber i gets source i modulo --sources, by name
    Each,
}

/// The parameters of a run. They are made by `args`, which checks them.
#[derive(Clone)]
pub struct Plan {
    /// The kind of server that is put under load.
    pub target: Target,
    /// The transport under the target's protocol: plain TCP or WebSocket.
    pub transport: Transport,
    /// The format of aNode's frames.
    pub format: Format,
    /// `host:port` of each server that is published to; publishers take turns.
    pub publish_to: Vec<String>,
    /// `host:port` of each server that is subscribed to; subscribers take turns.
    pub subscribe_to: Vec<String>,
    /// The settings of TLS; `None` if connections are plain.
    pub tls: Option<TlsSettings>,
    /// Number of connections that publish.
    pub publishers: u32,
    /// Number of connections that subscribe.
    pub subscribers: u32,
    /// Number of sources, at least one for each publisher; each has one publisher.
    pub sources: u32,
    /// Exponent of Zipf's law over the sources of a publisher; 0: they are published to in turn.
    pub skew: f64,
    /// The sources that subscribers subscribe to.
    pub patterns: Patterns,
    /// Number of groups of sources.
    pub groups: u32,
    /// Number of further patterns of each subscriber, which match nothing.
    pub unrelated: u32,
    /// Number of messages per second, all publishers together.
    pub rate_per_s: f64,
    /// The distribution of the rate over time.
    pub shape: Shape,
    /// Most unanswered messages of a publisher.
    pub window: usize,
    /// At saturation: most messages in all that are sent but not delivered to all.
    pub in_flight: u64,
    /// The settings that all connections have in common.
    pub common: Common,
    /// The payloads of all messages.
    pub payloads: Payloads,
    /// The lengths of payloads, for the report.
    pub sizes: Sizes,
    /// The records that are replayed, if they are not made up.
    pub recording: Option<Arc<Recording>>,
    /// Whether every payload and the order of every source are checked at every subscriber.
    pub verify: bool,
    /// The seed of everything that is random.
    pub seed: u64,
    /// Length of the warm-up, which is not counted, in nanoseconds.
    pub warmup_ns: u64,
    /// Length of the time that is counted, in nanoseconds.
    pub duration_ns: u64,
    /// How long missing deliveries are waited for after the last message, in nanoseconds.
    pub drain_ns: u64,
    /// Number of messages after which the run stops, if there is a limit.
    pub records_max: Option<u64>,
    /// Number of threads of the generator.
    pub threads: usize,
    /// Cores to which the threads are pinned, in turn; empty: they are not pinned.
    pub cpus: Vec<usize>,
    /// Whether threads never sleep.
    pub spin: bool,
    /// Local addresses of the connections, in turn; empty: the system chooses.
    pub local_addresses: Vec<std::net::IpAddr>,
    /// Process ids of the servers, of which CPU time and memory are reported.
    pub server_pids: Vec<u32>,
}

/// Returns the separator in names of a target.
pub fn separator(target: Target) -> Separator {
    match target {
        Target::Nats => Separator::Dot,
        Target::Anode | Target::Mqtt | Target::Redis => Separator::Slash,
    }
}

impl Plan {
    /// Returns the pattern of subscriber `index` that sources of the run match.
    pub fn pattern(&self, index: u32) -> Pattern {
        match self.patterns {
            Patterns::All if self.sources == 1 => Pattern::One(0),
            Patterns::All => Pattern::All,
            Patterns::Group => Pattern::Group(index % self.groups),
            Patterns::Each => Pattern::One(index % self.sources),
        }
    }

    /// Returns all patterns of subscriber `index`.
    pub fn role(&self, index: u32) -> Role {
        let unrelated = (0..self.unrelated).map(|n| Pattern::Unrelated(index * self.unrelated + n));
        Role::Subscriber(std::iter::once(self.pattern(index)).chain(unrelated).collect())
    }

    /// Returns the number of subscribers that a message of a source goes to.
    pub fn fan_out(&self, source: u32) -> u32 {
        let share = |of: u32, index: u32| self.subscribers / of + u32::from(index < self.subscribers % of);
        match self.patterns {
            Patterns::All => self.subscribers,
            Patterns::Group => share(self.groups, self.names().group(source)),
            Patterns::Each => share(self.sources, source),
        }
    }

    /// Returns the names of the sources.
    pub fn names(&self) -> &Names {
        &self.common.names
    }

    /// Makes the protocol of a connection. `number` is unique in the run.
    pub fn wire(&self, role: Role, host: &str, number: u64) -> Box<dyn Wire> {
        let random = Random::new(self.seed, number ^ 0x7769_7265);
        let common = self.common.clone();
        let is_ws = self.transport == Transport::Ws;
        match self.target {
            Target::Anode if self.format == Format::Json => {
                Box::new(AnodeJson::new(common, role, host, random))
            }
            Target::Anode => Box::new(AnodeProto::new(common, role, host, random)),
            Target::Nats if is_ws => Box::new(Tunnel::new(Nats::new(common, role), host, "/", None, random)),
            Target::Nats => Box::new(Nats::new(common, role)),
            Target::Mqtt => {
                let inner = Mqtt::new(common, role, format!("lg-{}-{number}", std::process::id()));
                if is_ws {
                    Box::new(Tunnel::new(inner, host, "/mqtt", Some("mqtt"), random))
                } else {
                    Box::new(inner)
                }
            }
            Target::Redis => Box::new(Redis::new(common, role)),
        }
    }

    /// Returns whether publishers send as fast as the target takes messages.
    pub fn is_saturating(&self) -> bool {
        self.shape == Shape::Saturate && self.recording.is_none()
    }

    /// Returns how many messages a publisher may send in one turn: at saturation its share of those in flight,
    /// so that all publishers send and not only the first.
    pub fn share(&self) -> u64 {
        if !self.is_saturating() {
            return u64::MAX;
        }
        (self.in_flight / u64::from(self.publishers.max(1))).max(1)
    }

    /// Returns the mean number of messages per second that the schedule asks for while the run counts.
    pub fn mean_rate_per_s(&self) -> f64 {
        match self.shape {
            Shape::Ramp(from_per_s) => {
                let middle = 1.0 - self.duration_ns as f64 / 2.0 / self.whole_ns().max(1) as f64;
                from_per_s + (self.rate_per_s - from_per_s) * middle
            }
            _ => self.rate_per_s,
        }
    }

    /// Returns the time from the first message to the last, in nanoseconds.
    pub fn whole_ns(&self) -> u64 {
        self.warmup_ns.saturating_add(self.duration_ns)
    }

    /// Returns the messages of publisher `index`, each with the time at which it is due.
    pub fn feed(&self, index: u32) -> Feed {
        let publishers = self.publishers;
        if let Some(recording) = &self.recording {
            let entries = recording.entries.iter().filter(|(_, source)| source % publishers == index);
            return Feed::Recorded(entries.copied().collect::<Vec<_>>().into_iter());
        }
        let sources = self.sources / publishers + u32::from(index < self.sources % publishers);
        let random = Random::new(self.seed, u64::from(index));
        let whole = self.whole_ns();
        let place = (u64::from(index), u64::from(publishers));
        let schedule = {
            let random = Random::new(!self.seed, u64::from(index));
            Schedule::new(self.shape, self.rate_per_s, place, whole, random)
        };
        let zipf = (self.skew > 0.0).then(|| Zipf::new(u64::from(sources), self.skew));
        let records = self.records_max.map(|max| {
            max / u64::from(publishers) + u64::from(u64::from(index) < max % u64::from(publishers))
        });
        Feed::Made(Box::new(Made {
            schedule,
            zipf,
            random,
            sources,
            at: 0,
            index,
            publishers,
            left: records.unwrap_or(u64::MAX),
            whole_ns: whole,
        }))
    }
}

/// The messages of one publisher: for each, when it is due (nanoseconds from the start) and the source.
pub enum Feed {
    /// Messages are made up as the run proceeds.
    Made(Box<Made>),
    /// Messages come from a recording.
    Recorded(std::vec::IntoIter<(u64, u32)>),
}

/// The state of a feed whose messages are made up.
pub struct Made {
    schedule: Schedule,
    zipf: Option<Zipf>,
    random: Random,
    /// Number of sources of this publisher. They are index, index + publishers, …
    sources: u32,
    at: u32,
    index: u32,
    publishers: u32,
    left: u64,
    whole_ns: u64,
}

impl Iterator for Feed {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        match self {
            Feed::Made(made) => made.next(),
            Feed::Recorded(entries) => entries.next(),
        }
    }
}

impl Iterator for Made {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let due_ns = self.schedule.next_ns();
        if self.left == 0 || due_ns >= self.whole_ns {
            return None;
        }
        self.left -= 1;
        let own = match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.random) as u32,
            None => {
                let own = self.at;
                self.at = if own + 1 >= self.sources { 0 } else { own + 1 };
                own
            }
        };
        Some((due_ns, self.index + own * self.publishers))
    }
}

/// Number of messages that match each kind of pattern, once all are published.
pub struct Published {
    /// Number of messages of each source.
    pub of: Vec<u32>,
    all: u64,
    groups: Vec<u64>,
}

impl Published {
    /// Sums up how many messages were published of each source.
    pub fn new(of: Vec<u32>, plan: &Plan) -> Published {
        let mut groups = vec![0; plan.groups as usize];
        for (source, count) in of.iter().enumerate() {
            if let Some(group) = groups.get_mut(plan.names().group(source as u32) as usize) {
                *group += u64::from(*count);
            }
        }
        Published { all: of.iter().map(|count| u64::from(*count)).sum(), of, groups }
    }

    /// Returns how many messages match a pattern.
    pub fn matching(&self, pattern: Pattern) -> u64 {
        match pattern {
            Pattern::All => self.all,
            Pattern::Group(group) => self.groups.get(group as usize).copied().unwrap_or_default(),
            Pattern::One(source) => self.of.get(source as usize).copied().unwrap_or_default().into(),
            Pattern::Unrelated(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::RunArgs;
    use proptest::prelude::*;

    fn plan(options: &[String]) -> Plan {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        RunArgs::parse(&options).expect("options").plan(None).expect("a plan")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The number of deliveries that publishers count as due is the number that subscribers wait for,
        /// whatever each subscribes to.
        #[test]
        fn fan_out_and_expectations_agree(
            publishers in 1u32..6, subscribers in 0u32..20, more in 0u32..30, groups in 1u32..6,
            records in 0u64..500, patterns in 0usize..3, skewed: bool,
        ) {
            let sources = publishers + more;
            let plan = plan(&[
                format!("--publishers={publishers}"),
                format!("--subscribers={subscribers}"),
                format!("--sources={sources}"),
                format!("--groups={groups}"),
                format!("--records={records}"),
                format!("--patterns={}", ["all", "group", "each"][patterns]),
                format!("--skew={}", if skewed { 1.1 } else { 0.0 }),
            ]);
            let mut of = vec![0; sources as usize];
            let mut sent = 0;
            for index in 0..publishers {
                for (_, source) in plan.feed(index) {
                    prop_assert_eq!(source % publishers, index, "each source has one publisher");
                    of[source as usize] += 1;
                    sent += u64::from(plan.fan_out(source));
                }
            }
            prop_assert_eq!(of.iter().map(|count| u64::from(*count)).sum::<u64>(), records);
            let published = Published::new(of, &plan);
            let awaited: u64 = (0..subscribers).map(|index| published.matching(plan.pattern(index))).sum();
            prop_assert_eq!(sent, awaited);
        }
    }

    #[test]
    fn the_same_seed_is_the_same_load() {
        let load = |seed: u32| {
            let options =
                ["--shape=poisson", "--skew=1.1", "--sources=90", "--records=300"].map(str::to_owned);
            let plan = plan(&[&options[..], &[format!("--seed={seed}")]].concat());
            plan.feed(0).collect::<Vec<_>>()
        };
        assert_eq!(load(1), load(1));
        assert_ne!(load(1), load(2));
    }

    #[test]
    fn a_ramps_mean_is_of_what_counts() {
        let plan = plan(&["--shape=ramp", "--ramp-from=0", "--rate=1000", "--warmup=0"].map(str::to_owned));
        assert!((plan.mean_rate_per_s() - 500.0).abs() < 1e-6);
    }
}
