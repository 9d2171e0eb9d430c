//! Measures what a healthy publisher and a healthy subscriber notice while thousands of connections attack the
//! node that they use.
//!
//! Each attack is measured in turns with nobody attacking, since a machine is not equally fast all the time. The
//! attackers are a process of their own with the least priority, so that what is measured is what the node does
//! about them, and not how many processors they leave.

mod acts;
mod attackers;
mod healthy;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anode_loadgen::{Outcome, fill};
use clap::Args;

use self::acts::{ACTS, Act};
use self::attackers::Attackers;
pub use self::attackers::{AttackArguments, attack};
use self::healthy::{Healthy, Noticed};
use crate::folder::Folder;
use crate::machine::Machine;
use crate::median::median;
use crate::node::Node;
use crate::tls::Certificate;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    /// The anode binary [default: the one next to this program, else it is built]
    #[arg(long)]
    anode: Option<PathBuf>,
    /// Connections of each attack
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Measurements of each attack; medians are compared
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Most that the 99th percentile under an attack may be, as a multiple of that without
    #[arg(long, default_value_t = 1.2)]
    bound: f64,
    /// Only these attacks, split by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The node, the healthy and the attackers speak TLS; there are attacks on TLS itself, too
    #[arg(long)]
    tls: bool,
}

/// Number of sources that the node holds.
const SOURCES: u64 = 20_000;
/// Number of large sources, and the size of each in bytes.
const LARGE: u64 = 100;
const LARGE_BYTES: usize = 60_000;
/// How long the node may take to become ready.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the node may take to be done with the attackers after they have gone. It still makes the pages that they
/// have asked for, one after the other.
const SETTLING: Duration = Duration::from_secs(180);

/// Measures all attacks, and prints a line with a verdict for each.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = crate::find_anode(arguments.anode.clone())?;
    let acts = chosen(&arguments.only, arguments.tls)?;
    println!("{}", Machine::look(&anode)?);
    let Arguments { connections, seconds, rounds, bound, .. } = arguments;
    println!(
        "{connections} connections of each attack; {rounds} rounds of {seconds} s without and with it; a record every \
         {} ms; the node holds {SOURCES} small and {LARGE} large sources; bound {bound}",
        healthy::PACE.as_millis()
    );
    anode_loadgen::raise_open_files();
    let folder = Folder::new()?;
    let rights =
        if has_rights(&anode)? { "tokens are judged" } else { "the node has no rights: tokens mean nothing" };
    println!("{rights}");
    if arguments.tls {
        println!("all speak TLS");
    }
    let node = start(&anode, &folder, arguments.tls)?;
    let mut healthy = node.healthy()?;
    healthy.measure(Duration::from_secs(2))?;
    println!(
        "| attack | p50 without, µs | p50, µs | p99 without, µs | p99, µs | ratio of p99 | acts/s | verdict |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for act in acts {
        match measure(arguments, &node, &mut healthy, act) {
            Ok(compared) => {
                let is_held = compared.ratio() <= *bound;
                println!("| {} | {compared} | {} |", act.name, if is_held { "held" } else { "FAILED" });
                if !is_held {
                    failed.push(act.name);
                }
            }
            Err(error) => {
                println!("| {} | | | | | | | FAILED: {error} |", act.name);
                failed.push(act.name);
                healthy = node.healthy()?;
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("the healthy were disturbed by: {}", failed.join(", ")).into()),
    }
}

/// A node, and how it is reached.
struct Attacked {
    node: Node,
    /// The certificate of the node, which is its own authority; `None`: it does not speak TLS.
    certificate: Option<Certificate>,
}

impl Attacked {
    fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| Path::new(&certificate.cert))
    }

    fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "wss://" } else { "" };
        format!("{scheme}{}", self.node.http)
    }

    fn healthy(&self) -> Outcome<Healthy> {
        Healthy::at(&self.url(), self.ca())
    }
}

fn chosen(only: &[String], has_tls: bool) -> Outcome<Vec<&'static Act>> {
    let possible = || ACTS.iter().filter(|act| has_tls || !act.is_on_tls);
    if let Some(unknown) = only.iter().find(|name| possible().all(|act| act.name != name.as_str())) {
        let known = possible().map(|act| act.name).collect::<Vec<_>>().join(", ");
        return Err(format!("--only: there is no attack {unknown:?}; there are {known}").into());
    }
    let is_chosen = |act: &&Act| only.is_empty() || only.iter().any(|name| name == act.name);
    Ok(possible().filter(is_chosen).collect())
}

fn start(anode: &Path, folder: &Folder, has_tls: bool) -> Outcome<Attacked> {
    let mut options = vec!["--store", "memory", "--log-level", "error", "--metrics", "127.0.0.1:0"];
    let certificate = has_tls.then(|| Certificate::write(folder)).transpose()?;
    if let Some(Certificate { cert, key }) = &certificate {
        options.extend(["--tls-cert", cert, "--tls-key", key]);
    }
    let rights = folder.join("auth.toml").display().to_string();
    if has_rights(anode)? {
        std::fs::write(&rights, RIGHTS)?;
        options.extend(["--auth", &rights]);
    }
    let node = Node::start(anode, &folder.join("node"), &options)?;
    node.wait_ready(DEADLINE)?;
    let node = Attacked { node, certificate };
    fill::run(&node.url(), node.ca(), "fill", SOURCES, 1_000, 20)?;
    fill::run(&node.url(), node.ca(), "large", LARGE, 10, LARGE_BYTES)?;
    Ok(node)
}

/// Rights by which everybody may do everything, but a wrong token is refused.
const RIGHTS: &str = "[anonymous]\npublish = [\"**\"]\nsubscribe = [\"**\"]\nobserve = true\n";

/// Returns whether this version of the program can be given rights.
fn has_rights(anode: &Path) -> Outcome<bool> {
    let help = std::process::Command::new(anode).args(["serve", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains("--auth "))
}

/// What was noticed without and with an attack: medians of all rounds.
struct Compared {
    without: Noticed,
    with: Noticed,
    /// Things that the attackers did in a second.
    acts_per_s: f64,
}

impl Compared {
    fn ratio(&self) -> f64 {
        self.with.p99_us / self.without.p99_us
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Compared { without, with, acts_per_s } = self;
        write!(
            out,
            "{:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {acts_per_s:.0}",
            without.p50_us,
            with.p50_us,
            without.p99_us,
            with.p99_us,
            self.ratio()
        )
    }
}

/// Measures one attack.
fn measure(arguments: &Arguments, node: &Attacked, healthy: &mut Healthy, act: &Act) -> Outcome<Compared> {
    let length = Duration::from_secs_f64(arguments.seconds);
    let (mut without, mut with, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        without.push(healthy.measure(length)?);
        let attackers = Attackers::begin(act, node, arguments.connections, healthy)?;
        with.push(healthy.measure(length)?);
        rates.push(attackers.end(length)?);
        settle(&node.node, healthy)?;
    }
    let middle = |all: &[Noticed]| Noticed {
        p50_us: median(&all.iter().map(|it| it.p50_us).collect::<Vec<f64>>()),
        p99_us: median(&all.iter().map(|it| it.p99_us).collect::<Vec<f64>>()),
    };
    Ok(Compared { without: middle(&without), with: middle(&with), acts_per_s: median(&rates) })
}

/// Waits until the node has closed what the attackers left, so that the next measurement is undisturbed.
fn settle(node: &Node, healthy: &mut Healthy) -> Outcome<()> {
    /// The connections of the healthy, and that which asks.
    const OWN: f64 = 4.0;
    let begun = std::time::Instant::now();
    while begun.elapsed() < SETTLING {
        let answer = node.get_watched("/metrics").unwrap_or_default();
        let connections = answer.lines().filter_map(|line| line.strip_prefix("anode_connections{"));
        let sum: f64 = connections
            .filter_map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()))
            .sum();
        if sum <= OWN {
            std::thread::sleep(Duration::from_millis(500));
            return Ok(());
        }
        healthy.stay()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{SETTLING:?} after the attackers have gone, the node still has connections of theirs")
        .into())
}
