//! The compose project of a run, which has a name, a directory and secrets of its own, and is removed with everything in it
//! when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anode_loadgen::Outcome;
use anode_loadgen::random::Random;

use super::docker::{self, docker, end_of};
use super::parse::{self, Inspected};
use super::setup::Setup;
use crate::world::leftovers::{self, RunDir};

/// Label of the networks that a run makes beside those of the compose file. Its value is the name of the project.
pub const LABEL: &str = "anode.netem";
/// Label by which compose marks what belongs to a project.
const PROJECT_LABEL: &str = "com.docker.compose.project";
/// File in the directory of a run that says that there may be containers.
const MARK: &str = "compose";
/// Time between two looks at whether a command has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Seconds that containers have to end when everything is removed.
const END_S: &str = "10";

/// The containers of a run, with its directory.
pub struct Project {
    dir: RunDir,
    name: String,
}

impl Project {
    /// Makes the directory and the secrets, and starts the services. `is_interrupted` is raised by signals, and then it fails.
    pub fn up(setup: &Setup, is_interrupted: &AtomicBool) -> Outcome<Project> {
        let name = free_name()?;
        let project = Project { dir: RunDir::new(&name)?, name };
        // From here on, everything is removed if something fails.
        std::fs::write(project.dir.path().join(MARK), &project.name)?;
        if setup.needs_secrets() {
            make_secrets(&project.secrets())?;
        }
        let log_path = project.dir.path().join("up.log");
        let log = File::create(&log_path)?;
        let mut command = docker::command("docker");
        command.args(setup.words_of_up(&project.name)).stdout(log.try_clone()?).stderr(log);
        for (variable, value) in setup.variables(&project.secrets()) {
            command.env(variable, value);
        }
        let mut child = command.spawn().map_err(|error| format!("docker compose up: {error}"))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if is_interrupted.load(Relaxed) {
                leftovers::signal(child.id() as i32, rustix::process::Signal::TERM);
                child.wait()?;
                return Err("interrupted".into());
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            return Err(format!("docker compose up: {}", end_of(&std::fs::read(&log_path)?)).into());
        }
        Ok(project)
    }

    /// Returns the name of the project.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the directory of the secrets.
    pub fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    /// Returns what docker says of all containers that the services of nodes have, in the order of services and numbers.
    pub fn containers(&self, setup: &Setup) -> Outcome<Vec<Inspected>> {
        let listed = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &self.filter()])?;
        let ids: Vec<&str> = listed.split_whitespace().collect();
        let mut all = inspect(&ids)?;
        all.retain(|container| setup.service(container.service()).is_some());
        all.sort_by_key(|container| (container.service().to_owned(), container.number()));
        Ok(all)
    }

    fn filter(&self) -> String {
        format!("label={PROJECT_LABEL}={}", self.name)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        remove(&self.name);
        leftovers::remove(&self.name);
    }
}

/// Returns what docker says of containers.
pub fn inspect(ids: &[&str]) -> Outcome<Vec<Inspected>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    parse::inspected(&docker(&[&["container", "inspect"][..], ids].concat())?)
}

fn free_name() -> Outcome<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut random = Random::new(now.as_nanos() as u64, u64::from(std::process::id()));
    loop {
        let name = format!("{}{:04x}", leftovers::PREFIX, random.next_u64() & 0xffff);
        if !leftovers::exists(&name) {
            return Ok(name);
        }
    }
}

fn make_secrets(dir: &Path) -> Outcome<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/secrets");
    let mut command = docker::command(&script.to_string_lossy());
    docker::done(command.arg(dir), None).map(drop)
}

/// Removes all containers, volumes and networks of a run, if it may have any. What cannot be removed is told.
pub fn remove(name: &str) {
    let dir = leftovers::path_of(name);
    if !dir.join(MARK).exists() {
        return;
    }
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let list = |line: &str| -> Vec<String> {
        let listed = docker(&words(line)).unwrap_or_default();
        listed.split_whitespace().map(str::to_owned).collect()
    };
    // A container that stands still does not end when it is asked to.
    let paused = list(&format!("ps --quiet --filter label={PROJECT_LABEL}={name} --filter status=paused"));
    for id in paused {
        // It may have gone on by itself.
        let _ = docker(&["unpause", &id]);
    }
    let mut down = docker::command("docker");
    // In a directory without a compose file, the project is known by the labels of what belongs to it, which is all of it.
    down.current_dir(dir).args(["compose", "--project-name", name, "down", "--volumes", "--remove-orphans"]);
    let down = docker::done(down.args(["--timeout", END_S]), None);
    let networks = list(&format!("network ls --quiet --filter label={LABEL}={name}"));
    let networks = networks.iter().map(|id| docker(&["network", "rm", id]).map(drop));
    let failed = [down.map(drop)].into_iter().chain(networks).filter_map(Result::err);
    for error in failed.collect::<Vec<_>>() {
        eprintln!("  not removed: {error}");
    }
}
