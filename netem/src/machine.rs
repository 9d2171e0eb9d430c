//! One machine of a run: its node and its disk, and what the faults do to them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

use crate::disk::{DiskOrder, FaultyDisk, FsyncMode};
use crate::node::Node;
use crate::profile::fault::{Event, Kind};
use crate::world::command::run;

/// Size of the file system that can be filled.
const SMALL_DISK_MIB: u32 = 96;
/// How long a node may take to notice that its store is damaged.
const NOTICE: Duration = Duration::from_secs(4);

/// The disk under the data directory of a node.
pub enum NodeDisk {
    /// A directory of this machine.
    Plain,
    /// A small file system in memory that can be filled.
    Small,
    /// A file system in user space that can be slow, fail and lie.
    Faulty(FaultyDisk),
}

impl NodeDisk {
    /// Makes the disk that these faults need, at `dir`, with its real files beside it.
    pub fn new(dir: &Path, kinds: &[Kind]) -> Outcome<NodeDisk> {
        fs::create_dir_all(dir)?;
        let needs_faulty = [Kind::DiskSlow, Kind::DiskFails, Kind::DiskLies];
        if kinds.iter().any(|kind| needs_faulty.contains(kind)) {
            let real = dir.with_extension("real");
            fs::create_dir_all(&real)?;
            return Ok(NodeDisk::Faulty(FaultyDisk::mount(&real, dir)?));
        }
        if kinds.contains(&Kind::DiskFull) {
            run(&format!("mount -t tmpfs -o size={SMALL_DISK_MIB}m anetem {}", dir.display()))?;
            return Ok(NodeDisk::Small);
        }
        Ok(NodeDisk::Plain)
    }
}

/// A machine with its node and its disk.
pub struct Machine {
    /// The node that runs on it.
    pub node: Node,
    /// Directory of the node's data.
    pub data_dir: PathBuf,
    /// File with the keys of the cluster, if it has any.
    pub key_file: Option<PathBuf>,
    /// The disk under the data directory.
    pub disk: NodeDisk,
    /// The program to which an upgrade leads.
    pub newest: PathBuf,
}

impl Machine {
    /// Lets a fault begin. Returns a sentence if there is something to tell.
    pub fn begin(&mut self, event: &Event) -> Outcome<()> {
        let fault = &event.fault;
        match fault.kind {
            Kind::Kill => self.node.kill(),
            Kind::Stop => self.node.freeze(true),
            Kind::Restart | Kind::Upgrade => self.node.end()?,
            Kind::Join => self.node.start()?,
            Kind::DiskFull => match &self.disk {
                NodeDisk::Faulty(disk) => disk.order(DiskOrder::Free(Some(0)))?,
                _ => fill(&self.ballast()),
            },
            Kind::DiskSlow => self.order(DiskOrder::Delay(Duration::from_millis(fault.disk_ms)))?,
            Kind::DiskFails => self.order(DiskOrder::Fsync(FsyncMode::Fails))?,
            Kind::DiskLies => self.order(DiskOrder::Fsync(FsyncMode::Lies))?,
            Kind::Clock | Kind::Keys => {}
            Kind::Files => self.node.bound_files(Some(fault.more_files))?,
            Kind::Cpu => self.bound(|group| group.bound_cpu(Some(fault.percent)))?,
            Kind::Memory => self.bound(|group| group.bound_memory(Some(fault.mib * 1024 * 1024)))?,
        }
        Ok(())
    }

    /// Lets a fault go on: `since_s` seconds of it are over, which is the part `part` of it.
    pub fn go_on(&mut self, event: &Event, since_s: f64, part: f64, keys: &[String]) -> Outcome<()> {
        match event.fault.kind {
            Kind::Clock => {
                let ahead_us = event.fault.ahead_s * 1e6 + event.fault.drift_ppm * since_s;
                self.set_clock(ahead_us as i64)
            }
            Kind::Keys => self.write_keys(keys, part),
            _ => Ok(()),
        }
    }

    /// Lets a fault end. Returns a sentence if there is something to tell.
    pub fn end(&mut self, event: &Event, keys: &[String], seed: u64) -> Outcome<Option<String>> {
        match event.fault.kind {
            Kind::Kill | Kind::Restart => self.node.start()?,
            Kind::Stop => self.node.freeze(false),
            Kind::Upgrade => {
                self.node.set_binary(self.newest.clone());
                self.node.start()?;
            }
            Kind::Join => {}
            Kind::DiskFull => match &self.disk {
                NodeDisk::Faulty(disk) => disk.order(DiskOrder::Free(None))?,
                _ => fs::remove_file(self.ballast())?,
            },
            Kind::DiskSlow => self.order(DiskOrder::Delay(Duration::ZERO))?,
            Kind::DiskFails => {
                self.order(DiskOrder::Fsync(FsyncMode::Honest))?;
                return self.start_if_ended();
            }
            Kind::DiskLies => return self.end_lies(seed).map(Some),
            Kind::Clock => self.set_clock(0)?,
            Kind::Keys => self.write_keys(keys, 1.0)?,
            Kind::Files => self.node.bound_files(None)?,
            Kind::Cpu => self.bound(|group| group.bound_cpu(None))?,
            Kind::Memory => {
                self.bound(|group| group.bound_memory(None))?;
                return self.start_if_ended();
            }
        }
        Ok(None)
    }

    fn order(&self, order: DiskOrder) -> Outcome<()> {
        match &self.disk {
            NodeDisk::Faulty(disk) => Ok(disk.order(order)?),
            _ => Err("the disk of this node was made without faults".into()),
        }
    }

    fn bound(&self, by: impl Fn(&crate::world::cgroup::Cgroup) -> Outcome<()>) -> Outcome<()> {
        by(self.node.cgroup().ok_or("the node was made without bounds")?)
    }

    fn set_clock(&self, ahead_us: i64) -> Outcome<()> {
        self.node.clock().ok_or("the node was made without a clock of its own")?.set_ahead_by_us(ahead_us)
    }

    fn ballast(&self) -> PathBuf {
        self.data_dir.join("ballast")
    }

    /// Writes the keys as they are at a part of their exchange.
    fn write_keys(&self, keys: &[String], part: f64) -> Outcome<()> {
        let (Some(file), [old, new]) = (&self.key_file, keys) else {
            return Err("keys are exchanged only in sealed clusters".into());
        };
        let text = keys_at(old, new, part);
        if fs::read_to_string(file).is_ok_and(|now| now == text) {
            return Ok(());
        }
        // In one step, so that the node never reads a half of it.
        let next = file.with_extension("next");
        fs::write(&next, text)?;
        fs::rename(&next, file)?;
        Ok(())
    }

    fn start_if_ended(&mut self) -> Outcome<Option<String>> {
        let how = self.node.ended();
        if self.node.is_started() {
            return Ok(None);
        }
        self.node.start()?;
        Ok(how)
    }

    /// Cuts the power of a disk that has lied, and starts the node with what is left. A node that finds its store
    /// damaged must say so and end, and never serve it; then it is started with an empty store, as its operator would.
    fn end_lies(&mut self, seed: u64) -> Outcome<String> {
        self.node.kill();
        self.order(DiskOrder::Cut(Some(seed)))?;
        self.order(DiskOrder::Fsync(FsyncMode::Honest))?;
        let NodeDisk::Faulty(disk) = &self.disk else { return Ok(String::new()) };
        let counts = disk.counts();
        let lost = format!("{} lied fsyncs, {} pages lost", counts.fsyncs_lied, counts.pages_lost);
        self.node.start()?;
        let begin = Instant::now();
        while begin.elapsed() < NOTICE {
            if let Some(how) = self.node.ended() {
                let said = last_line(self.node.log());
                empty(&self.data_dir)?;
                self.node.start()?;
                return Ok(format!("{lost}; {how}, saying: {said}"));
            }
            if self.node.is_ready(Duration::from_millis(200)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(format!("{lost}; the node serves the store that is left"))
    }
}

/// Returns the content of a file of keys at a part of their exchange: the new one is added, moved up, and the old one is
/// dropped.
pub fn keys_at(old: &str, new: &str, part: f64) -> String {
    match part {
        part if part < 1.0 / 3.0 => format!("{old}\n{new}\n"),
        part if part < 2.0 / 3.0 => format!("{new}\n{old}\n"),
        _ => format!("{new}\n"),
    }
}

/// Writes into a file until the file system is full.
fn fill(path: &Path) {
    let Ok(mut file) = File::create(path) else { return };
    let block = vec![0xaa; 1024 * 1024];
    while file.write_all(&block).is_ok() {}
    // The last bytes, so that nothing at all is left.
    while file.write_all(&block[..512]).is_ok() {}
}

fn empty(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// Returns the last line of a log.
pub fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().next_back().unwrap_or_default().to_owned()
}
