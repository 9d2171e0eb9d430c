//! One thread of the generator: an event loop over its share of the connections.
//!
//! A turn: send what is due, wait for sockets or for the next due time, read what came. Everything of a
//! turn that goes to one socket is written at once.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::clock::{Alarm, Clock, thread_cpu_ns};
use super::connection::{self, Connection, Part, Reading};
use super::publisher::Publisher;
use super::send::{Sender, Sending};
use super::shared::Shared;
use super::subscriber::{Subscriber, Times};
use crate::Outcome;
use crate::measure::{Tally, histogram};
use crate::plan::Plan;
use crate::wire::{Broken, Role};

/// Size of the thread's read buffer, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// Most connections of a thread that are opened at the same time: a listener's queue is short.
const OPENING_MAX: usize = 64;
/// Most events of one poll.
const EVENTS: usize = 1_024;
/// Longest wait in nanoseconds, after which the thread looks at what other threads have told.
const WAIT_NS_MAX: u64 = 10_000_000;
/// Longest wait in nanoseconds while a publisher waits for deliveries, which other threads may see.
const WAIT_CREDIT_NS: u64 = 50_000;
/// How often the worker checks whether publishers are done or subscribers have everything, in nanoseconds.
const LOOK_NS: u64 = 2_000_000;
/// The token of the alarm. Connections have tokens from 0.
const ALARM: Token = Token(usize::MAX);

/// A connection that is to be opened.
pub struct Task {
    /// The address to connect to.
    pub to: SocketAddr,
    /// The host name for the handshake.
    pub host: String,
    /// Whether the connection publishes; if not, it subscribes.
    pub is_publisher: bool,
    /// Number of the connection among those of its kind, from 0.
    pub index: u32,
}

/// The latencies that one thread measured in one second.
pub struct Second {
    /// Number of the second, from the start.
    pub second: u64,
    /// Times in nanoseconds from when a message was due until it was delivered.
    pub latency: Histogram<u64>,
}

/// The waiting time and the processor time of a thread until an instant, in nanoseconds.
#[derive(Clone, Copy)]
struct Effort {
    at_ns: u64,
    waited_ns: u64,
    cpu_ns: u64,
}

impl Effort {
    /// Returns the part of the time since `before` in which the thread did not wait: by its own count, or by
    /// its CPU time if that is more and the thread does not spin.
    fn since(self, before: Effort, spins: bool) -> f64 {
        let whole = self.at_ns.saturating_sub(before.at_ns).max(1) as f64;
        let awake = 1.0 - (self.waited_ns - before.waited_ns) as f64 / whole;
        let cpu = (self.cpu_ns - before.cpu_ns) as f64 / whole;
        if spins { awake } else { awake.max(cpu) }
    }
}

/// The counts and times that a thread of the generator returns when it ends.
pub struct Left {
    /// The measurements of the thread.
    pub tally: Tally,
    /// Part of the time in which the thread did not wait, while publishing, 0 to 1.
    pub busy: f64,
    /// The deliveries that the thread's subscribers should have had and did not have.
    pub missing: super::subscriber::Missing,
    /// Number of messages that were never answered.
    pub unanswered: u64,
}

/// One thread of the generator, with its connections.
pub struct Worker {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    /// Number of this thread among those of the generator, from 0.
    index: usize,
    clock: Clock,
    /// Connections by token. One that is lost keeps its place.
    connections: Vec<Connection>,
    sender: Sender,
    tally: Tally,
    times: Times,
    /// The number of records that each lost subscriber had received.
    lost: Vec<u64>,
    poll: Poll,
    events: Events,
    alarm: Alarm,
    buffer: Vec<u8>,
    tasks: std::vec::IntoIter<Task>,
    opening: usize,
    ready: u64,
    waited_ns: u64,
    seconds: mpsc::Sender<Second>,
    second: u64,
}

impl Worker {
    /// Makes a worker that has these connections to open.
    pub fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        index: usize,
        clock: Clock,
        tasks: Vec<Task>,
        seconds: mpsc::Sender<Second>,
    ) -> Outcome<Worker> {
        let (poll, alarm) = (Poll::new()?, Alarm::new()?);
        poll.registry().register(&mut SourceFd(&alarm.fd()), ALARM, Interest::READABLE)?;
        Ok(Worker {
            plan,
            shared,
            index,
            clock,
            connections: Vec::with_capacity(tasks.len()),
            sender: Sender::default(),
            tally: Tally::default(),
            times: Times { now_ns: 0, start_ns: 0, counted_ns: u64::MAX },
            lost: Vec::new(),
            poll,
            events: Events::with_capacity(EVENTS),
            alarm,
            buffer: vec![0; BUFFER_BYTES],
            tasks: tasks.into_iter(),
            opening: 0,
            ready: 0,
            waited_ns: 0,
            seconds,
            second: 0,
        })
    }

    /// Runs until the run ends. When all publishers are done, the number of messages of each source is sent to
    /// `published`.
    pub fn run(mut self, published: &mpsc::Sender<Vec<u32>>) -> Outcome<Left> {
        let mut is_told = false;
        let (mut busy, mut looked_ns, mut began) = (0.0, 0, None);
        while !self.shared.stop.load(Acquire) {
            self.open_more()?;
            self.begin();
            let now_ns = self.clock.now_ns();
            if began.is_none() && self.times.start_ns > 0 && now_ns >= self.times.start_ns {
                began = Some(self.effort(now_ns));
            }
            if let Some(began) = began {
                let (sender, mut with) = self.sending();
                for (token, reason) in sender.publish(&mut with, now_ns) {
                    self.give_up(token, reason);
                }
                self.end_second(now_ns);
                // All connections are looked at here, so this is done only now and then.
                if now_ns >= looked_ns + LOOK_NS {
                    looked_ns = now_ns;
                    if is_told {
                        let is_complete = self.is_complete();
                        self.shared.counters[self.index].is_complete.store(is_complete, Relaxed);
                    } else if self.publishers_are_done(now_ns) {
                        is_told = true;
                        busy = self.effort(now_ns).since(began, self.plan.spin);
                        // Sending fails if the run has ended; then nobody needs the counts.
                        let _ = published.send(self.published());
                    }
                }
            }
            self.wait(now_ns)?;
            self.handle();
            self.tell();
        }
        Ok(self.leave(busy))
    }

    fn effort(&self, now_ns: u64) -> Effort {
        Effort { at_ns: now_ns, waited_ns: self.waited_ns, cpu_ns: thread_cpu_ns() }
    }

    fn open_more(&mut self) -> Outcome<()> {
        while self.opening < OPENING_MAX {
            let Some(task) = self.tasks.next() else { break };
            let addresses = &self.plan.local_addresses;
            let number = self.connections.len() * self.shared.counters.len() + self.index;
            let local = addresses.get(number % addresses.len().max(1)).copied();
            let mut socket = connection::open(task.to, local)
                .map_err(|error| format!("connecting to {}: {error}", task.host))?;
            let (role, part) = if task.is_publisher {
                (Role::Publisher, Part::Publisher(Publisher::new(&self.plan, task.index)))
            } else {
                let subscriber = Subscriber::new(&self.plan, task.index);
                (self.plan.role(task.index), Part::Subscriber(subscriber))
            };
            let token = Token(self.connections.len());
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            let wire = self.plan.wire(role, &task.host, number as u64);
            let tls = self.plan.tls.as_ref().map(|settings| settings.begin(&task.host)).transpose();
            let tls = tls.map_err(|error| format!("connecting to {}: {error}", task.host))?;
            self.connections.push(Connection::new(socket, tls, wire, part));
            self.opening += 1;
        }
        Ok(())
    }

    /// Returns the sending half, and what it needs of this thread.
    fn sending(&mut self) -> (&mut Sender, Sending<'_>) {
        let Worker { sender, plan, shared, connections, tally, times, .. } = self;
        (sender, Sending { plan, shared, connections, tally, times: *times })
    }

    /// Queues all publishers as soon as the start of publishing is known.
    fn begin(&mut self) {
        let start_ns = self.shared.start_ns.load(Acquire);
        if start_ns == 0 || self.times.start_ns != 0 {
            return;
        }
        self.times.start_ns = start_ns;
        self.times.counted_ns = start_ns + self.plan.warmup_ns;
        let (sender, mut with) = self.sending();
        for token in 0..with.connections.len() {
            sender.queue(&mut with, token);
        }
    }

    fn publishers_are_done(&mut self, now_ns: u64) -> bool {
        let is_over = self.shared.is_over.load(Relaxed);
        let has_ended = now_ns >= self.times.start_ns + self.plan.whole_ns();
        let drain_ends_ns = self.times.start_ns + self.plan.whole_ns() + self.plan.drain_ns;
        let is_too_late = now_ns > drain_ends_ns;
        if is_over || is_too_late || (has_ended && self.plan.is_saturating()) {
            for connection in &mut self.connections {
                if let Part::Publisher(publisher) = &mut connection.part {
                    let unsent = publisher.end(is_too_late && !is_over);
                    self.tally.faults.unsent += unsent;
                }
            }
        }
        if self.plan.publishers == 0 && !is_over && !has_ended {
            // A run that only subscribes lasts as long as its plan says.
            return false;
        }
        let publishers = self.connections.iter().filter_map(|connection| match &connection.part {
            Part::Publisher(publisher) if !connection.is_broken => Some((publisher, connection)),
            _ => None,
        });
        let mut left =
            publishers.filter(|(publisher, connection)| !publisher.is_done() || connection.has_unwritten());
        // Answers are waited for until the drain ends.
        is_too_late || left.next().is_none()
    }

    fn published(&self) -> Vec<u32> {
        let mut of = vec![0; self.plan.sources as usize];
        for connection in &self.connections {
            if let Part::Publisher(publisher) = &connection.part {
                publisher.count(&mut of);
            }
        }
        of
    }

    fn wait(&mut self, now_ns: u64) -> Outcome<()> {
        let until_start =
            if self.times.start_ns > now_ns { self.times.start_ns - now_ns } else { WAIT_NS_MAX };
        let next_ns = match self.sender.next_due_ns() {
            Some(due_ns) if self.times.start_ns <= now_ns => due_ns.saturating_sub(now_ns),
            _ => until_start,
        };
        let next_ns = if self.sender.is_waiting() { next_ns.min(WAIT_CREDIT_NS) } else { next_ns };
        let does_wait = next_ns > 0 && !self.plan.spin;
        if does_wait && next_ns < WAIT_NS_MAX {
            self.alarm.set(next_ns)?;
        }
        let began_ns = self.clock.now_ns();
        let longest = Duration::from_nanos(if does_wait { WAIT_NS_MAX } else { 0 });
        match self.poll.poll(&mut self.events, Some(longest)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if does_wait || self.events.is_empty() {
            self.waited_ns += self.clock.now_ns().saturating_sub(began_ns);
        }
        Ok(())
    }

    fn handle(&mut self) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == ALARM {
                continue;
            }
            let token = event.token().0;
            if let Err(Broken(reason)) = self.handle_one(token, event) {
                self.give_up(token, reason);
            }
        }
        self.events = events;
    }

    fn handle_one(&mut self, token: usize, event: &mio::event::Event) -> Result<(), Broken> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        if connection.is_broken {
            return Ok(());
        }
        if event.is_writable() && connection.is_choked {
            connection.is_choked = false;
            connection.flush()?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let was_ready = connection.is_ready;
            let mut reading = Reading {
                buffer: &mut self.buffer,
                tally: &mut self.tally,
                payloads: &self.plan.payloads,
                times: self.times,
            };
            let clock = self.clock;
            connection.read(&mut reading, || clock.now_ns())?;
            connection.flush()?;
            if connection.is_ready && !was_ready {
                self.opening -= 1;
                self.ready += 1;
            }
        }
        if self.times.start_ns != 0 {
            let (sender, mut with) = self.sending();
            sender.queue(&mut with, token);
        }
        Ok(())
    }

    /// Gives up a lost connection. Before the start this ends the run; later it is counted.
    fn give_up(&mut self, token: usize, reason: String) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        // Reading and writing may both have noticed it.
        if std::mem::replace(&mut connection.is_broken, true) {
            return;
        }
        if self.times.start_ns == 0 {
            return self.shared.fail(reason);
        }
        if let Part::Subscriber(subscriber) = &connection.part {
            self.lost.push(subscriber.received);
        }
        *self.tally.faults.closed.entry(reason).or_default() += 1;
        // If this fails, the socket is gone from the poll already.
        let _ = self.poll.registry().deregister(connection.socket());
    }

    /// Publishes this thread's counters to the other threads.
    fn tell(&mut self) {
        let counters = &self.shared.counters[self.index];
        // Deliveries to lost subscribers are given up, so that no publisher waits for them.
        let each = self.shared.sum(|counters| &counters.expected) / u64::from(self.plan.subscribers.max(1));
        let given_up: u64 = self.lost.iter().map(|received| each.saturating_sub(*received)).sum();
        counters.ready.store(self.ready, Relaxed);
        counters.sent.store(self.sender.sent(), Relaxed);
        counters.expected.store(self.sender.expected(), Relaxed);
        counters.delivered.store(self.tally.delivered, Relaxed);
        counters.given_up.store(given_up, Relaxed);
        counters.acked.store(self.tally.acked, Relaxed);
        counters.received_bytes.store(self.tally.received_bytes, Relaxed);
    }

    fn end_second(&mut self, now_ns: u64) {
        let second = now_ns.saturating_sub(self.times.start_ns) / 1_000_000_000;
        if second > self.second {
            let latency = std::mem::replace(&mut self.tally.latency, histogram());
            // Sending fails if the run has ended; then nobody needs the latencies.
            let _ = self.seconds.send(Second { second: self.second, latency });
            self.second = second;
        }
    }

    /// Returns whether every subscriber has received everything that it must get.
    fn is_complete(&self) -> bool {
        let Some(published) = self.shared.published.get() else { return false };
        self.connections.iter().all(|connection| match &connection.part {
            Part::Subscriber(subscriber) => {
                connection.is_broken || subscriber.is_complete(published, &self.plan)
            }
            Part::Publisher(_) => true,
        })
    }

    fn leave(mut self, busy: f64) -> Left {
        let mut left = Left { busy, missing: Default::default(), unanswered: 0, tally: Tally::default() };
        for connection in &self.connections {
            match &connection.part {
                Part::Publisher(publisher) => left.unanswered += publisher.unanswered(),
                Part::Subscriber(subscriber) => {
                    if let Some(published) = self.shared.published.get() {
                        let missing = subscriber.missing(published, &self.plan);
                        left.missing.expected += missing.expected;
                        left.missing.lost += missing.lost;
                        left.missing.stale += missing.stale;
                    }
                }
            }
        }
        let latency = std::mem::replace(&mut self.tally.latency, histogram());
        let _ = self.seconds.send(Second { second: self.second, latency });
        left.tally = self.tally;
        left
    }
}
