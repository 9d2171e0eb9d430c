//! The process of the attackers: thousands of connections that do the same bad thing, each for itself.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anode_loadgen::Outcome;
use clap::Args;

use super::acts::{ACTS, Act, Attacker};
use super::wire::TlsSide;
use super::{Attacked, Pairs};

/// How long the attackers may take to connect.
const BEGIN: Duration = Duration::from_secs(120);
/// Time between two records of the healthy while nothing is measured.
const STAY: Duration = Duration::from_secs(1);
/// Number of connections that are opened at a time.
const OPENING_MAX: usize = 200;

/// Options of the attackers' process.
#[derive(Args)]
pub struct AttackArguments {
    /// The attack
    name: String,
    /// The node, `host:port`
    address: String,
    /// Number of connections
    connections: usize,
    /// Speaks TLS, and trusts the certificates in this file
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// A running process of attackers, which is killed when this is dropped.
pub struct Attackers {
    process: Child,
    /// What the process prints, line by line.
    lines: Receiver<String>,
}

impl Attackers {
    /// Starts the process, and waits until all of its connections have begun. The healthy of `pairs` stay connected meanwhile.
    pub fn begin(act: &Act, node: &Attacked, connections: usize, pairs: &mut Pairs) -> Outcome<Attackers> {
        // Threads of this class run only while a processor has nothing else to do, and give way at once. A nice value
        // would let an attacker finish its slice of up to some milliseconds first, as no attacker on another machine can.
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).args([
            "attack",
            act.name,
            &node.node.http,
            &connections.to_string(),
        ]);
        if let Some(ca) = node.ca() {
            command.arg("--ca").arg(ca);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting the attackers: {error}"))?;
        let output = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let attackers = Attackers { process, lines };
        loop {
            match attackers.lines.recv_timeout(STAY) {
                Ok(line) if line == "begun" => return Ok(attackers),
                Ok(line) => return Err(format!("the attackers have not begun: {line:?}").into()),
                Err(RecvTimeoutError::Timeout) => pairs.stay()?,
                Err(RecvTimeoutError::Disconnected) => return Err("the attackers have not begun".into()),
            }
        }
    }

    /// Ends the attack, which has lasted for this time. Returns how many things the attackers did in a second.
    pub fn end(mut self, lasted: Duration) -> Outcome<f64> {
        // The process counts until its input ends.
        drop(self.process.stdin.take());
        let line = self.lines.recv_timeout(BEGIN).map_err(|_| "the attackers do not end")?;
        let acts: f64 = line.parse().map_err(|_| format!("the attackers did {line:?}"))?;
        Ok(acts / lasted.as_secs_f64())
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        // It does not matter if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Attacks until standard input ends. Prints `begun` once all connections are there, and at the end how many things
/// were done since.
pub fn attack(arguments: &AttackArguments) -> Outcome<()> {
    let act = ACTS.iter().find(|act| act.name == arguments.name).ok_or("there is no such attack")?;
    let tls = arguments.ca.as_ref().map(|ca| TlsSide::new(ca, &arguments.address)).transpose()?;
    anode_loadgen::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
    runtime.block_on(async {
        let begun = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let opening = Arc::new(tokio::sync::Semaphore::new(OPENING_MAX));
        for number in 0..arguments.connections {
            let attacker = Attacker {
                number,
                address: arguments.address.clone(),
                done: done.clone(),
                opening: opening.clone(),
                tls: tls.clone(),
            };
            let begun = begun.clone();
            tokio::spawn(async move {
                attacker
                    .run(act, || {
                        begun.fetch_add(1, Ordering::Relaxed);
                    })
                    .await;
            });
        }
        let deadline = tokio::time::Instant::now() + BEGIN;
        // A node refuses some of the connections for good reasons: those count as begun, too.
        while begun.load(Ordering::Relaxed) < arguments.connections {
            if tokio::time::Instant::now() > deadline {
                return Err(format!("{} connections have begun", begun.load(Ordering::Relaxed)).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        done.store(0, Ordering::Relaxed);
        println!("begun");
        while !ended.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{}", done.load(Ordering::Relaxed));
        // The connections end with the process.
        std::process::exit(0)
    })
}
