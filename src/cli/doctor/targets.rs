//! Join targets, asked from this machine by a datagram and over TCP, as a node asks them when it joins.

use std::net::{SocketAddr, ToSocketAddrs};

use super::{Findings, Verdict};
use crate::config::{Config, HostPort, canonical};
use crate::server::peer_check::{PeerQuestions, TcpAnswer};

/// Most addresses of one target that are asked.
const ADDRESSES_MAX: usize = 4;

/// Asks all join targets of the configuration.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    let questions = PeerQuestions::new(config);
    let is_sealed = config.cluster_key.is_some();
    for target in &config.join {
        let addresses: Vec<SocketAddr> = match (target.host.as_str(), target.port).to_socket_addrs() {
            Ok(addresses) => addresses.map(canonical).take(ADDRESSES_MAX).collect(),
            Err(error) => {
                let said = format!("--join {target} does not resolve: {error}");
                findings.add("peers", Verdict::Wrong, said, "correct the name, or the name server");
                continue;
            }
        };
        for address in addresses {
            // A node may be among its own join targets, and a socket cannot be asked by itself.
            if address == config.gossip {
                continue;
            }
            let tcp = questions.tcp(address);
            let udp = questions.udp(address).unwrap_or(false);
            judge(target, address, (&tcp, udp), is_sealed, findings);
        }
    }
}

/// Judges the answers of one address, over TCP and by datagram.
fn judge(
    target: &HostPort,
    address: SocketAddr,
    (tcp, udp): (&TcpAnswer, bool),
    is_sealed: bool,
    findings: &mut Findings,
) {
    let open =
        "open the port of --gossip for UDP and TCP, in both directions, on the way between the machines";
    let at = format!("--join {target} ({address})");
    match (tcp, udp) {
        (TcpAnswer::Node, true) => findings.ok("peers", format!("{at} answers over UDP and TCP")),
        (TcpAnswer::Node, false) => {
            let said = format!("{at} answers over TCP, and no datagram (UDP) comes back");
            findings.add("peers", Verdict::Wrong, said, open);
        }
        (TcpAnswer::Refused | TcpAnswer::Silent | TcpAnswer::Failed(_), true) => {
            let said = format!("{at} answers over UDP, and not over TCP: {}", tcp.describe(is_sealed));
            findings.add("peers", Verdict::Wrong, said, open);
        }
        (TcpAnswer::Refused, false) => {
            let said = format!("{at}: nothing listens there");
            findings.add("peers", Verdict::Wrong, said, "start that node, or correct the address or port");
        }
        (TcpAnswer::Silent | TcpAnswer::Failed(_), false) => {
            let said = format!("{at}: {}", tcp.describe(is_sealed));
            findings.add("peers", Verdict::Wrong, said, open);
        }
        (TcpAnswer::Foreign | TcpAnswer::Other, _) => {
            let said = format!("{at}: {}", tcp.describe(is_sealed));
            let advice = "compare --cluster-name and --cluster-key of both, and check that the port is that of --gossip";
            findings.add("peers", Verdict::Wrong, said, advice);
        }
    }
}
