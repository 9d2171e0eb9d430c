//! A run: threads that send and receive, and one that starts, watches and ends them.

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

/// From the last connection's being ready to the first message.
const LEAD: Duration = Duration::from_millis(100);
/// How often counters are looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// How often it is looked whether all is over.
const LOOK: Duration = Duration::from_millis(2);
/// How long opening may take without one more connection being ready.
const OPEN: Duration = Duration::from_secs(30);
/// Where completeness cannot be known: how long nothing may come.
const QUIET: Duration = Duration::from_millis(500);

/// The counters at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Since the first message was due.
    pub at_s: f64,
    /// Messages sent.
    pub sent: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Answers.
    pub acked: u64,
    /// Bytes that came.
    pub received_bytes: u64,
}

/// What a run measured.
pub struct Measured {
    /// At the first and the last instant that count, and those between.
    pub samples: Vec<Sample>,
    /// By second from the start: from due to delivered.
    pub seconds: Vec<Histogram<u64>>,
    /// All of them together.
    pub latency: Histogram<u64>,
    /// From due to answered.
    pub ack_latency: Histogram<u64>,
    /// From due to written, where only the generator can be to blame.
    pub send_lag: Histogram<u64>,
    /// What went wrong.
    pub faults: Faults,
    /// What never came.
    pub missing: Missing,
    /// Messages sent in all.
    pub sent: u64,
    /// Messages never answered.
    pub unanswered: u64,
    /// Of each thread: share of the time in which it did not wait.
    pub busy: Vec<f64>,
    /// CPU seconds of the servers while it counted.
    pub server_cpu_s: Option<f64>,
    /// Resident bytes of the servers at the end of it.
    pub server_resident_bytes: Option<u64>,
    /// CPU seconds of this process while it counted.
    pub own_cpu_s: f64,
}

/// What a run shows while it runs.
pub trait Watcher {
    /// So many of so many connections are ready.
    fn opening(&mut self, ready: u64, of: u64);
    /// The newest counters, and the ones before.
    fn running(&mut self, now: Sample, before: Sample);
    /// Everything is sent; what is missing is waited for.
    fn draining(&mut self);
    /// Whether the run is to end before its time, with a report of what was.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Runs a plan. Fails if the connections cannot be opened; what goes wrong later is measured.
pub fn run(plan: &Arc<Plan>, watcher: &mut dyn Watcher) -> Outcome<Measured> {
    crate::raise_open_files();
    let running = Running::start(plan)?;
    let watched = running.watch(watcher);
    running.finish(watched)
}

/// Threads at work.
pub struct Running {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    clock: Clock,
    threads: Vec<JoinHandle<Outcome<Left>>>,
    seconds: mpsc::Receiver<Second>,
    published: mpsc::Receiver<Vec<u32>>,
}

/// What was seen from outside.
struct Watched {
    samples: Vec<Sample>,
    server_cpu_s: Option<f64>,
    server_resident_bytes: Option<u64>,
    own_cpu_s: f64,
}

impl Running {
    /// Starts the threads; they open their connections and wait.
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
            // A server that has died meanwhile has no figures.
            server_cpu_s: cpu_seconds_of(pids).map(|after| after - server_before),
            server_resident_bytes: machine::resident_bytes(pids).ok(),
            own_cpu_s: machine::cpu_seconds(&[std::process::id()])? - own_before,
        };
        watcher.draining();
        self.drain(counts, threads_done)?;
        Ok(watched)
    }

    /// Waits for the publishers' last answers, then for what subscribers have not got yet.
    fn drain(&self, mut counts: Vec<u32>, mut threads_done: usize) -> Outcome<()> {
        let drain = Duration::from_nanos(self.plan.drain_ns);
        // The threads end by themselves then, unless something is very wrong.
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
        // It is set once, here.
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
        // A duplicate may come after all that had to come.
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

    /// Waits until what is sent counts.
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

    /// Ends the threads and joins what they measured.
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

    /// Why it cannot go on, if something is wrong.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Ends the threads; what they measured is of no interest.
    pub fn stop(self) -> Outcome<()> {
        self.shared.stop.store(true, Release);
        for thread in self.threads {
            thread.join().map_err(|_| "a thread of the generator panicked")??;
        }
        Ok(())
    }
}

/// CPU time of the servers, if there are any and they live.
fn cpu_seconds_of(pids: &[u32]) -> Option<f64> {
    machine::cpu_seconds(pids).ok().filter(|_| !pids.is_empty())
}

/// Each thread's connections. Subscribers come first, so that they are open before anything is sent.
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

/// Puts the thread on its core. One that is not there is told, not fatal.
fn pin(plan: &Plan, index: usize) {
    let Some(cpu) = plan.cpus.get(index % plan.cpus.len().max(1)) else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(*cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("cannot run on core {cpu}: {error}");
    }
}
