//! Links between containers: the rules of a firewall that drops packets, and the commands of `tc` where the kernel has
//! `sch_netem`. Both are texts that a program reads in the network namespace of a container.
//!
//! The firewall drops at the receiver. At the sender, a program that sends a datagram would be told that it was dropped,
//! which no real network does.

use std::net::Ipv4Addr;

use crate::link::shape::Shape;
use crate::link::tc;

/// Name of the table of rules in the namespace of each container.
const TABLE: &str = "anode_netem";
/// Parts into which all packets are divided when some are lost by chance.
const PARTS: u32 = 100_000;
/// An address that no packet has, for a container that does not run.
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Returns the rules by which a container drops what comes over links of these shapes, with the addresses of the senders. The
/// text replaces what an earlier one has said, in one step.
pub fn rules(senders: &[(Ipv4Addr, Shape)]) -> String {
    // The table is made first, so that there is one to be removed.
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    let rules: Vec<String> = senders.iter().filter_map(|(sender, shape)| rule(*sender, shape)).collect();
    if !rules.is_empty() {
        text += &format!("table inet {TABLE} {{\nchain arriving {{\n");
        text += "type filter hook input priority 0; policy accept;\n";
        text += &rules.concat();
        text += "}\n}\n";
    }
    text
}

fn rule(sender: Ipv4Addr, shape: &Shape) -> Option<String> {
    let parts = (shape.expected_loss() * f64::from(PARTS)).round() as u32;
    match parts {
        0 => None,
        PARTS.. => Some(format!("ip saddr {sender} counter drop\n")),
        _ => Some(format!("ip saddr {sender} numgen random mod {PARTS} < {parts} counter drop\n")),
    }
}

/// Returns the words of the command that lists the rules with their counts.
pub fn list() -> [&'static str; 5] {
    ["nft", "list", "table", "inet", TABLE]
}

/// Returns how many packets the rules in a listing have dropped.
pub fn dropped(listing: &str) -> u64 {
    let counts = listing.lines().filter_map(|line| {
        let (_, rest) = line.split_once("counter packets ")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    counts.sum()
}

/// Returns the lines for `tc -batch` that give the links to these receivers their shapes. With `is_new`, `device` has no
/// shapes so far. A receiver without an address does not run.
pub fn shapes(device: &str, receivers: &[(Option<Ipv4Addr>, Shape)], is_new: bool) -> String {
    let mut lines = Vec::new();
    if !is_new {
        lines.push(format!("qdisc del dev {device} root"));
    }
    let addresses: Vec<Ipv4Addr> = receivers.iter().map(|(address, _)| address.unwrap_or(NOBODY)).collect();
    lines.extend(tc::prepare(device, &addresses));
    for (index, (_, shape)) in receivers.iter().enumerate() {
        lines.push(tc::shape(device, index, shape));
    }
    lines.join("\n") + "\n"
}

/// Returns the device that has an address, from what `ip -o -4 addr show` prints.
pub fn device(listing: &str, address: Ipv4Addr) -> Option<&str> {
    let beginning = format!("{address}/");
    listing.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let device = words.next()?;
        words.any(|word| word.starts_with(&beginning)).then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::shape::Bursts;

    const A: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);

    #[test]
    fn cuts_and_losses_become_rules_at_the_receiver() {
        let cut = Shape { is_cut: true, ..Shape::default() };
        let bursts = Bursts { begin: 2.0, end: 8.0, loss_bad: 100.0, loss_good: 0.0 };
        let lossy = Shape { bursts: Some(bursts), ..Shape::default() };
        assert_eq!(
            rules(&[(A, cut), (B, lossy)]),
            "table inet anode_netem\ndelete table inet anode_netem\ntable inet anode_netem {\nchain arriving {\n\
             type filter hook input priority 0; policy accept;\nip saddr 172.18.0.2 counter drop\n\
             ip saddr 172.18.0.3 numgen random mod 100000 < 20000 counter drop\n}\n}\n"
        );
    }

    #[test]
    fn perfect_links_leave_no_rules() {
        let text = rules(&[(A, Shape::default()), (B, Shape::default())]);
        assert_eq!(text, "table inet anode_netem\ndelete table inet anode_netem\n");
    }

    #[test]
    fn dropped_packets_are_counted() {
        let listing = "table inet anode_netem {\n\tchain arriving {\n\
                       \t\tip saddr 172.18.0.2 counter packets 12 bytes 900 drop\n\
                       \t\tip saddr 172.18.0.3 numgen random mod 100000 < 5000 counter packets 30 bytes 1 drop\n\t}\n}\n";
        assert_eq!(dropped(listing), 42);
        assert_eq!(dropped(""), 0);
    }

    #[test]
    fn every_receiver_keeps_its_class_whether_it_runs_or_not() {
        let slow = Shape { delay: std::time::Duration::from_millis(5), ..Shape::default() };
        let text = shapes("eth0", &[(None, Shape::default()), (Some(B), slow)], true);
        assert!(!text.contains("qdisc del"), "{text}");
        assert!(text.contains("match ip dst 0.0.0.0/32 flowid 1:10"), "{text}");
        assert!(text.contains("match ip dst 172.18.0.3/32 flowid 1:11"), "{text}");
        assert!(text.ends_with("parent 1:11 handle 11: netem limit 50000 delay 5000us\n"), "{text}");
        assert!(shapes("eth0", &[], false).starts_with("qdisc del dev eth0 root\n"));
    }

    #[test]
    fn the_device_is_the_one_with_the_address() {
        let listing = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
                       7: eth1    inet 172.18.0.20/16 brd 172.18.255.255 scope global eth1\n\
                       8: eth0    inet 172.18.0.2/16 brd 172.18.255.255 scope global eth0\n";
        assert_eq!(device(listing, A), Some("eth0"));
        assert_eq!(device(listing, B), None);
    }
}
