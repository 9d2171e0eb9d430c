//! This machine, before a node starts on it: ports, file limits, the data directory and its disk.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use super::{Findings, Verdict};
use crate::cli::format;
use crate::config::{Config, StoreKind};
use crate::server::process::disk;

/// Number of open files that a node needs besides those of its clients.
const FILES_OF_NODE: u64 = 128;
/// Free room on the disk below which it is a problem, and below which it may become one, in bytes.
const DISK_BYTES: (i64, i64) = (256 << 20, 2 << 30);

/// Checks what a node with this configuration needs here.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    check_ports(config, findings);
    check_files(config, findings);
    match config.store {
        StoreKind::Memory => findings.ok("store", "records are kept in memory only (--store memory)"),
        StoreKind::Embedded | StoreKind::Cassandra => check_directory(&config.data_dir, findings),
    }
}

fn check_ports(config: &Config, findings: &mut Findings) {
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let udp = |address: SocketAddr| UdpSocket::bind(address).map(drop);
    let mut wanted = vec![("--http", config.http, tcp(config.http), "TCP")];
    wanted.push(("--gossip", config.gossip, tcp(config.gossip), "TCP"));
    wanted.push(("--gossip", config.gossip, udp(config.gossip), "UDP"));
    if let Some(address) = config.metrics {
        wanted.push(("--metrics", address, tcp(address), "TCP"));
    }
    let mut is_fine = true;
    for (flag, address, bound, kind) in &wanted {
        let Err(error) = bound else { continue };
        is_fine = false;
        let (why, advice) = match error.kind() {
            ErrorKind::AddrInUse => {
                ("is taken", "stop the program that has it (ss -ltnup shows it), or choose another port")
            }
            ErrorKind::AddrNotAvailable => {
                ("is no address of this machine", "give an address of this machine, or 0.0.0.0 for all")
            }
            ErrorKind::PermissionDenied => ("is not allowed to this user", "choose a port of 1024 or above"),
            _ => ("cannot be bound", "see the reason"),
        };
        findings.add("ports", Verdict::Wrong, format!("{flag} {address} ({kind}) {why}: {error}"), advice);
    }
    if is_fine {
        let all = wanted.iter().map(|(flag, address, ..)| format!("{flag} {address}"));
        let mut all: Vec<String> = all.collect();
        all.dedup();
        findings.ok("ports", format!("free: {}", all.join(", ")));
    }
}

fn check_files(config: &Config, findings: &mut Findings) {
    // A node raises its limit to the most that is allowed.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = limit.unwrap_or(u64::MAX);
    judge_files(limit, config.max_connections as u64, findings);
}

/// Judges the number of files that a node may have open.
pub(super) fn judge_files(limit: u64, connections: u64, findings: &mut Findings) {
    let advice = "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd, nofile of docker), or lower \
        --max-connections";
    let needed = connections.saturating_add(FILES_OF_NODE);
    let said = format!("{limit} files may be open, and --max-connections is {connections}");
    match limit {
        _ if limit >= needed => findings.ok("files", said),
        _ if limit < 2 * FILES_OF_NODE => findings.add("files", Verdict::Wrong, said, advice),
        _ => findings.add("files", Verdict::Warning, said, advice),
    }
}

fn check_directory(dir: &Path, findings: &mut Findings) {
    let dir = if dir.file_name().is_some_and(|last| last == "*") { dir.parent().unwrap_or(dir) } else { dir };
    // A directory that is not there is made by the node, in the nearest one that is.
    let mut place = dir.to_owned();
    while !place.exists() && place.pop() {}
    let place = if place.as_os_str().is_empty() { Path::new(".").to_owned() } else { place };
    let probe = place.join(format!(".anode-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) if place == dir => findings.ok("store", format!("{} can be written", dir.display())),
        Ok(()) => findings.ok("store", format!("{} is not there yet and can be made", dir.display())),
        Err(error) => findings.add(
            "store",
            Verdict::Wrong,
            format!("--data-dir {}: nothing can be written in {}: {error}", dir.display(), place.display()),
            "give the directory to the user that runs the node, or choose another one",
        ),
    }
    match disk(&place) {
        Some((free, size)) => judge_disk(free, size, findings),
        None => findings.add("disk", Verdict::Unknown, "the disk tells no figures", "look at df"),
    }
}

/// Judges the free room on the disk of a store.
pub(super) fn judge_disk(free: i64, size: i64, findings: &mut Findings) {
    let shown = |bytes: i64| format::bytes(u64::try_from(bytes).unwrap_or(0));
    let said = format!("{} of {} are free", shown(free), shown(size));
    let advice =
        "make room on the disk with the data directory, or lower --history; a full disk stops the store";
    match free {
        _ if free < DISK_BYTES.0 => findings.add("disk", Verdict::Wrong, said, advice),
        _ if free < DISK_BYTES.1 => findings.add("disk", Verdict::Warning, said, advice),
        _ => findings.ok("disk", said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_judged() {
        let worst = |judge: &dyn Fn(&mut Findings)| {
            let mut findings = Findings::default();
            judge(&mut findings);
            findings.worst()
        };
        assert_eq!(worst(&|findings| judge_files(1 << 20, 100_000, findings)), Verdict::Ok);
        assert_eq!(worst(&|findings| judge_files(4_096, 100_000, findings)), Verdict::Warning);
        assert_eq!(worst(&|findings| judge_files(64, 100_000, findings)), Verdict::Wrong);
        assert_eq!(worst(&|findings| judge_disk(10 << 30, 20 << 30, findings)), Verdict::Ok);
        assert_eq!(worst(&|findings| judge_disk(1 << 30, 20 << 30, findings)), Verdict::Warning);
        assert_eq!(worst(&|findings| judge_disk(1 << 20, 20 << 30, findings)), Verdict::Wrong);
    }

    #[test]
    fn a_directory_is_looked_for_upwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut findings = Findings::default();
        check_directory(&folder.path().join("a/b/*"), &mut findings);
        assert_eq!(findings.0.first().map(|finding| finding.verdict), Some(Verdict::Ok), "{findings:?}");
        assert!(findings.0.iter().any(|finding| finding.message.contains("can be made")), "{findings:?}");
    }
}
