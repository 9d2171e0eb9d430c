//! Measures what a healthy publisher and a healthy subscriber notice while thousands of connections attack the
//! node that they use.
//!
//! Each attack is measured in turns with nobody attacking, since a machine is not equally fast all the time. The
//! attackers are a process of their own that runs only while the node and the healthy leave a processor idle, so that
//! what is measured is what the node does about them, and not how many processors they leave.
//!
//! A second node on the same machine, which nobody attacks, serves a healthy publisher and subscriber of its own. What they
//! notice is what the processors and the kernel cost everybody who shares them with a node under attack. What those at
//! the first node notice beyond that, the node itself could have done better.

mod acts;
mod attackers;
mod healthy;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anode_loadgen::access::AccessArgs;
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
    let has_rights = has_option(&anode, "--auth")?;
    let rights = if has_rights { "tokens are judged" } else { "the node has no rights: tokens mean nothing" };
    println!("{rights}");
    if arguments.tls {
        println!("all speak TLS");
    }
    let certificate = arguments.tls.then(|| Certificate::write(&folder)).transpose()?;
    let beside = Attacked::start(&anode, &folder, "beside", certificate.as_ref())?;
    let node = Attacked::start(&anode, &folder, "node", certificate.as_ref())?;
    node.fill()?;
    let mut pairs = Pairs { healthy: node.healthy()?, beside: beside.healthy()? };
    pairs.measure(Duration::from_secs(2))?;
    println!(
        "| attack | p50 without, µs | p50, µs | p99 without, µs | p99, µs | ratio of p99 | the same at a node that \
         nobody attacks | acts/s | verdict |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for act in acts {
        match measure(arguments, &node, &mut pairs, act) {
            Ok(compared) => {
                let is_held = compared.ratio() <= *bound;
                println!("| {} | {compared} | {} |", act.name, if is_held { "held" } else { "FAILED" });
                if !is_held {
                    failed.push(act.name);
                }
            }
            Err(error) => {
                println!("| {} | | | | | | | | FAILED: {error} |", act.name);
                failed.push(act.name);
                pairs = Pairs { healthy: node.healthy()?, beside: beside.healthy()? };
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("the healthy were disturbed by: {}", failed.join(", ")).into()),
    }
}

/// A node, and how it is reached.
struct Attacked<'a> {
    node: Node,
    /// The certificate of the node, which is its own authority; `None`: it does not speak TLS.
    certificate: Option<&'a Certificate>,
}

impl Attacked<'_> {
    /// Starts a node with a folder of this name.
    fn start<'a>(
        anode: &Path,
        folder: &Folder,
        name: &str,
        certificate: Option<&'a Certificate>,
    ) -> Outcome<Attacked<'a>> {
        let mut options = vec!["--store", "memory", "--log-level", "error", "--metrics", "127.0.0.1:0"];
        if let Some(Certificate { cert, key }) = certificate {
            options.extend(["--tls-cert", cert, "--tls-key", key]);
        }
        let rights = folder.join("auth.toml").display().to_string();
        if has_option(anode, "--auth")? {
            std::fs::write(&rights, RIGHTS)?;
            options.extend(["--auth", &rights]);
        }
        // The attackers share the processors with the node. As long as they run, the kernel sees no idle processor to
        // which it could move one of two event loops that it has put on one.
        if has_option(anode, "--pin-workers")? {
            options.extend(["--pin-workers", "yes"]);
        }
        let node = Node::start(anode, &folder.join(name), &options)?;
        node.wait_ready(DEADLINE)?;
        Ok(Attacked { node, certificate })
    }

    /// Publishes what the attackers ask for.
    fn fill(&self) -> Outcome<()> {
        let access = AccessArgs { ca: self.ca().map(Path::to_path_buf), ..AccessArgs::default() };
        fill::run(&self.url(), &access, "fill", SOURCES, 1_000, 20)?;
        fill::run(&self.url(), &access, "large", LARGE, 10, LARGE_BYTES)?;
        Ok(())
    }

    fn ca(&self) -> Option<&Path> {
        self.certificate.map(|certificate| Path::new(&certificate.cert))
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

/// Rights by which everybody may do everything, but a wrong token is refused.
const RIGHTS: &str = "[anonymous]\npublish = [\"**\"]\nsubscribe = [\"**\"]\nobserve = true\n";

/// Returns whether this version of the program has an option.
fn has_option(anode: &Path, option: &str) -> Outcome<bool> {
    let help = std::process::Command::new(anode).args(["serve", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).split_whitespace().any(|word| word == option))
}

/// The healthy at the node that is attacked, and those at the node that nobody attacks.
struct Pairs {
    healthy: Healthy,
    beside: Healthy,
}

impl Pairs {
    /// Publishes a record at both nodes, so that they do not close the connections for their silence.
    fn stay(&mut self) -> Outcome<()> {
        self.healthy.stay()?;
        self.beside.stay()
    }

    /// Measures both at the same time.
    fn measure(&mut self, length: Duration) -> Outcome<Both> {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.beside.measure(length).map_err(|error| error.to_string()));
            let healthy = self.healthy.measure(length)?;
            let beside = other.join().map_err(|_| "a measuring thread panicked")?;
            Ok(Both { healthy, beside: beside? })
        })
    }
}

/// What both noticed in one measurement, or the medians of several.
struct Both {
    healthy: Noticed,
    beside: Noticed,
}

impl Both {
    fn medians(all: &[Both]) -> Both {
        Both {
            healthy: Noticed::medians(all.iter().map(|both| both.healthy)),
            beside: Noticed::medians(all.iter().map(|both| both.beside)),
        }
    }
}

/// What was noticed without and with an attack: medians of all rounds.
struct Compared {
    without: Both,
    with: Both,
    /// Things that the attackers did in a second.
    acts_per_s: f64,
}

impl Compared {
    /// How many times as high the 99th percentile is under the attack.
    fn ratio(&self) -> f64 {
        self.with.healthy.p99_us / self.without.healthy.p99_us
    }

    /// The same at the node that nobody attacks.
    fn ratio_beside(&self) -> f64 {
        self.with.beside.p99_us / self.without.beside.p99_us
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (without, with) = (self.without.healthy, self.with.healthy);
        write!(
            out,
            "{:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0}",
            without.p50_us,
            with.p50_us,
            without.p99_us,
            with.p99_us,
            self.ratio(),
            self.ratio_beside(),
            self.acts_per_s
        )
    }
}

/// Measures one attack.
fn measure(arguments: &Arguments, node: &Attacked, pairs: &mut Pairs, act: &Act) -> Outcome<Compared> {
    let length = Duration::from_secs_f64(arguments.seconds);
    let (mut without, mut with, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        without.push(pairs.measure(length)?);
        let attackers = Attackers::begin(act, node, arguments.connections, pairs)?;
        with.push(pairs.measure(length)?);
        rates.push(attackers.end(length)?);
        settle(&node.node, pairs)?;
    }
    Ok(Compared { without: Both::medians(&without), with: Both::medians(&with), acts_per_s: median(&rates) })
}

/// Waits until the node has closed what the attackers left, so that the next measurement is undisturbed.
fn settle(node: &Node, pairs: &mut Pairs) -> Outcome<()> {
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
        pairs.stay()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{SETTLING:?} after the attackers have gone, the node still has connections of theirs")
        .into())
}
