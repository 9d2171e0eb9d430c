//! The bucket: how it is made, how far its replicas are, and what is in it at the end.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;

use super::protocol::{Message, publish, subscribe};
use super::socket::Socket;
use crate::checker::{Name, Version};
use crate::target::Target;

/// Number of replicas of the bucket.
pub const REPLICAS: usize = 3;
/// Name of the stream under the bucket.
pub const STREAM: &str = "KV_netem";
/// Begin of the subjects of the bucket; the key follows.
const SUBJECTS: &str = "$KV.netem.";
/// How long an answer of the servers may take.
const ANSWER: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Questions that wait for an answer at the same time.
const ASKED_MAX: usize = 100;
/// Number of connections that were opened so far.
static OPENED: AtomicU64 = AtomicU64::new(0);
/// Number of the error that says that a key has no value.
const NOT_FOUND: u16 = 404;

/// The newest value of each key.
pub type Contents = HashMap<Name, Version>;

/// Returns the subject of a key.
pub fn subject(key: &str) -> String {
    format!("{SUBJECTS}{key}")
}

/// Returns the key of a subject.
pub fn key(subject: &str) -> Option<&str> {
    subject.strip_prefix(SUBJECTS)
}

/// Returns the configuration of the stream under the bucket, as the client libraries of NATS make it for one.
pub fn stream_config() -> serde_json::Value {
    json!({
        "name": STREAM,
        "subjects": [format!("{SUBJECTS}>")],
        "retention": "limits",
        "storage": "file",
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_consumers": -1,
        "max_msg_size": -1,
        "discard": "new",
        "duplicate_window": 120_000_000_000_u64,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": true,
        "num_replicas": REPLICAS,
    })
}

/// An error in an answer.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// Number of the error, as in HTTP.
    pub code: u16,
    /// Description of the error for people.
    #[serde(default)]
    pub description: String,
}

/// The leader of the bucket and its other replicas.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Replication {
    /// Name of the server that leads, if one does.
    #[serde(default)]
    pub leader: String,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
struct Replica {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    lag: u64,
}

impl Replication {
    /// Returns whether all replicas are there and lack nothing, as the leader sees it.
    pub fn is_whole(&self) -> bool {
        let is_current = |replica: &Replica| replica.current && !replica.offline && replica.lag == 0;
        !self.leader.is_empty() && self.replicas.len() + 1 == REPLICAS && self.replicas.iter().all(is_current)
    }
}

#[derive(Deserialize)]
struct StreamAnswer {
    error: Option<Refusal>,
    cluster: Option<Replication>,
}

#[derive(Deserialize)]
struct ValueAnswer {
    error: Option<Refusal>,
    message: Option<StoredValue>,
}

#[derive(Deserialize)]
struct StoredValue {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
}

/// A connection over which the servers are asked about the bucket.
pub struct Api {
    socket: Socket,
    inbox: String,
    asked: u64,
}

impl Api {
    /// Connects to a server.
    pub fn open(target: &Target) -> Outcome<Api> {
        let mut socket = Socket::open(target)?;
        // Answers that come late to one connection are not taken for those to the next.
        let number = OPENED.fetch_add(1, Relaxed);
        let inbox = format!("_INBOX.netem.api.{}.{number}", std::process::id());
        subscribe(&mut socket.out, &format!("{inbox}.*"), 1);
        Ok(Api { socket, inbox, asked: 0 })
    }

    fn ask(&mut self, subject: &str, body: &[u8]) -> Outcome<()> {
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        publish(&mut self.socket.out, subject, Some(&reply), body);
        self.socket.flush().map(drop)
    }

    fn answer(&mut self) -> Outcome<Message> {
        let message = self.socket.read(ANSWER)?.ok_or("the servers do not answer")?;
        match message.status() {
            None => Ok(message),
            Some(status) => Err(format!("the servers answer with status {status}").into()),
        }
    }

    fn stream(&mut self, what: &str, body: &[u8]) -> Outcome<Replication> {
        self.ask(&format!("$JS.API.STREAM.{what}.{STREAM}"), body)?;
        let answer: StreamAnswer = serde_json::from_slice(&self.answer()?.payload)?;
        match answer.error {
            Some(Refusal { code, description }) => Err(format!("error {code}: {description}").into()),
            None => Ok(answer.cluster.unwrap_or_default()),
        }
    }

    /// Asks how far the replicas are.
    pub fn replication(&mut self) -> Outcome<Replication> {
        self.stream("INFO", b"")
    }

    /// Asks the leader for the newest value of each key.
    fn read(&mut self, keys: impl Iterator<Item = Name>) -> Outcome<Contents> {
        let ask = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
        let (mut found, mut waiting) = (Contents::new(), 0);
        let mut keys = keys.peekable();
        while keys.peek().is_some() || waiting > 0 {
            while waiting < ASKED_MAX
                && let Some(key) = keys.next()
            {
                self.ask(&ask, json!({ "last_by_subj": subject(&key) }).to_string().as_bytes())?;
                waiting += 1;
            }
            if let Some((key, version)) = value(&self.answer()?.payload)? {
                found.insert(key, version);
            }
            waiting -= 1;
        }
        Ok(found)
    }
}

/// Reads the answer to the question for the newest value of a key.
pub fn value(answer: &[u8]) -> Outcome<Option<(Name, Version)>> {
    let answer: ValueAnswer = serde_json::from_slice(answer)?;
    match (answer.error, answer.message) {
        (Some(Refusal { code: NOT_FOUND, .. }), _) => Ok(None),
        (Some(Refusal { code, description }), _) => Err(format!("error {code}: {description}").into()),
        (None, None) => Err("an answer without a value".into()),
        (None, Some(StoredValue { subject, seq, data })) => {
            let key = key(&subject).ok_or_else(|| format!("a value has the subject {subject}"))?;
            Ok(Some((key.into(), Version::of_data(seq, &BASE64.decode(data.as_bytes())?))))
        }
    }
}

/// Makes the bucket, and waits until all its replicas are there.
pub fn wait_made(target: &Target, most: Duration) -> Outcome<Replication> {
    let (begin, config) = (Instant::now(), stream_config().to_string());
    loop {
        let made = Api::open(target).and_then(|mut api| {
            // A bucket of the same configuration that is there already is no error.
            api.stream("CREATE", config.as_bytes())?;
            api.replication()
        });
        let why = match made {
            Ok(replication) if replication.is_whole() => return Ok(replication),
            Ok(replication) => format!("its replicas are {replication:?}"),
            Err(error) => error.to_string(),
        };
        if begin.elapsed() > most {
            return Err(format!("there is no bucket after {} s: {why}", most.as_secs()).into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads the newest value of each key from the leader of the bucket, through any server that answers.
pub fn read_all(
    targets: &[Target],
    keys: impl Iterator<Item = Name> + Clone,
    most: Duration,
) -> Outcome<Contents> {
    let begin = Instant::now();
    loop {
        let mut why = String::new();
        for target in targets {
            match Api::open(target).and_then(|mut api| api.read(keys.clone())) {
                Ok(contents) => return Ok(contents),
                Err(error) => why = error.to_string(),
            }
        }
        if begin.elapsed() > most {
            return Err(format!("the bucket cannot be read: {why}").into());
        }
        std::thread::sleep(PAUSE);
    }
}
