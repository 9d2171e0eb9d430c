//! The services of a compose project as the testbed of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::containers::{Container, Inside, Seat};
use super::docker::{self, docker};
use super::links::Links;
use super::mapping::{LinkTool, Mapping};
use super::project::{self, LABEL, Project};
use super::setup::Setup;
use crate::checker::{Name, Place, Seen};
use crate::load::recorder::Recorder;
use crate::machine::keys_at;
use crate::profile::fault::{Event, Kind};
use crate::profile::rule::shapes_at;
use crate::target::Access;
use crate::testbed::{OwnEnd, Script, StoreAlone, StoresAlone, Testbed, Watched};

/// How long the containers may take to become ready at the start of a run.
const READY: Duration = Duration::from_secs(120);
/// Time between two looks at what containers do that start.
const LOOK: Duration = Duration::from_millis(30);
/// Bytes of a key of the cluster, which is written as hexadecimal digits.
const KEY_BYTES: usize = 32;

/// The containers of a project, and what happens to them.
pub struct Services {
    containers: Vec<Container>,
    seats: Vec<Seat>,
    setup: Setup,
    script: Script,
    links: Links,
    access: Option<Arc<Access>>,
    /// The old and the new key of the cluster, if they can be exchanged.
    keys: Option<[String; 2]>,
    /// Takes down which nodes are there, as soon as the run has begun.
    recorder: Option<Recorder>,
    run_s: f64,
    /// The project is removed after everything else.
    project: Project,
}

impl Services {
    /// Starts the services, and waits until each container has said which node it is. `is_interrupted` is raised by signals.
    pub fn up(
        setup: &Setup,
        mapping: &Mapping,
        run_s: f64,
        is_interrupted: &AtomicBool,
    ) -> Outcome<Services> {
        let project = Project::up(setup, is_interrupted)?;
        let access = setup.access(&project.secrets())?;
        let (now, nodes) = (Instant::now(), setup.nodes());
        let containers = project.containers(setup)?;
        let containers: Vec<Container> = containers
            .iter()
            .filter_map(|inspected| Some(Container::new(inspected, setup.service(inspected.service())?, now)))
            .collect();
        if containers.len() != nodes {
            return Err(
                format!("there are {} containers of nodes instead of {nodes}", containers.len()).into()
            );
        }
        let keys = match setup.abilities.no_keys {
            None => Some(keys(&project.secrets().join("cluster.key"))?),
            Some(_) => None,
        };
        let mut services = Services {
            containers,
            seats: Vec::new(),
            setup: setup.clone(),
            script: mapping.script.clone(),
            links: Links::new(setup.abilities.links.clone(), mapping.mtu, nodes),
            access,
            keys,
            recorder: None,
            run_s,
            project,
        };
        services.wait(READY, Some(is_interrupted), |container, _| container.is_serving())?;
        services.set_shapes(0.0)?;
        Ok(services)
    }

    /// Waits until something is so of all containers that are meant to run, and returns how long it took.
    fn wait(
        &mut self,
        most: Duration,
        is_interrupted: Option<&AtomicBool>,
        is_so: impl Fn(&Container, &[Seat]) -> bool,
    ) -> Outcome<Duration> {
        let begin = Instant::now();
        loop {
            self.look()?;
            let late = self.containers.iter().find(|each| each.is_up() && !is_so(each, &self.seats));
            let Some(late) = late else { return Ok(begin.elapsed()) };
            if is_interrupted.is_some_and(|flag| flag.load(Relaxed)) {
                return Err("interrupted".into());
            }
            if begin.elapsed() > most {
                let said = last_words(&late.id);
                return Err(format!(
                    "{} is not ready after {} s; it says: {said}",
                    late.label,
                    most.as_secs()
                )
                .into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Finds out which nodes the containers are that were started, and tells the recorder.
    fn look(&mut self) -> Outcome<()> {
        for index in 0..self.containers.len() {
            let before = self.containers[index].seat;
            let Some(seat) = self.containers[index].look(&mut self.seats, self.access.as_ref())? else {
                continue;
            };
            self.exchange_seats(index, before)?;
            if let Some(recorder) = &self.recorder {
                recorder.see(Seen::NodeStarted { node: self.seats[seat].name.clone() });
            }
        }
        Ok(())
    }

    /// Gives the seat that a container had before to the one whose seat it has now, so that each has one.
    fn exchange_seats(&mut self, index: usize, before: usize) -> Outcome<()> {
        let now = self.containers[index].seat;
        for (number, other) in self.containers.iter_mut().enumerate() {
            if number == index || other.seat != now {
                continue;
            }
            if other.is_serving() || before == usize::MAX {
                let name = &self.seats[now].name;
                return Err(format!("{} and another container are both the node {name}", other.label).into());
            }
            other.seat = before;
            let pid = other.inside().map_or(0, |inside| inside.pid);
            self.seats[before].process.pid.store(pid, Relaxed);
        }
        Ok(())
    }

    fn places(&self) -> Vec<Option<Inside>> {
        self.containers.iter().map(Container::inside).collect()
    }

    fn start_container(&mut self, node: usize) -> Outcome<()> {
        self.containers[node].start(&self.seats)?;
        // At once, because the container has a new network namespace, in which everything passes.
        self.links.apply(self.places())
    }

    fn write_keys(&self, part: f64) -> Outcome<()> {
        let [old, new] = self.keys.as_ref().ok_or("the keys cannot be exchanged")?;
        write_over(&self.project.secrets().join("cluster.key"), &keys_at(old, new, part))
    }

    /// Gives a container that does not run a network in which there is no other.
    fn isolate(&self, node: usize) -> Outcome<()> {
        let container = &self.containers[node];
        let alone = format!("{}-alone-{}", self.project.name(), node + 1);
        let label = format!("{LABEL}={}", self.project.name());
        docker(&["network", "create", "--label", &label, &alone])?;
        let networks = project::inspect(&[&container.id])?;
        for (network, _) in networks.iter().flat_map(|inspected| inspected.networks()) {
            docker(&["network", "disconnect", "--force", &network, &container.id])?;
        }
        // The others are still found by their names, and it is always the container itself.
        let mut connect = vec!["network", "connect"];
        self.setup.service_names().for_each(|name| connect.extend(["--alias", name]));
        connect.extend([alone.as_str(), &container.id]);
        docker(&connect).map(drop)
    }

    fn name(&self, node: usize) -> Name {
        self.seats[self.containers[node].seat].name.clone()
    }
}

impl Testbed for Services {
    fn how(&self) -> String {
        let links = match &self.setup.abilities.links {
            LinkTool::Netem => "tc netem in the containers".to_owned(),
            LinkTool::Firewall => "nft in the containers".to_owned(),
            LinkTool::Nothing(why) => format!("left alone ({why})"),
        };
        let (count, name) = (self.containers.len(), self.project.name());
        format!("{count} containers of the project {name}; links: {links}")
    }

    fn script(&self) -> &Script {
        &self.script
    }

    fn nodes(&self) -> Vec<Watched> {
        let watched = |seat: &Seat| Watched {
            name: seat.name.clone(),
            clients_at: seat.target.clone(),
            watched_at: seat.target.clone(),
            process: seat.process.clone(),
        };
        self.seats.iter().map(watched).collect()
    }

    fn names(&self) -> Vec<Name> {
        (0..self.containers.len()).map(|node| self.name(node)).collect()
    }

    fn start(&mut self, _absent: &BTreeSet<usize>, recorder: &Recorder) -> Outcome<()> {
        self.wait_ready(READY)?;
        for seat in &self.seats {
            recorder.see(Seen::NodeStarted { node: seat.name.clone() });
        }
        self.recorder = Some(recorder.clone());
        Ok(())
    }

    fn wait_ready(&mut self, most: Duration) -> Outcome<Duration> {
        self.wait(most, None, |container, seats| container.is_ready(seats))
    }

    fn set_shapes(&mut self, at_s: f64) -> Outcome<()> {
        self.look()?;
        self.links.set(shapes_at(&self.script.rules, self.containers.len(), at_s, self.run_s));
        self.links.apply(self.places())
    }

    fn begin(&mut self, event: &Event) -> Outcome<()> {
        let (fault, engine) = (&event.fault, &self.setup.engine);
        let container = &mut self.containers[event.node];
        match fault.kind {
            Kind::Kill => container.kill(&self.seats),
            Kind::Stop => container.pause(),
            Kind::Restart => container.stop(&self.seats),
            Kind::Cpu => container.bound_cpu(fault, engine),
            Kind::Memory => container.bound_memory(fault, engine),
            Kind::Files => container.bound_files(Some(fault)),
            Kind::Keys => Ok(()),
            other => Err(format!("containers do not have the fault {}", other.name()).into()),
        }
    }

    fn go_on(&mut self, event: &Event, _since_s: f64, part: f64) -> Outcome<()> {
        if event.fault.kind == Kind::Keys { self.write_keys(part) } else { Ok(()) }
    }

    fn end(&mut self, event: &Event, _seed: u64) -> Outcome<Option<String>> {
        let begun = self.containers[event.node].finish();
        let engine = &self.setup.engine;
        let container = &self.containers[event.node];
        match event.fault.kind {
            Kind::Kill | Kind::Restart => self.start_container(event.node)?,
            Kind::Stop => container.unpause()?,
            Kind::Cpu => container.unbound_cpu(engine)?,
            Kind::Memory => container.unbound_memory(engine)?,
            Kind::Files => container.bound_files(None)?,
            Kind::Keys => self.write_keys(1.0)?,
            _ => {}
        }
        begun.map(|()| None)
    }

    fn starts(&self, _node: usize) -> u32 {
        // A container is a node only when it has said its name, and then the recorder is told.
        0
    }

    fn mourn(&mut self, node: usize, recorder: &Recorder) -> Outcome<Option<OwnEnd>> {
        let name = self.name(node);
        let Some(how) = self.containers[node].ended(&self.seats)? else { return Ok(None) };
        recorder.see(Seen::NodeEnded { node: name });
        Ok(Some(OwnEnd { how, said: last_words(&self.containers[node].id) }))
    }

    fn has_stores(&self) -> bool {
        self.setup.no_stores().is_none()
    }

    fn start_alone(&mut self, recorder: &Recorder, ready_within: Duration) -> Outcome<StoresAlone> {
        let mut alone = StoresAlone::default();
        let mut places = BTreeMap::new();
        for node in 0..self.containers.len() {
            let name = self.name(node);
            recorder.see(Seen::NodeEnded { node: name.clone() });
            let place = if node % 2 == 0 { Place::OwnStore } else { Place::WholeStore };
            match place {
                Place::WholeStore => self.containers[node].stop(&self.seats)?,
                _ => self.containers[node].kill(&self.seats)?,
            }
            places.insert(name, place);
        }
        for node in 0..self.containers.len() {
            if let Err(error) = self.containers[node].finish() {
                let detail = format!("{}: {error}", self.containers[node].label);
                alone.broken.push(("ends-in-order", detail));
            }
            self.isolate(node)?;
        }
        // Nobody is told of these starts, as nobody takes them for starts of the cluster.
        self.recorder = None;
        for container in &mut self.containers {
            container.start(&self.seats)?;
        }
        if let Err(error) = self.wait_ready(ready_within) {
            alone.broken.push(("store-opens", error.to_string()));
        }
        alone.stores = places
            .into_iter()
            .filter_map(|(name, place)| {
                let seat = self.seats.iter().find(|seat| seat.name == name)?;
                Some(StoreAlone { name, place, target: seat.target.clone() })
            })
            .collect();
        Ok(alone)
    }

    fn keep_logs(&self, to: &Path) -> Outcome<()> {
        for container in &self.containers {
            let file = File::create(to.join(format!("{}.log", container.label)))?;
            let mut command = docker::command("docker");
            command.args(["logs", &container.id]).stdout(file.try_clone()?).stderr(file);
            command.status().map_err(|error| format!("docker logs: {error}"))?;
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let has_rules = !self.script.rules.is_empty();
        let dropped = self.links.dropped().filter(|_| has_rules);
        let dropped = dropped.map(|count| format!("the firewalls of the containers dropped {count} packets"));
        let failures = self.containers.iter().flat_map(|container| {
            container.failures.iter().map(|failure| format!("{}: {failure}", container.label))
        });
        let unread = self.setup.no_stores().map(|why| format!("the stores were not read alone: {why}"));
        dropped.into_iter().chain(unread).chain(failures).collect()
    }
}

/// Returns the last line that a container has written.
fn last_words(id: &str) -> String {
    let output = docker::command("docker").args(["logs", "--tail", "1", id]).output();
    let Ok(output) = output else { return String::new() };
    let all = [output.stdout, output.stderr].concat();
    docker::end_of(&all)
}

/// Returns the key in a file, and a new one.
fn keys(file: &Path) -> Outcome<[String; 2]> {
    let old = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut bytes = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let new: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([old.trim().to_owned(), new])
}

/// Writes a text into a file that exists, which containers see as it is: another file in its place they would not see.
fn write_over(path: &Path, text: &str) -> Outcome<()> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    // Never empty in between, so that no node reads a file without a key.
    file.set_len(text.len() as u64)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_exchanged_in_the_file_that_is_there() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cluster.key");
        fs::write(&file, "aa\n").expect("a file");
        let [old, new] = keys(&file).expect("keys");
        assert_eq!((old.as_str(), new.len()), ("aa", 2 * KEY_BYTES));
        let number = fs::metadata(&file).expect("a file").ino();
        for (part, lines) in [(0.0, vec![&old, &new]), (0.5, vec![&new, &old]), (1.0, vec![&new])] {
            write_over(&file, &keys_at(&old, &new, part)).expect("it is written");
            let text = fs::read_to_string(&file).expect("a file");
            assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        }
        assert_eq!(fs::metadata(&file).expect("a file").ino(), number);
    }
}
