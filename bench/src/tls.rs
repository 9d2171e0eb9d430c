//! What TLS costs: the same load from one publisher to many subscribers, plain and with TLS, in turns.

use std::path::Path;
use std::time::Duration;

use anode_loadgen::args::RunArgs;
use anode_loadgen::machine::resident_bytes;
use anode_loadgen::{Outcome, idle};
use clap::Args;

use crate::folder::Folder;
use crate::machine::Machine;
use crate::median::median;
use crate::node::Node;
use crate::subject::Subject;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Subscribers that get every record
    #[arg(long, default_value_t = 1_000)]
    subscribers: u32,
    /// Seconds of each run that count
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Size of each record's payload, in bytes
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Records that are under way at a time
    #[arg(long, default_value_t = 64)]
    in_flight: u64,
    /// Idle subscribers whose memory is measured; 0: none
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Least share of the plain rate that TLS must reach: the command fails below it
    #[arg(long, default_value_t = 0.6)]
    least: f64,
}

/// How long a node may take to get ready.
const DEADLINE: Duration = Duration::from_secs(60);

/// Measures, and prints the rates, their ratio, and the memory of idle subscribers.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = arguments.subject.binary()?;
    println!("{}", Machine::look(&anode)?);
    let folder = Folder::new()?;
    let tls = Certificate::write(&folder)?;
    let (mut plain_rates, mut tls_rates) = (Vec::new(), Vec::new());
    for run in 1..=arguments.subject.runs() {
        for (with, rates) in [(None, &mut plain_rates), (Some(&tls), &mut tls_rates)] {
            let rate = deliveries_per_s(arguments, &anode, &folder.join("data"), with)?;
            let name = if with.is_some() { "TLS" } else { "plain" };
            println!("run {run}, {name}: {rate:.0} deliveries/s to {} subscribers", arguments.subscribers);
            rates.push(rate);
        }
    }
    if arguments.idle > 0 {
        for with in [None, Some(&tls)] {
            let each = idle_bytes(arguments, &anode, &folder.join("data"), with)?;
            let name = if with.is_some() { "TLS" } else { "plain" };
            println!("{} idle subscribers, {name}: {each} resident bytes each", arguments.idle);
        }
    }
    let ratio = median(&tls_rates) / median(&plain_rates).max(1.0);
    println!("TLS delivers {ratio:.2} of plain (medians)");
    match ratio >= arguments.least {
        true => Ok(()),
        false => Err(format!("{ratio:.2} is less than {}", arguments.least).into()),
    }
}

/// A certificate of 127.0.0.1 that is its own authority, in files.
pub struct Certificate {
    /// File with the certificate.
    pub cert: String,
    /// File with its key.
    pub key: String,
}

impl Certificate {
    /// Makes a certificate, and writes it into this folder.
    pub fn write(folder: &Folder) -> Outcome<Certificate> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let path = |name: &str| folder.join(name).display().to_string();
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        Ok(Certificate { cert, key })
    }
}

/// Starts a node, plain or with TLS. Returns it, and the options by which the load generator reaches it.
fn start(anode: &Path, data_dir: &Path, with: Option<&Certificate>) -> Outcome<(Node, Vec<String>)> {
    let mut flags = vec!["--store", "memory", "--metrics", "127.0.0.1:0"];
    if let Some(tls) = with {
        flags.extend(["--tls-cert", &tls.cert, "--tls-key", &tls.key]);
    }
    let node = Node::start(anode, data_dir, &flags)?;
    node.wait_ready(DEADLINE)?;
    let reached = match with {
        None => vec!["--to".to_owned(), node.http.clone()],
        Some(tls) => {
            vec!["--to".to_owned(), format!("wss://{}", node.http), "--ca".to_owned(), tls.cert.clone()]
        }
    };
    Ok((node, reached))
}

fn deliveries_per_s(
    arguments: &Arguments,
    anode: &Path,
    data_dir: &Path,
    with: Option<&Certificate>,
) -> Outcome<f64> {
    let (_node, reached) = start(anode, data_dir, with)?;
    let number = |number: &dyn ToString| number.to_string();
    let mut options = reached;
    for (name, value) in [
        ("--subscribers", number(&arguments.subscribers)),
        ("--rate", "max".to_owned()),
        ("--in-flight", number(&arguments.in_flight)),
        ("--size", number(&arguments.size)),
        ("--seconds", number(&arguments.seconds)),
    ] {
        options.extend([name.to_owned(), value]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let report = crate::load::run(&RunArgs::parse(&options)?)?;
    Ok(report.throughput.delivered_per_s)
}

fn idle_bytes(
    arguments: &Arguments,
    anode: &Path,
    data_dir: &Path,
    with: Option<&Certificate>,
) -> Outcome<u64> {
    let (node, options) = start(anode, data_dir, with)?;
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let before = resident_bytes(&[node.pid()])?;
    let idle = idle::Idle::open_with(RunArgs::parse(&options)?, arguments.idle)?;
    let after = resident_bytes(&[node.pid()])?;
    idle.check()?;
    Ok(after.saturating_sub(before) / arguments.idle.max(1) as u64)
}
