//! Which parts of a profile a run with containers applies, by what, and which it cannot apply.

use crate::link::shape::Shape;
use crate::profile::fault::Kind;
use crate::profile::{Profile, Rule};
use crate::testbed::Script;

/// The program that plays the links between containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTool {
    /// The kernel's `sch_netem`, by `tc` in the network namespace of each container.
    Netem,
    /// A firewall in the network namespace of each container, which drops packets and cannot delay them.
    Firewall,
    /// There is none, for this reason.
    Nothing(String),
}

/// What the machine and the compose file allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The program that plays the links.
    pub links: LinkTool,
    /// Why bounds cannot be put on the processes of containers from outside, if they cannot.
    pub no_bounds: Option<String>,
    /// Why the keys of the cluster cannot be exchanged, if they cannot.
    pub no_keys: Option<String>,
    /// Whether nodes seal what they send each other.
    pub is_sealed: bool,
}

/// A profile as containers can play it.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// What happens, without what cannot be applied.
    pub script: Script,
    /// Largest packet of the links in bytes, if the profile bounds it.
    pub mtu: Option<u32>,
    /// What is applied, and by what, for people.
    pub applied: Vec<String>,
    /// What is not applied, and why, for people.
    pub left_out: Vec<String>,
}

impl Mapping {
    /// Finds out what containers can play of a profile whose script is made for so many nodes.
    pub fn new(profile: &Profile, script: &Script, nodes: usize, abilities: &Abilities) -> Mapping {
        let mut mapping =
            Mapping { script: Script::default(), mtu: None, applied: Vec::new(), left_out: Vec::new() };
        mapping.take_events(script, abilities);
        for rule in &script.rules {
            mapping.take_rule(rule, nodes, &abilities.links);
        }
        mapping.take_settings(profile, abilities);
        mapping
    }

    /// Returns whether nothing of the profile is left.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    fn take_events(&mut self, script: &Script, abilities: &Abilities) {
        for event in &script.events {
            let name = event.fault.kind.name();
            match action(event.fault.kind, abilities) {
                Ok(by) => {
                    self.script.events.push(event.clone());
                    self.apply(format!("{name} by {by}"));
                }
                Err(why) => self.leave_out(&name, &why),
            }
        }
    }

    fn take_rule(&mut self, rule: &Rule, nodes: usize, tool: &LinkTool) {
        // The clients are the index after the last node.
        let has_clients = rule.from.has(nodes, nodes) || rule.to.has(nodes, nodes);
        if rule.from.nodes(nodes).is_empty() || rule.to.nodes(nodes).is_empty() {
            if has_clients {
                self.leave_out(
                    "links of clients",
                    "clients share the addresses of this machine with the engine",
                );
            }
            return;
        }
        let mut rule = rule.clone();
        if rule.corrupt.take().is_some() {
            self.leave_out("damaged packets", "their checksums would be wrong, and the kernel drops such");
        }
        if let LinkTool::Nothing(why) = tool {
            for part in rule.named_parts() {
                self.leave_out(part, why);
            }
            return;
        }
        let by = match tool {
            LinkTool::Netem => "tc netem",
            _ => {
                self.take_what_a_firewall_can(&mut rule);
                "nft"
            }
        };
        for part in rule.named_parts() {
            self.apply(format!("{part} by {by} in the network namespaces of the containers"));
        }
        // A rule may be there to take back a part of an earlier one, and do nothing by itself.
        if has_any_part(&rule) {
            self.script.rules.push(rule);
        }
    }

    /// Takes everything from a rule that needs more than packets that are dropped.
    fn take_what_a_firewall_can(&mut self, rule: &mut Rule) {
        const WHY: &str = "this kernel has no sch_netem";
        let is_some = |value: Option<f64>| value.is_some_and(|value| value > 0.0);
        let parts = [
            ("delays", is_some(rule.delay_ms) || is_some(rule.jitter_ms)),
            ("packets that come twice", is_some(rule.duplicate)),
            ("packets that overtake", is_some(rule.reorder)),
            ("bounds on the rate", rule.rate_mbit.is_some()),
        ];
        for (part, _) in parts.into_iter().filter(|(_, is_there)| *is_there) {
            self.leave_out(part, WHY);
        }
        (rule.delay_ms, rule.jitter_ms, rule.distribution) = (None, None, None);
        (rule.duplicate, rule.reorder, rule.rate_mbit) = (None, None, None);
        if let Some(bursts) = rule.bursts.take() {
            let shape = Shape { loss: rule.loss.unwrap_or(0.0), bursts: Some(bursts), ..Shape::default() };
            rule.loss = Some(shape.expected_loss() * 100.0);
            self.leave_out("bursts of loss", "without sch_netem as many packets are lost, one by one");
        }
    }

    fn take_settings(&mut self, profile: &Profile, abilities: &Abilities) {
        let ethernet = 1_500;
        if profile.mtu != ethernet {
            match &abilities.links {
                LinkTool::Nothing(why) => self.leave_out("the size of packets", why),
                _ => {
                    self.mtu = Some(profile.mtu);
                    self.apply(format!("packets of {} bytes by ip link in the containers", profile.mtu));
                }
            }
        }
        let settings = [
            (profile.nat, "addresses that are rewritten", "containers reach each other without a router"),
            (profile.zones > 0, "zones of nodes", "all containers of a service have the same settings"),
            (profile.timing != "lan", "the timing of the members", "the compose file sets it"),
            (profile.sealed && !abilities.is_sealed, "sealed messages", "the compose file gives no key"),
        ];
        for (_, what, why) in settings.into_iter().filter(|(is_asked, ..)| *is_asked) {
            self.leave_out(what, why);
        }
    }

    fn apply(&mut self, what: String) {
        if !self.applied.contains(&what) {
            self.applied.push(what);
        }
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        let line = format!("{what} ({why})");
        if !self.left_out.contains(&line) {
            self.left_out.push(line);
        }
    }
}

/// Returns the commands that cause a fault of a machine, or why it cannot be caused.
fn action(kind: Kind, abilities: &Abilities) -> Result<&'static str, String> {
    let unless = |why: &Option<String>, by| why.clone().map_or(Ok(by), Err);
    match kind {
        Kind::Kill => Ok("docker kill -s KILL and docker start"),
        Kind::Stop => Ok("docker pause and docker unpause"),
        Kind::Restart => Ok("docker stop and docker start"),
        Kind::Cpu => Ok("docker update --cpus"),
        Kind::Memory => Ok("docker update --memory"),
        Kind::Files => unless(&abilities.no_bounds, "prlimit"),
        Kind::Keys => unless(&abilities.no_keys, "writing into the file of keys"),
        Kind::Join => Err("compose starts all containers of a service at once".to_owned()),
        Kind::Upgrade => Err("all containers of a service have the same image".to_owned()),
        Kind::DiskFull | Kind::DiskSlow | Kind::DiskFails | Kind::DiskLies => {
            Err("the disks of containers are those of the engine".to_owned())
        }
        Kind::Clock => Err("containers have the clock of the machine".to_owned()),
    }
}

fn has_any_part(rule: &Rule) -> bool {
    let numbers = [
        rule.delay_ms,
        rule.jitter_ms,
        rule.loss,
        rule.duplicate,
        rule.corrupt,
        rule.reorder,
        rule.rate_mbit,
    ];
    let is_other = rule.cut.is_some() || rule.distribution.is_some() || rule.bursts.is_some();
    is_other || numbers.iter().any(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: usize = 3;

    fn abilities(links: LinkTool) -> Abilities {
        Abilities { links, no_bounds: None, no_keys: None, is_sealed: true }
    }

    fn map(name: &str, links: LinkTool) -> Mapping {
        let profile = Profile::read(name).expect(name);
        let script = Script::new(&profile, NODES, 20.0, 1);
        Mapping::new(&profile, &script, NODES, &abilities(links))
    }

    fn map_text(text: &str, abilities: &Abilities) -> Mapping {
        let profile = Profile::parse(&format!("about = \"A test.\"\n{text}")).expect(text);
        Mapping::new(&profile, &Script::new(&profile, NODES, 20.0, 1), NODES, abilities)
    }

    #[test]
    fn what_is_left_of_profiles_without_netem() {
        let left = |name: &str| map(name, LinkTool::Firewall).applied;
        assert_eq!(left("kill-half"), ["kill by docker kill -s KILL and docker start"]);
        assert_eq!(left("split-brain"), ["cuts by nft in the network namespaces of the containers"]);
        assert_eq!(left("lossy-5"), ["loss by nft in the network namespaces of the containers"]);
        assert_eq!(
            left("starved"),
            [
                "cpu by docker update --cpus",
                "stop by docker pause and docker unpause",
                "memory by docker update --memory",
                "files by prlimit"
            ]
        );
        for name in ["lan", "corrupt", "join-storm", "disk-full", "mobile", "rolling-upgrade", "wan-3-zones"]
        {
            let is_lossy = name == "wan-3-zones";
            assert_eq!(map(name, LinkTool::Firewall).is_empty(), !is_lossy, "{name}");
        }
        assert!(!map("lan", LinkTool::Netem).is_empty());
    }

    #[test]
    fn what_is_left_out_is_named_once_with_the_reason() {
        let left_out = map("split-brain", LinkTool::Firewall).left_out;
        assert_eq!(left_out, ["delays (this kernel has no sch_netem)"]);
        let left_out = map("clock-steps", LinkTool::Netem).left_out;
        assert_eq!(left_out, ["clock (containers have the clock of the machine)"]);
        let left_out = map("mobile", LinkTool::Firewall).left_out;
        assert!(left_out.iter().any(|line| line.starts_with("links of clients (")), "{left_out:?}");
        let none = LinkTool::Nothing("it needs root".to_owned());
        assert_eq!(map("half-cut", none).left_out, ["delays (it needs root)", "cuts (it needs root)"]);
    }

    #[test]
    fn losses_in_bursts_become_losses_of_the_same_part() {
        let mapping = map("lossy-20-bursts", LinkTool::Firewall);
        let losses: Vec<f64> = mapping.script.rules.iter().filter_map(|rule| rule.loss).collect();
        assert!(matches!(losses[..], [loss] if (loss - 20.0).abs() < 1e-9), "{losses:?}");
        assert!(mapping.script.rules.iter().all(|rule| rule.delay_ms.is_none()));
        let kept = map("lossy-20-bursts", LinkTool::Netem);
        assert!(kept.script.rules.iter().any(|rule| rule.bursts.is_some()));
    }

    #[test]
    fn a_rule_that_takes_back_a_part_stays_and_counts_for_nothing() {
        let text = "[[link]]\nloss = 0";
        let mapping = map_text(text, &abilities(LinkTool::Firewall));
        assert_eq!((mapping.script.rules.len(), mapping.is_empty()), (1, true));
    }

    #[test]
    fn settings_of_profiles_are_told_apart() {
        let mapping = map_text("mtu = 1280", &abilities(LinkTool::Firewall));
        assert_eq!((mapping.mtu, mapping.is_empty()), (Some(1_280), false));
        let mapping = map_text("nat = true\nzones = 3\ntiming = \"wan\"", &abilities(LinkTool::Netem));
        assert_eq!((mapping.left_out.len(), mapping.is_empty()), (3, true));
        let open = Abilities { is_sealed: false, ..abilities(LinkTool::Netem) };
        assert_eq!(
            map_text("sealed = true", &open).left_out,
            ["sealed messages (the compose file gives no key)"]
        );
    }

    #[test]
    fn faults_that_need_more_are_left_out_where_it_is_not_there() {
        let poor = Abilities {
            no_bounds: Some("it needs root".to_owned()),
            no_keys: Some("the file has other keys".to_owned()),
            ..abilities(LinkTool::Firewall)
        };
        let text = "[[fault]]\nkind = \"keys\"\n[[fault]]\nkind = \"files\"\n[[fault]]\nkind = \"stop\"";
        let mapping = map_text(text, &poor);
        assert_eq!(mapping.left_out, ["keys (the file has other keys)", "files (it needs root)"]);
        assert_eq!(mapping.script.events.len(), NODES);
        assert_eq!(map_text(text, &abilities(LinkTool::Firewall)).script.events.len(), 3 * NODES);
    }
}
