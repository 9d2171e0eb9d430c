//! A publisher: puts values at its rate, whatever the answers, until too many are unanswered.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome as Attempt;
use anode_loadgen::random::Random;
use serde::Deserialize;

use super::bucket::{self, Refusal};
use super::protocol::{Message, publish, subscribe};
use super::socket::Socket;
use crate::checker::{Answer, Level, Offer, Outcome, Seen, Version};
use crate::load::Shared;
use crate::load::shared::{source_name, unique_data};

/// Puts without an answer until a publisher waits, as the publishers of aNode do.
const UNANSWERED_MAX: usize = 2_000;
/// Puts that are sent before answers are read again.
const PER_TURN: u64 = 100;
/// Pause after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may be silent until the publisher goes to another one.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// How long an answer is waited for, as the client libraries of NATS do. One that comes later still counts.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long answers are waited for in the end.
const LAST_ANSWERS: Duration = Duration::from_secs(8);
/// Longest time that reading waits, so that values are sent in time.
const READ: Duration = Duration::from_millis(4);

/// The answer of JetStream to a put.
#[derive(Deserialize)]
struct PutAnswer {
    seq: Option<u64>,
    error: Option<Refusal>,
}

/// Puts until the run is told to publish no more.
pub fn run(shared: &Shared, number: usize) {
    Publisher {
        shared,
        inbox: format!("_INBOX.netem.put.{}.{number}", std::process::id()),
        node: number,
        random: Random::new(shared.plan.seed, 1_000 + number as u64),
        rate: shared.plan.rate / shared.plan.nodes.len() as f64,
        begin: Instant::now(),
        sent: 0,
        socket: None,
        unanswered: BTreeMap::new(),
    }
    .run();
}

struct Publisher<'a> {
    shared: &'a Shared,
    /// Begin of the subjects to which answers go.
    inbox: String,
    /// The server of the connection, or the next one.
    node: usize,
    random: Random,
    rate: f64,
    begin: Instant,
    sent: u64,
    socket: Option<Socket>,
    /// When each put was sent that waits for its answer.
    unanswered: BTreeMap<u64, Instant>,
}

impl Publisher<'_> {
    fn run(mut self) {
        while self.shared.is_publishing.load(Relaxed) {
            let worked = self.connect().and_then(|()| self.turn());
            if worked.is_err() {
                self.lose();
                std::thread::sleep(PAUSE);
            }
        }
        let until = Instant::now() + LAST_ANSWERS;
        while Instant::now() < until && !self.unanswered.is_empty() {
            if self.read_answers().is_err() {
                break;
            }
        }
        self.lose();
    }

    fn connect(&mut self) -> Attempt<()> {
        if self.socket.is_none() {
            let mut socket = Socket::open(&self.shared.plan.nodes[self.node].1)?;
            subscribe(&mut socket.out, &format!("{}.*", self.inbox), 1);
            self.socket = Some(socket);
            self.shared.counts.connections.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Gives the connection up, and takes the next server.
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

    fn turn(&mut self) -> Attempt<()> {
        let due = self.due().min(self.sent + PER_TURN);
        while self.sent < due && self.unanswered.len() < UNANSWERED_MAX {
            self.sent += 1;
            self.send()?;
        }
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.skip_due();
        }
        self.read_answers()
    }

    fn send(&mut self) -> Attempt<()> {
        let number = self.shared.take_number();
        let data = unique_data(number, self.shared.plan.data_bytes);
        let offer = Offer {
            source: source_name(self.random.next_u64() % self.shared.plan.sources),
            ts: None,
            data_hash: Some(Version::of_data(0, data.as_bytes()).hash),
            data_bytes: data.len() as u32,
            ttl_ms: 0,
            node: self.shared.plan.nodes[self.node].0.clone(),
            level: Level::Stored,
        };
        // Publishers of aNode draw two numbers more for each record, so both put the same sources in the same order.
        let _ = (self.random.next_u64(), self.random.next_u64());
        let socket = self.socket.as_mut().ok_or("no connection")?;
        let reply = format!("{}.{number}", self.inbox);
        publish(&mut socket.out, &bucket::subject(&offer.source), Some(&reply), data.as_bytes());
        self.unanswered.insert(number, Instant::now());
        self.shared.recorder.see(Seen::Offered { publish: number, offer });
        self.shared.counts.sent.fetch_add(1, Relaxed);
        Ok(())
    }

    fn read_answers(&mut self) -> Attempt<()> {
        let socket = self.socket.as_mut().ok_or("no connection")?;
        socket.keep_alive();
        socket.flush()?;
        let mut timeout = READ;
        for _ in 0..2 * PER_TURN {
            let socket = self.socket.as_mut().ok_or("no connection")?;
            let Some(message) = socket.read(timeout)? else { break };
            timeout = Duration::from_millis(1);
            self.handle(&message);
        }
        self.give_up_late();
        match self.socket.as_ref().is_some_and(|socket| socket.silent_for() > SILENCE_MAX) {
            true => Err("the server is silent".into()),
            false => Ok(()),
        }
    }

    fn give_up_late(&mut self) {
        while let Some(first) = self.unanswered.first_entry()
            && first.get().elapsed() > ANSWER_MAX
        {
            let publish = *first.key();
            first.remove();
            self.shared.recorder.see(Seen::Unanswered { publish });
        }
    }

    fn handle(&mut self, message: &Message) {
        let number = message.subject.strip_prefix(&self.inbox).and_then(|rest| rest.strip_prefix('.'));
        let number = number.and_then(|number| number.parse().ok());
        let (Some(publish), Some(answer)) = (number, answer(message)) else {
            let said = String::from_utf8_lossy(&message.payload).into_owned();
            return self.shared.surprise(format!("a publisher got {} {said}", message.headers.trim()));
        };
        self.unanswered.remove(&publish);
        let is_done = matches!(answer, Answer::Done { .. });
        self.shared.recorder.see(Seen::Answered { publish, answer });
        let counts = &self.shared.counts;
        if is_done { &counts.acked } else { &counts.failed }.fetch_add(1, Relaxed);
    }
}

/// Returns what an answer says about a put.
pub fn answer(message: &Message) -> Option<Answer> {
    if let Some(status) = message.status() {
        let code = if status == 503 { "no responders".to_owned() } else { format!("status {status}") };
        return Some(Answer::Failed { code: code.into(), applied: None });
    }
    let answer: PutAnswer = serde_json::from_slice(&message.payload).ok()?;
    match (answer.error, answer.seq) {
        (Some(error), _) => Some(Answer::Failed { code: error.description.into(), applied: None }),
        (None, Some(ts)) => Some(Answer::Done { ts, outcome: Outcome::Applied, nodes: None }),
        (None, None) => None,
    }
}
