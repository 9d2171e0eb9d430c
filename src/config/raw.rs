//! The configuration as text, read from flags, environment and file.

use std::fmt;
use std::path::Path;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::suggest::nearest;

/// The text of one value. In the file it may also be a number, or a list of texts, which is equivalent to one
/// text with commas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text(pub String);

impl Text {
    /// Returns the text of a value that may be missing.
    pub fn of(given: &Option<Text>) -> Option<&str> {
        given.as_ref().map(|given| given.0.as_str())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.into())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut texts: Vec<String> = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Text(texts.join(",")))
    }
}

/// All flags of `anode serve` as unchecked text. The comments of the fields are their `--help`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raw {
    /// Address on which HTTP and WebSocket clients are served, both on one port; port 0 means any free port
    /// [default: 127.0.0.1:7070]
    #[arg(long, env = "ANODE_HTTP", value_name = "IP:PORT")]
    pub http: Option<Text>,
    /// PEM file of the certificate that clients are shown, with its issuers behind it; with it, the HTTP port speaks TLS
    /// and nothing else. Read again when it changes, and on SIGHUP
    #[arg(long, env = "ANODE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<Text>,
    /// PEM file of the private key of --tls-cert, without a password
    #[arg(long, env = "ANODE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<Text>,
    /// PEM file of authorities: each client must show a certificate that one of them has signed
    #[arg(long, env = "ANODE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<Text>,
    /// Address of a second, plain port that serves /healthz, /readyz and /metrics, and nothing else [default: none]
    #[arg(long, env = "ANODE_METRICS", value_name = "IP:PORT")]
    pub metrics: Option<Text>,
    /// Address for traffic between nodes, on UDP and TCP with the same port; port 0 means any free port; IPv6
    /// in brackets [default: 127.0.0.1:7946]
    #[arg(long, env = "ANODE_GOSSIP", value_name = "IP:PORT")]
    pub gossip: Option<Text>,
    /// Address that other nodes are told to reach this one at; without a port, that of --gossip [default: the
    /// gossip address, or the one that routes to the first join target]
    #[arg(long, env = "ANODE_ADVERTISE", value_name = "HOST[:PORT]")]
    pub advertise: Option<Text>,
    /// Address that clients are told to reach this node at, as a certificate names it; without a port, that of --http
    /// [default: the address of --http, with the advertised host if that is every address]
    #[arg(long, env = "ANODE_ADVERTISE_HTTP", value_name = "HOST[:PORT]")]
    pub advertise_http: Option<Text>,
    /// Any members of the cluster, separated by commas; names are resolved again at every retry
    #[arg(long, env = "ANODE_JOIN", value_name = "HOST:PORT,…")]
    pub join: Option<Text>,
    /// Name of the cluster, 1 to 63 bytes; nodes of other clusters are ignored [default: anode]
    #[arg(long, env = "ANODE_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<Text>,
    /// File with the keys of the cluster, one a line: the first seals what this node sends to others, and all open;
    /// it is read again when it changes [default: none, and anybody who reaches --gossip takes part]
    #[arg(long, env = "ANODE_CLUSTER_KEY", value_name = "FILE")]
    pub cluster_key: Option<Text>,
    /// How far the cluster has gone over to its keys. accept: send plain, take both; send: seal, take both; require:
    /// seal, take nothing plain [default: require]
    #[arg(long, env = "ANODE_CLUSTER_KEY_PHASE", value_name = "accept|send|require")]
    pub cluster_key_phase: Option<Text>,
    /// Name of this node, 1 to 63 of A-Z a-z 0-9 . _ - [default: the name kept in the data directory, or a
    /// new one]
    #[arg(long, env = "ANODE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<Text>,
    /// Name of the zone within which links are fast; a record is sent to each other zone once [default: none]
    #[arg(long, env = "ANODE_ZONE", value_name = "NAME")]
    pub zone: Option<Text>,
    /// Directory in which the node keeps its name and its store; DIR/* takes a numbered directory inside DIR
    /// that no other node uses [default: ./anode-data]
    #[arg(long, env = "ANODE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<Text>,
    /// Where records survive a restart. embedded: in the data directory; memory: nowhere, a restarted node
    /// gets them from its peers; cassandra: in Apache Cassandra [default: embedded]
    #[arg(long, env = "ANODE_STORE", value_name = "embedded|memory|cassandra")]
    pub store: Option<Text>,
    /// Records kept per source; each costs disk space, or memory with --store memory [default: 256]
    #[arg(long, env = "ANODE_HISTORY", value_name = "RECORDS", allow_hyphen_values = true)]
    pub history: Option<Text>,
    /// How long deletions are kept (ms, s, m, h, d); must be longer than any node is ever away [default: 24h]
    #[arg(long, env = "ANODE_TOMBSTONES", value_name = "DURATION", allow_hyphen_values = true)]
    pub tombstones: Option<Text>,
    /// Directory of the programs that pull sources of the kind exec may run here [default: none may]
    #[arg(long, env = "ANODE_ALLOW_EXEC", value_name = "DIR")]
    pub allow_exec: Option<Text>,
    /// Number of event loops [default: one per core]
    #[arg(long, env = "ANODE_WORKERS", value_name = "N", allow_hyphen_values = true)]
    pub workers: Option<Text>,
    /// Keep each event loop on a processor of its own, for machines on which this node is the main program [default:
    /// no]
    #[arg(long, env = "ANODE_PIN_WORKERS", value_name = "no|yes")]
    pub pin_workers: Option<Text>,
    /// Microseconds for which a busy event loop polls before it sleeps, at most 1000; answers come sooner but
    /// cost more processor time [default: 0]
    #[arg(long, env = "ANODE_BUSY_POLL_US", value_name = "US", allow_hyphen_values = true)]
    pub busy_poll_us: Option<Text>,
    /// Largest data of one record, in bytes or with KiB, MiB; at most 2MiB, and less than a frame [default: 65536]
    #[arg(long, env = "ANODE_MAX_RECORD_BYTES", value_name = "SIZE", allow_hyphen_values = true)]
    pub max_record_bytes: Option<Text>,
    /// Largest WebSocket frame or HTTP body from a client, in bytes or with KiB, MiB; at most 64MiB [default:
    /// 1048576]
    #[arg(long, env = "ANODE_MAX_FRAME_BYTES", value_name = "SIZE", allow_hyphen_values = true)]
    pub max_frame_bytes: Option<Text>,
    /// Most client connections at a time [default: 100000]
    #[arg(long, env = "ANODE_MAX_CONNECTIONS", value_name = "N", allow_hyphen_values = true)]
    pub max_connections: Option<Text>,
    /// Most memory for records, in bytes or with KiB, MiB, GiB; when it is full, new sources are refused
    /// [default: half of this machine's memory]
    #[arg(long, env = "ANODE_MAX_MEMORY", value_name = "SIZE", allow_hyphen_values = true)]
    pub max_memory: Option<Text>,
    /// Most memory for what clients have not sent in full or do not read, and for their subscriptions, in bytes
    /// or with KiB, MiB, GiB; when it is used up, who asks for more is refused [default: a quarter of this
    /// machine's memory]
    #[arg(long, env = "ANODE_MAX_CLIENT_MEMORY", value_name = "SIZE", allow_hyphen_values = true)]
    pub max_client_memory: Option<Text>,
    /// File of TOML that says who may do what: tokens, JWT and the rights of those without a token; read again
    /// when it changes [default: everybody may publish, subscribe and observe]
    #[arg(long, env = "ANODE_AUTH", value_name = "FILE")]
    pub auth: Option<Text>,
    /// Origins of web pages that may connect, separated by commas; * for any [default: pages of the host that
    /// they connect to]
    #[arg(long, env = "ANODE_ALLOW_ORIGIN", value_name = "ORIGIN[,…]")]
    pub allow_origin: Option<Text>,
    /// Names under which clients may address this node while it has no --auth, separated by commas; addresses
    /// and localhost are always allowed
    #[arg(long, env = "ANODE_ALLOW_HOST", value_name = "NAME[,…]")]
    pub allow_host: Option<Text>,
    /// Most client connections of one address at a time; 0 for no bound [default: 0]
    #[arg(long, env = "ANODE_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", allow_hyphen_values = true)]
    pub max_connections_per_address: Option<Text>,
    /// Most patterns of one connection [default: 10000]
    #[arg(long, env = "ANODE_MAX_SUBSCRIPTIONS", value_name = "N", allow_hyphen_values = true)]
    pub max_subscriptions: Option<Text>,
    /// Timing of the membership protocol: lan (one data centre), wan (between regions), local (one machine)
    /// [default: lan]
    #[arg(long, env = "ANODE_PROFILE", value_name = "lan|wan|local")]
    pub profile: Option<Text>,
    /// Share of records whose way over the nodes is traced, from 0 to 1; every node traces the same ones [default: 0]
    #[arg(long, env = "ANODE_TRACE_SAMPLE", value_name = "RATE", allow_hyphen_values = true)]
    pub trace_sample: Option<Text>,
    /// Where traces are sent: a receiver of OTLP over HTTP, such as an OpenTelemetry collector at http://127.0.0.1:4318;
    /// without a path, /v1/traces
    #[arg(long, env = "ANODE_TRACE_ENDPOINT", value_name = "URL")]
    pub trace_endpoint: Option<Text>,
    /// Form of the log, which is written to stderr [default: text]
    #[arg(long, env = "ANODE_LOG", value_name = "text|json")]
    pub log: Option<Text>,
    /// Least severity that is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, env = "ANODE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<Text>,

    /// With --store cassandra: nodes of Cassandra to connect to first, separated by commas
    #[arg(long, env = "ANODE_CASSANDRA", value_name = "HOST:PORT[,…]")]
    pub cassandra: Option<Text>,
    /// Keyspace in Cassandra, created if it does not exist [default: anode]
    #[arg(long, env = "ANODE_KEYSPACE", value_name = "NAME")]
    pub keyspace: Option<Text>,
    /// User name, if Cassandra requires a login
    #[arg(long, env = "ANODE_CASSANDRA_USER", value_name = "NAME")]
    pub cassandra_user: Option<Text>,
    /// File with the user's password on its first line
    #[arg(long, env = "ANODE_CASSANDRA_PASSWORD_FILE", value_name = "FILE")]
    pub cassandra_password_file: Option<Text>,
    /// PEM file of the authorities that sign Cassandra's certificates; turns on TLS
    #[arg(long, env = "ANODE_CASSANDRA_TLS_CA", value_name = "FILE")]
    pub cassandra_tls_ca: Option<Text>,
    /// Copies in Cassandra that must have answered: ONE, TWO, THREE, QUORUM, ALL, LOCAL_QUORUM, LOCAL_ONE
    /// [default: LOCAL_QUORUM]
    #[arg(long, env = "ANODE_CONSISTENCY", value_name = "LEVEL")]
    pub consistency: Option<Text>,
    /// How long Cassandra keeps history [default: 30d]
    #[arg(long, env = "ANODE_HISTORY_TTL", value_name = "TIME", allow_hyphen_values = true)]
    pub history_ttl: Option<Text>,
    /// Copies in each data centre when the keyspace is created [default: one per node, at most 3]
    #[arg(long, env = "ANODE_REPLICATION", value_name = "N|DC:N,…", allow_hyphen_values = true)]
    pub replication: Option<Text>,
}

/// clap converts arguments to their types with this. Every text is accepted here; the check comes later.
impl std::str::FromStr for Text {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Text, Self::Err> {
        Ok(Text(text.into()))
    }
}

impl Raw {
    /// Reads the text of a configuration file. `path` is named in the error.
    pub fn from_toml(text: &str, path: &Path) -> Result<Raw, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let value = path.display().to_string();
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            let reason = reason(error.message());
            let allowed =
                format!("TOML with the names of the flags (line {line}, column {column}: {reason})");
            ConfigError::new("config", value, allowed).at(Some(format!("{}:{line}:{column}", path.display())))
        })
    }

    /// Returns the line and the column, both from 1, of the value of `flag` in the text of a configuration file.
    pub fn place_in(text: &str, flag: &str) -> Option<(usize, usize)> {
        type Spans = std::collections::BTreeMap<String, toml::Spanned<toml::Value>>;
        let spans: Spans = toml::from_str(text).ok()?;
        spans.get(flag).map(|value| place(text, value.span().start))
    }

    /// Returns whether a value is given for `flag`.
    pub fn has(&self, flag: &str) -> bool {
        // None of the fields can fail to be serialized.
        let fields = serde_json::to_value(self).unwrap_or_default();
        fields.get(flag).is_some_and(|value| !value.is_null())
    }

    /// Returns these values, and those of `file` where one is missing.
    pub fn or(self, file: Raw) -> Raw {
        Raw {
            http: self.http.or(file.http),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            metrics: self.metrics.or(file.metrics),
            gossip: self.gossip.or(file.gossip),
            advertise: self.advertise.or(file.advertise),
            advertise_http: self.advertise_http.or(file.advertise_http),
            join: self.join.or(file.join),
            cluster_name: self.cluster_name.or(file.cluster_name),
            cluster_key: self.cluster_key.or(file.cluster_key),
            cluster_key_phase: self.cluster_key_phase.or(file.cluster_key_phase),
            node_name: self.node_name.or(file.node_name),
            zone: self.zone.or(file.zone),
            data_dir: self.data_dir.or(file.data_dir),
            store: self.store.or(file.store),
            history: self.history.or(file.history),
            tombstones: self.tombstones.or(file.tombstones),
            allow_exec: self.allow_exec.or(file.allow_exec),
            workers: self.workers.or(file.workers),
            pin_workers: self.pin_workers.or(file.pin_workers),
            busy_poll_us: self.busy_poll_us.or(file.busy_poll_us),
            max_record_bytes: self.max_record_bytes.or(file.max_record_bytes),
            max_frame_bytes: self.max_frame_bytes.or(file.max_frame_bytes),
            max_connections: self.max_connections.or(file.max_connections),
            max_memory: self.max_memory.or(file.max_memory),
            max_client_memory: self.max_client_memory.or(file.max_client_memory),
            auth: self.auth.or(file.auth),
            allow_origin: self.allow_origin.or(file.allow_origin),
            allow_host: self.allow_host.or(file.allow_host),
            max_connections_per_address: self
                .max_connections_per_address
                .or(file.max_connections_per_address),
            max_subscriptions: self.max_subscriptions.or(file.max_subscriptions),
            profile: self.profile.or(file.profile),
            trace_sample: self.trace_sample.or(file.trace_sample),
            trace_endpoint: self.trace_endpoint.or(file.trace_endpoint),
            log: self.log.or(file.log),
            log_level: self.log_level.or(file.log_level),
            cassandra: self.cassandra.or(file.cassandra),
            keyspace: self.keyspace.or(file.keyspace),
            cassandra_user: self.cassandra_user.or(file.cassandra_user),
            cassandra_password_file: self.cassandra_password_file.or(file.cassandra_password_file),
            cassandra_tls_ca: self.cassandra_tls_ca.or(file.cassandra_tls_ca),
            consistency: self.consistency.or(file.consistency),
            history_ttl: self.history_ttl.or(file.history_ttl),
            replication: self.replication.or(file.replication),
        }
    }
}

/// Returns the line and the column, both from 1, of the byte `at` of a text. The column counts characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Shortens the reason why a file cannot be read: for an unknown name, suggests what was meant instead of listing all.
fn reason(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next().filter(|_| message.starts_with("unknown field")) {
        None => message.to_owned(),
        Some(unknown) => match nearest(unknown, quoted) {
            Some(meant) => format!("unknown name {unknown:?}; did you mean {meant:?}?"),
            None => {
                format!("unknown name {unknown:?}; the names are those of the flags in `anode serve --help`")
            }
        },
    }
}
