//! The course of a publisher, whatever protocol it speaks: it sends what is due and reads the answers in turns, goes to the
//! next node when its connection is lost, and waits for the last answers in the end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome as Attempt;
use anode_loadgen::random::Random;

use super::shared::Shared;
use crate::checker::{Answer, Name, Offer, Seen};
use crate::target::Target;

/// Records without an answer until a publisher waits.
const UNANSWERED_MAX: usize = 2_000;
/// Records that are sent before answers are read again.
const PER_TURN: u64 = 100;
/// Most answers that are read in a turn.
pub(crate) const ANSWERS_PER_TURN: u64 = 2 * PER_TURN;
/// Pause after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers are waited for in the end.
const LAST_ANSWERS: Duration = Duration::from_secs(8);
/// Longest time that reading waits, so that records are sent in time.
pub(crate) const READ: Duration = Duration::from_millis(4);

/// A publisher of one protocol.
pub(crate) trait Publisher<'a> {
    /// A connection to a node.
    type Socket;
    /// What is kept of a record until its answer comes.
    type Kept;

    /// Returns the part of the publisher that does not depend on the protocol.
    fn course(&mut self) -> &mut Course<'a, Self::Socket, Self::Kept>;

    /// Connects to a node.
    fn open(&mut self, node: &Target) -> Attempt<Self::Socket>;

    /// Sends the next record. An error gives the connection up, as with the functions below.
    fn send(&mut self) -> Attempt<()>;

    /// Flushes what was sent, and handles the answers that have come.
    fn read_answers(&mut self) -> Attempt<()>;

    /// Returns whether the node has said nothing for so long that the publisher should go to another one.
    fn is_silent(&self) -> bool;
}

/// What all publishers know of their records and of where they send them.
pub(crate) struct Course<'a, Socket, Kept> {
    pub(crate) shared: &'a Shared,
    /// Chance, by which the publisher makes its records.
    pub(crate) random: Random,
    pub(crate) socket: Option<Socket>,
    /// Records that were sent and not answered, by the numbers of their publishes.
    pub(crate) unanswered: BTreeMap<u64, Kept>,
    /// The node of the connection, or the next one.
    node: usize,
    /// Records a second.
    rate: f64,
    begin: Instant,
    /// Number of records that were sent or left out.
    sent: u64,
}

impl<'a, Socket, Kept> Course<'a, Socket, Kept> {
    /// Makes the course of the publisher with this number, which begins at the node with the same number.
    pub(crate) fn new(shared: &'a Shared, number: usize) -> Course<'a, Socket, Kept> {
        Course {
            shared,
            random: Random::new(shared.plan.seed, 1_000 + number as u64),
            socket: None,
            unanswered: BTreeMap::new(),
            node: number,
            rate: shared.plan.rate / shared.plan.nodes.len() as f64,
            begin: Instant::now(),
            sent: 0,
        }
    }

    /// Returns the name of the node to which records are sent.
    pub(crate) fn node_name(&self) -> Name {
        self.shared.plan.nodes[self.node].0.clone()
    }

    /// Notes that a record is sent. `kept` is given back with the answer.
    pub(crate) fn note_sent(&mut self, publish: u64, offer: Offer, kept: Kept) {
        self.unanswered.insert(publish, kept);
        self.shared.recorder.see(Seen::Offered { publish, offer });
        self.shared.counts.sent.fetch_add(1, Relaxed);
    }

    /// Notes the answer to a record. Returns whether its level was reached.
    pub(crate) fn note_answer(&self, publish: u64, answer: Answer) -> bool {
        let is_done = matches!(answer, Answer::Done { .. });
        self.shared.recorder.see(Seen::Answered { publish, answer });
        let counts = &self.shared.counts;
        if is_done { &counts.acked } else { &counts.failed }.fetch_add(1, Relaxed);
        is_done
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

    /// Returns how many records should have been sent by now.
    fn due(&self) -> u64 {
        (self.begin.elapsed().as_secs_f64() * self.rate) as u64
    }

    fn is_full(&self) -> bool {
        self.unanswered.len() >= UNANSWERED_MAX
    }

    /// Counts the next record as sent, if it is among the first `due` and not too many are unanswered.
    fn takes_next(&mut self, due: u64) -> bool {
        let takes = self.sent < due && !self.is_full();
        self.sent += u64::from(takes);
        takes
    }
}

/// Publishes until the run is told to publish no more.
pub(crate) fn run<'a>(mut publisher: impl Publisher<'a>) {
    while publisher.course().shared.is_publishing.load(Relaxed) {
        let worked = connect(&mut publisher).and_then(|()| turn(&mut publisher));
        if worked.is_err() {
            publisher.course().lose();
            std::thread::sleep(PAUSE);
        }
    }
    let until = Instant::now() + LAST_ANSWERS;
    while Instant::now() < until && !publisher.course().unanswered.is_empty() {
        if publisher.read_answers().is_err() {
            break;
        }
    }
    publisher.course().lose();
}

fn connect<'a>(publisher: &mut impl Publisher<'a>) -> Attempt<()> {
    let course = publisher.course();
    if course.socket.is_none() {
        let shared = course.shared;
        let (_, target, _) = &shared.plan.nodes[course.node];
        let socket = publisher.open(target)?;
        publisher.course().socket = Some(socket);
        shared.counts.connections.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn turn<'a>(publisher: &mut impl Publisher<'a>) -> Attempt<()> {
    let course = publisher.course();
    let due = course.due().min(course.sent + PER_TURN);
    while publisher.course().takes_next(due) {
        publisher.send()?;
    }
    if publisher.course().is_full() {
        publisher.course().skip_due();
    }
    publisher.read_answers()?;
    if publisher.is_silent() { Err("the node is silent".into()) } else { Ok(()) }
}
