//! A run: threads that send and receive, and the calling thread, which starts, watches and ends them.

pub mod clock;
mod connection;
mod publisher;
mod send;
mod shared;
mod subscriber;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::measure::{Faults, histogram};
use crate::plan::{Plan, Published};
use crate::{Outcome, machine};
use clock::Clock;
use shared::Shared;
use worker::{Left, Second, Task, Worker};

pub use publisher::WINDOW_MAX;
pub use subscriber::{Missing, SOURCES_MAX};

/// Time from when the last connection is ready to the first message.
const LEAD: Duration = Duration::from_millis(100);
/// How often the counters are sampled.
const SAMPLE: Duration = Duration::from_millis(100);
/// How often it is checked whether the threads are done.
const LOOK: Duration = Duration::from_millis(2);
/// How long opening may take without one more connection being ready.
const OPEN: Duration = Duration::from_secs(30);
/// How long nothing must arrive until a run ends for which it cannot be known what is still missing.
const QUIET: Duration = Duration::from_millis(500);

/// The counters of all threads at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Seconds since the first message was due.
    pub at_s: f64,
    /// Number of messages sent.
    pub sent: u64,
    /// Number of deliveries.
    pub delivered: u64,
    /// Number of messages answered.
    pub acked: u64,
    /// Number of bytes received.
    pub received_bytes: u64,
}

/// The measurements of a run.
pub struct Measured {
    /// Samples of the counters: at the first and the last instant that count, and between them.
    pub samples: Vec<Sample>,
    /// Times in nanoseconds from when a message was due until it was delivered, one histogram per second.
    pub seconds: Vec<Histogram<u64>>,
    /// The histograms of all seconds together.
    pub latency: Histogram<u64>,
    /// Times in nanoseconds from when a message was due until it was answered.
    pub ack_latency: Histogram<u64>,
    /// Times in nanoseconds from when a message was due until it was written, where only the generator can
    /// be the cause.
    pub send_lag: Histogram<u64>,
    /// Counts of faults, and of events that may be faults.
    pub faults: Faults,
    /// Expected deliveries that did not happen.
    pub missing: Missing,
    /// Number of messages sent in all.
    pub sent: u64,
    /// Number of messages that were never answered.
    pub unanswered: u64,
    /// For each thread, the part of the time in which it did not wait, 0 to 1.
    pub busy: Vec<f64>,
    /// CPU seconds that the servers used while the run counted.
    pub server_cpu_s: Option<f64>,
    /// Resident bytes of the servers when the run stopped counting.
    pub server_resident_bytes: Option<u64>,
    /// CPU seconds that this process used while the run counted.
    pub own_cpu_s: f64,
}

/// An observer that is told how a run proceeds.
pub trait Watcher {
    /// Connections are being opened: `ready` of `of` are.
    fn opening(&mut self, ready: u64, of: u64);
    /// Messages are being sent: the newest counters, and those of about a second before.
    fn running(&mut self, now: Sample, before: Sample);
    /// All messages are sent; the run waits for missing deliveries.
    fn draining(&mut self);
    /// Returns whether the run is to end before its time, with a report of what was measured so far.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Runs a plan. Fails if the connections cannot be opened; whatever goes wrong later is counted.
pub fn run(plan: &Arc<Plan>, watcher: &mut dyn Watcher) -> Outcome<Measured> {
    crate::raise_open_files();
    let running = Running::start(plan)?;
    let watched = running.watch(watcher);
    running.finish(watched)
}

/// A run whose threads are at work.
pub struct Running {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    clock: Clock,
    threads: Vec<JoinHandle<Outcome<Left>>>,
    seconds: mpsc::Receiver<Second>,
    published: mpsc::Receiver<Vec<u32>>,
}

/// Measurements that are made outside of the threads.
struct Watched {
    samples: Vec<Sample>,
    server_cpu_s: Option<f64>,
    server_resident_bytes: Option<u64>,
    own_cpu_s: f64,
}

impl Running {
    /// Starts the threads. They open their connections, and wait for the start of publishing.
    pub fn start(plan: &Arc<Plan>) -> Outcome<Running> {
        let shared = Arc::new(Shared::new(plan.threads));
        let clock = Clock::start();
        let (seconds_in, seconds) = mpsc::channel();
        let (published_in, published) = mpsc::channel();
        let mut threads = Vec::new();
        for (index, tasks) in tasks(plan)?.into_iter().enumerate() {
            let (plan, shared) = (plan.clone(), shared.clone());
            let (seconds, published) = (seconds_in.clone(), published_in.clone());
            let name = format!("load-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                pin(&plan, index);
                let worker = Worker::new(plan, shared.clone(), index, clock, tasks, seconds);
                let left = worker.and_then(|worker| worker.run(&published));
                if let Err(error) = &left {
                    shared.fail(error.to_string());
                }
                left
            })?);
        }
        Ok(Running { plan: plan.clone(), shared, clock, threads, seconds, published })
    }

    /// Waits until all connections are ready.
    pub fn wait_open(&self, watcher: &mut dyn Watcher) -> Outcome<()> {
        let of = u64::from(self.plan.publishers) + u64::from(self.plan.subscribers);
        let (mut ready, mut since) = (0, Instant::now());
        while ready < of {
            let now = self.shared.sum(|counters| &counters.ready);
            if now > ready {
                (ready, since) = (now, Instant::now());
            }
            watcher.opening(ready, of);
            if let Some(reason) = self.shared.failure() {
                return Err(reason.into());
            }
            if since.elapsed() > OPEN {
                return Err(format!("only {ready} of {of} connections are ready").into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn watch(&self, watcher: &mut dyn Watcher) -> Outcome<Watched> {
        self.wait_open(watcher)?;
        let start_ns = self.clock.now_ns() + LEAD.as_nanos() as u64;
        self.shared.start_ns.store(start_ns, Release);
        self.warm_up(start_ns, watcher);
        let pids = &self.plan.server_pids;
        let server_before = machine::cpu_seconds(pids)?;
        let own_before = machine::cpu_seconds(&[std::process::id()])?;
        let end_ns = start_ns + self.plan.whole_ns();
        let mut samples = vec![self.sample(start_ns)];
        let mut counts = vec![0; self.plan.sources as usize];
        let mut threads_done = 0;
        let mut sampled = Instant::now();
        while threads_done < self.plan.threads {
            if let Some(reason) = self.shared.failure() {
                return Err(reason.into());
            }
            if let Ok(of) = self.published.recv_timeout(LOOK) {
                counts.iter_mut().zip(of).for_each(|(sum, count)| *sum += count);
                threads_done += 1;
            }
            let is_interrupted = watcher.is_interrupted();
            self.shared.is_over.store(is_interrupted, Relaxed);
            let is_over = self.clock.now_ns() >= end_ns || is_interrupted;
            if sampled.elapsed() >= SAMPLE && !is_over {
                sampled = Instant::now();
                let now = self.sample(start_ns);
                watcher.running(now, samples[samples.len().saturating_sub(11)]);
                samples.push(now);
            }
            if is_over {
                break;
            }
        }
        samples.push(self.sample(start_ns));
        let watched = Watched {
            samples,
            // There is no figure if a server has died meanwhile.
            server_cpu_s: cpu_seconds_of(pids).map(|after| after - server_before),
            server_resident_bytes: machine::resident_bytes(pids).ok(),
            own_cpu_s: machine::cpu_seconds(&[std::process::id()])? - own_before,
        };
        watcher.draining();
        self.drain(counts, threads_done)?;
        Ok(watched)
    }

    /// Waits for the last answers to publishers, and then for missing deliveries to subscribers.
    fn drain(&self, mut counts: Vec<u32>, mut threads_done: usize) -> Outcome<()> {
        let drain = Duration::from_nanos(self.plan.drain_ns);
        // The threads are done by then, unless something is very wrong.
        let deadline = Instant::now() + drain + OPEN;
        while threads_done < self.plan.threads {
            if let Some(reason) = self.shared.failure() {
                return Err(reason.into());
            }
            match self.published.recv_timeout(LOOK) {
                Ok(of) => {
                    counts.iter_mut().zip(of).for_each(|(sum, count)| *sum += count);
                    threads_done += 1;
                }
                Err(_) if Instant::now() > deadline => {
                    return Err("the publishers do not end".into());
                }
                Err(_) => {}
            }
        }
        // It cannot be set already: this is the only place that sets it, once per run.
        let _ = self.shared.published.set(Published::new(counts, &self.plan));
        let (mut delivered, mut since) = (0, Instant::now());
        let deadline = Instant::now() + drain;
        let can_know = self.plan.verify || !self.plan.common.is_latest;
        while Instant::now() < deadline {
            let now = self.shared.sum(|counters| &counters.delivered);
            if now > delivered {
                (delivered, since) = (now, Instant::now());
            }
            let is_complete = self.shared.counters.iter().all(|it| it.is_complete.load(Relaxed));
            if is_complete || (!can_know && since.elapsed() > QUIET) {
                break;
            }
            std::thread::sleep(LOOK);
        }
        // A duplicate may still arrive after everything that had to.
        std::thread::sleep(LEAD);
        Ok(())
    }

    fn sample(&self, start_ns: u64) -> Sample {
        Sample {
            at_s: self.clock.now_ns().saturating_sub(start_ns) as f64 / 1e9,
            sent: self.shared.sum(|counters| &counters.sent),
            delivered: self.shared.sum(|counters| &counters.delivered),
            acked: self.shared.sum(|counters| &counters.acked),
            received_bytes: self.shared.sum(|counters| &counters.received_bytes),
        }
    }

    /// Waits until the warm-up is over.
    fn warm_up(&self, start_ns: u64, watcher: &mut dyn Watcher) {
        let mut before = Sample::default();
        loop {
            let left_ns = (start_ns + self.plan.warmup_ns).saturating_sub(self.clock.now_ns());
            if left_ns == 0 || self.shared.failure().is_some() || watcher.is_interrupted() {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left_ns).min(SAMPLE));
            let now = self.sample(start_ns);
            watcher.running(now, before);
            before = now;
        }
    }

    /// Ends the threads and puts their measurements together.
    fn finish(self, watched: Outcome<Watched>) -> Outcome<Measured> {
        self.shared.stop.store(true, Release);
        let mut all = Vec::new();
        for thread in self.threads {
            all.push(thread.join().map_err(|_| "a thread of the generator panicked")?);
        }
        let watched = watched?;
        let mut measured = Measured {
            samples: watched.samples,
            seconds: Vec::new(),
            latency: histogram(),
            ack_latency: histogram(),
            send_lag: histogram(),
            faults: Faults::default(),
            missing: Missing::default(),
            sent: self.shared.sum(|counters| &counters.sent),
            unanswered: 0,
            busy: Vec::new(),
            server_cpu_s: watched.server_cpu_s,
            server_resident_bytes: watched.server_resident_bytes,
            own_cpu_s: watched.own_cpu_s,
        };
        for left in all {
            let left = left?;
            measured.ack_latency.add(&left.tally.ack_latency)?;
            measured.send_lag.add(&left.tally.send_lag)?;
            measured.faults.add(left.tally.faults);
            measured.missing.expected += left.missing.expected;
            measured.missing.lost += left.missing.lost;
            measured.missing.stale += left.missing.stale;
            measured.unanswered += left.unanswered;
            measured.busy.push(left.busy);
        }
        for Second { second, latency } in self.seconds.try_iter() {
            let second = second as usize;
            while measured.seconds.len() <= second {
                measured.seconds.push(histogram());
            }
            measured.seconds[second].add(&latency)?;
            measured.latency.add(&latency)?;
        }
        Ok(measured)
    }

    /// Returns why the run cannot go on, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Ends the threads, and drops their measurements.
    pub fn stop(self) -> Outcome<()> {
        self.shared.stop.store(true, Release);
        for thread in self.threads {
            thread.join().map_err(|_| "a thread of the generator panicked")??;
        }
        Ok(())
    }
}

/// Returns the CPU seconds of the servers; `None` if there are none, or if one has died.
fn cpu_seconds_of(pids: &[u32]) -> Option<f64> {
    machine::cpu_seconds(pids).ok().filter(|_| !pids.is_empty())
}

/// Deals the connections out to the threads. Each thread opens its subscribers first.
fn tasks(plan: &Plan) -> Outcome<Vec<Vec<Task>>> {
    let mut of: Vec<Vec<Task>> = (0..plan.threads).map(|_| Vec::new()).collect();
    let kinds = [(false, plan.subscribers, &plan.subscribe_to), (true, plan.publishers, &plan.publish_to)];
    for (is_publisher, count, hosts) in kinds {
        let addresses = hosts.iter().map(|host| resolve(host)).collect::<Outcome<Vec<_>>>()?;
        for index in 0..count {
            let at = index as usize % hosts.len();
            let task = Task { to: addresses[at], host: hosts[at].clone(), is_publisher, index };
            of[index as usize % plan.threads].push(task);
        }
    }
    Ok(of)
}

fn resolve(host: &str) -> Outcome<SocketAddr> {
    let mut found = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    found.next().ok_or_else(|| format!("{host} has no address").into())
}

/// Pins the calling thread to its core, if it has one. A core that does not exist is reported, and otherwise
/// ignored.
fn pin(plan: &Plan, index: usize) {
    let Some(cpu) = plan.cpus.get(index % plan.cpus.len().max(1)) else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(*cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("cannot run on core {cpu}: {error}");
    }
}
