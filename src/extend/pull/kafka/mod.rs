//! Pull sources that read topics of Apache Kafka, from version 0.11 on.
//!
//! The client is written here. A reader needs six of the some eighty kinds of requests, in versions that every broker since
//! 2017 speaks, and what brokers may make it hold is bounded. It joins no consumer group: the cluster decides which member
//! runs the pull source, and the place in every partition is kept in the pull source's state ([`place`]).
//!
//! One connection to each broker that leads partitions asks for new messages and waits for them there ([`session`]). What
//! comes is cut into batches, which are checked and decompressed ([`batch`]), and published in groups ([`publish`]).
//!
//! Rejected: the crates `rskafka` (decompresses without a bound, and brings an older zstd, a C library for lz4, chrono and
//! a framework of authentication) and `rdkafka` (a library in C with a TLS of its own).

#[cfg(not(feature = "kafka"))]
mod absent;
#[cfg(feature = "kafka")]
mod batch;
#[cfg(feature = "kafka")]
mod codec;
#[cfg(feature = "kafka")]
mod connection;
#[cfg(feature = "kafka")]
mod crc;
#[cfg(feature = "kafka")]
mod leaders;
#[cfg(feature = "kafka")]
mod place;
#[cfg(feature = "kafka")]
mod publish;
#[cfg(feature = "kafka")]
mod request;
#[cfg(feature = "kafka")]
mod session;
#[cfg(feature = "kafka")]
mod wire;

use super::fields::{COMMON_FIELDS, PullFields};
use super::secret::PullSecret;
use crate::extend::definition::BadField;

#[cfg(not(feature = "kafka"))]
pub(super) use absent::run;
#[cfg(all(feature = "kafka", any(test, fuzzing)))]
pub(super) use batch::check as check_batches;
#[cfg(feature = "kafka")]
pub(super) use session::run;

/// Fields of this kind alone.
const KAFKA_FIELDS: &[&str] =
    &["brokers", "topics", "from", "tls", "ca", "username", "password", "client_id"];
/// Most brokers of a definition. The others of a cluster are learned from them.
const BROKERS_MAX: usize = 16;
/// Most topics of a definition.
const KAFKA_TOPICS_MAX: usize = 64;
/// Longest name of a topic that Kafka knows, in bytes.
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Longest client id, in bytes.
const KAFKA_CLIENT_ID_BYTES_MAX: usize = 64;
/// Port of a broker without one.
const BROKER_PORT: u16 = 9092;

/// The brokers and what is read from them.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
pub(super) struct KafkaPull {
    /// Brokers by which the cluster is found: host and port.
    brokers: Vec<(String, u16)>,
    topics: Vec<String>,
    from: KafkaFrom,
    is_tls: bool,
    /// File with the authorities that may vouch for brokers; those of the system if it is not given.
    ca: Option<String>,
    /// Name and password for SASL/PLAIN.
    login: Option<(PullSecret, PullSecret)>,
    client_id: String,
}

/// Where a partition of which no place is known is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KafkaFrom {
    /// The oldest message that the broker has.
    Start,
    /// Behind the newest message.
    End,
}

impl KafkaPull {
    /// Reads the fields of this kind.
    pub fn read(fields: &PullFields<'_>) -> Result<KafkaPull, BadField> {
        fields.only(&[COMMON_FIELDS, KAFKA_FIELDS])?;
        let allowed = "a list of brokers, each \"HOST\" or \"HOST:PORT\"";
        let brokers = fields.texts("brokers", BROKERS_MAX)?;
        let brokers: Option<Vec<(String, u16)>> = brokers.iter().map(|text| broker(text)).collect();
        let brokers =
            brokers.filter(|brokers| !brokers.is_empty()).ok_or_else(|| fields.bad("brokers", allowed))?;
        let topics = fields.texts("topics", KAFKA_TOPICS_MAX)?;
        if topics.is_empty() || !topics.iter().all(|topic| is_topic(topic)) {
            return Err(fields.bad("topics", "a list of names of topics, of A-Z a-z 0-9 . _ -"));
        }
        let is_tls = fields.flag("tls", false)?;
        let ca = fields.text("ca")?.map(str::to_owned);
        if ca.is_some() && !is_tls {
            return Err(fields.bad("tls", "true, since there is a ca"));
        }
        let client_id = fields.text("client_id")?.unwrap_or("anode");
        if client_id.len() > KAFKA_CLIENT_ID_BYTES_MAX || client_id.chars().any(char::is_control) {
            return Err(
                fields.bad("client_id", format!("a text of at most {KAFKA_CLIENT_ID_BYTES_MAX} bytes"))
            );
        }
        let from = fields.choice("from", &[("start", KafkaFrom::Start), ("end", KafkaFrom::End)])?;
        let (login, client_id) = (login(fields)?, client_id.to_owned());
        Ok(KafkaPull { brokers, topics, from, is_tls, ca, login, client_id })
    }

    /// Returns the reason why this node cannot connect, if there is one.
    pub fn cannot(&self) -> Option<String> {
        if !cfg!(feature = "kafka") {
            return Some("this program was built without Kafka (the feature kafka)".into());
        }
        let (username, password) = self.login.as_ref()?;
        [username, password].into_iter().find_map(|secret| secret.value().err())
    }
}

/// Name and password, of which there are both or none.
fn login(fields: &PullFields<'_>) -> Result<Option<(PullSecret, PullSecret)>, BadField> {
    let username = fields.text("username")?.map(|text| PullSecret::parse(&fields.name("username"), text));
    let password =
        fields.text("password")?.map(|text| PullSecret::parse_hidden(&fields.name("password"), text));
    match (username.transpose()?, password.transpose()?) {
        (None, None) => Ok(None),
        (Some(username), Some(password)) => Ok(Some((username, password))),
        (None, Some(_)) => Err(fields.bad("username", "a name, since there is a password")),
        (Some(_), None) => Err(fields.bad("password", "\"env:NAME\", since there is a username")),
    }
}

/// Host and port of a broker.
fn broker(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        // The address of version 6 has colons of its own.
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (host, port)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(BROKER_PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    (!host.is_empty() && host.bytes().all(is_host)).then(|| (host.to_owned(), port))
}

/// Returns whether a text may be the name of a topic.
fn is_topic(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= TOPIC_NAME_BYTES_MAX && !matches!(text, "." | "..") && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: Value) -> Result<KafkaPull, String> {
        let mut definition = json!({"kind": "kafka", "brokers": ["k"], "topics": ["orders"]});
        let map = definition.as_object_mut().expect("a table");
        map.extend(change.as_object().expect("a table").clone());
        KafkaPull::read(&PullFields::new("", &definition).expect("a table")).map_err(|bad| bad.to_string())
    }

    #[test]
    fn brokers_are_named_by_host_and_port() {
        for (text, host, port) in [
            ("k", "k", 9092),
            ("k.example:19092", "k.example", 19092),
            ("[::1]:7", "::1", 7),
            ("[::1]", "::1", 9092),
        ] {
            assert_eq!(broker(text), Some((host.to_owned(), port)), "{text}");
        }
        for bad in
            ["", ":1", "k:", "k:x", "k:0", "k:70000", "http://k:1", "a b", "[::1]7", "u@k:1", "k:1,l:2"]
        {
            assert_eq!(broker(bad), None, "{bad}");
        }
        assert!(read(json!({"brokers": []})).expect_err("none").starts_with("brokers: []; allowed: a list"));
    }

    #[test]
    fn fields_are_checked() {
        for (change, expected) in [
            (json!({"topics": ["a/b"]}), "topics: "),
            (json!({"topics": []}), "topics: "),
            (json!({"topics": [".."]}), "topics: "),
            (json!({"from": "middle"}), "from: \"middle\"; allowed: start, end"),
            (json!({"ca": "/ca.pem"}), "tls: missing; allowed: true"),
            (json!({"username": "u"}), "password: missing"),
            (json!({"password": "env:P"}), "username: missing"),
            (json!({"group": "g"}), "group: "),
        ] {
            let error = read(change.clone()).expect_err("unusable");
            assert!(error.starts_with(expected), "{change}: {error}");
        }
        let error = read(json!({"username": "u", "password": "hunter2"})).expect_err("a secret");
        assert!(error.contains("env:NAME") && !error.contains("hunter2"), "{error}");
        let cannot =
            read(json!({"username": "u", "password": "env:NO_SUCH_VARIABLE"})).expect("usable").cannot();
        let expected = match cfg!(feature = "kafka") {
            true => "NO_SUCH_VARIABLE is not set in the environment",
            false => "this program was built without Kafka (the feature kafka)",
        };
        assert_eq!(cannot.as_deref(), Some(expected));
    }
}
