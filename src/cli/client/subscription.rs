//! A subscription that outlives its connections.
//!
//! It remembers the newest resume token and the other members that the node named. When the
//! connection ends it goes on with that token at the same node, or at the next that answers: a token
//! is good on any node of the cluster. Between tries it waits, twice as long each time, with jitter,
//! so that the clients of a restarted node do not all come back in the same millisecond.
//!
//! A token is up to ten seconds old when it is needed, and what came after it comes again. [`Repeats`]
//! knows those records and drops them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message};
use xxhash_rust::xxh3::xxh3_64;

use super::{Endpoint, Refused, Socket, connect, items};
use crate::cli::CliError;
use crate::server::clock;

/// How long [`Subscription::next`] waits before it says that nothing came.
const TURN: Duration = Duration::from_millis(100);
/// Silence after which a connection is given up: the node sends a token every 10 s and a ping after
/// 25 s.
const SILENCE_US_MAX: u64 = 40_000_000;
/// Sources of which repeated records are known.
const REPEATS_MAX: usize = 65_536;
/// First and longest wait between two tries.
const WAIT_US: (u64, u64) = (100_000, 10_000_000);

/// What is subscribed to.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Patterns.
    pub sources: Vec<String>,
    /// Whether the latest records come first.
    pub has_snapshot: bool,
    /// `latest` or `all`.
    pub mode: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records, each as the JSON text it came as.
    Records(Vec<String>),
    /// The subscription stands, at this node.
    Subscribed {
        /// The node's id.
        node: String,
        /// Whether only what was missed comes; `None` for the first time.
        recovered: Option<bool>,
    },
    /// The connection is lost; another is on its way.
    Lost(Lost),
    /// Nothing, for a moment.
    Nothing,
}

/// A lost connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub reason: String,
    /// When the next try is, in microseconds from now.
    pub retry_us: u64,
}

/// What a node says beside records.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Control {
    connected: Option<Connected>,
    result: Option<Subscribed>,
    error: Option<Refused>,
    eos: Option<Eos>,
    resume: Option<String>,
}

#[derive(Deserialize)]
struct Connected {
    node: String,
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    http: String,
}

#[derive(Deserialize)]
struct Subscribed {
    recovered: Option<bool>,
}

#[derive(Deserialize)]
struct Eos {
    resume: Option<String>,
}

/// What came since the newest token, which a node that goes on from it sends again.
#[derive(Default)]
struct Repeats {
    /// By source: the newest `ts`, and a hash of the record.
    newest: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
struct Place {
    source: String,
    ts: u64,
}

impl Repeats {
    /// Whether `record` is none that came before. Of more sources than [`REPEATS_MAX`] the others'
    /// records may come twice.
    fn is_new(&mut self, record: &str) -> bool {
        let Ok(Place { source, ts }) = serde_json::from_str(record) else { return true };
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

/// A running subscription. Call [`Subscription::next`] until there is nothing left to want.
pub struct Subscription {
    wanted: Wanted,
    home: Endpoint,
    members: Vec<Endpoint>,
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
    /// Connects for the first time: a node that is not there now is an error, and so is a refusal.
    pub fn open(home: Endpoint, wanted: Wanted) -> Result<Subscription, CliError> {
        let mut subscription = Subscription {
            wanted,
            home: home.clone(),
            members: Vec::new(),
            tries: 0,
            socket: None,
            node: String::new(),
            token: None,
            repeats: Repeats::default(),
            retry_at_us: 0,
            heard_at_us: 0,
            events: VecDeque::new(),
        };
        subscription.connect(&home)?;
        Ok(subscription)
    }

    /// What happens next; [`Event::Nothing`] after a tenth of a second without anything. An error
    /// means that going on is of no use.
    pub fn next(&mut self) -> Result<Event, CliError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let now_us = clock::now().mono_us;
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

    /// Says goodbye, if there is anyone to say it to.
    pub fn close(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // The end either way.
            let _ = socket.close(None).and_then(|()| socket.flush());
        }
    }

    fn connect(&mut self, endpoint: &Endpoint) -> Result<(), CliError> {
        let failed = |error: &dyn std::fmt::Display| {
            CliError::Failed(format!("the connection to {endpoint} was lost: {error}"))
        };
        let mut socket = connect(endpoint, "/subscribe?batch=true")?;
        let mut subscribe = json!({
            "sources": self.wanted.sources,
            "mode": self.wanted.mode,
            "snapshot": self.wanted.has_snapshot,
        });
        if let Some(token) = &self.token {
            // The snapshot is then what was missed: wanted even by who wants no other.
            subscribe["resume"] = json!(token);
            subscribe["snapshot"] = json!(true);
        }
        let frame = json!({ "id": 1, "subscribe": subscribe }).to_string();
        socket.send(frame.into()).map_err(|error| failed(&error))?;
        socket.get_ref().set_read_timeout(Some(TURN)).map_err(|error| failed(&error))?;
        self.heard_at_us = clock::now().mono_us;
        self.socket = Some(socket);
        Ok(())
    }

    fn try_again(&mut self, now_us: u64) -> Result<Event, CliError> {
        if now_us < self.retry_at_us {
            let turn_us = u64::try_from(TURN.as_micros()).unwrap_or(u64::MAX);
            clock::sleep((self.retry_at_us - now_us).min(turn_us));
            return Ok(Event::Nothing);
        }
        // The node it began with at every second try, the others in turn between.
        let other = usize::try_from(self.tries / 2).unwrap_or(0) % self.members.len().max(1);
        let endpoint = match self.members.get(other) {
            Some(member) if !self.tries.is_multiple_of(2) => member.clone(),
            _ => self.home.clone(),
        };
        match self.connect(&endpoint) {
            Ok(()) => Ok(Event::Nothing),
            Err(error) => Ok(self.lose(error.to_string(), false)),
        }
    }

    fn lose(&mut self, reason: String, is_at_once: bool) -> Event {
        self.socket = None;
        let longest_us = (WAIT_US.0 << self.tries.min(10)).min(WAIT_US.1);
        self.tries = self.tries.saturating_add(1);
        let now = clock::now();
        let chance =
            xxh3_64(&[now.wall_us.to_le_bytes(), u64::from(std::process::id()).to_le_bytes()].concat());
        // Half of the wait is fixed, half is chance.
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

    /// Takes a frame apart: records go on, the rest is ours.
    fn take(&mut self, frame: &str) -> Result<Event, CliError> {
        let mut records = Vec::new();
        for item in items(frame) {
            if item.starts_with("{\"source\":") {
                if self.repeats.is_new(item) {
                    records.push(item.to_owned());
                }
                continue;
            }
            // A frame of a later version that cannot be read is none of ours.
            let control: Control = serde_json::from_str(item).unwrap_or_default();
            self.take_control(control)?;
        }
        if records.is_empty() {
            return Ok(self.events.pop_front().unwrap_or(Event::Nothing));
        }
        Ok(Event::Records(records))
    }

    fn take_control(&mut self, control: Control) -> Result<(), CliError> {
        if let Some(connected) = control.connected {
            self.node = connected.node;
            let endpoints =
                connected.members.iter().filter_map(|member| Endpoint::parse(&member.http, "from").ok());
            self.members = endpoints.filter(|endpoint| *endpoint != self.home).collect();
        }
        if let Some(token) = control.eos.and_then(|eos| eos.resume) {
            // It is as old as the snapshot's beginning: what came meanwhile may come again.
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
                // A full snapshot: what was held is forgotten.
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
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use tungstenite::WebSocket;
    use tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    fn accept(listener: &TcpListener) -> (WebSocket<TcpStream>, serde_json::Value) {
        let (stream, _) = listener.accept().expect("accepts");
        let mut socket = tungstenite::accept(stream).expect("handshake");
        socket.send(r#"{"connected":{"node":"n1","session":"s","members":[]}}"#.into()).expect("sends");
        let asked = socket.read().expect("subscribe").into_text().expect("text");
        (socket, serde_json::from_str(&asked).expect("JSON"))
    }

    fn until(subscription: &mut Subscription, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = subscription.next().expect("goes on");
            if wanted(&event) {
                return event;
            }
        }
    }

    fn wanted() -> Wanted {
        Wanted { sources: vec!["a/*".into()], has_snapshot: false, mode: "latest".into() }
    }

    /// nats.go#1777: a subscription dies silently after reconnecting.
    #[test]
    fn goes_on_with_its_token_after_a_lost_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let home =
            Endpoint::parse(&listener.local_addr().expect("address").to_string(), "from").expect("url");
        let node = thread::spawn(move || {
            let (mut socket, asked) = accept(&listener);
            assert_eq!(asked["subscribe"]["snapshot"], false);
            assert!(asked["subscribe"]["resume"].is_null());
            let record = r#"{"source":"a/b","ts":1,"origin":"n1","data": 1.0}"#;
            let frames = [
                r#"{"id":1,"result":{"subscription":1,"recovered":false}}"#.to_owned(),
                r#"{"eos":{"subscription":1,"resume":"t1"}}"#.to_owned(),
                format!("[{record}, {record}]"),
                r#"{"resume":"t2"}"#.to_owned(),
            ];
            for frame in frames {
                socket.send(frame.into()).expect("sends");
            }
            // Gone without a word.
            drop(socket);
            let (mut socket, asked) = accept(&listener);
            assert_eq!(asked["subscribe"]["resume"], "t2");
            assert_eq!(asked["subscribe"]["snapshot"], true);
            socket.send(r#"{"id":1,"result":{"subscription":1,"recovered":true}}"#.into()).expect("sends");
            let frame = CloseFrame { code: CloseCode::from(4003), reason: "no".into() };
            socket.close(Some(frame)).expect("closes");
            while socket.read().is_ok() {}
        });
        let mut subscription = Subscription::open(home, wanted()).expect("opens");
        let event = until(&mut subscription, |event| matches!(event, Event::Subscribed { .. }));
        assert_eq!(event, Event::Subscribed { node: "n1".into(), recovered: None });
        let event = until(&mut subscription, |event| matches!(event, Event::Records(_)));
        let record = r#"{"source":"a/b","ts":1,"origin":"n1","data": 1.0}"#.to_owned();
        assert_eq!(event, Event::Records(vec![record]));
        until(&mut subscription, |event| matches!(event, Event::Lost(_)));
        let event = until(&mut subscription, |event| matches!(event, Event::Subscribed { .. }));
        assert_eq!(event, Event::Subscribed { node: "n1".into(), recovered: Some(true) });
        let error = loop {
            match subscription.next() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "the node closed with 4003 no");
        node.join().expect("node");
    }

    #[test]
    fn repeated_records_are_dropped_and_newer_ones_are_not() {
        let mut repeats = Repeats::default();
        let record = |ts: u64, data: &str| format!(r#"{{"source":"a","ts":{ts},"data":{data}}}"#);
        for (text, is_new) in [
            (record(5, "1"), true),
            (record(5, "1"), false),
            (record(5, "2"), true),
            (record(4, "3"), false),
            (record(6, "1"), true),
        ] {
            assert_eq!(repeats.is_new(&text), is_new, "{text}");
        }
    }

    #[test]
    fn a_node_that_is_not_there_at_first_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let home =
            Endpoint::parse(&listener.local_addr().expect("address").to_string(), "from").expect("url");
        drop(listener);
        assert!(matches!(Subscription::open(home, wanted()), Err(CliError::Failed(_))));
    }
}
