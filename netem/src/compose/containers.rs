//! The containers of a run as its nodes: what the faults do to them, and which node each of them is.
//!
//! A container that is started again may get another address, and where containers share a volume it may continue as another
//! node than before. So it takes part again only after it has said its name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use serde::Deserialize;

use super::docker::docker;
use super::parse::{Bounds, Engine, Inspected, NodeService};
use super::project;
use crate::checker::Name;
use crate::http;
use crate::load::socket::Socket;
use crate::processor::{self, WatchedProcess};
use crate::profile::Fault;
use crate::target::{Access, Target};

/// How long a container that starts may take to say its name; it is asked again.
const GREETING: Duration = Duration::from_millis(300);
/// How long a node may take to answer whether it is ready.
const ANSWER: Duration = Duration::from_millis(400);
/// How long the engine has to start a container again whose process has ended by itself, until the run does it.
const RESTART: Duration = Duration::from_secs(3);
/// Time between two questions to the engine about a container that starts.
const ASK: Duration = Duration::from_millis(150);

/// A node that clients and checker know. Another container may become it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Name of the node, as members know it.
    pub name: Name,
    /// Where it is reached.
    pub target: Target,
    /// Process of the node.
    pub process: WatchedProcess,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It does not run, and is not meant to.
    Down,
    /// It runs or will, and has not said its name. It was asked for last at this time.
    Starting { since: Instant, asked: Instant },
    /// The node in it answers, and has said its name.
    Serving,
}

/// A container of a service of nodes.
pub struct Container {
    /// Long identifier of the container.
    pub id: String,
    /// Name of its service, and its number within it.
    pub label: String,
    port: u16,
    bounds: Bounds,
    life: Life,
    /// Number of the seat that it has or had last.
    pub seat: usize,
    inside: Option<Inside>,
    published: Option<SocketAddr>,
    /// A command of docker that has begun and that nobody has waited for so far.
    job: Option<JoinHandle<Outcome<()>>>,
    /// What commands have said that failed while nobody waited for them.
    pub failures: Vec<String>,
}

/// A running container as seen from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Number of its first process.
    pub pid: u32,
    /// Address in its network.
    pub address: std::net::Ipv4Addr,
}

impl Container {
    /// Makes a container that was just started.
    pub fn new(inspected: &Inspected, service: &NodeService, now: Instant) -> Container {
        let mut container = Container {
            id: inspected.id.clone(),
            label: format!("{}-{}", inspected.service(), inspected.number()),
            port: service.http_port(),
            bounds: inspected.bounds(),
            life: Life::Starting { since: now, asked: now },
            seat: usize::MAX,
            inside: None,
            published: None,
            job: None,
            failures: Vec::new(),
        };
        container.take(inspected);
        container
    }

    /// Takes down where a container is now.
    fn take(&mut self, inspected: &Inspected) {
        let inside = inspected.pid().zip(inspected.address());
        self.inside = inside.map(|(pid, address)| Inside { pid, address });
        self.published = inspected.published(self.port);
    }

    /// Returns the addresses at which it may be reached.
    fn addresses(&self) -> Vec<SocketAddr> {
        let direct = self.inside.map(|inside| SocketAddr::from((inside.address, self.port)));
        direct.into_iter().chain(self.published).collect()
    }

    /// Returns whether it is meant to run.
    pub fn is_up(&self) -> bool {
        self.life != Life::Down
    }

    /// Takes it away from its clients. `seats` are those of all nodes.
    fn leave(&mut self, seats: &[Seat], life: Life) {
        self.life = life;
        self.inside = None;
        if let Some(seat) = seats.get(self.seat) {
            seat.target.move_to(None);
            seat.process.pid.store(0, Relaxed);
        }
    }

    /// Begins work with the container, which may take as long as a second or more, while others are worked with.
    fn work(&mut self, work: impl FnOnce(&str) -> Outcome<()> + Send + 'static) -> Outcome<()> {
        if let Err(error) = self.finish() {
            self.failures.push(error.to_string());
        }
        let id = self.id.clone();
        let thread = std::thread::Builder::new().name(format!("docker-{}", self.label));
        self.job = Some(thread.spawn(move || work(&id))?);
        Ok(())
    }

    /// Waits until the work with the container that was begun is done.
    pub fn finish(&mut self) -> Outcome<()> {
        match self.job.take() {
            Some(job) => job.join().map_err(|_| "a command of docker panicked")?,
            None => Ok(()),
        }
    }

    /// Begins to kill its process without warning.
    pub fn kill(&mut self, seats: &[Seat]) -> Outcome<()> {
        self.leave(seats, Life::Down);
        self.work(|id| docker(&["kill", "--signal", "KILL", id]).map(drop))
    }

    /// Begins to ask its process to end. The work fails if it does not end in good order.
    pub fn stop(&mut self, seats: &[Seat]) -> Outcome<()> {
        self.leave(seats, Life::Down);
        self.work(|id| {
            docker(&["stop", id])?;
            let inspected = project::inspect(&[id])?;
            inspected.first().map_or(Err("it is gone".into()), Inspected::has_ended_well)
        })
    }

    /// Begins to let all its processes stand still.
    pub fn pause(&mut self) -> Outcome<()> {
        self.work(|id| docker(&["pause", id]).map(drop))
    }

    /// Lets all its processes go on.
    pub fn unpause(&self) -> Outcome<()> {
        docker(&["unpause", &self.id]).map(drop)
    }

    /// Begins to bound its processor time as a fault says.
    pub fn bound_cpu(&mut self, fault: &Fault, engine: &Engine) -> Outcome<()> {
        let most = processors(Some(fault), self.bounds, engine);
        self.work(move |id| docker(&["update", "--cpus", &most, id]).map(drop))
    }

    /// Sets the bound on processor time that it had before, or all of the machine.
    pub fn unbound_cpu(&self, engine: &Engine) -> Outcome<()> {
        docker(&["update", "--cpus", &processors(None, self.bounds, engine), &self.id]).map(drop)
    }

    /// Begins to bound its memory as a fault says.
    pub fn bound_memory(&mut self, fault: &Fault, engine: &Engine) -> Outcome<()> {
        let most = memory_bytes(Some(fault), self.bounds, engine).to_string();
        self.work(move |id| docker(&["update", "--memory", &most, id]).map(drop))
    }

    /// Sets the bound on memory that it had before, or all of the machine.
    pub fn unbound_memory(&self, engine: &Engine) -> Outcome<()> {
        let most = memory_bytes(None, self.bounds, engine).to_string();
        docker(&["update", "--memory", &most, &self.id]).map(drop)
    }

    /// Bounds the files that its first process may open, as a fault says; `None` removes the bound.
    pub fn bound_files(&self, fault: Option<&Fault>) -> Outcome<()> {
        let Some(inside) = self.inside else { return Ok(()) };
        processor::bound_files(inside.pid, fault.map(|fault| fault.more_files))
    }

    /// Starts it again. It serves when it has said its name.
    pub fn start(&mut self, seats: &[Seat]) -> Outcome<()> {
        let now = Instant::now();
        self.life = Life::Starting { since: now, asked: now };
        docker(&["start", &self.id])?;
        self.find(seats)
    }

    /// Finds out where it is. Until it has said its name, it is taken for the node that it was.
    fn find(&mut self, seats: &[Seat]) -> Outcome<()> {
        if let Some(inspected) = project::inspect(&[&self.id])?.first() {
            self.take(inspected);
        }
        if let (Some(seat), Some(inside)) = (seats.get(self.seat), self.inside) {
            seat.process.pid.store(inside.pid, Relaxed);
        }
        Ok(())
    }

    /// Returns the place of a container that runs.
    pub fn inside(&self) -> Option<Inside> {
        self.inside
    }

    /// Returns whether it serves clients.
    pub fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Asks a container that starts for its name, and gives it the seat of this name. Returns the seat if it serves now.
    pub fn look(&mut self, seats: &mut Vec<Seat>, access: Option<&Arc<Access>>) -> Outcome<Option<usize>> {
        let Life::Starting { since, asked } = self.life else { return Ok(None) };
        let now = Instant::now();
        if now.duration_since(asked) < ASK {
            return Ok(None);
        }
        self.life = Life::Starting { since, asked: now };
        if self.inside.is_none() {
            self.find(seats)?;
            if self.inside.is_none() && now.duration_since(since) > RESTART {
                docker(&["start", &self.id])?;
            }
            return Ok(None);
        }
        for address in self.addresses() {
            let Some(name) = greeted_by(address, access) else { continue };
            let seat = match seats.iter().position(|seat| *seat.name == *name) {
                Some(seat) => seat,
                // It is the first time that the container runs.
                None if self.seat == usize::MAX => {
                    let target = Target::nowhere(access.cloned());
                    seats.push(Seat { name: name.into(), target, process: WatchedProcess::default() });
                    seats.len() - 1
                }
                None => {
                    return Err(
                        format!("{} came back as {name}, whom nobody has known before", self.label).into()
                    );
                }
            };
            self.seat = seat;
            self.life = Life::Serving;
            seats[seat].target.move_to(Some(address));
            seats[seat].process.pid.store(self.inside.map_or(0, |inside| inside.pid), Relaxed);
            return Ok(Some(seat));
        }
        Ok(None)
    }

    /// Returns whether it serves, and says that clients may be sent to it.
    pub fn is_ready(&self, seats: &[Seat]) -> bool {
        let target = seats.get(self.seat).filter(|_| self.life == Life::Serving).map(|seat| &seat.target);
        target
            .is_some_and(|target| http::get(target, "/readyz", ANSWER).is_ok_and(|(status, _)| status == 200))
    }

    /// Says how its process ended by itself, if it did. The engine starts it again, if its policy says so, else the run does.
    pub fn ended(&mut self, seats: &[Seat]) -> Outcome<Option<String>> {
        let Some(Inside { pid, .. }) = self.inside.filter(|_| self.life == Life::Serving) else {
            return Ok(None);
        };
        if is_running(pid) {
            return Ok(None);
        }
        let now = Instant::now();
        self.leave(seats, Life::Starting { since: now, asked: now });
        let inspected = project::inspect(&[&self.id])?;
        let how = inspected.first().map_or("in an unknown way".to_owned(), Inspected::how_ended);
        Ok(Some(format!("{} ended by itself {how}", self.label)))
    }
}

impl Drop for Container {
    /// Nothing is done to a container any more when its project is removed.
    fn drop(&mut self) {
        // The run is over, and its notes are written.
        let _ = self.finish();
    }
}

/// Returns the argument of `--cpus`, which takes at most the processors of the machine and cannot take a bound back.
fn processors(fault: Option<&Fault>, before: Bounds, engine: &Engine) -> String {
    match (fault, before.nano_cpus) {
        (Some(fault), _) => format!("{:.2}", f64::from(fault.percent) / 100.0),
        (None, 0) => engine.processors.to_string(),
        (None, nano_cpus) => format!("{:.3}", nano_cpus as f64 / 1e9),
    }
}

/// Returns the argument of `--memory`, which cannot take a bound back.
fn memory_bytes(fault: Option<&Fault>, before: Bounds, engine: &Engine) -> u64 {
    let all = if before.memory_bytes > 0 { before.memory_bytes } else { engine.memory_bytes };
    fault.map_or(all, |fault| (fault.mib * 1024 * 1024).min(all))
}

/// The first frame of a node, which greets whoever connects.
#[derive(Deserialize)]
struct Greeting {
    connected: Greeter,
}

#[derive(Deserialize)]
struct Greeter {
    node: String,
}

/// Returns the name of the node at an address, if one serves there.
fn greeted_by(address: SocketAddr, access: Option<&Arc<Access>>) -> Option<String> {
    let target = Target::nowhere(access.cloned());
    target.move_to(Some(address));
    let mut socket = Socket::open_within(&target, "/publish", GREETING).ok()?;
    let frame = socket.read(GREETING).ok()??;
    name_in(&frame)
}

fn name_in(frame: &str) -> Option<String> {
    serde_json::from_str(frame).ok().map(|greeting: Greeting| greeting.connected.node)
}

/// Returns whether a process is there, and has not ended.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn fault(text: &str) -> Fault {
        let profile = Profile::parse(&format!("about = \"A test.\"\n[[fault]]\n{text}")).expect(text);
        profile.faults[0].clone()
    }

    #[test]
    fn bounds_are_set_and_taken_back_as_far_as_docker_can() {
        let engine = Engine { processors: 2, memory_bytes: 8 << 30 };
        let free = Bounds::default();
        let bounded = Bounds { nano_cpus: 1_500_000_000, memory_bytes: 2 << 30 };
        let starved = fault("kind = \"cpu\"\npercent = 5");
        assert_eq!(processors(Some(&starved), free, &engine), "0.05");
        assert_eq!(processors(None, free, &engine), "2");
        assert_eq!(processors(None, bounded, &engine), "1.500");
        let narrow = fault("kind = \"memory\"\nmib = 512");
        assert_eq!(memory_bytes(Some(&narrow), bounded, &engine), 512 << 20);
        assert_eq!(memory_bytes(None, bounded, &engine), 2 << 30);
        assert_eq!(memory_bytes(None, free, &engine), 8 << 30);
        let wide = fault("kind = \"memory\"\nmib = 4096");
        assert_eq!(memory_bytes(Some(&wide), bounded, &engine), 2 << 30, "a fault gives nobody more");
    }

    #[test]
    fn nodes_say_their_names() {
        let frame = r#"{"connected":{"node":"n7","session":"s","ping_ms":25000,"members":[{"id":"n1"}]}}"#;
        assert_eq!(name_in(frame).as_deref(), Some("n7"));
        assert_eq!(name_in(r#"{"resume":"x"}"#), None);
    }

    #[test]
    fn this_process_runs() {
        assert!(is_running(std::process::id()));
        assert!(!is_running(u32::MAX));
    }
}
