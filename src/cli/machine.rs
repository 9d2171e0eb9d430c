//! Reads the properties of this machine at the edge of the program, so that checking the configuration needs
//! no access to the system.

use std::fs;
use std::thread;

use crate::config::Hardware;

/// Memory that is assumed where the system does not tell it, in bytes.
const MEMORY_BYTES_ASSUMED: u64 = 2 << 30;

/// Files in which a container finds its memory limit in bytes, for version 2 and version 1 of control groups.
/// Without a limit there is no number, or one that is larger than any machine.
const ALLOWANCES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Returns the processors and the memory of this machine, or of the container around this process if those
/// are less.
pub fn this_machine() -> Hardware {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let allowed = ALLOWANCES.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let memory_bytes = physical.into_iter().chain(allowed).min().unwrap_or(MEMORY_BYTES_ASSUMED);
    Hardware { cores, memory_bytes }
}

/// Returns `MemTotal` of `/proc/meminfo`, converted to bytes.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(total_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
    }
}
