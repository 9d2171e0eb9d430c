//! The machine and the program that were measured, without which a figure means nothing.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anode_loadgen::Outcome;
use serde::Serialize;

/// A description of the machine and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    /// Load average of the last minute, which shows what else was going on.
    load_average: String,
    /// Version of the binary, as it prints it.
    pub version: String,
    commit: String,
}

impl Machine {
    /// Describes this machine, and asks the binary for its version.
    pub fn look(anode: &Path) -> Outcome<Machine> {
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let load = read("/proc/loadavg");
        let version = Command::new(anode)
            .arg("--version")
            .output()
            .map_err(|error| format!("starting {}: {error}", anode.display()))?;
        let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            cpu: cpu.trim_start_matches(['\t', ' ', ':']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
            version: text(&version.stdout),
            commit: commit.map(|out| text(&out.stdout)).unwrap_or_default(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, cpu, kernel, load_average, version, commit } = self;
        writeln!(out, "machine: {cores} cores, {cpu}, Linux {kernel}, load {load_average} before")?;
        write!(out, "version: {version}, commit {commit}")
    }
}

/// Returns the processor time that a process has used so far, ended threads included, in seconds; 0 if it is
/// gone.
pub fn cpu_s(pid: u32) -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = read(&format!("/proc/{pid}/stat"));
    // The fields follow the name in brackets, which may hold anything; the first is the state.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// Returns the processor time that the threads of a process have used so far, in microseconds and finer than [`cpu_s`] tells
/// it. Threads that have ended do not count.
pub fn cpu_us(pid: u32) -> Outcome<f64> {
    let mut used_us = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        used_us += stat.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e3;
    }
    Ok(used_us)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
