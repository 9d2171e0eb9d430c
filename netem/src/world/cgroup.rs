//! Groups of processes with a bound on processor time or memory, by version 1 of cgroups: where both versions are
//! mounted, as here, the files of version 2 can be written and do nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;

const ROOT: &str = "/sys/fs/cgroup";
/// Length of the periods in which processor time is given out, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Weight of a group of processes with niceness 0, and the ratio of the weights of neighbouring levels.
const WEIGHT: f64 = 1_024.0;
const WEIGHT_STEP: f64 = 1.25;

/// The bounds of one node. They are removed when this is dropped.
pub struct Cgroup {
    cpu: PathBuf,
    memory: PathBuf,
}

impl Cgroup {
    /// Makes the groups of a node, without bounds.
    pub fn new(name: &str) -> Outcome<Cgroup> {
        let group = Cgroup {
            cpu: Path::new(ROOT).join("cpu").join(name),
            memory: Path::new(ROOT).join("memory").join(name),
        };
        for dir in [&group.cpu, &group.memory] {
            fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        // Without it, this node alone would be at a disadvantage where the run has precedence over other programs.
        write(&group.cpu, "cpu.shares", own_weight())?;
        Ok(group)
    }

    /// Puts a process with all its threads into the groups.
    pub fn take(&self, pid: u32) -> Outcome<()> {
        write(&self.cpu, "cgroup.procs", pid)?;
        write(&self.memory, "cgroup.procs", pid)
    }

    /// Bounds the processor time, in percent of one processor; `None` for no bound.
    pub fn bound_cpu(&self, percent: Option<u32>) -> Outcome<()> {
        write(&self.cpu, "cpu.cfs_period_us", PERIOD_US)?;
        match percent {
            Some(percent) => write(&self.cpu, "cpu.cfs_quota_us", u64::from(percent) * PERIOD_US / 100),
            None => write(&self.cpu, "cpu.cfs_quota_us", -1),
        }
    }

    /// Bounds the memory, in bytes; `None` for no bound.
    pub fn bound_memory(&self, bytes: Option<u64>) -> Outcome<()> {
        match bytes {
            Some(bytes) => write(&self.memory, "memory.limit_in_bytes", bytes),
            None => write(&self.memory, "memory.limit_in_bytes", -1),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in [&self.cpu, &self.memory] {
            // It fails while processes of the group still end; then the world removes it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Returns the weight that the kernel gives the session of this process, if it gives weights to sessions.
fn own_weight() -> u64 {
    let text = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    let nice: i32 = text.split_whitespace().next_back().and_then(|nice| nice.parse().ok()).unwrap_or(0);
    (WEIGHT * WEIGHT_STEP.powi(-nice)) as u64
}

fn write(dir: &Path, file: &str, value: impl std::fmt::Display) -> Outcome<()> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Removes all groups of a run.
pub fn remove_all(run: &str) {
    for controller in ["cpu", "memory"] {
        let dirs = fs::read_dir(Path::new(ROOT).join(controller)).into_iter().flatten().flatten();
        for dir in dirs.filter(|dir| dir.file_name().to_str().is_some_and(|name| name.starts_with(run))) {
            let _ = fs::remove_dir(dir.path());
        }
    }
}
