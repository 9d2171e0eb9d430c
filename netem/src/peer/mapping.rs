//! Which parts of a profile a run beside another system applies, and which it leaves out.

use crate::profile::fault::Kind;
use crate::profile::{Profile, Rule};
use crate::testbed::Script;

/// A profile as another system can meet it.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// What happens, without what is left out.
    pub script: Script,
    /// What is applied, and by what, for people.
    pub applied: Vec<String>,
    /// What is not applied, and why, for people.
    pub left_out: Vec<String>,
    is_empty: bool,
}

impl Mapping {
    /// Finds out what is left of a profile with its script.
    pub fn new(profile: &Profile, script: Script) -> Mapping {
        let had_events = !script.events.is_empty();
        let mut mapping = Mapping {
            script: Script { rules: script.rules, events: Vec::new() },
            applied: Vec::new(),
            left_out: Vec::new(),
            is_empty: false,
        };
        for event in script.events {
            let name = event.fault.kind.name();
            match action(event.fault.kind) {
                Ok(by) => {
                    note(&mut mapping.applied, format!("{name} by {by}"));
                    mapping.script.events.push(event);
                }
                Err(why) => note(&mut mapping.left_out, format!("{name} ({why})")),
            }
        }
        let has_changes = mapping.script.rules.iter().any(|rule| !rule.is_always());
        mapping.is_empty = had_events && mapping.script.events.is_empty() && !has_changes;
        let links: Vec<&str> = mapping.script.rules.iter().flat_map(Rule::named_parts).collect();
        links
            .into_iter()
            .for_each(|part| note(&mut mapping.applied, format!("{part} by the links of the run")));
        mapping.take_settings(profile);
        mapping
    }

    /// Returns whether something happens in the profile, and nothing of it is left.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    fn take_settings(&mut self, profile: &Profile) {
        let applied = [
            (profile.nat, "addresses that are rewritten, with cluster.advertise"),
            (profile.mtu != 1_500, "small packets by the links of the run"),
        ];
        let applied = applied.into_iter().filter(|(is_asked, _)| *is_asked);
        applied.for_each(|(_, what)| note(&mut self.applied, what.to_owned()));
        let left_out = [
            (profile.zones > 0, "zones of nodes", "the bucket is placed on any three servers"),
            (profile.timing != "lan", "the timing of the members", "nats-server has no such setting"),
            (profile.sealed, "sealed messages", "nats-server has no such key; its routes could use TLS"),
        ];
        let left_out = left_out.into_iter().filter(|(is_asked, ..)| *is_asked);
        left_out.for_each(|(_, what, why)| note(&mut self.left_out, format!("{what} ({why})")));
    }
}

fn note(lines: &mut Vec<String>, line: String) {
    if !lines.contains(&line) {
        lines.push(line);
    }
}

/// Returns by what a fault of a machine is caused, or why it is not.
fn action(kind: Kind) -> Result<&'static str, &'static str> {
    match kind {
        Kind::Kill => Ok("SIGKILL, then a start"),
        Kind::Stop => Ok("SIGSTOP, then SIGCONT"),
        Kind::Restart => Ok("SIGTERM, then a start"),
        Kind::Cpu | Kind::Memory => Ok("a group of processes"),
        Kind::Files => Ok("prlimit"),
        Kind::DiskFull => Ok("a small file system under the store"),
        Kind::DiskSlow | Kind::DiskFails | Kind::DiskLies => {
            Ok("a file system in user space under the store")
        }
        Kind::Join => Err("the servers of a bucket are there from the beginning"),
        Kind::Upgrade => Err("there is one nats-server program"),
        Kind::Clock => Err("a program in Go does not ask the C library for the time"),
        Kind::Keys => Err("nats-server has no key of the cluster"),
    }
}
