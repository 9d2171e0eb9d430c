//! Figures of the process for the metrics, read from `/proc`. On a system without it they stay 0.

use std::fs;
use std::path::{Path, PathBuf};

use crate::metrics::ProcessGauges;
use crate::record::Now;

/// Time between two samples, in microseconds.
const SAMPLE_US: u64 = 1_000_000;
/// Time between two samples where the open files must be listed one by one, and there are many, in microseconds: listing
/// 100,000 of them takes some 50 ms.
const SLOW_SAMPLE_US: u64 = 15_000_000;
/// Number of open files from which on listing them is slow.
const MANY_FILES: i64 = 5_000;

/// Takes samples of the process, and of the disk that it writes to, at intervals.
#[derive(Debug, Default)]
pub struct ProcessSampler {
    /// A directory on the disk; `None` if nothing is written.
    dir: Option<PathBuf>,
    next_us: u64,
    next_files_us: u64,
}

impl ProcessSampler {
    /// A sampler of a process with this data directory. A last `*` stands for a directory that is chosen at the start.
    pub fn new(data_dir: Option<&Path>) -> ProcessSampler {
        let dir = data_dir.map(|dir| match dir.file_name().is_some_and(|last| last == "*") {
            true => dir.parent().map(Path::to_owned).unwrap_or_default(),
            false => dir.to_owned(),
        });
        ProcessSampler { dir, ..ProcessSampler::default() }
    }

    /// Takes a sample if one is due. May be called as often as one likes.
    pub fn handle_turn(&mut self, now: Now, gauges: &ProcessGauges) {
        if now.mono_us < self.next_us {
            return;
        }
        self.next_us = now.mono_us + SAMPLE_US;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(sample) = parse_stat(&stat) {
            let ticks_hz = rustix::param::clock_ticks_per_second().max(1);
            let us = |ticks: u64| ticks.saturating_mul(1_000_000) / ticks_hz;
            gauges.cpu_us.set(us(sample.cpu_ticks) as i64);
            gauges.threads.set(sample.threads);
            let page_bytes = rustix::param::page_size() as i64;
            gauges.resident_bytes.set(sample.resident_pages.saturating_mul(page_bytes));
            if gauges.started_us.get() == 0 {
                let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time_s(&text));
                let started_us =
                    boot.map_or(now.wall_us, |boot_s| boot_s * 1_000_000 + us(sample.start_ticks));
                gauges.started_us.set(started_us as i64);
            }
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        gauges.max_fds.set(limit.current.and_then(|files| i64::try_from(files).ok()).unwrap_or(i64::MAX));
        self.count_files(now, gauges);
        if let Some((free_bytes, bytes)) = self.dir.as_deref().and_then(disk) {
            gauges.disk_free_bytes.set(free_bytes);
            gauges.disk_bytes.set(bytes);
        }
    }

    /// Counts the open files. Since Linux 6.2 the size of their directory is their number.
    fn count_files(&mut self, now: Now, gauges: &ProcessGauges) {
        const FOLDER: &str = "/proc/self/fd";
        let size = fs::metadata(FOLDER).map_or(0, |folder| folder.len());
        if size > 0 {
            return gauges.open_fds.set(size as i64);
        }
        if now.mono_us < self.next_files_us {
            return;
        }
        // One of them is the directory itself, while it is read.
        let listed = fs::read_dir(FOLDER).map_or(0, |files| files.count().saturating_sub(1));
        gauges.open_fds.set(listed as i64);
        let pause_us = if gauges.open_fds.get() > MANY_FILES { SLOW_SAMPLE_US } else { SAMPLE_US };
        self.next_files_us = now.mono_us + pause_us;
    }
}

/// Returns the free room and the size of the disk with a directory, in bytes.
pub fn disk(dir: &Path) -> Option<(i64, i64)> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let disk = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// What is read from `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct StatSample {
    cpu_ticks: u64,
    threads: i64,
    start_ticks: u64,
    resident_pages: i64,
}

/// Reads the text of `/proc/self/stat`. The name of the program, in parentheses, may contain spaces and parentheses.
fn parse_stat(text: &str) -> Option<StatSample> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // The first field here is the third of the file.
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(StatSample {
        cpu_ticks: number(14)? + number(15)?,
        threads: i64::try_from(number(20)?).ok()?,
        start_ticks: number(22)?,
        resident_pages: i64::try_from(number(24)?).ok()?,
    })
}

/// Reads when the machine started from `/proc/stat`, in seconds since the Unix epoch.
fn boot_time_s(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 1 1 20 0 3 0 555 9999 42 1";
        let sample = parse_stat(text).expect("a line");
        assert_eq!(sample, StatSample { cpu_ticks: 120, threads: 3, start_ticks: 555, resident_pages: 42 });
        assert_eq!(boot_time_s("cpu 1\nbtime 17\n"), Some(17));
        let gauges = ProcessGauges::default();
        let now = Now { mono_us: SAMPLE_US, wall_us: 1_800_000_000_000_000 };
        let folder = tempfile::tempdir().expect("a folder");
        ProcessSampler::new(Some(&folder.path().join("*"))).handle_turn(now, &gauges);
        assert!(gauges.disk_bytes.get() >= gauges.disk_free_bytes.get(), "{gauges:?}");
        assert!(gauges.disk_bytes.get() > 0, "{gauges:?}");
        assert!(gauges.resident_bytes.get() > 100_000 && gauges.threads.get() >= 1, "{gauges:?}");
        assert!(gauges.open_fds.get() > 2 && gauges.max_fds.get() >= gauges.open_fds.get(), "{gauges:?}");
        assert!(gauges.started_us.get() > 1_500_000_000_000_000, "{gauges:?}");
    }
}
