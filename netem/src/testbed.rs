//! What a run needs of the place where its nodes run: machines that the runner makes by itself, or containers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anode_loadgen::Outcome;

use crate::checker::{Name, Place};
use crate::faults::chaos;
use crate::link::counts::Totals;
use crate::load::recorder::Recorder;
use crate::processor::{self, WatchedProcess};
use crate::profile::fault::Event;
use crate::profile::{Profile, Rule};
use crate::target::Target;
use crate::watch;

/// A node, as those need it who watch it from outside.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Name of the node, as members know it.
    pub name: Name,
    /// Where clients reach it.
    pub clients_at: Target,
    /// Where the runner reaches it.
    pub watched_at: Target,
    /// Process of the node.
    pub process: WatchedProcess,
}

/// What happens in a run, and when.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Rules of the links, those that are drawn at random included.
    pub rules: Vec<Rule>,
    /// Faults of machines.
    pub events: Vec<Event>,
}

impl Script {
    /// Returns what happens in a run of `run_s` seconds with so many nodes.
    pub fn new(profile: &Profile, nodes: usize, run_s: f64, seed: u64) -> Script {
        let events = profile.faults.iter().flat_map(|fault| fault.events(nodes, run_s));
        let mut script = Script { rules: profile.links.clone(), events: events.collect() };
        if profile.random {
            let (rules, events) = chaos::draw(seed, nodes, run_s);
            script.rules.extend(rules);
            script.events.extend(events);
        }
        script
    }
}

/// The end of a process that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnEnd {
    /// Name of the node, and how it ended.
    pub how: String,
    /// Last line of its log.
    pub said: String,
}

/// The store of a node that runs alone after the end of the run.
#[derive(Clone, Debug)]
pub struct StoreAlone {
    /// Name of the node.
    pub name: Name,
    /// The kind of store that it is, which depends on how the node ended before.
    pub place: Place,
    /// Where the node serves what is in the store.
    pub target: Target,
}

/// The stores of all nodes at the end, and what went wrong on the way to them: promises with what was found.
#[derive(Clone, Debug, Default)]
pub struct StoresAlone {
    /// The stores that can be read.
    pub stores: Vec<StoreAlone>,
    /// Names of promises that were broken, each with a sentence.
    pub broken: Vec<(&'static str, String)>,
}

/// The nodes of a run, their links, and everything that is done to them. Nodes are numbered from 0, as profiles count them.
pub trait Testbed {
    /// Returns the sentence that says what plays the links.
    fn how(&self) -> String;

    /// Returns what happens in this run.
    fn script(&self) -> &Script;

    /// Returns the nodes. They keep their names and targets during the run.
    fn nodes(&self) -> Vec<Watched>;

    /// Returns the names of the nodes, by number. A container that is started again may continue as another node.
    fn names(&self) -> Vec<Name>;

    /// Starts all nodes but those that are absent, waits until they are ready, and tells the recorder.
    fn start(&mut self, absent: &BTreeSet<usize>, recorder: &Recorder) -> Outcome<()>;

    /// Waits until all nodes that are started are ready, and returns how long it took.
    fn wait_ready(&mut self, most: Duration) -> Outcome<Duration>;

    /// Gives the links the shapes that they have `at_s` seconds after the begin of the run. To be called often.
    fn set_shapes(&mut self, at_s: f64) -> Outcome<()>;

    /// Lets a fault begin.
    fn begin(&mut self, event: &Event) -> Outcome<()>;

    /// Lets a fault go on: `since_s` seconds of it are over, which is the part `part` of it.
    fn go_on(&mut self, event: &Event, since_s: f64, part: f64) -> Outcome<()>;

    /// Lets a fault end. Returns a sentence if there is something to tell.
    fn end(&mut self, event: &Event, seed: u64) -> Outcome<Option<String>>;

    /// Returns how often a node was started, for testbeds on which a node is there as soon as it is started. The others tell
    /// the recorder by themselves when a node is there.
    fn starts(&self, node: usize) -> u32;

    /// Says how a node ended by itself, if it did, tells the recorder, and sees that it is started again.
    fn mourn(&mut self, node: usize, recorder: &Recorder) -> Outcome<Option<OwnEnd>>;

    /// Returns whether nodes keep what they store in files of their own, which can be read at the end.
    fn has_stores(&self) -> bool;

    /// Ends every second node in good order and kills the others, tells the recorder, and starts each alone with its store.
    fn start_alone(&mut self, recorder: &Recorder, ready_within: Duration) -> Outcome<StoresAlone>;

    /// Copies the logs of the nodes into a directory.
    fn keep_logs(&self, to: &Path) -> Outcome<()>;

    /// Returns what is to be told at the end of the run.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the counts of links in user space, if there are any.
    fn link_totals(&self) -> Option<Totals> {
        None
    }

    /// Returns the names of the nodes with the targets by which the runner reaches them.
    fn watched(&self) -> Vec<(Name, Target)> {
        self.nodes().into_iter().map(|node| (node.name, node.watched_at)).collect()
    }

    /// Returns the bytes that the nodes have sent each other so far.
    fn wire_bytes(&self) -> u64 {
        watch::sent_bytes(&self.watched())
    }

    /// Returns the bytes of memory that the processes of the nodes hold.
    fn resident_bytes(&self) -> Vec<(Name, u64)> {
        let bytes = |node: Watched| {
            let pid = node.process.pid.load(Relaxed);
            Some((node.name, processor::resident_bytes(pid).filter(|_| pid > 0)?))
        };
        self.nodes().into_iter().filter_map(bytes).collect()
    }

    /// Notes which nodes get less of the processor on purpose.
    fn mark_bounded(&self, bounded: &BTreeSet<usize>) {
        let names = self.names();
        let bounded: BTreeSet<&Name> = bounded.iter().map(|node| &names[*node]).collect();
        for node in self.nodes() {
            node.process.is_bounded.store(bounded.contains(&node.name), Relaxed);
        }
    }
}
