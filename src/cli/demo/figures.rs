//! Reads figures about this machine from `/proc`.
//!
//! A reading returns the sources that it could read. On a machine without `/proc` that is only the clock, so
//! that there is always something to see.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// Reads figures, and remembers counters between two readings to compute rates.
#[derive(Default)]
pub struct Figures {
    counters: BTreeMap<String, u64>,
}

impl Figures {
    /// Returns the current figures as pairs of source and data. `wall_us` is the current time in microseconds
    /// since the Unix epoch; `since_us` is the time since the last reading, in microseconds.
    pub fn read(&mut self, wall_us: u64, since_us: u64) -> Vec<(String, Value)> {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut figures = vec![("host/clock".to_owned(), json!(wall_us))];
        figures.extend(load(&text("/proc/loadavg")).map(|load| ("host/load".to_owned(), load)));
        figures.extend(memory(&text("/proc/meminfo")).map(|memory| ("host/memory".to_owned(), memory)));
        let since_us = since_us.max(1);
        for (cpu, busy, all) in processors(&text("/proc/stat")) {
            let (busy, all) = (self.grown(format!("{cpu} busy"), busy), self.grown(cpu.clone(), all));
            let percent = (busy * 1000).checked_div(all).unwrap_or(0).min(1000) as f64 / 10.0;
            figures.push((
                format!("host/cpu/{}", cpu.trim_start_matches("cpu")),
                json!({ "busy_percent": percent }),
            ));
        }
        for (name, received, sent) in interfaces(&text("/proc/net/dev")) {
            let rate = |grown: u64| grown.saturating_mul(1_000_000) / since_us;
            let received = rate(self.grown(format!("{name} received"), received));
            let sent = rate(self.grown(format!("{name} sent"), sent));
            let value = json!({ "received_bytes_per_s": received, "sent_bytes_per_s": sent });
            figures.push((format!("host/net/{name}"), value));
        }
        for (name, read, written) in disks(&text("/proc/diskstats")) {
            let value = json!({ "read_bytes": read * 512, "written_bytes": written * 512 });
            figures.push((format!("host/disk/{name}"), value));
        }
        figures
    }

    /// Returns by how much a counter grew since the last reading; 0 at the first reading, and if the counter
    /// was reset.
    fn grown(&mut self, name: String, value: u64) -> u64 {
        let before = self.counters.insert(name, value);
        before.map_or(0, |before| value.saturating_sub(before))
    }
}

/// Parses the three load averages of `/proc/loadavg`.
fn load(text: &str) -> Option<Value> {
    let averages: Vec<f64> = text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect();
    match averages[..] {
        [one, five, fifteen] => Some(json!({ "1min": one, "5min": five, "15min": fifteen })),
        _ => None,
    }
}

fn memory(text: &str) -> Option<Value> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let (total, free) = (bytes("MemTotal")?, bytes("MemAvailable")?);
    Some(json!({ "total_bytes": total, "available_bytes": free }))
}

/// Returns name, busy ticks and all ticks of every processor in `/proc/stat`.
fn processors(text: &str) -> Vec<(String, u64, u64)> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let each = lines.filter(|(name, _)| name.strip_prefix("cpu").is_some_and(|number| !number.is_empty()));
    each.filter_map(|(name, rest)| {
        let ticks: Vec<u64> = rest.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        // The fourth and the fifth number are the ticks spent idle and waiting for disks.
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some((name.to_owned(), all.saturating_sub(idle), all))
    })
    .collect()
}

/// Returns name, bytes received and bytes sent of every network interface in `/proc/net/dev`.
fn interfaces(text: &str) -> Vec<(String, u64, u64)> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, rest)| {
            let mut words = rest.split_whitespace().map(str::parse::<u64>);
            let received = words.next()?.ok()?;
            Some((segment(name.trim())?, received, words.nth(7)?.ok()?))
        })
        .collect()
}

/// Returns name, sectors read and sectors written of every disk in `/proc/diskstats` that has been used.
/// Partitions are left out.
fn disks(text: &str) -> Vec<(String, u64, u64)> {
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = segment(words.get(2)?)?;
        Some((name, words.get(5)?.parse().ok()?, words.get(9)?.parse().ok()?))
    });
    let mut disks: Vec<(String, u64, u64)> = Vec::new();
    for (name, read, written) in lines.filter(|&(_, read, written)| read + written > 0) {
        // The partitions of a disk follow it and begin with its name: `sda1` after `sda`, `nvme0n1p2` after
        // `nvme0n1`.
        let is_part = disks.last().is_some_and(|(disk, ..)| name.starts_with(disk.as_str()) && name != *disk);
        if !is_part && !name.starts_with("loop") {
            disks.push((name, read, written));
        }
    }
    disks
}

/// Returns the name of a device if it can be a segment of a source's name.
fn segment(name: &str) -> Option<String> {
    let is_plain =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    is_plain.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(load("0.10 0.20 0.30 1/2 3"), Some(json!({ "1min": 0.1, "5min": 0.2, "15min": 0.3 })));
        assert_eq!(load(""), None);
        let text = "MemTotal:  4 kB\nMemFree: 1 kB\nMemAvailable:  2 kB\n";
        assert_eq!(memory(text), Some(json!({ "total_bytes": 4096, "available_bytes": 2048 })));
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 9\nintr 5\n";
        assert_eq!(processors(text), [("cpu0".to_owned(), 27, 36)]);
        let text = "Inter-|  x\n face |bytes\n    lo: 11 2 3 4 5 6 7 8 99 10\n  a.b: 1\n";
        assert_eq!(interfaces(text), [("lo".to_owned(), 11, 99)]);
        let text = "8 0 sda 1 2 30 4 5 6 70 8\n8 1 sda1 1 2 3 4 5 6 7 8\n7 0 loop0 1 1 1 1 1 1 1 1\n8 16 sdb 0 0 0 0 0 0 0 0\n";
        assert_eq!(disks(text), [("sda".to_owned(), 30, 70)]);
    }

    #[test]
    fn every_source_is_one() {
        let mut figures = Figures::default();
        for (source, _) in figures.read(1, 1) {
            assert!(crate::record::Source::check(&source).is_ok(), "{source}");
        }
    }
}
