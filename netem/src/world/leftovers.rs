//! Directories of runs, and the removal of everything that a run has made: also of runs that crashed.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use super::cgroup;
use super::command::run;

/// Begin of the names of all runs.
pub const PREFIX: &str = "anetem-";
/// How long killed processes may take to end.
const END: Duration = Duration::from_secs(5);

/// The directory of a run, which holds a lock as long as the run lives.
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory of a run.
    pub fn new(run: &str) -> Outcome<RunDir> {
        let path = path_of(run);
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("lock"))?;
        lock.try_lock().map_err(|_| "the lock of a new run is held")?;
        Ok(RunDir { path, _lock: lock })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the path of the directory of a run.
pub fn path_of(run: &str) -> PathBuf {
    std::env::temp_dir().join(run)
}

/// Returns whether anything of a run is there.
pub fn exists(run: &str) -> bool {
    path_of(run).exists() || namespaces().iter().any(|name| name.starts_with(run))
}

/// Returns the names of the runs of which something is there although their program is gone.
pub fn dead_runs() -> Vec<String> {
    let mut runs: Vec<String> = namespaces().iter().filter_map(|name| run_of(name)).collect();
    let dirs = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    runs.extend(dirs.filter_map(|dir| run_of(dir.file_name().to_str()?)));
    runs.extend(bridges().iter().filter_map(|name| run_of(&name.replacen("anb", PREFIX, 1))));
    runs.sort();
    runs.dedup();
    runs.retain(|run| !is_alive(run));
    runs
}

/// Returns the name of the run in a name that is made of it.
fn run_of(name: &str) -> Option<String> {
    let digits = name.strip_prefix(PREFIX)?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{PREFIX}{digits}"))
}

fn is_alive(run: &str) -> bool {
    let lock = OpenOptions::new().write(true).open(path_of(run).join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

fn namespaces() -> Vec<String> {
    let listed = run("ip netns list").unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect()
}

fn bridges() -> Vec<String> {
    let listed = run("ip -o link show type bridge").unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
    names.filter(|name| name.starts_with("anb")).map(str::to_owned).collect()
}

/// Removes everything of a run: processes, namespaces, devices, mounts, groups of processes, and its directory. What
/// is not there, or cannot be removed, is passed over, so that the rest is removed.
pub fn remove(run_name: &str) {
    let own: Vec<String> =
        namespaces().into_iter().filter(|name| run_of(name).as_deref() == Some(run_name)).collect();
    let pids: Vec<i32> = own.iter().flat_map(|namespace| pids_in(namespace)).collect();
    for pid in &pids {
        signal(*pid, rustix::process::Signal::KILL);
    }
    let until = Instant::now() + END;
    while Instant::now() < until && pids.iter().any(|pid| is_running(*pid)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for namespace in &own {
        let _ = run(&format!("ip netns del {namespace}"));
    }
    if let Some(digits) = run_name.strip_prefix(PREFIX) {
        let _ = run(&format!("ip link del anb{digits}"));
    }
    cgroup::remove_all(run_name);
    let dir = path_of(run_name);
    unmount_beneath(&dir);
    let _ = std::fs::remove_dir_all(dir);
}

fn pids_in(namespace: &str) -> Vec<i32> {
    let listed = run(&format!("ip netns pids {namespace}")).unwrap_or_default();
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Sends a signal to a process, which may have ended.
pub fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Returns whether a process runs, and is not one that has ended and is not waited for.
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn unmount_beneath(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut points: Vec<&str> = points.filter(|point| Path::new(point).starts_with(dir)).collect();
    points.reverse();
    for point in points {
        let _ = run(&format!("umount -l {point}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_are_of_a_run() {
        assert_eq!(run_of("anetem-0f3c-12").as_deref(), Some("anetem-0f3c"));
        assert_eq!(run_of("anetem-0f3c").as_deref(), Some("anetem-0f3c"));
        for name in ["anetem-", "anetem-xyz1", "other-0f3c", "anetem-0f"] {
            assert_eq!(run_of(name), None, "{name}");
        }
    }
}
