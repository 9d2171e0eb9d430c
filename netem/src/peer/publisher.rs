//! A publisher: puts values at its rate, whatever the answers, until too many are unanswered.

use std::time::{Duration, Instant};

use anode_loadgen::Outcome as Attempt;
use serde::Deserialize;

use super::bucket::{self, Refusal};
use super::protocol::{Message, publish, subscribe};
use super::socket::Socket;
use crate::checker::{Answer, Level, Offer, Outcome, Seen, Version};
use crate::load::Shared;
use crate::load::course::{self, ANSWERS_PER_TURN, Course, READ};
use crate::load::shared::{source_name, unique_data};
use crate::target::Target;

/// How long a server may be silent until the publisher goes to another one.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// How long an answer is waited for, as the client libraries of NATS do. One that comes later still counts.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The answer of JetStream to a put.
#[derive(Deserialize)]
struct PutAnswer {
    seq: Option<u64>,
    error: Option<Refusal>,
}

/// Puts until the run is told to publish no more.
pub fn run(shared: &Shared, number: usize) {
    let inbox = format!("_INBOX.netem.put.{}.{number}", std::process::id());
    course::run(Publisher { course: Course::new(shared, number), inbox });
}

struct Publisher<'a> {
    /// The time at which it was sent is kept of each put that waits for its answer.
    course: Course<'a, Socket, Instant>,
    /// Begin of the subjects to which answers go.
    inbox: String,
}

impl<'a> course::Publisher<'a> for Publisher<'a> {
    type Socket = Socket;
    type Kept = Instant;

    fn course(&mut self) -> &mut Course<'a, Socket, Instant> {
        &mut self.course
    }

    fn open(&mut self, server: &Target) -> Attempt<Socket> {
        let mut socket = Socket::open(server)?;
        subscribe(&mut socket.out, &format!("{}.*", self.inbox), 1);
        Ok(socket)
    }

    fn send(&mut self) -> Attempt<()> {
        let shared = self.course.shared;
        let number = shared.take_number();
        let data = unique_data(number, shared.plan.data_bytes);
        let random = &mut self.course.random;
        let source = source_name(random.next_u64() % shared.plan.sources);
        // Publishers of aNode draw two numbers more for each record, so both put the same sources in the same order.
        let _ = (random.next_u64(), random.next_u64());
        let offer = Offer {
            source,
            ts: None,
            data_hash: Some(Version::of_data(0, data.as_bytes()).hash),
            data_bytes: data.len() as u32,
            ttl_ms: 0,
            node: self.course.node_name(),
            level: Level::Stored,
        };
        let socket = self.course.socket.as_mut().ok_or("no connection")?;
        let reply = format!("{}.{number}", self.inbox);
        publish(&mut socket.out, &bucket::subject(&offer.source), Some(&reply), data.as_bytes());
        self.course.note_sent(number, offer, Instant::now());
        Ok(())
    }

    fn read_answers(&mut self) -> Attempt<()> {
        let socket = self.course.socket.as_mut().ok_or("no connection")?;
        socket.keep_alive();
        socket.flush()?;
        let mut timeout = READ;
        for _ in 0..ANSWERS_PER_TURN {
            let socket = self.course.socket.as_mut().ok_or("no connection")?;
            let Some(message) = socket.read(timeout)? else { break };
            timeout = Duration::from_millis(1);
            self.handle(&message);
        }
        self.give_up_late();
        Ok(())
    }

    /// A server answers at least the pings of the publisher.
    fn is_silent(&self) -> bool {
        self.course.socket.as_ref().is_some_and(|socket| socket.silent_for() > SILENCE_MAX)
    }
}

impl Publisher<'_> {
    fn give_up_late(&mut self) {
        while let Some(first) = self.course.unanswered.first_entry()
            && first.get().elapsed() > ANSWER_MAX
        {
            let publish = *first.key();
            first.remove();
            self.course.shared.recorder.see(Seen::Unanswered { publish });
        }
    }

    fn handle(&mut self, message: &Message) {
        let number = message.subject.strip_prefix(&self.inbox).and_then(|rest| rest.strip_prefix('.'));
        let number = number.and_then(|number| number.parse().ok());
        let (Some(publish), Some(answer)) = (number, answer(message)) else {
            let said = String::from_utf8_lossy(&message.payload).into_owned();
            return self.course.shared.surprise(format!("a publisher got {} {said}", message.headers.trim()));
        };
        self.course.unanswered.remove(&publish);
        self.course.note_answer(publish, answer);
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
