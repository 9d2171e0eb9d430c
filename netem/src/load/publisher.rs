//! A publisher: sends records at its rate, whatever the answers, until too many are unanswered.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anode_loadgen::Outcome as Attempt;
use anode_loadgen::random::Random;

use super::frames::{self, Frame};
use super::shared::{Shared, source_name, unique_data};
use super::socket::Socket;
use crate::checker::{Answer, Level, Name, Offer, Seen, Version};

/// Records without an answer until a publisher waits.
const UNANSWERED_MAX: usize = 2_000;
/// Records that are sent before answers are read again.
const PER_TURN: u64 = 100;
/// Pause after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a node may leave all publishes unanswered until the publisher goes to another one: longer than the time
/// after which a node must answer `timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// How long answers are waited for in the end.
const LAST_ANSWERS: Duration = Duration::from_secs(8);
/// Longest time that reading waits, so that records are sent in time.
const READ: Duration = Duration::from_millis(4);
/// Of so many replicated records, one is read back at all nodes.
const READ_BACK: u64 = 40;

/// Kinds of records, in parts of a thousand.
const DELETIONS: u64 = 15;
const WITH_TTL: u64 = 15;
const STORED: u64 = 200;
const REPLICATED: u64 = 200;

/// Publishes until the run is told to publish no more. `reads` takes sources that are to be read back.
pub fn run(shared: &Shared, number: usize, reads: &SyncSender<Name>) {
    Publisher::new(shared, number).run(reads);
}

struct Publisher<'a> {
    shared: &'a Shared,
    /// The node of the connection, or the next one.
    node: usize,
    /// Whether the records of this publisher bring their timestamps.
    has_stamps: bool,
    last_ts: u64,
    random: Random,
    rate: f64,
    begin: Instant,
    sent: u64,
    socket: Option<Socket>,
    /// What was sent and not answered: the number of the publish, its source, and its level.
    unanswered: BTreeMap<u64, (Name, Level)>,
    replicated: u64,
}

impl<'a> Publisher<'a> {
    fn new(shared: &'a Shared, number: usize) -> Publisher<'a> {
        Publisher {
            node: number,
            has_stamps: number % 2 == 1,
            last_ts: 0,
            random: Random::new(shared.plan.seed, 1_000 + number as u64),
            rate: shared.plan.rate / shared.plan.nodes.len() as f64,
            begin: Instant::now(),
            sent: 0,
            socket: None,
            unanswered: BTreeMap::new(),
            replicated: 0,
            shared,
        }
    }

    fn run(mut self, reads: &SyncSender<Name>) {
        while self.shared.is_publishing.load(Relaxed) {
            let worked = self.connect().and_then(|()| self.turn(reads));
            if worked.is_err() {
                self.lose();
                std::thread::sleep(PAUSE);
            }
        }
        let until = Instant::now() + LAST_ANSWERS;
        while Instant::now() < until && !self.unanswered.is_empty() {
            if self.read_answers(reads).is_err() {
                break;
            }
        }
        self.lose();
    }

    fn connect(&mut self) -> Attempt<()> {
        if self.socket.is_none() {
            let (_, target, _) = &self.shared.plan.nodes[self.node];
            self.socket = Some(Socket::open(target, "/publish")?);
            self.shared.counts.connections.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Gives the connection up, and takes the next node.
    fn lose(&mut self) {
        self.socket = None;
        self.node = (self.node + 1) % self.shared.plan.nodes.len();
        for publish in std::mem::take(&mut self.unanswered).into_keys() {
            self.shared.recorder.see(Seen::Unanswered { publish });
        }
        self.skip_due();
    }

    /// Leaves out what is due, so that a publisher that was held up does not send everything at once.
    fn skip_due(&mut self) {
        let due = self.due();
        if due > self.sent {
            self.shared.counts.held.fetch_add(due - self.sent, Relaxed);
            self.sent = due;
        }
    }

    fn due(&self) -> u64 {
        (self.begin.elapsed().as_secs_f64() * self.rate) as u64
    }

    fn turn(&mut self, reads: &SyncSender<Name>) -> Attempt<()> {
        let due = self.due().min(self.sent + PER_TURN);
        while self.sent < due && self.unanswered.len() < UNANSWERED_MAX {
            self.sent += 1;
            self.send()?;
        }
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.skip_due();
        }
        if let Some(socket) = &mut self.socket {
            socket.flush()?;
        }
        self.read_answers(reads)?;
        let is_silent = self.socket.as_ref().is_some_and(|socket| socket.silent_for() > SILENCE_MAX);
        if is_silent && !self.unanswered.is_empty() {
            return Err("the node does not answer".into());
        }
        Ok(())
    }

    fn send(&mut self) -> Attempt<()> {
        let publish = self.shared.take_number();
        let data = unique_data(publish, self.shared.plan.data_bytes);
        let offer = self.offer(&data);
        let frame = frames::publish(publish, &offer, &data);
        self.unanswered.insert(publish, (offer.source.clone(), offer.level));
        self.shared.recorder.see(Seen::Offered { publish, offer });
        self.shared.counts.sent.fetch_add(1, Relaxed);
        let socket = self.socket.as_mut().ok_or("no connection")?;
        socket.write(frame).map(drop)
    }

    fn offer(&mut self, data: &str) -> Offer {
        let source = self.random.next_u64() % self.shared.plan.sources;
        let kind = self.random.next_u64() % 1_000;
        let level = match self.random.next_u64() % 1_000 {
            part if part < STORED => Level::Stored,
            part if part < STORED + REPLICATED => Level::Replicated,
            _ => Level::Accepted,
        };
        let is_deletion = kind < DELETIONS;
        let has_ttl = !is_deletion && kind < DELETIONS + WITH_TTL;
        Offer {
            source: source_name(source),
            ts: self.has_stamps.then(|| self.stamp()),
            data_hash: (!is_deletion).then(|| Version::of_data(0, data.as_bytes()).hash),
            data_bytes: if is_deletion { 0 } else { data.len() as u32 },
            ttl_ms: if has_ttl { 2_000 + self.random.next_u64() % 3_000 } else { 0 },
            node: self.shared.plan.nodes[self.node].0.clone(),
            level,
        }
    }

    fn stamp(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_ts = now.max(self.last_ts + 1);
        self.last_ts
    }

    fn read_answers(&mut self, reads: &SyncSender<Name>) -> Attempt<()> {
        let mut timeout = READ;
        for _ in 0..2 * PER_TURN {
            let Some(socket) = &mut self.socket else { return Err("no connection".into()) };
            let Some(text) = socket.read(timeout)? else { return Ok(()) };
            timeout = Duration::from_millis(1);
            self.handle(&text, reads);
        }
        Ok(())
    }

    fn handle(&mut self, text: &str, reads: &SyncSender<Name>) {
        let frame: Frame = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => return self.shared.surprise(format!("a publisher got {text}: {error}")),
        };
        if frame.connected.is_some() {
            return;
        }
        let answer = frame.id.and_then(|id| Some((id, self.unanswered.remove(&id)?, frame.answer()?)));
        let Some((publish, (source, level), answer)) = answer else {
            return self.shared.surprise(format!("a publisher got {text}"));
        };
        let is_done = matches!(answer, Answer::Done { .. });
        self.shared.recorder.see(Seen::Answered { publish, answer });
        let counts = &self.shared.counts;
        if is_done { &counts.acked } else { &counts.failed }.fetch_add(1, Relaxed);
        if is_done && level == Level::Replicated {
            self.replicated += 1;
            if self.replicated.is_multiple_of(READ_BACK) {
                // When the reader is behind, this record is not read back.
                let _ = reads.try_send(source);
            }
        }
    }
}
