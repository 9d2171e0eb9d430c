//! What a node is started with: checked once, at the edge, into types that cannot be wrong.
//!
//! Three layers say the same things under the same names, and the nearer one wins: flags beat the
//! environment (`ANODE_HTTP` for `--http`) beats the file of `--config` (TOML, `http = "…"`).
//! [`raw`] holds them as text; [`check`] turns the text into a [`Config`] or says which flag is
//! wrong, what its value was, and what is allowed. After that nobody looks at text again.
//!
//! Rejected: typed fields in clap. Its messages do not reach the file's values, and the same value
//! would be judged by two parsers.

pub mod cassandra;
pub mod raw;
mod values;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

pub use raw::Raw;

use crate::limits::RECORD_BYTES_CEILING;
use crate::record::NodeName;

/// A value that cannot be used: which, what it was, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} cannot be used; allowed: {allowed}")]
pub struct ConfigError {
    /// The flag, as it is written on the command line.
    pub field: String,
    /// What it was given.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl ConfigError {
    /// An error about the flag of this name (without its dashes).
    pub fn new(flag: &str, value: impl Into<String>, allowed: impl Into<String>) -> ConfigError {
        ConfigError { field: format!("--{flag}"), value: value.into(), allowed: allowed.into() }
    }
}

/// A host, by address or by name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port; 0 in [`Config::advertise`] means the port that gossip is bound to.
    pub port: u16,
}

impl HostPort {
    /// The address, if the host is one and need not be resolved.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// As it is written: IPv6 in brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where records live between two starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// In one file in the data directory.
    #[default]
    Embedded,
    /// Nowhere: a restarted node gets them from its peers.
    Memory,
    /// In Apache Cassandra ([`Config::cassandra`]); the data directory keeps what waits for it.
    Cassandra,
}

/// Intervals of the membership protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One data centre. A dead node is known after about two seconds.
    #[default]
    Lan,
    /// Between regions: longer timeouts, fewer false suspicions.
    Wan,
    /// Loopback and tests.
    Local,
}

/// How the log is written, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// From which severity on the log speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Never.
    Off,
    /// What needs someone.
    Error,
    /// What may need someone.
    Warn,
    /// Starts, stops, members.
    #[default]
    Info,
    /// Connections and decisions.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Its name, which tracing understands as a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where HTTP and WebSocket clients are served; port 0: any free one.
    pub http: SocketAddr,
    /// Where UDP and TCP of the cluster are; port 0: one that is free for both.
    pub gossip: SocketAddr,
    /// What others are told instead of `gossip`. Given whenever `gossip` is unspecified and `join`
    /// is empty.
    pub advertise: Option<HostPort>,
    /// Members to join through; none: this node waits for others.
    pub join: Vec<HostPort>,
    /// Datagrams of other clusters are ignored.
    pub cluster_name: String,
    /// `None`: the name kept in the data directory, or a new one.
    pub node_name: Option<NodeName>,
    /// Where links are short; empty: none named.
    pub zone: String,
    /// Where the node keeps its name, its boot number and the embedded store.
    pub data_dir: PathBuf,
    /// Which store.
    pub store: StoreKind,
    /// How Cassandra is reached; given with [`StoreKind::Cassandra`] and never without.
    pub cassandra: Option<cassandra::Cassandra>,
    /// Records kept per source.
    pub history: NonZeroU32,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
    /// Event loops.
    pub workers: NonZeroUsize,
    /// For how long an event loop that is often called looks for more before it sleeps, in microseconds.
    pub busy_poll_us: u64,
    /// Largest data of one record, in bytes.
    pub max_record_bytes: usize,
    /// Largest frame, or body of a publish over HTTP, from a client, in bytes.
    pub max_frame_bytes: usize,
    /// Connections served at a time.
    pub max_connections: usize,
    /// Bound of the map, in bytes: beyond it new sources are refused where they enter.
    pub max_memory_bytes: usize,
    /// Intervals of the membership protocol.
    pub profile: Profile,
    /// How the log is written.
    pub log: LogFormat,
    /// From which severity on.
    pub log_level: LogLevel,
}

/// What this machine is like, read at the edge and used for defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors this process may use.
    pub cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// Turns text into a configuration. Missing values get their defaults; `machine` gives those that
/// depend on it.
pub fn check(raw: &Raw, machine: Machine) -> Result<Config, ConfigError> {
    let text = |value: &Option<raw::Text>, default: &str| match value {
        Some(raw::Text(text)) => text.clone(),
        None => default.to_owned(),
    };
    let store = values::choice("store", &text(&raw.store, "embedded"), &STORES)?;
    let gossip = values::address("gossip", &text(&raw.gossip, "127.0.0.1:7946"))?;
    let advertise = raw.advertise.as_ref().map(|given| values::advertise(&given.0)).transpose()?;
    let join = values::hosts("join", &text(&raw.join, ""))?;
    if gossip.ip().is_unspecified() && advertise.is_none() && join.is_empty() {
        let allowed = format!(
            "an address that others can reach, since --gossip {gossip} is unspecified and there is no --join \
             to find one by"
        );
        return Err(ConfigError::new("advertise", "", allowed));
    }
    let half_bytes = (machine.memory_bytes / 2).max(64 << 20);
    Ok(Config {
        http: values::address("http", &text(&raw.http, "127.0.0.1:7070"))?,
        gossip,
        advertise,
        join,
        cluster_name: values::name("cluster-name", &text(&raw.cluster_name, "anode"), 1)?,
        node_name: raw.node_name.as_ref().map(|given| values::node_name(&given.0)).transpose()?,
        zone: values::name("zone", &text(&raw.zone, ""), 0)?,
        data_dir: values::directory("data-dir", &text(&raw.data_dir, "./anode-data"))?,
        store,
        cassandra: cassandra::check(raw, store)?,
        history: values::history(&text(&raw.history, "256"))?,
        tombstones_us: values::duration_us("tombstones", &text(&raw.tombstones, "24h"), TOMBSTONES_US)?,
        workers: values::workers(&text(&raw.workers, &machine.cores.clamp(1, WORKERS_MAX).to_string()))?,
        busy_poll_us: values::count("busy-poll-us", &text(&raw.busy_poll_us, "0"), 0..=BUSY_POLL_US_MAX)?
            as u64,
        max_record_bytes: values::size(
            "max-record-bytes",
            &text(&raw.max_record_bytes, "65536"),
            1..=RECORD_BYTES_CEILING,
        )?,
        max_frame_bytes: values::size(
            "max-frame-bytes",
            &text(&raw.max_frame_bytes, "1048576"),
            1024..=FRAME_BYTES_CEILING,
        )?,
        max_connections: values::count(
            "max-connections",
            &text(&raw.max_connections, "100000"),
            1..=CONNECTIONS_CEILING,
        )?,
        max_memory_bytes: values::size(
            "max-memory",
            &text(&raw.max_memory, &half_bytes.to_string()),
            1024..=usize::MAX >> 8,
        )?,
        profile: values::choice("profile", &text(&raw.profile, "lan"), &PROFILES)?,
        log: values::choice("log", &text(&raw.log, "text"), &LOGS)?,
        log_level: values::choice("log-level", &text(&raw.log_level, "info"), &LEVELS)?,
    })
}

/// Most event loops: one a core of the largest machines.
pub const WORKERS_MAX: usize = 256;
/// Longest `--busy-poll-us`: a millisecond more or less is nothing to be gained.
const BUSY_POLL_US_MAX: usize = 1_000;
/// Largest `--max-frame-bytes`: one client must not make a node hold more.
pub const FRAME_BYTES_CEILING: usize = 64 << 20;
/// Largest `--max-connections`.
pub const CONNECTIONS_CEILING: usize = 10_000_000;
/// From a second (tests of collection) to ten years, in microseconds.
const TOMBSTONES_US: std::ops::RangeInclusive<u64> = 1_000_000..=10 * 365 * 24 * 3_600_000_000;

const STORES: [(&str, StoreKind); 3] =
    [("embedded", StoreKind::Embedded), ("memory", StoreKind::Memory), ("cassandra", StoreKind::Cassandra)];
const PROFILES: [(&str, Profile); 3] =
    [("lan", Profile::Lan), ("wan", Profile::Wan), ("local", Profile::Local)];
const LOGS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

#[cfg(test)]
mod tests;
