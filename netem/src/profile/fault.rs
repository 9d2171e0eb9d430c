//! Faults of machines: what happens to which nodes, and when.

use serde::Deserialize;

use super::group::Group;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The process is killed without warning (SIGKILL), and started again at the end.
    Kill,
    /// The process stands still (SIGSTOP) until the end.
    Stop,
    /// The process is asked to end (SIGTERM), and started again when it has ended and the fault ends.
    Restart,
    /// The node is started only now; before, it is not there.
    Join,
    /// The node runs the previous release from the start, and is restarted with this one.
    Upgrade,
    /// The file system of the data directory is filled, and emptied at the end.
    DiskFull,
    /// Writing to the disk takes long.
    DiskSlow,
    /// Writing to the disk fails.
    DiskFails,
    /// The disk says that it has kept what it has not; at the end, what was not written is lost with the process.
    DiskLies,
    /// The wall clock differs from that of the others.
    Clock,
    /// The process may open hardly more files than it has open.
    Files,
    /// The process gets a part of a processor only.
    Cpu,
    /// The memory of the process is limited.
    Memory,
    /// The keys of the cluster are exchanged in steps: a new key is added, moved up, and the old one dropped.
    Keys,
}

impl Kind {
    /// Returns the name that profiles give it.
    pub fn name(self) -> String {
        let quoted = serde_json::to_string(&self).unwrap_or_default();
        quoted.trim_matches('"').to_owned()
    }
}

/// A fault, perhaps of several nodes and several times.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// Kind of the fault.
    pub kind: Kind,
    /// Nodes to which it happens.
    #[serde(default = "Group::all")]
    pub node: Group,
    /// Begin, as a part of the run.
    #[serde(default)]
    pub at: f64,
    /// Length, as a part of the run.
    #[serde(default)]
    pub lasts: f64,
    /// Length in seconds, in addition to `lasts`.
    #[serde(default)]
    pub lasts_s: f64,
    /// Time from the begin at one node to the begin at the next one, as a part of the run.
    #[serde(default)]
    pub stagger: f64,
    /// How often the fault happens to each node.
    #[serde(default = "once")]
    pub times: u32,
    /// Time from one begin to the next at the same node, as a part of the run.
    #[serde(default)]
    pub every: f64,
    /// Clock: seconds by which the clock is ahead; negative: behind.
    #[serde(default)]
    pub ahead_s: f64,
    /// Clock: microseconds that the clock gains in a second; negative: loses.
    #[serde(default)]
    pub drift_ppm: f64,
    /// Cpu: part of one processor, in percent.
    #[serde(default = "tenth")]
    pub percent: u32,
    /// Memory: bytes that the process may hold, in MiB.
    #[serde(default = "room")]
    pub mib: u64,
    /// Files: how many more files than it has open the process may open.
    #[serde(default)]
    pub more_files: u64,
    /// Slow disk: milliseconds that each write and each sync take.
    #[serde(default = "slow")]
    pub disk_ms: u64,
}

fn once() -> u32 {
    1
}

fn tenth() -> u32 {
    10
}

fn room() -> u64 {
    256
}

fn slow() -> u64 {
    50
}

/// One instance of a fault at one node, in seconds of the run.
#[derive(Clone, Debug)]
pub struct Event {
    /// The fault that it is an instance of.
    pub fault: Fault,
    /// The node, counted from 0.
    pub node: usize,
    /// Begin in seconds.
    pub begin_s: f64,
    /// End in seconds, at least the begin.
    pub end_s: f64,
}

impl Fault {
    /// Says what is wrong with the fault.
    pub fn check(&self) -> Result<(), String> {
        for (field, value) in
            [("at", self.at), ("lasts", self.lasts), ("stagger", self.stagger), ("every", self.every)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{field}: {value} is not a part of the run from 0 to 1"));
            }
        }
        if !(0.0..=3_600.0).contains(&self.lasts_s) {
            return Err(format!("lasts-s: {} is not from 0 to 3600", self.lasts_s));
        }
        if self.times == 0 || (self.times > 1 && self.every <= 0.0) {
            return Err(format!("times: {} is not 1, or every is not given", self.times));
        }
        if !(1..=100).contains(&self.percent) {
            return Err(format!("percent: {} is not from 1 to 100", self.percent));
        }
        Ok(())
    }

    /// Returns what happens in a run of `run_s` seconds with so many nodes.
    pub fn events(&self, nodes: usize, run_s: f64) -> Vec<Event> {
        let mut events = Vec::new();
        for time in 0..self.times {
            for (order, node) in self.node.nodes(nodes).into_iter().enumerate() {
                let at = self.at + f64::from(time) * self.every + order as f64 * self.stagger;
                let begin_s = at * run_s;
                let end_s = begin_s + self.lasts * run_s + self.lasts_s;
                events.push(Event { fault: self.clone(), node, begin_s, end_s });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use crate::profile::Profile;

    #[test]
    fn a_rolling_fault_happens_to_one_node_after_the_other() {
        let text = "about = \"A test.\"\n[[fault]]\nkind = \"restart\"\nnode = \"2-*\"\nat = 0.1\nlasts-s = 1\n\
                    stagger = 0.25\ntimes = 2\nevery = 0.5";
        let profile = Profile::parse(text).expect("a profile");
        let events = profile.faults[0].events(3, 100.0);
        let times: Vec<_> = events.iter().map(|event| (event.node, event.begin_s, event.end_s)).collect();
        assert_eq!(times, [(1, 10.0, 11.0), (2, 35.0, 36.0), (1, 60.0, 61.0), (2, 85.0, 86.0)]);
    }
}
