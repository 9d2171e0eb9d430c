//! A subscription that survives the loss of its connection.
//!
//! It keeps the newest resume token and the list of other members that the node has sent. When the connection
//! is lost, it continues with that token at the same node or at the next one that answers, because a token is
//! valid on every node of the cluster. It waits between attempts, twice as long each time, with a random
//! part, so that the clients of a restarted node do not all come back in the same millisecond.
//!
//! A token is up to ten seconds old when it is used, and records that came after it are sent again.
//! [`Repeats`] recognizes these records and drops them.
//!
//! A node that is not there yet is waited for in the same way. Only what another attempt would not mend ends a
//! subscription: a refusal, or a certificate that is not trusted.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message};
use xxhash_rust::xxh3::xxh3_64;

use super::{ConnectError, NodeUrl, Nodes, Refused, Socket, connect, items};
use crate::cli::CliError;
use crate::server::clock;

/// How long [`Subscription::next`] waits before it returns [`Event::Nothing`].
const TURN: Duration = Duration::from_millis(100);
/// Silence after which a connection is given up, in microseconds. A node sends a token every 10 s, and a ping
/// after 25 s of silence.
const SILENCE_US_MAX: u64 = 40_000_000;
/// Most sources whose repeated records are recognized.
const REPEATS_MAX: usize = 65_536;
/// First and longest wait between two attempts to connect, in microseconds.
const WAIT_US: (u64, u64) = (100_000, 10_000_000);
/// Most attempts after which the wait grows.
const ROUND_MAX: usize = 32;

/// The content of a subscription.
#[derive(Clone, Debug)]
pub struct WantedSources {
    /// The patterns of the wanted sources.
    pub sources: Vec<String>,
    /// Whether the newest records of all matching sources are sent first.
    pub has_snapshot: bool,
    /// The mode: `latest` or `all`.
    pub mode: String,
    /// The expression that says which records are wanted; `None` for all.
    pub filter: Option<String>,
}

/// The next thing that happened to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records were received. Each is the JSON text that the node sent.
    Records(Vec<String>),
    /// The subscription has started or continues.
    Subscribed {
        /// Name of the node that serves the subscription.
        node: String,
        /// Whether only the records that were missed are sent; `None` when the subscription starts for the
        /// first time.
        recovered: Option<bool>,
    },
    /// The connection was lost. Another one will be made.
    Lost(Lost),
    /// Nothing happened within the time that [`Subscription::next`] waits.
    Nothing,
}

/// The loss of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The reason, for people.
    pub reason: String,
    /// Time until the next attempt to connect, in microseconds.
    pub retry_us: u64,
}

/// A message that is not a record. At most one field is set.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ControlMessage {
    connected: Option<ReadConnected>,
    result: Option<ReadSubscribed>,
    error: Option<Refused>,
    eos: Option<Eos>,
    resume: Option<String>,
}

#[derive(Deserialize)]
struct ReadConnected {
    node: String,
    #[serde(default)]
    members: Vec<ReadMember>,
}

#[derive(Deserialize)]
struct ReadMember {
    http: String,
}

#[derive(Deserialize)]
struct ReadSubscribed {
    recovered: Option<bool>,
}

#[derive(Deserialize)]
struct Eos {
    resume: Option<String>,
}

/// The records received since the newest token. A node that continues from that token sends them again.
#[derive(Default)]
struct Repeats {
    /// For every source the `ts` of the newest record, in microseconds, and the hash of its text.
    newest: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
struct SourceAndTs {
    source: String,
    ts: u64,
}

impl Repeats {
    /// Returns whether `record` has not been received before. If there are more sources than [`REPEATS_MAX`],
    /// records of the others may be reported twice.
    fn is_new(&mut self, record: &str) -> bool {
        let Ok(SourceAndTs { source, ts }) = serde_json::from_str(record) else { return true };
        let hash = xxh3_64(record.as_bytes());
        match self.newest.get(&source) {
            Some(newest) if ts < newest.0 || (ts, hash) == *newest => return false,
            None if self.newest.len() >= REPEATS_MAX => {}
            _ => {
                self.newest.insert(source, (ts, hash));
            }
        }
        true
    }
}

/// A running subscription. Call [`Subscription::next`] in a loop, and [`Subscription::close`] at the end.
pub struct Subscription {
    wanted: WantedSources,
    /// The nodes that were given.
    homes: Nodes,
    /// Other members, as the last node named them.
    members: Vec<NodeUrl>,
    tries: u32,
    socket: Option<Socket>,
    node: String,
    token: Option<String>,
    repeats: Repeats,
    retry_at_us: u64,
    heard_at_us: u64,
    events: VecDeque<Event>,
}

impl Subscription {
    /// Makes a subscription, which connects when [`Subscription::next`] is called.
    pub fn new(homes: impl Into<Nodes>, wanted: WantedSources) -> Subscription {
        Subscription {
            wanted,
            homes: homes.into(),
            members: Vec::new(),
            tries: 0,
            socket: None,
            node: String::new(),
            token: None,
            repeats: Repeats::default(),
            retry_at_us: 0,
            heard_at_us: 0,
            events: VecDeque::new(),
        }
    }

    /// Returns the next event; [`Event::Nothing`] if none happened for a tenth of a second. An error means
    /// that the subscription has ended for good.
    pub fn next(&mut self) -> Result<Event, CliError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let now_us = clock::mono_us();
        let Some(socket) = &mut self.socket else {
            return self.try_again(now_us);
        };
        match socket.read() {
            Ok(Message::Text(text)) => {
                self.heard_at_us = now_us;
                self.take(&text)
            }
            Ok(Message::Close(frame)) => self.closed(frame),
            Ok(_) => {
                self.heard_at_us = now_us;
                Ok(Event::Nothing)
            }
            Err(Error::Io(error)) if is_timeout(&error) => {
                if now_us.saturating_sub(self.heard_at_us) > SILENCE_US_MAX {
                    return Ok(self.lose("the node has gone silent".into(), false));
                }
                Ok(Event::Nothing)
            }
            Err(error) => Ok(self.lose(error.to_string(), false)),
        }
    }

    /// Closes the connection, if there is one.
    pub fn close(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // The subscription ends in any case, so an error makes no difference.
            let _ = socket.close(None).and_then(|()| socket.flush());
        }
    }

    fn connect(&mut self, endpoint: &NodeUrl) -> Result<(), ConnectError> {
        let failed = |error: &dyn std::fmt::Display| {
            ConnectError::Away(format!("the connection to {endpoint} was lost: {error}"))
        };
        let mut socket = connect(endpoint, "/subscribe?batch=true")?;
        let mut subscribe = json!({
            "sources": self.wanted.sources,
            "mode": self.wanted.mode,
            "snapshot": self.wanted.has_snapshot,
        });
        if let Some(filter) = &self.wanted.filter {
            subscribe["filter"] = json!(filter);
        }
        if let Some(token) = &self.token {
            // After a resume token, the snapshot is what was missed. It is wanted even if no full snapshot
            // is.
            subscribe["resume"] = json!(token);
            subscribe["snapshot"] = json!(true);
        }
        let frame = json!({ "id": 1, "subscribe": subscribe }).to_string();
        socket.send(frame.into()).map_err(|error| failed(&error))?;
        socket.get_ref().set_read_timeout(Some(TURN)).map_err(|error| failed(&error))?;
        self.heard_at_us = clock::mono_us();
        self.socket = Some(socket);
        Ok(())
    }

    fn try_again(&mut self, now_us: u64) -> Result<Event, CliError> {
        if now_us < self.retry_at_us {
            let turn_us = u64::try_from(TURN.as_micros()).unwrap_or(u64::MAX);
            clock::sleep((self.retry_at_us - now_us).min(turn_us));
            return Ok(Event::Nothing);
        }
        let (endpoint, is_home) = self.candidate();
        match self.connect(&endpoint) {
            Ok(()) => Ok(Event::Nothing),
            // A member may be named by an address that its certificate does not have.
            Err(error) if error.is_final() && is_home => Err(error.into()),
            Err(error) => Ok(self.lose(error.to_string(), false)),
        }
    }

    /// Returns the node to try next, and whether it is one that was given: these in turn at every second attempt, and
    /// the other members in turn at the attempts between. Without other members, all attempts are made at the former.
    fn candidate(&self) -> (NodeUrl, bool) {
        let tries = usize::try_from(self.tries).unwrap_or(usize::MAX);
        let (turn, is_for_member) = match self.members.is_empty() {
            true => (tries, false),
            false => (tries / 2, !tries.is_multiple_of(2)),
        };
        match self.members.get(turn % self.members.len().max(1)) {
            Some(member) if is_for_member => (member.clone(), false),
            _ => {
                let home = self.homes.iter().nth(turn % self.homes.len());
                (home.unwrap_or_else(|| self.homes.first()).clone(), true)
            }
        }
    }

    /// Number of attempts in which every node is tried that [`Subscription::candidate`] names.
    fn round(&self) -> u32 {
        let attempts = match self.members.len() {
            0 => self.homes.len(),
            members => 2 * members.max(self.homes.len()),
        };
        u32::try_from(attempts.clamp(1, ROUND_MAX)).unwrap_or(1)
    }

    fn lose(&mut self, reason: String, is_at_once: bool) -> Event {
        self.socket = None;
        // Other nodes may well be there: the wait grows when all have been tried.
        let longest_us = (WAIT_US.0 << (self.tries / self.round()).min(10)).min(WAIT_US.1);
        self.tries = self.tries.saturating_add(1);
        let now = clock::now();
        let chance =
            xxh3_64(&[now.wall_us.to_le_bytes(), u64::from(std::process::id()).to_le_bytes()].concat());
        // Half of the wait is fixed, the other half random.
        let retry_us =
            if is_at_once && self.tries == 1 { 0 } else { longest_us / 2 + chance % (longest_us / 2) };
        self.retry_at_us = now.mono_us + retry_us;
        Event::Lost(Lost { reason, retry_us })
    }

    fn closed(&mut self, frame: Option<CloseFrame>) -> Result<Event, CliError> {
        let (code, reason) = match frame {
            Some(frame) => (u16::from(frame.code), frame.reason.to_string()),
            None => (1005, String::new()),
        };
        let reason = format!("the node closed with {code} {reason}").trim_end().to_owned();
        match code {
            4000..=4099 | 1003 | 1007 | 1009 => {
                self.close();
                Err(CliError::Failed(reason))
            }
            _ => Ok(self.lose(reason, (4200..=4299).contains(&code))),
        }
    }

    /// Splits a frame into messages, and returns the records or the event that they make.
    fn take(&mut self, frame: &str) -> Result<Event, CliError> {
        let mut records = Vec::new();
        for item in items(frame) {
            if item.starts_with("{\"source\":") {
                if self.repeats.is_new(item) {
                    records.push(item.to_owned());
                }
                continue;
            }
            // A message that cannot be parsed comes from a later version of the protocol and is ignored.
            let control: ControlMessage = serde_json::from_str(item).unwrap_or_default();
            self.take_control(control)?;
        }
        if records.is_empty() {
            return Ok(self.events.pop_front().unwrap_or(Event::Nothing));
        }
        Ok(Event::Records(records))
    }

    fn take_control(&mut self, control: ControlMessage) -> Result<(), CliError> {
        if let Some(connected) = control.connected {
            self.node = connected.node;
            let first = self.homes.first();
            let endpoints = connected.members.iter().filter_map(|member| first.member(&member.http));
            let others = endpoints.filter(|node| self.homes.iter().all(|home| home != node));
            self.members = others.fold(Vec::new(), |mut known, node| {
                // All members of a service may tell its name.
                if !known.contains(&node) {
                    known.push(node);
                }
                known
            });
        }
        if let Some(token) = control.eos.and_then(|eos| eos.resume) {
            // The token is from the beginning of the snapshot. Records that were received since may be sent
            // again.
            self.token = Some(token);
        }
        if let Some(token) = control.resume {
            self.token = Some(token);
            self.repeats = Repeats::default();
        }
        if let Some(refused) = control.error {
            if !refused.temporary {
                return Err(CliError::Failed(refused.to_string()));
            }
            let lost = self.lose(refused.to_string(), false);
            self.events.push_back(lost);
        }
        if let Some(result) = control.result {
            self.tries = 0;
            let recovered = self.token.as_ref().and(result.recovered);
            if recovered != Some(true) {
                // A full snapshot follows, so no record counts as a repetition.
                self.repeats = Repeats::default();
            }
            self.events.push_back(Event::Subscribed { node: self.node.clone(), recovered });
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
