//! What a run is made of, and the bounds that it must keep.

use std::path::PathBuf;

use anode_loadgen::Outcome;

use crate::arguments::Arguments;
use crate::checker::Settings;
use crate::compose::{Mapping, Setup};
use crate::peer::{self, Peer, Server};
use crate::profile::fault::Kind;
use crate::profile::{Fault, Profile};
use crate::testbed::Script;

/// How long after the end of its time to live a record may be shown, in microseconds: on a machine that has too much to
/// do, clients read late what nodes have sent in time.
const SLACK_US: u64 = 10_000_000;

/// How many times the usual time nodes may take in the runs of tests.
const CI_TIME_FACTOR: f64 = 4.0;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the profile.
    pub name: String,
    /// The profile that is run.
    pub profile: Profile,
    /// Number of nodes.
    pub nodes: usize,
    /// Seconds of load.
    pub seconds: u64,
    /// What the command line says.
    pub arguments: Arguments,
    /// The program of the nodes, where these are no containers.
    pub binary: PathBuf,
    /// The services that are the nodes, where these are containers.
    pub compose: Option<Setup>,
    /// The servers that are there in place of aNode, if there are any.
    pub peer: Option<Server>,
}

impl Spec {
    /// Puts a run together from the command line.
    pub fn new(name: &str, arguments: &Arguments, binary: PathBuf) -> Outcome<Spec> {
        let mut profile = Profile::read(name)?;
        if arguments.ci {
            // Programs without optimization, in short runs, say nothing about latency.
            profile.p99_ratio_max = None;
            profile.healthy_p99_ratio_max = None;
            profile.equal_within_s *= CI_TIME_FACTOR;
            profile.ready_within_s *= CI_TIME_FACTOR;
        }
        let peer = match arguments.peer {
            Some(Peer::Jetstream) => Some(Server::find(arguments.nats_server.as_deref())?),
            None => None,
        };
        let compose = if arguments.compose.is_some() { Some(Setup::read(arguments)?) } else { None };
        let nodes = match &compose {
            Some(setup) => setup.nodes(),
            None => arguments.nodes.map_or(profile.nodes, usize::from),
        };
        if peer.is_some() && nodes < peer::NODES_MIN {
            let least = peer::NODES_MIN;
            return Err(
                format!("--nodes: {nodes} is less than {least}, one for each replica of the bucket").into()
            );
        }
        if nodes < profile.nodes_min {
            return Err(
                format!("--nodes: {nodes} is less than {}, which {name} needs", profile.nodes_min).into()
            );
        }
        let seconds = match (arguments.seconds, arguments.short) {
            (Some(seconds), _) => u64::from(seconds),
            (None, true) => profile.short_seconds,
            (None, false) => profile.seconds,
        };
        let name = name.to_owned();
        Ok(Spec { name, profile, nodes, seconds, arguments: arguments.clone(), binary, compose, peer })
    }

    /// Returns what happens in the run.
    pub fn script(&self) -> Script {
        match self.beside() {
            Some((_, mapping)) => mapping.script,
            None => self.whole_script(),
        }
    }

    /// Returns what happens by the profile.
    fn whole_script(&self) -> Script {
        Script::new(&self.profile, self.nodes, self.seconds as f64, self.arguments.seed)
    }

    /// Returns what another system meets of the profile, if there is one in place of aNode.
    pub fn beside(&self) -> Option<(&Server, peer::Mapping)> {
        let server = self.peer.as_ref()?;
        Some((server, peer::Mapping::new(&self.profile, self.whole_script())))
    }

    /// Returns what containers can play of the profile, if the nodes are containers.
    pub fn mapping(&self) -> Option<(&Setup, Mapping)> {
        let setup = self.compose.as_ref()?;
        Some((setup, Mapping::new(&self.profile, &self.script(), self.nodes, &setup.abilities)))
    }

    /// Says why the run cannot be made here, if it cannot.
    pub fn reason_to_skip(&self) -> Option<String> {
        let needs_previous = self.compose.is_none()
            && self.peer.is_none()
            && self.profile.faults.iter().any(|fault| fault.kind == Kind::Upgrade);
        if needs_previous && self.arguments.previous.is_none() {
            return Some("no program of the previous release is given (--previous FILE)".to_owned());
        }
        None
    }

    /// Returns the command that makes this run again.
    pub fn again(&self) -> String {
        self.arguments.again(&self.name, self.nodes, self.seconds)
    }

    /// Returns the directory in which the run leaves its report.
    pub fn out(&self) -> PathBuf {
        let name =
            std::path::Path::new(&self.name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let place = match (&self.compose, self.arguments.peer) {
            (Some(_), _) => "compose-".to_owned(),
            (None, Some(peer)) => format!("{}-", peer.name()),
            (None, None) => String::new(),
        };
        self.arguments.out.join(format!("{name}-{place}{}", self.arguments.seed))
    }

    /// Returns what the checker must know of the run.
    pub(super) fn settings(&self) -> Settings {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut settings = Settings::new(&self.name, &self.again(), wall.as_micros() as u64);
        settings.convergence_us_max = Some((self.profile.equal_within_s * 1e6) as u64);
        settings.memory_bytes_max = Some(self.profile.memory_mib_max * 1024 * 1024);
        settings.clock_slack_us = SLACK_US;
        // Clocks that are wrong by a minute let records end a minute too late, and that is no fault of the node.
        let is_off = |fault: &Fault| fault.kind == Kind::Clock;
        if self.profile.random || self.profile.faults.iter().any(is_off) {
            settings.clock_slack_us = 120_000_000;
        }
        settings
    }
}
