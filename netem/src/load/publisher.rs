//! A publisher: sends records at its rate, whatever the answers, until too many are unanswered.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anode_loadgen::Outcome as Attempt;

use super::course::{self, ANSWERS_PER_TURN, Course, READ};
use super::frames::{self, Frame};
use super::shared::{Shared, source_name, unique_data};
use super::socket::Socket;
use crate::checker::{Level, Name, Offer, Version};
use crate::target::Target;

/// How long a node may leave all publishes unanswered until the publisher goes to another one: longer than the time
/// after which a node must answer `timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Of so many replicated records, one is read back at all nodes.
const READ_BACK: u64 = 40;

/// Kinds of records, in parts of a thousand.
const DELETIONS: u64 = 15;
const WITH_TTL: u64 = 15;
const STORED: u64 = 200;
const REPLICATED: u64 = 200;

/// Publishes until the run is told to publish no more. `reads` takes sources that are to be read back.
pub fn run(shared: &Shared, number: usize, reads: &SyncSender<Name>) {
    course::run(Publisher {
        course: Course::new(shared, number),
        reads,
        has_stamps: number % 2 == 1,
        last_ts: 0,
        replicated: 0,
    });
}

struct Publisher<'a> {
    /// The source and the level are kept of each record that was sent and not answered.
    course: Course<'a, Socket, (Name, Level)>,
    reads: &'a SyncSender<Name>,
    /// Whether the records of this publisher bring their timestamps.
    has_stamps: bool,
    last_ts: u64,
    replicated: u64,
}

impl<'a> course::Publisher<'a> for Publisher<'a> {
    type Socket = Socket;
    type Kept = (Name, Level);

    fn course(&mut self) -> &mut Course<'a, Socket, (Name, Level)> {
        &mut self.course
    }

    fn open(&mut self, node: &Target) -> Attempt<Socket> {
        Socket::open(node, "/publish")
    }

    fn send(&mut self) -> Attempt<()> {
        let shared = self.course.shared;
        let publish = shared.take_number();
        let data = unique_data(publish, shared.plan.data_bytes);
        let offer = self.offer(&data);
        let frame = frames::publish(publish, &offer, &data);
        let kept = (offer.source.clone(), offer.level);
        self.course.note_sent(publish, offer, kept);
        let socket = self.course.socket.as_mut().ok_or("no connection")?;
        socket.write(frame).map(drop)
    }

    fn read_answers(&mut self) -> Attempt<()> {
        self.course.socket.as_mut().ok_or("no connection")?.flush()?;
        let mut timeout = READ;
        for _ in 0..ANSWERS_PER_TURN {
            let socket = self.course.socket.as_mut().ok_or("no connection")?;
            let Some(text) = socket.read(timeout)? else { break };
            timeout = Duration::from_millis(1);
            self.handle(&text);
        }
        Ok(())
    }

    /// A node has nothing to say to a publisher that waits for no answer.
    fn is_silent(&self) -> bool {
        let is_silent = self.course.socket.as_ref().is_some_and(|socket| socket.silent_for() > SILENCE_MAX);
        is_silent && !self.course.unanswered.is_empty()
    }
}

impl Publisher<'_> {
    fn offer(&mut self, data: &str) -> Offer {
        let random = &mut self.course.random;
        let source = random.next_u64() % self.course.shared.plan.sources;
        let kind = random.next_u64() % 1_000;
        let level = match random.next_u64() % 1_000 {
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
            ttl_ms: if has_ttl { 2_000 + self.course.random.next_u64() % 3_000 } else { 0 },
            node: self.course.node_name(),
            level,
        }
    }

    fn stamp(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_ts = now.max(self.last_ts + 1);
        self.last_ts
    }

    fn handle(&mut self, text: &str) {
        let shared = self.course.shared;
        let frame: Frame = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => return shared.surprise(format!("a publisher got {text}: {error}")),
        };
        if frame.connected.is_some() {
            return;
        }
        let answer = frame.id.and_then(|id| Some((id, self.course.unanswered.remove(&id)?, frame.answer()?)));
        let Some((publish, (source, level), answer)) = answer else {
            return shared.surprise(format!("a publisher got {text}"));
        };
        let is_done = self.course.note_answer(publish, answer);
        if is_done && level == Level::Replicated {
            self.replicated += 1;
            if self.replicated.is_multiple_of(READ_BACK) {
                // When the reader is behind, this record is not read back.
                let _ = self.reads.try_send(source);
            }
        }
    }
}
