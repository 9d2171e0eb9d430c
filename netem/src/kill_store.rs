//! Kills a node again and again while it stores records, and counts what it has acknowledged and lost.
//!
//! A node with an embedded store runs alone. A publisher sends records at the level `stored`; at a random time the node
//! is killed without warning, and on a faulty disk the power is cut: what was not synced is gone. Then the node is
//! started again, everything it holds is read, and the checker compares that with every answer so far.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anode_loadgen::Outcome as Attempt;
use anode_loadgen::random::Random;

use crate::checker::{
    Answer, Checker, Level, Observation, Offer, Place, Promise, Report, Seen, Settings, Version,
};
use crate::disk::{DiskCounts, DiskOrder, FaultyDisk, FsyncMode};
use crate::finals;
use crate::load::ROOT;
use crate::load::frames::{self, Frame};
use crate::load::socket::Socket;
use crate::local::{LocalNode, LocalStart};

/// Number of sources. A record is overwritten only after this many others, so what is lost shows.
const SOURCES: u64 = 10_000;
/// Most records without an answer.
const UNANSWERED_MAX: usize = 256;
/// Longest time that reading waits for answers.
const READ: Duration = Duration::from_millis(2);
/// Shortest and longest time from the first answer to the kill.
const LIFE_MS: (u64, u64) = (30, 400);
/// Time for which fsyncs fail in each life, if they are to fail.
const FAILING: Duration = Duration::from_millis(200);
/// Time after that, in which the node is to store again.
const RECOVERING: Duration = Duration::from_millis(1_500);
/// Time within which the first answer must come.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// How the node is killed.
#[derive(Clone, Debug)]
pub struct KillPlan {
    /// The program of the node.
    pub binary: PathBuf,
    /// Directory of the run.
    pub dir: PathBuf,
    /// Number of kills.
    pub times: u32,
    /// Seed of the times and of the power cuts.
    pub seed: u64,
    /// The disk under the store.
    pub disk: KillDisk,
    /// Variables of the node's environment.
    pub variables: Vec<(String, String)>,
    /// The command that runs it again.
    pub command: String,
}

/// Disks under the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillDisk {
    /// A directory of this machine. What the system has taken survives a kill.
    Plain,
    /// A file system of our own, at which the power is cut after each kill.
    Faulty {
        /// What an fsync does after the first kill. The first life is honest, so that there is a store to be lost. Fsyncs
        /// that fail do so for a part of each life, and are honest again before its end.
        fsync: FsyncMode,
        /// Time that every operation takes more.
        delay: Duration,
        /// Says that some sectors that were not synced are kept at random.
        keeps_some: bool,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct KillResult {
    /// Number of kills done.
    pub kills: u32,
    /// Number of records acknowledged at `stored`.
    pub acknowledged: u64,
    /// Number of acknowledged records that were missing after a restart.
    pub missing: u64,
    /// What happened to the disk, if it was a faulty one.
    pub disk: Option<DiskCounts>,
    /// The reason why the node did not start again, if it did not.
    pub refusal: Option<String>,
    /// The checker's report.
    pub report: Report,
}

/// A run that goes on.
struct Killing {
    plan: KillPlan,
    start: LocalStart,
    disk: Option<FaultyDisk>,
    checker: Checker,
    random: Random,
    begin: Instant,
    publishes: u64,
    acknowledged: u64,
}

/// Kills the node as planned. Ends early at the first kill after which something is missing.
pub fn run(plan: KillPlan) -> Attempt<KillResult> {
    let mut killing = Killing::new(plan)?;
    let mut kills = 0;
    let mut refusal = None;
    while kills < killing.plan.times {
        let node = match LocalNode::start(&killing.start) {
            Ok(node) => node,
            Err(error) if kills > 0 => {
                refusal = Some(error.to_string());
                killing.see_final(Vec::new());
                break;
            }
            Err(error) => return Err(error),
        };
        if killing.look(&node)? > 0 {
            break;
        }
        killing.live(node)?;
        kills += 1;
        if kills == killing.plan.times {
            match LocalNode::start(&killing.start) {
                Ok(node) => drop(killing.look(&node)?),
                Err(error) => {
                    refusal = Some(error.to_string());
                    killing.see_final(Vec::new());
                }
            }
        }
    }
    Ok(killing.end(kills, refusal))
}

impl Killing {
    fn new(plan: KillPlan) -> Attempt<Killing> {
        let data = plan.dir.join("data");
        std::fs::create_dir_all(&data)?;
        let disk = match plan.disk {
            KillDisk::Plain => None,
            KillDisk::Faulty { delay, .. } => {
                let real = plan.dir.join("real");
                std::fs::create_dir_all(&real)?;
                let disk = FaultyDisk::mount(&real, &data)?;
                disk.order(DiskOrder::Delay(delay))?;
                Some(disk)
            }
        };
        let start = LocalStart {
            binary: plan.binary.clone(),
            name: "killed".to_owned(),
            data_dir: data.join("node"),
            options: ["--store", "embedded", "--history", "1"].map(str::to_owned).to_vec(),
            variables: plan.variables.clone(),
            log: plan.dir.join("node.log"),
        };
        let wall_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
        let checker = Checker::new(Settings::new("kill-store", &plan.command, wall_us));
        let random = Random::new(plan.seed, 1);
        let begin = Instant::now();
        Ok(Killing { plan, start, disk, checker, random, begin, publishes: 0, acknowledged: 0 })
    }

    fn see(&mut self, seen: Seen) {
        let at_us = self.begin.elapsed().as_micros() as u64;
        self.checker.observe(Observation { at_us, seen });
    }

    fn name(&self) -> crate::checker::Name {
        self.start.name.as_str().into()
    }

    fn see_final(&mut self, records: Vec<(crate::checker::Name, Version)>) {
        let node = self.name();
        self.see(Seen::Final { node, place: Place::OwnStore, records });
    }

    /// Reads everything that the node holds after its start. Returns the number of records that are missing.
    fn look(&mut self, node: &LocalNode) -> Attempt<u64> {
        let records = finals::read(&node.http.into())?.into_iter().collect();
        self.see_final(records);
        let started = self.name();
        self.see(Seen::NodeStarted { node: started });
        Ok(self.checker.broken(Promise::StoredKept))
    }

    /// Publishes until the node is killed at a random time, reads the last answers, and cuts the power.
    fn live(&mut self, node: LocalNode) -> Attempt<()> {
        let mut socket = Socket::open(&node.http.into(), "/publish")?;
        let mut unanswered = BTreeSet::new();
        let began = Instant::now();
        let (least, most) = LIFE_MS;
        let mut life = Duration::from_millis(least + self.random.next_u64() % (most - least));
        let mut failing = Failing::of(self.plan.disk, life);
        if failing.is_some() {
            life += FAILING + RECOVERING;
        }
        let mut first_answer = None;
        while first_answer.is_none_or(|at: Instant| at.elapsed() < life) {
            if let (Some(failing), Some(disk), Some(at)) = (&mut failing, &self.disk, first_answer) {
                failing.switch(at.elapsed(), disk)?;
            }
            while unanswered.len() < UNANSWERED_MAX {
                unanswered.insert(self.send(&mut socket)?);
            }
            socket.flush()?;
            while let Some(text) = socket.read(READ)? {
                if self.take_answer(&text, &mut unanswered) {
                    first_answer.get_or_insert_with(Instant::now);
                }
                if first_answer.is_some_and(|at| at.elapsed() >= life)
                    || unanswered.len() < UNANSWERED_MAX / 2
                {
                    break;
                }
            }
            if first_answer.is_none() && began.elapsed() > FIRST_ANSWER {
                return Err(format!("no record was stored within {} s", FIRST_ANSWER.as_secs()).into());
            }
        }
        let ended = self.name();
        self.see(Seen::NodeEnded { node: ended });
        node.kill();
        // Answers that were sent before the kill count, although they are read after it.
        while let Ok(Some(text)) = socket.read(Duration::from_millis(100)) {
            self.take_answer(&text, &mut unanswered);
        }
        for publish in unanswered {
            self.see(Seen::Unanswered { publish });
        }
        self.cut()
    }

    fn send(&mut self, socket: &mut Socket) -> Attempt<u64> {
        self.publishes += 1;
        let publish = self.publishes;
        let data = format!("{{\"n\":{publish},\"x\":\"{}\"}}", "x".repeat((publish % 200) as usize));
        let offer = Offer {
            source: format!("{ROOT}/{}", publish % SOURCES).into(),
            ts: None,
            data_hash: Some(Version::of_data(0, data.as_bytes()).hash),
            data_bytes: data.len() as u32,
            ttl_ms: 0,
            node: self.name(),
            level: Level::Stored,
        };
        let frame = frames::publish(publish, &offer, &data);
        self.see(Seen::Offered { publish, offer });
        socket.write(frame)?;
        Ok(publish)
    }

    /// Takes an answer in. Returns whether it says that a record is stored.
    fn take_answer(&mut self, text: &str, unanswered: &mut BTreeSet<u64>) -> bool {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else { return false };
        let Some((publish, answer)) = frame.id.and_then(|id| Some((id, frame.answer()?))) else {
            return false;
        };
        unanswered.remove(&publish);
        let is_done = matches!(answer, Answer::Done { .. });
        self.acknowledged += u64::from(is_done);
        self.see(Seen::Answered { publish, answer });
        is_done
    }

    /// Cuts the power of a faulty disk, and lets it lie from then on if that was planned.
    fn cut(&mut self) -> Attempt<()> {
        let KillDisk::Faulty { fsync, keeps_some, .. } = self.plan.disk else { return Ok(()) };
        let seed = keeps_some.then(|| self.random.next_u64());
        if let Some(disk) = &self.disk {
            disk.order(DiskOrder::Cut(seed))?;
            if fsync == FsyncMode::Lies {
                disk.order(DiskOrder::Fsync(fsync))?;
            }
        }
        Ok(())
    }

    fn end(self, kills: u32, refusal: Option<String>) -> KillResult {
        KillResult {
            kills,
            acknowledged: self.acknowledged,
            missing: self.checker.broken(Promise::StoredKept),
            disk: self.disk.as_ref().map(FaultyDisk::counts),
            refusal,
            report: self.checker.judge(),
        }
    }
}

/// A part of a life in which fsyncs fail.
struct Failing {
    mode: FsyncMode,
    /// Time after the first answer at which the next switch is due.
    due: Duration,
    is_on: bool,
}

impl Failing {
    /// Fails from `from` on after the first answer, if that is planned.
    fn of(disk: KillDisk, from: Duration) -> Option<Failing> {
        match disk {
            KillDisk::Faulty { fsync: mode @ (FsyncMode::Fails | FsyncMode::FailsAndForgets), .. } => {
                Some(Failing { mode, due: from, is_on: false })
            }
            _ => None,
        }
    }

    /// Switches the disk if that is due.
    fn switch(&mut self, now: Duration, disk: &FaultyDisk) -> Attempt<()> {
        if now < self.due {
            return Ok(());
        }
        self.due = if self.is_on { Duration::MAX } else { now + FAILING };
        let mode = if self.is_on { FsyncMode::Honest } else { self.mode };
        self.is_on = !self.is_on;
        Ok(disk.order(DiskOrder::Fsync(mode))?)
    }
}

impl KillResult {
    /// The result in one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "kill-store: {} kills, {} records acknowledged at stored, {} missing",
            self.kills, self.acknowledged, self.missing
        );
        if let Some(disk) = &self.disk {
            line += &format!(
                "; {} power cuts took back {} pages; {} of {} fsyncs were lies, {} failed",
                disk.cuts, disk.pages_lost, disk.fsyncs_lied, disk.fsyncs, disk.fsyncs_failed
            );
        }
        if let Some(refusal) = &self.refusal {
            line += &format!("; the node did not start again: {refusal}");
        }
        line
    }
}

/// Makes a directory for a run, or uses the one that is given.
pub fn run_dir(given: Option<&Path>) -> Attempt<(PathBuf, Option<tempfile::TempDir>)> {
    match given {
        Some(dir) => Ok((dir.to_owned(), None)),
        None => {
            let dir = tempfile::tempdir()?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}
