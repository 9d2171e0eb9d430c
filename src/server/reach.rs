//! Warnings about members that do not answer at the addresses that they advertise, and about this node if the
//! others do not reach it.
//!
//! Such a member takes no part in the cluster, and all of its users see that something is missing, but nobody
//! sees why. So the log names the member and its address, after a few seconds and then every minute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::cluster::members::{MemberInfo, State};

/// Time for which a member may be joining, or may not reach this node, before that is logged, in microseconds.
const PATIENCE_US: u64 = 5_000_000;
/// Least time between two warnings of the same kind, in microseconds.
const REACH_REPORT_US: u64 = 60_000_000;
/// Most members that one warning names.
const NAMED_MAX: usize = 8;

/// How long what is warned of has lasted, by the name of the member, and when it was logged last.
#[derive(Debug, Default)]
struct Complaint {
    since_us: BTreeMap<String, u64>,
    logged_us: Option<u64>,
}

impl Complaint {
    /// Takes the members that are concerned now, with what is to be said of each. Returns the text of a warning
    /// if one is due.
    fn look(&mut self, now_us: u64, concerned: Vec<(String, String)>) -> Option<String> {
        self.since_us.retain(|name, _| concerned.iter().any(|(other, _)| other == name));
        for (name, _) in &concerned {
            self.since_us.entry(name.clone()).or_insert(now_us);
        }
        let is_long =
            |name: &String| self.since_us.get(name).is_some_and(|since| now_us >= since + PATIENCE_US);
        let lasting: Vec<&(String, String)> = concerned.iter().filter(|(name, _)| is_long(name)).collect();
        let is_due = self.logged_us.is_none_or(|logged_us| now_us >= logged_us + REACH_REPORT_US);
        if lasting.is_empty() || !is_due {
            return None;
        }
        self.logged_us = Some(now_us);
        let mut text = String::new();
        for (_, said) in lasting.iter().take(NAMED_MAX) {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{said}");
        }
        if lasting.len() > NAMED_MAX {
            let _ = write!(text, ", and {} more", lasting.len() - NAMED_MAX);
        }
        Some(text)
    }
}

/// The warnings about members that cannot be reached, and about this node.
#[derive(Debug, Default)]
pub(super) struct ReachReports {
    silent: Complaint,
    deaf: Complaint,
}

impl ReachReports {
    /// Logs warnings if any are due. `members` has this node, whose name is `me`, and `bound` is the address that
    /// its socket is bound to.
    pub fn look(&mut self, now_us: u64, members: &[MemberInfo], me: &str, bound: IpAddr) {
        let others = || members.iter().filter(|member| member.identity.name.as_str() != me);
        let silent = others().filter(|member| member.state == State::Joining);
        let silent =
            silent.map(|member| (member.identity.name.to_string(), described(member, bound))).collect();
        if let Some(members) = self.silent.look(now_us, silent) {
            tracing::warn!(
                members,
                "members do not answer this node at the addresses that they advertise; they take no part here"
            );
        }
        let deaf = others().filter(|member| member.cannot_reach_us && member.state.is_live());
        let deaf = deaf.map(|member| (member.identity.name.to_string(), member.identity.name.to_string()));
        if let Some(by) = self.deaf.look(now_us, deaf.collect()) {
            let own = members.iter().find(|member| member.identity.name.as_str() == me);
            let address = own.map(|own| own.identity.gossip().to_string()).unwrap_or_default();
            tracing::warn!(
                address,
                members = by,
                "members cannot reach this node at the address that it advertises; check --advertise and \
                 whether UDP and TCP pass"
            );
        }
    }
}

/// Name and address of a member that does not answer, and why if that is known.
fn described(member: &MemberInfo, bound: IpAddr) -> String {
    let (name, address) = (&member.identity.name, member.identity.gossip());
    let why = if reaches_family(bound, address) { "no answer" } else { "no address of its family here" };
    format!("{name} at {address} ({why})")
}

/// Returns whether a socket that is bound to `bound` can send to the family of `address`.
fn reaches_family(bound: IpAddr, address: SocketAddr) -> bool {
    match bound {
        IpAddr::V4(_) => address.is_ipv4(),
        // A socket for all addresses of the machine is for both families.
        IpAddr::V6(ip) => address.is_ipv6() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_complaint_is_logged_after_some_seconds_and_then_every_minute() {
        let mut complaint = Complaint::default();
        let one = || vec![("b".to_owned(), "b at x".to_owned())];
        assert_eq!(complaint.look(0, one()), None);
        assert_eq!(complaint.look(PATIENCE_US - 1, one()), None);
        assert_eq!(complaint.look(PATIENCE_US, one()), Some("b at x".into()));
        assert_eq!(complaint.look(PATIENCE_US + REACH_REPORT_US - 1, one()), None);
        assert_eq!(complaint.look(PATIENCE_US + REACH_REPORT_US, one()), Some("b at x".into()));
        // A complaint that has ended waits for its whole patience again before it is repeated.
        assert_eq!(complaint.look(200 * SECOND_US, Vec::new()), None);
        assert_eq!(complaint.look(201 * SECOND_US, one()), None);
        assert_eq!(complaint.look(206 * SECOND_US, one()), Some("b at x".into()));
    }

    #[test]
    fn a_warning_names_a_few() {
        let mut complaint = Complaint::default();
        let many = || (0..NAMED_MAX + 3).map(|at| (format!("n{at:02}"), format!("n{at:02}"))).collect();
        complaint.look(0, many());
        let text = complaint.look(PATIENCE_US, many()).unwrap_or_default();
        assert!(text.starts_with("n00, n01, ") && text.ends_with("n07, and 3 more"), "{text}");
    }

    #[test]
    fn families_that_a_socket_reaches() {
        let ip = |text: &str| text.parse().expect("ip");
        let at = |text: &str| text.parse().expect("address");
        for (bound, four, six) in
            [("127.0.0.1", true, false), ("0.0.0.0", true, false), ("::1", false, true), ("::", true, true)]
        {
            assert_eq!(reaches_family(ip(bound), at("10.0.0.1:1")), four, "{bound}");
            assert_eq!(reaches_family(ip(bound), at("[fd00::1]:1")), six, "{bound}");
        }
    }
}
