//! The options of a run, and the plan that they make once they are checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::access::AccessArgs;
use crate::engine::{SOURCES_MAX, WINDOW_MAX};
use crate::names::Names;
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Payloads, Sizes};
use crate::plan::{Format, Patterns, Plan, Target, Transport, separator};
use crate::replay::Recording;
use crate::schedule::Shape;
use crate::tls;
use crate::usage::wrong;
use crate::wire::{Ack, Common};

/// How the rate is spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShapeName {
    /// Equal gaps
    Constant,
    /// Exponential gaps: independent arrivals
    Poisson,
    /// --burst at once, then silence until the rate is met
    Burst,
    /// In a straight line from --ramp-from to --rate
    Ramp,
}

/// When a publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AckName {
    /// Never
    None,
    /// aNode: accepted; NATS: PONG to a PING; MQTT: PUBACK (QoS 1); Redis: its reply
    Accepted,
    /// aNode only
    Stored,
    /// aNode only
    Replicated,
}

/// What a subscriber gets that is too slow for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every record, or it is disconnected
    All,
    /// aNode only: the newest of each source
    Latest,
}

/// Options that describe a run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What is put under load
    #[arg(long, value_enum, default_value = "anode", help_heading = "Target")]
    pub target: Target,
    /// tcp or ws [default: ws for aNode, tcp for the others]
    #[arg(long, value_enum, help_heading = "Target")]
    pub transport: Option<Transport>,
    /// What is in aNode's frames
    #[arg(long, value_enum, default_value = "json", help_heading = "Target")]
    pub format: Format,
    /// host:port of the servers, several split by commas, with TLS wss://host:port; connections take turns [default: the
    /// target's port on 127.0.0.1]
    #[arg(long, value_delimiter = ',', help_heading = "Target")]
    pub to: Vec<String>,
    /// Servers that are published to, if not --to
    #[arg(long, value_delimiter = ',', help_heading = "Target")]
    pub publish_to: Vec<String>,
    /// Servers that are subscribed to, if not --to
    #[arg(long, value_delimiter = ',', help_heading = "Target")]
    pub subscribe_to: Vec<String>,
    #[command(flatten)]
    pub access: AccessArgs,
    /// Connections that publish
    #[arg(long, short, default_value_t = 1, help_heading = "Load")]
    pub publishers: u32,
    /// Connections that subscribe
    #[arg(long, short, default_value_t = 1, help_heading = "Load")]
    pub subscribers: u32,
    /// Sources; each has one publisher [default: as many as publishers]
    #[arg(long, help_heading = "Load")]
    pub sources: Option<u32>,
    /// Exponent of Zipf's law over each publisher's sources; 0: in turn
    #[arg(long, default_value_t = 0.0, help_heading = "Load")]
    pub skew: f64,
    /// Groups of sources: PREFIX/GROUP/NUMBER
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub groups: u32,
    /// What each subscriber asks for
    #[arg(long, value_enum, default_value = "all", help_heading = "Load")]
    pub patterns: Patterns,
    /// Further patterns of each subscriber, that no source matches
    #[arg(long, default_value_t = 0, help_heading = "Load")]
    pub unrelated: u32,
    /// Sources' first segments [default: loadgen/ and something new each time; `anode-loadgen clean` deletes those]
    #[arg(long, help_heading = "Load")]
    pub prefix: Option<String>,
    /// Messages a second of all publishers, or max: as fast as --window and --in-flight allow
    #[arg(long, short, default_value = "1000", help_heading = "Load")]
    pub rate: String,
    /// How the rate is spread over time
    #[arg(long, value_enum, default_value = "constant", help_heading = "Load")]
    pub shape: ShapeName,
    /// Messages of a burst
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    pub burst: u32,
    /// Rate at which a ramp begins
    #[arg(long, default_value_t = 0.0, help_heading = "Load")]
    pub ramp_from: f64,
    /// With --ack: most unanswered messages of a publisher
    #[arg(long, default_value_t = 2_048, help_heading = "Load")]
    pub window: usize,
    /// With --rate max and --mode all: most messages in all that are sent but not delivered to all
    #[arg(long, default_value_t = 2_048, help_heading = "Load")]
    pub in_flight: u64,
    /// Payload bytes: N, LOW..HIGH (evenly), or N@WEIGHT,N@WEIGHT,…
    #[arg(long, default_value = "128", help_heading = "Load")]
    pub size: String,
    /// When a publish is answered
    #[arg(long, value_enum, default_value = "none", help_heading = "Load")]
    pub ack: AckName,
    /// What subscribers get
    #[arg(long, value_enum, default_value = "all", help_heading = "Load")]
    pub mode: Mode,
    /// aNode: ask for the snapshot, too
    #[arg(long, help_heading = "Load")]
    pub snapshot: bool,
    /// aNode: most records of a published frame
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub publish_batch: usize,
    /// aNode: subscribe with batch=true
    #[arg(long, help_heading = "Load")]
    pub subscribe_batch: bool,
    /// Check every payload, order and newest value at every subscriber (16 bytes a subscriber and source)
    #[arg(long, help_heading = "Run")]
    pub verify: bool,
    /// Seconds at the beginning that do not count
    #[arg(long, default_value_t = 1.0, help_heading = "Run")]
    pub warmup: f64,
    /// Seconds that count
    #[arg(long, default_value_t = 10.0, help_heading = "Run")]
    pub seconds: f64,
    /// Stop after so many messages, even before that
    #[arg(long, help_heading = "Run")]
    pub records: Option<u64>,
    /// Seconds for which what is missing is waited for
    #[arg(long, default_value_t = 5.0, help_heading = "Run")]
    pub drain: f64,
    /// Of everything random: the same seed is the same load
    #[arg(long, default_value_t = 1, help_heading = "Run")]
    pub seed: u64,
    /// Threads of the generator [default: half of the cores, at most 4]
    #[arg(long, help_heading = "Run")]
    pub threads: Option<usize>,
    /// Cores that its threads are pinned to
    #[arg(long, value_delimiter = ',', help_heading = "Run")]
    pub cpu: Vec<usize>,
    /// Never sleep: no wake-up of a halted core is in the latencies
    #[arg(long, help_heading = "Run")]
    pub spin: bool,
    /// Addresses to connect from, in turn: each has some 28,000 ports
    #[arg(long, value_delimiter = ',', help_heading = "Run")]
    pub local_address: Vec<IpAddr>,
    /// Processes of the servers on this machine: their CPU time and memory are reported
    #[arg(long, value_delimiter = ',', help_heading = "Report")]
    pub server_pid: Vec<u32>,
    /// Write the report as JSON
    #[arg(long, help_heading = "Report")]
    pub report: Option<PathBuf>,
    /// Write the report as a self-contained page with plots
    #[arg(long, help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Print the report as JSON, in one line, last
    #[arg(long, help_heading = "Report")]
    pub json: bool,
    /// KEY=VALUE to be kept in the report, any number of times
    #[arg(long, value_parser = label, help_heading = "Report")]
    pub label: Vec<(String, String)>,
    /// Show nothing while running
    #[arg(long, short, help_heading = "Report")]
    pub quiet: bool,
}

/// The options by themselves, as a command that has nothing else.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    run: RunArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl RunArgs {
    /// Reads options as they stand on a command line; those that are absent get their defaults.
    pub fn parse(options: &[&str]) -> Result<RunArgs, clap::Error> {
        clap::Parser::try_parse_from(options).map(|Alone { run }| run)
    }

    /// Checks the options and makes a plan of them: for a recording, if there is one.
    pub fn plan(&self, recording: Option<Recording>) -> Result<Plan, String> {
        self.check()?;
        let transport = self.transport.unwrap_or(match self.target {
            Target::Anode => Transport::Ws,
            Target::Nats | Target::Mqtt | Target::Redis => Transport::Tcp,
        });
        if (self.target, transport) == (Target::Anode, Transport::Tcp)
            || (self.target, transport) == (Target::Redis, Transport::Ws)
        {
            return wrong("--transport", format!("{transport:?}").to_lowercase(), "what the target speaks");
        }
        let (to, seed) = (self.hosts(), self.seed);
        let sizes = self.sizes()?;
        let prefix = self.prefix.clone().unwrap_or_else(fresh_prefix);
        let separator = separator(self.target);
        let (sources, names, payloads) = match &recording {
            Some(recording) => {
                let names = Names::listed(separator, &prefix, &recording.names);
                let payloads = Payloads::recorded(recording.text.clone(), recording.spans.clone());
                (recording.names.len() as u32, names, payloads)
            }
            None => {
                let sources = self.sources.unwrap_or(self.publishers.max(1));
                let names = Names::numbered(separator, &prefix, sources, self.groups);
                (sources, names, Payloads::derived(seed, sizes.clone()))
            }
        };
        self.check_sources(sources)?;
        let (shape, rate_per_s) = self.rate()?;
        let whole = recording.as_ref().map(|recording| recording.whole_ns() + 1);
        let or_to = |own: &Vec<String>| if own.is_empty() { to.clone() } else { plain(own) };
        Ok(Plan {
            target: self.target,
            transport,
            format: self.format,
            publish_to: or_to(&self.publish_to),
            subscribe_to: or_to(&self.subscribe_to),
            tls: self.access.tls([&self.to, &self.publish_to, &self.subscribe_to].into_iter().flatten())?,
            publishers: if recording.is_some() { self.publishers.min(sources) } else { self.publishers },
            subscribers: self.subscribers,
            sources,
            skew: self.skew,
            patterns: self.patterns,
            groups: self.groups,
            unrelated: self.unrelated,
            rate_per_s,
            shape,
            window: self.window,
            in_flight: self.in_flight,
            common: self.common(names)?,
            payloads,
            sizes,
            verify: self.verify,
            seed,
            warmup_ns: if whole.is_some() { 0 } else { nanoseconds(self.warmup) },
            duration_ns: whole.unwrap_or_else(|| nanoseconds(self.seconds)),
            recording: recording.map(Arc::new),
            drain_ns: nanoseconds(self.drain),
            records_max: self.records,
            threads: self.threads.unwrap_or_else(default_threads),
            cpus: self.cpu.clone(),
            spin: self.spin,
            local_addresses: self.local_address.clone(),
            server_pids: self.server_pid.clone(),
        })
    }

    fn common(&self, names: Names) -> Result<Common, String> {
        Ok(Common {
            names,
            ack: match self.ack {
                AckName::None => Ack::None,
                AckName::Accepted => Ack::Accepted,
                AckName::Stored => Ack::Stored,
                AckName::Replicated => Ack::Replicated,
            },
            is_latest: self.mode == Mode::Latest,
            snapshot: self.snapshot,
            publish_batch: self.publish_batch,
            subscribe_batch: self.subscribe_batch,
            token: self.access.token()?,
        })
    }

    fn check(&self) -> Result<(), String> {
        let is_anode = self.target == Target::Anode;
        if self.publishers == 0 && self.subscribers == 0 {
            return wrong("--publishers", 0, "at least 1 without --subscribers");
        }
        if self.groups == 0 {
            return wrong("--groups", 0, "at least 1");
        }
        if !(self.skew >= 0.0 && self.skew <= 10.0) {
            return wrong("--skew", self.skew, "from 0 to 10");
        }
        if self.window == 0 || self.window > WINDOW_MAX {
            return wrong("--window", self.window, &format!("from 1 to {WINDOW_MAX}"));
        }
        if self.in_flight == 0 {
            return wrong("--in-flight", 0, "at least 1");
        }
        if self.threads == Some(0) {
            return wrong("--threads", 0, "at least 1");
        }
        if self.publish_batch == 0 {
            return wrong("--publish-batch", 0, "at least 1");
        }
        for (option, seconds) in
            [("--warmup", self.warmup), ("--seconds", self.seconds), ("--drain", self.drain)]
        {
            if !(0.0..=1e7).contains(&seconds) {
                return wrong(option, seconds, "seconds");
            }
        }
        if !is_anode {
            let only = [
                ("--mode latest", self.mode == Mode::Latest),
                ("--format protobuf", self.format == Format::Protobuf),
                ("--ack", matches!(self.ack, AckName::Stored | AckName::Replicated)),
                ("--publish-batch", self.publish_batch > 1),
                ("--subscribe-batch", self.subscribe_batch),
                ("--snapshot", self.snapshot),
            ];
            if let Some((option, _)) = only.iter().find(|(_, is_set)| *is_set) {
                return Err(format!("{option}, as it is given, is for --target anode only"));
            }
        }
        Ok(())
    }

    fn check_sources(&self, sources: u32) -> Result<(), String> {
        if self.publishers > sources && self.publishers > 0 && self.sources.is_some() {
            return wrong("--sources", sources, "at least as many as --publishers: each has one publisher");
        }
        if sources == 0 || sources as usize > SOURCES_MAX {
            return wrong("--sources", sources, &format!("from 1 to {SOURCES_MAX}"));
        }
        let pairs = u64::from(self.subscribers) * u64::from(sources);
        if self.verify && self.patterns != Patterns::Each && pairs > PAIRS_MAX {
            return Err(format!("--verify with {pairs} pairs of subscriber and source: at most {PAIRS_MAX}"));
        }
        Ok(())
    }

    fn hosts(&self) -> Vec<String> {
        if !self.to.is_empty() {
            return plain(&self.to);
        }
        let port = match self.target {
            Target::Anode => 7070,
            Target::Nats => 4222,
            Target::Mqtt => 1883,
            Target::Redis => 6379,
        };
        vec![format!("127.0.0.1:{port}")]
    }

    fn rate(&self) -> Result<(Shape, f64), String> {
        if self.rate == "max" {
            return Ok((Shape::Saturate, 0.0));
        }
        let rate = self.rate.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 1e9);
        let Some(rate) = rate else {
            return wrong("--rate", &self.rate, "max or messages a second, up to 1,000,000,000");
        };
        if !(self.ramp_from >= 0.0 && self.ramp_from <= 1e9) {
            return wrong("--ramp-from", self.ramp_from, "messages a second");
        }
        let shape = match self.shape {
            ShapeName::Constant => Shape::Constant,
            ShapeName::Poisson => Shape::Poisson,
            ShapeName::Burst => Shape::Burst(self.burst.max(1)),
            ShapeName::Ramp => Shape::Ramp(self.ramp_from),
        };
        Ok((shape, rate))
    }

    fn sizes(&self) -> Result<Sizes, String> {
        let allowed = format!(
            "N, LOW..HIGH or N@WEIGHT,N@WEIGHT,… with {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes"
        );
        let bytes = |text: &str| {
            let bytes = text.trim().parse::<usize>().ok();
            bytes.filter(|bytes| (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(bytes))
        };
        let text = self.size.as_str();
        let sizes = if let Some((low, high)) = text.split_once("..") {
            bytes(low).zip(bytes(high)).filter(|(low, high)| low <= high).map(|(l, h)| Sizes::Uniform(l, h))
        } else if text.contains('@') {
            let choice = |part: &str| {
                let (size, weight) = part.split_once('@')?;
                let weight = weight.trim().parse::<f64>().ok().filter(|weight| *weight > 0.0)?;
                Some((bytes(size)?, weight))
            };
            text.split(',').map(choice).collect::<Option<Vec<_>>>().map(Sizes::Choice)
        } else {
            bytes(text).map(Sizes::Fixed)
        };
        match sizes {
            Some(sizes) => Ok(sizes),
            None => wrong("--size", text, &allowed),
        }
    }

    /// Returns all parameters by name, for the report; defaults are those that the plan has.
    pub fn parameters(&self, plan: &Plan) -> BTreeMap<String, String> {
        let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let mut all = BTreeMap::new();
        let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
        set("target", lower(&plan.target));
        set("transport", lower(&plan.transport));
        set("format", lower(&plan.format));
        set("publish_to", plan.publish_to.join(","));
        set("subscribe_to", plan.subscribe_to.join(","));
        set("publishers", plan.publishers.to_string());
        set("subscribers", plan.subscribers.to_string());
        set("sources", plan.sources.to_string());
        set("skew", plan.skew.to_string());
        set("groups", plan.groups.to_string());
        set("patterns", lower(&plan.patterns));
        set("unrelated", plan.unrelated.to_string());
        set("rate", self.rate.clone());
        set("shape", lower(&plan.shape));
        set("window", plan.window.to_string());
        set("in_flight", plan.in_flight.to_string());
        set("size", self.size.clone());
        set("ack", plan.common.ack.name().to_owned());
        set("mode", lower(&self.mode));
        set("snapshot", plan.common.snapshot.to_string());
        set("publish_batch", plan.common.publish_batch.to_string());
        set("subscribe_batch", plan.common.subscribe_batch.to_string());
        set("verify", plan.verify.to_string());
        set("warmup_s", self.warmup.to_string());
        set("seconds", self.seconds.to_string());
        set("records", self.records.map_or("unbounded".to_owned(), |records| records.to_string()));
        set("seed", plan.seed.to_string());
        set("threads", plan.threads.to_string());
        set("cpu", lower(&plan.cpus));
        set("spin", plan.spin.to_string());
        all
    }
}

/// Removes the scheme that addresses may have.
fn plain(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| tls::plain(address).to_owned()).collect()
}

/// Most pairs of a subscriber and a source whose sequences are followed. So many pairs take 3 GiB.
const PAIRS_MAX: u64 = 200_000_000;

fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    (cores / 2).clamp(1, 4)
}

/// First segment of the names of all sources that runs make, unless they are told another one.
pub const PREFIX: &str = "loadgen";

/// Makes a prefix that no other run has, so that records of earlier runs are not in the way.
fn fresh_prefix() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let random = crate::random::mix(now.as_nanos() as u64 ^ u64::from(std::process::id()));
    format!("{PREFIX}/{:05x}", random & 0xf_ffff)
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
