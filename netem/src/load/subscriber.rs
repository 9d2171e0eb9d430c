//! A subscriber: gets everything, and resumes at another node when its connection is lost.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anode_loadgen::Outcome;

use super::frames::Frame;
use super::shared::{ROOT, Shared};
use super::socket::Socket;
use crate::checker::{Connection, Delivery, Mode, Seen};

/// Pause after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a node may be silent: it sends a resume token every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a read waits, so that the subscriber sees that the run ends.
const READ: Duration = Duration::from_millis(100);

/// Subscribes until the run ends.
pub fn run(shared: &Shared, number: usize, mode: Mode) {
    let nodes = shared.plan.nodes.len();
    let mut subscriber = Subscriber {
        shared,
        number: number as u32,
        mode,
        node: number % nodes,
        connections: 0,
        token: None,
        begun_us: 0,
        is_snapshot: false,
    };
    while shared.is_running.load(Relaxed) {
        let had_begun = subscriber.connections;
        // Every end of a connection is the same to a subscriber: it goes to the next node.
        let _ = subscriber.connect();
        // A subscriber that the run ends was connected to the end.
        if subscriber.connections > had_begun && shared.is_running.load(Relaxed) {
            shared.recorder.see(Seen::Disconnected { subscriber: subscriber.number });
        }
        subscriber.node = (subscriber.node + 1) % nodes;
        std::thread::sleep(PAUSE);
    }
}

struct Subscriber<'a> {
    shared: &'a Shared,
    number: u32,
    mode: Mode,
    node: usize,
    /// Connections whose subscription was answered.
    connections: u32,
    token: Option<String>,
    /// Time at which the connection was begun: the node may have answered long before this client reads it.
    begun_us: u64,
    is_snapshot: bool,
}

impl Subscriber<'_> {
    /// Holds one connection until it ends.
    fn connect(&mut self) -> Outcome<()> {
        let mode = if self.mode == Mode::All { "all" } else { "latest" };
        let mut path = format!("/subscribe?source={ROOT}/**&mode={mode}");
        let had_token = self.token.is_some();
        if let Some(token) = &self.token {
            path += &format!("&resume={token}");
        }
        self.begun_us = self.shared.recorder.now_us();
        let mut socket = Socket::open(&self.shared.plan.nodes[self.node].1, &path)?;
        self.shared.counts.connections.fetch_add(1, Relaxed);
        self.is_snapshot = true;
        while self.shared.is_running.load(Relaxed) {
            if let Some(text) = socket.read(READ)? {
                self.handle(&text, had_token)?;
            } else if socket.silent_for() > SILENCE_MAX {
                return Err("the node is silent".into());
            }
        }
        Ok(())
    }

    fn handle(&mut self, text: &str, had_token: bool) -> Outcome<()> {
        let frame: Frame = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.shared.surprise(format!("a subscriber got {text}: {error}"));
                return Ok(());
            }
        };
        if let Some(error) = &frame.error {
            return Err(format!("refused with {}", error.code).into());
        }
        let subscriber = self.number;
        let recorder = &self.shared.recorder;
        if let (Some(source), Some(version)) = (&frame.source, frame.version()) {
            self.shared.counts.delivered.fetch_add(1, Relaxed);
            let delivery =
                Delivery { source: source.as_ref().into(), version, is_snapshot: self.is_snapshot };
            recorder.see(Seen::Delivered { subscriber, delivery });
        } else if let Some(eos) = frame.eos {
            self.is_snapshot = false;
            recorder.see(Seen::SnapshotEnded { subscriber });
            self.take_token(eos.resume.map(|token| token.into_owned()));
        } else if let Some(token) = frame.resume {
            self.take_token(Some(token.into_owned()));
        } else if let Some(result) = frame.result.filter(|result| result.subscription == Some(1)) {
            self.subscribed(result.recovered.filter(|_| had_token).or(had_token.then_some(false)));
        } else if frame.connected.is_none() {
            self.shared.surprise(format!("a subscriber got {text}"));
        }
        Ok(())
    }

    fn subscribed(&mut self, recovered: Option<bool>) {
        self.connections += 1;
        let connection = Connection {
            number: self.connections,
            node: self.shared.plan.nodes[self.node].0.clone(),
            mode: self.mode,
            patterns: vec![format!("{ROOT}/**").into()],
            recovered,
        };
        self.shared.recorder.see_at(self.begun_us, Seen::Connected { subscriber: self.number, connection });
    }

    fn take_token(&mut self, token: Option<String>) {
        if token.is_some() {
            self.token = token;
            self.shared.recorder.see(Seen::TokenTaken { subscriber: self.number });
        }
    }
}
