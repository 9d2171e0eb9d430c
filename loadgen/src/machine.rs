//! The machine on which a run was measured, and what processes use of it.

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// A description of the machine, without which figures mean nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Number of cores that this process may use.
    pub cores: usize,
    /// Name of the processor.
    pub cpu: String,
    /// Release of the Linux kernel.
    pub kernel: String,
    /// Size of the memory, in MiB.
    pub memory_mib: u64,
    /// Load average of the last minute before the run, which shows what else was going on.
    pub load_average: String,
}

impl Machine {
    /// Describes this machine.
    pub fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let memory = read("/proc/meminfo");
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = kib.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        Machine {
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            cpu: cpu.trim_start_matches(['\t', ' ', ':']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kib.unwrap_or_default() / 1_024,
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Returns the CPU time that these processes have used together, in seconds.
pub fn cpu_seconds(pids: &[u32]) -> Outcome<f64> {
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    pids.iter().map(|pid| Ok(cpu_ticks(*pid)? as f64 / ticks_per_s)).sum()
}

fn cpu_ticks(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse_ticks(&stat).ok_or_else(|| format!("{path}: no CPU times").into())
}

/// Returns the sum of user and system time: fields 14 and 15. The second field, a name in parentheses, may
/// hold blanks.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Returns how much memory these processes hold together, in resident bytes.
pub fn resident_bytes(pids: &[u32]) -> Outcome<u64> {
    pids.iter().map(|pid| resident_bytes_of(*pid)).sum()
}

fn resident_bytes_of(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim)
        .and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("no VmRSS of process {pid}"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 400 50 0 0 20 0 3";
        assert_eq!(parse_ticks(stat), Some(450));
        assert_eq!(parse_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_times_and_memory() {
        assert!(cpu_seconds(&[std::process::id()]).is_ok());
        assert!(resident_bytes(&[std::process::id()]).is_ok_and(|bytes| bytes > 0));
    }
}
