//! The configuration that a node is started with. It is checked once, at the edge of the program, and becomes
//! types that cannot hold invalid values.
//!
//! Flags, environment variables and a configuration file set the same values under the same names. A flag
//! (`--http`) overrides the environment (`ANODE_HTTP`), which overrides the file given with `--config` (TOML,
//! `http = "…"`). [`raw`] holds the values as text. [`check`] turns the text into a [`Config`], or tells
//! which flag is wrong, what its value was, and what is allowed. Afterwards nobody looks at the text again.
//!
//! Rejected: typed fields in clap. Its error messages would not cover values from the file, and two parsers
//! would judge the same value.

pub mod access;
pub mod cassandra;
pub mod cluster_key;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod raw;
mod suggest;
pub mod trace;
mod values;
pub mod watched;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

pub use raw::Raw;
pub use suggest::nearest;

use crate::record::NodeName;

/// The error of a value that cannot be used: names the flag, its value, what is allowed, and where the value stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{field}: {value:?} cannot be used; allowed: {allowed}", place.as_ref().map_or(String::new(), |at| format!("{at}: ")))]
pub struct ConfigError {
    /// Where the value stands, if it is not on the command line: a file with line and column, or a variable.
    pub place: Option<String>,
    /// The flag as it is written on the command line, with its dashes.
    pub field: String,
    /// The value that the flag was given.
    pub value: String,
    /// A description of the allowed values.
    pub allowed: String,
}

impl ConfigError {
    /// Makes an error about the flag with this name (without its dashes).
    pub fn new(flag: &str, value: impl Into<String>, allowed: impl Into<String>) -> ConfigError {
        let (field, value, allowed) = (format!("--{flag}"), value.into(), allowed.into());
        ConfigError { place: None, field, value, allowed }
    }

    /// The same error about a value that stands at `place`.
    pub fn at(self, place: Option<String>) -> ConfigError {
        ConfigError { place: place.or(self.place), ..self }
    }
}

/// A host, given by address or by name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The port. In [`Config::advertise`], 0 means the port that gossip is bound to, and in [`Config::advertise_http`]
    /// that for clients.
    pub port: u16,
}

impl HostPort {
    /// Returns the socket address if the host is an IP address; `None` if it is a name that must be resolved.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// Writes `HOST:PORT`, with an IPv6 address in brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The kind of store, in which records survive a restart of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// One file in the data directory.
    #[default]
    Embedded,
    /// No store: after a restart, the node gets the records from its peers.
    Memory,
    /// Apache Cassandra ([`Config::cassandra`]); the data directory keeps the records that wait for it.
    Cassandra,
}

/// The intervals and timeouts of the membership protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// For nodes in one data centre: a dead node is detected after about two seconds.
    #[default]
    Lan,
    /// For clusters across regions: longer timeouts and fewer false suspicions.
    Wan,
    /// For nodes on one machine, and for tests.
    Local,
}

/// The form of the log, which is written to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for each event, for people.
    #[default]
    Text,
    /// One JSON object on a line for each event, for programs.
    Json,
}

/// The least severity of events that are written to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing is written to the log.
    Off,
    /// Events that need an operator.
    Error,
    /// Events that may need an operator.
    Warn,
    /// Also starts, stops and changes of members.
    #[default]
    Info,
    /// Also connections and decisions.
    Debug,
    /// All events there are.
    Trace,
}

impl LogLevel {
    /// Returns the name of the level, which the tracing library accepts as a filter.
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

/// The files that make a node speak TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM of the node's certificate, and of its issuers behind it.
    pub cert: PathBuf,
    /// PEM of the private key of the certificate.
    pub key: PathBuf,
    /// PEM of the authorities of which one must have signed the certificate of every client; `None` if clients need
    /// none.
    pub client_ca: Option<PathBuf>,
}

/// A valid configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address on which HTTP and WebSocket clients are served; port 0 means any free port.
    pub http: SocketAddr,
    /// How TLS is spoken on that address; `None` if it is not.
    pub tls: Option<TlsFiles>,
    /// Address on which the health paths and the metrics are served too, and nothing else; `None` if there is none.
    pub metrics: Option<SocketAddr>,
    /// Address of UDP and TCP between nodes; port 0 means any port that is free for both.
    pub gossip: SocketAddr,
    /// Address that other nodes are told instead of `gossip`. It is always set if `gossip` is unspecified
    /// (`0.0.0.0`, `[::]`) and `join` is empty.
    pub advertise: Option<HostPort>,
    /// Address that clients are told instead of `http`.
    pub advertise_http: Option<HostPort>,
    /// Members through which the node joins the cluster; if empty, the node waits for others to join it.
    pub join: Vec<HostPort>,
    /// Name of the cluster. Datagrams of other clusters are ignored.
    pub cluster_name: String,
    /// The keys that seal what nodes send each other; `None`: messages are sent and taken without a seal.
    pub cluster_key: Option<cluster_key::ClusterKeys>,
    /// Name of the node; `None` means the name kept in the data directory, or a new one.
    pub node_name: Option<NodeName>,
    /// Name of the zone, within which links are fast; empty if zones are not used.
    pub zone: String,
    /// Directory in which the node keeps its name, its boot number and the embedded store.
    pub data_dir: PathBuf,
    /// The store to use.
    pub store: StoreKind,
    /// How Cassandra is reached; set if and only if `store` is [`StoreKind::Cassandra`].
    pub cassandra: Option<cassandra::Cassandra>,
    /// Number of records that are kept per source.
    pub history: NonZeroU32,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
    /// Directory of the programs that pull sources may run; `None` if they may run none.
    pub allow_exec: Option<PathBuf>,
    /// Number of event loops, each with a thread of its own.
    pub workers: NonZeroUsize,
    /// Each event loop stays on a processor of its own.
    pub pin_workers: bool,
    /// How long a busy event loop keeps polling for events before it sleeps, in microseconds.
    pub busy_poll_us: u64,
    /// Largest data of one record, in bytes.
    pub max_record_bytes: usize,
    /// Largest WebSocket frame or body of an HTTP publish from a client, in bytes.
    pub max_frame_bytes: usize,
    /// Most client connections at a time.
    pub max_connections: usize,
    /// Most memory that the map may hold, in bytes. Beyond it, publishes of new sources are refused.
    pub max_memory_bytes: usize,
    /// Most memory that clients may make the node hold, in bytes. Beyond it, whoever asks for more is refused.
    pub max_client_memory_bytes: usize,
    /// Who may connect, and from which pages and to which names.
    pub access: access::AccessConfig,
    /// The intervals of the membership protocol.
    pub profile: Profile,
    /// Which records are traced, and where the traces are sent; `None` if none are.
    pub traces: Option<trace::TraceConfig>,
    /// The form of the log.
    pub log: LogFormat,
    /// The least severity of events that are logged.
    pub log_level: LogLevel,
}

impl Config {
    /// Returns how much memory one client may make the node hold, in bytes: an eighth of what all may, but
    /// enough for a few of the largest frames.
    pub fn client_memory_share_bytes(&self) -> usize {
        (self.max_client_memory_bytes / 8).max(FRAMES_PER_CLIENT * self.max_frame_bytes)
    }
}

/// The properties of this machine that default values depend on. The command line reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Number of processors that this process may use.
    pub cores: usize,
    /// Memory that this process may use, in bytes.
    pub memory_bytes: u64,
}

/// Returns an address in the one form that all nodes use: an IPv4 address in its IPv6 form (`::ffff:10.0.0.1`)
/// becomes the IPv4 address that it stands for.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Turns the text of a configuration into checked values. Missing values get their defaults, some of which
/// depend on `machine`. Returns an error for the first value that cannot be used.
pub fn check(raw: &Raw, machine: Hardware) -> Result<Config, ConfigError> {
    let text = |value: &Option<raw::Text>, default: &str| match value {
        Some(raw::Text(text)) => text.clone(),
        None => default.to_owned(),
    };
    let store = values::choice("store", &text(&raw.store, "embedded"), &STORES)?;
    let gossip = values::address("gossip", &text(&raw.gossip, "127.0.0.1:7946"))?;
    let advertise =
        raw.advertise.as_ref().map(|given| values::advertise("advertise", &given.0)).transpose()?;
    let advertise_http =
        raw.advertise_http.as_ref().map(|given| values::advertise("advertise-http", &given.0)).transpose()?;
    let join = values::hosts("join", &text(&raw.join, ""))?;
    if gossip.ip().is_unspecified() && advertise.is_none() && join.is_empty() {
        return Err(lacks_address(gossip));
    }
    let (max_record_bytes, max_frame_bytes) = values::record_and_frame(
        raw.max_record_bytes.as_ref().map(|given| given.0.as_str()),
        &text(&raw.max_frame_bytes, "1048576"),
    )?;
    let half_bytes = (machine.memory_bytes / 2).max(64 << 20);
    let max_client_memory_bytes = values::client_memory(
        raw.max_client_memory.as_ref().map(|given| given.0.as_str()),
        machine.memory_bytes,
        max_frame_bytes,
    )?;
    Ok(Config {
        http: values::address("http", &text(&raw.http, "127.0.0.1:7070"))?,
        tls: values::tls([&raw.tls_cert, &raw.tls_key, &raw.tls_client_ca].map(raw::Text::of))?,
        metrics: raw.metrics.as_ref().map(|given| values::address("metrics", &given.0)).transpose()?,
        gossip,
        advertise,
        advertise_http,
        join,
        cluster_name: values::name("cluster-name", &text(&raw.cluster_name, "anode"), 1)?,
        cluster_key: cluster_key::check(raw)?,
        node_name: raw.node_name.as_ref().map(|given| values::node_name(&given.0)).transpose()?,
        zone: values::name("zone", &text(&raw.zone, ""), 0)?,
        data_dir: values::directory("data-dir", &text(&raw.data_dir, "./anode-data"))?,
        store,
        cassandra: cassandra::check(raw, store)?,
        history: values::history(&text(&raw.history, "256"))?,
        tombstones_us: values::duration_us("tombstones", &text(&raw.tombstones, "24h"), TOMBSTONES_US)?,
        allow_exec: values::folder("allow-exec", raw.allow_exec.as_ref())?,
        workers: values::workers(&text(&raw.workers, &machine.cores.clamp(1, WORKERS_MAX).to_string()))?,
        pin_workers: values::choice("pin-workers", &text(&raw.pin_workers, "no"), &SWITCH)?,
        busy_poll_us: values::count("busy-poll-us", &text(&raw.busy_poll_us, "0"), 0..=BUSY_POLL_US_MAX)?
            as u64,
        max_record_bytes,
        max_frame_bytes,
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
        max_client_memory_bytes,
        access: access::check(raw)?,
        profile: values::choice("profile", &text(&raw.profile, "lan"), &PROFILES)?,
        traces: trace::check(raw)?,
        log: values::choice("log", &text(&raw.log, "text"), &LOGS)?,
        log_level: values::choice("log-level", &text(&raw.log_level, "info"), &LEVELS)?,
    })
}

/// The error of a node that nobody could reach, because it tells no address of its own.
fn lacks_address(gossip: SocketAddr) -> ConfigError {
    let allowed = format!(
        "an address that others can reach, since --gossip {gossip} is unspecified and there is no --join to find \
         one by"
    );
    ConfigError::new("advertise", "", allowed)
}

/// Number of frames of the largest size that the memory of one client has room for at least.
const FRAMES_PER_CLIENT: usize = 4;
/// Most event loops: one for each core of the largest machines.
pub const WORKERS_MAX: usize = 256;
/// Longest `--busy-poll-us`, in microseconds. Polling for longer than that gains nothing.
const BUSY_POLL_US_MAX: usize = 1_000;
/// Largest `--max-frame-bytes`, in bytes. A single client must not make a node hold more than that.
pub const FRAME_BYTES_CEILING: usize = 64 << 20;
/// Largest value of `--max-connections`.
pub const CONNECTIONS_CEILING: usize = 10_000_000;
/// Allowed `--tombstones`, in microseconds: from one second, for tests of the collection, to ten years.
const TOMBSTONES_US: std::ops::RangeInclusive<u64> = 1_000_000..=10 * 365 * 24 * 3_600_000_000;

const STORES: [(&str, StoreKind); 3] =
    [("embedded", StoreKind::Embedded), ("memory", StoreKind::Memory), ("cassandra", StoreKind::Cassandra)];
const PROFILES: [(&str, Profile); 3] =
    [("lan", Profile::Lan), ("wan", Profile::Wan), ("local", Profile::Local)];
const SWITCH: [(&str, bool); 2] = [("no", false), ("yes", true)];
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
