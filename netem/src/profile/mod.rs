//! Profiles: files of TOML that say what network and which faults a cluster meets.
//!
//! All times are parts of the length of the run, from 0 to 1, so that a short run meets the same faults in the same
//! order. Fields that end in `_s` or `_ms` are seconds and milliseconds whatever the length.

pub mod fault;
pub mod group;
pub mod rule;

use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;
use serde::Deserialize;

pub use fault::Fault;
pub use group::Group;
pub use rule::Rule;

/// Most nodes of a run: a network of the run has 126 addresses, and some are not nodes'.
pub const NODES_MAX: usize = 100;

/// The names of all profiles that come with the program, in the order in which `--all` runs them.
pub const NAMES: &[&str] = &[
    "lan",
    "wan-3-zones",
    "mobile",
    "lossy-5",
    "lossy-20-bursts",
    "half-cut",
    "bridge",
    "split-brain",
    "flapping",
    "slow-node",
    "starved",
    "corrupt",
    "rolling-restart",
    "mass-restart",
    "rolling-upgrade",
    "kill-half",
    "disk-full",
    "disk-lies",
    "clock-steps",
    "join-storm",
    "nat",
    "mtu-1280",
    "key-rotation",
    "chaos",
];

/// What a run meets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// One sentence that says what happens.
    pub about: String,
    /// Nodes, where the command line does not say.
    #[serde(default = "five")]
    pub nodes: usize,
    /// Least number of nodes for which the profile makes sense.
    #[serde(default = "two")]
    pub nodes_min: usize,
    /// Seconds of load, where the command line does not say.
    #[serde(default = "minute")]
    pub seconds: u64,
    /// Seconds of load of a short run.
    #[serde(default = "quarter")]
    pub short_seconds: u64,
    /// Part of the run after which nothing more is published, so that the time until all nodes are equal can be
    /// measured from there.
    #[serde(default = "whole")]
    pub publish_until: f64,
    /// Number of zones that the nodes are told to be in, round robin; 0 for none.
    #[serde(default)]
    pub zones: usize,
    /// Timing of the membership protocol: `lan`, `wan` or `local`.
    #[serde(default = "lan")]
    pub timing: String,
    /// Whether clients reach the nodes over the links too, and not over a network without faults.
    #[serde(default)]
    pub clients_over_links: bool,
    /// Largest packet of the links in bytes.
    #[serde(default = "ethernet")]
    pub mtu: u32,
    /// Whether every node has a private address, which a router rewrites.
    #[serde(default)]
    pub nat: bool,
    /// Whether messages between nodes are sealed with a key of the cluster.
    #[serde(default)]
    pub sealed: bool,
    /// Whether the faults are drawn at random.
    #[serde(default)]
    pub random: bool,
    /// Greatest ratio of the 99th percentile of the time to delivery to that of the same run without faults.
    #[serde(default)]
    pub p99_ratio_max: Option<f64>,
    /// The same for records that come from and to nodes that no fault hits.
    #[serde(default)]
    pub healthy_p99_ratio_max: Option<f64>,
    /// Seconds within which a node that is started under load must be ready.
    #[serde(default)]
    pub start_within_s: Option<f64>,
    /// Most memory of the process of a node, in MiB.
    #[serde(default = "memory")]
    pub memory_mib_max: u64,
    /// Seconds within which all nodes must be equal after publishing has ended.
    #[serde(default = "equal")]
    pub equal_within_s: f64,
    /// Seconds within which all nodes must be ready again after the last fault.
    #[serde(default = "ready")]
    pub ready_within_s: f64,
    /// Shapes of links; of several rules that hold for a link, the later ones prevail.
    #[serde(default, rename = "link")]
    pub links: Vec<Rule>,
    /// What happens to the machines.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

fn five() -> usize {
    5
}

fn two() -> usize {
    2
}

fn minute() -> u64 {
    60
}

fn quarter() -> u64 {
    15
}

fn whole() -> f64 {
    1.0
}

fn lan() -> String {
    "lan".to_owned()
}

fn ethernet() -> u32 {
    1_500
}

fn memory() -> u64 {
    256
}

fn equal() -> f64 {
    30.0
}

fn ready() -> f64 {
    30.0
}

impl Profile {
    /// Reads a profile: a name of [`NAMES`] in the directory of profiles, or a file.
    pub fn read(name: &str) -> Outcome<Profile> {
        let path = match name.contains('/') || name.ends_with(".toml") {
            true => PathBuf::from(name),
            false => directory().join(format!("{name}.toml")),
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("no profile {name}: {}: {error}", path.display()))?;
        Profile::parse(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Reads a profile from its text, and checks it.
    pub fn parse(text: &str) -> Outcome<Profile> {
        let profile: Profile = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Outcome<()> {
        if self.nodes < self.nodes_min || self.nodes > NODES_MAX {
            return Err(format!("nodes: {} is not from {} to {NODES_MAX}", self.nodes, self.nodes_min).into());
        }
        if !(0.0..=1.0).contains(&self.publish_until) {
            return Err(format!("publish-until: {} is not from 0 to 1", self.publish_until).into());
        }
        if !["lan", "wan", "local"].contains(&self.timing.as_str()) {
            return Err(format!("timing: {:?} is not lan, wan or local", self.timing).into());
        }
        if !(576..=1_500).contains(&self.mtu) {
            return Err(format!("mtu: {} is not from 576 to 1500", self.mtu).into());
        }
        for (number, rule) in self.links.iter().enumerate() {
            rule.check().map_err(|error| format!("link {}: {error}", number + 1))?;
        }
        for (number, fault) in self.faults.iter().enumerate() {
            fault.check().map_err(|error| format!("fault {}: {error}", number + 1))?;
        }
        Ok(())
    }

    /// Says why the kernel's own `sch_netem` cannot play this profile, if it cannot.
    pub fn needs_own_links(&self) -> Option<&'static str> {
        if self.nat {
            return Some("addresses are rewritten");
        }
        let corrupts = self.random || self.links.iter().any(|rule| rule.corrupt.is_some());
        corrupts.then_some("damaged packets need right checksums")
    }
}

/// Returns the directory of the profiles that come with the program.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_of_the_page_can_be_read() {
        let page = include_str!("../../../docs/faults.md");
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let profile = Profile::parse(example.expect("an example"));
        profile.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn every_profile_that_is_named_can_be_read_and_every_file_is_named() {
        for name in NAMES {
            let profile = Profile::read(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(profile.about.ends_with('.'), "{name}: a sentence: {}", profile.about);
        }
        let files = std::fs::read_dir(directory()).expect("profiles").flatten();
        let mut names: Vec<_> = files
            .filter_map(|file| file.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .collect();
        names.sort();
        let mut known: Vec<_> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        known.sort();
        assert_eq!(names, known);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("about = \"x.\"\nnodes = 1", "nodes: 1"),
            ("about = \"x.\"\nmtu = 9000", "mtu: 9000"),
            ("about = \"x.\"\ntiming = \"slow\"", "timing: \"slow\""),
            ("about = \"x.\"\nspeed = 1", "speed"),
            ("about = \"x.\"\n[[link]]\nloss = 101", "link 1: loss"),
            ("about = \"x.\"\n[[fault]]\nkind = \"kill\"\nnode = \"0\"", "node"),
            ("about = \"x.\"\n[[fault]]\nkind = \"explode\"", "explode"),
        ] {
            let error = Profile::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
