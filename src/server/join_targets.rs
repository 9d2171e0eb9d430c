//! Join targets that do not answer, and the warning about them.
//!
//! A node that cannot reach its cluster serves all the same, alone, and a typing error in `--join` looks to its
//! clients like lost data. So the log says it at once, and then every minute: which targets do not answer, the
//! addresses that were tried, and what came back. Datagrams that get no answer do not tell why, so a
//! connection over TCP to the same address is tried, which does.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::clock;
use super::key_file::KeyFile;
use super::peer_check::{Greeting, TcpAnswer, ask_tcp};
use super::shared::Shared;
use crate::cluster::{SeedInfo, membership_preamble};
use crate::config::HostPort;

/// Least time between two warnings of the same kind, in microseconds.
const REPORT_US: u64 = 60_000_000;
/// Number of times that an address is tried before it counts as silent. The third try is made about half a
/// second after the first one, and by then nodes that start together have met.
const TRIES_MIN: u32 = 3;
/// Most addresses of one target that are looked at more closely.
const ADDRESSES_MAX: usize = 4;
/// Most targets that one warning names.
const TARGETS_MAX: usize = 8;

/// A join target and the addresses that its name has now.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// The target as it was given.
    pub target: HostPort,
    /// Addresses of the target, or the reason why it has none.
    pub addresses: Result<Vec<SocketAddr>, String>,
}

/// The members of its cluster that a node knows, as far as the search for join targets needs them.
struct JoinView {
    /// Gossip address that this node tells others.
    me: Option<SocketAddr>,
    /// Gossip addresses of the other live members.
    live: Vec<SocketAddr>,
    /// Addresses of the join targets that the cluster machine tries.
    seeds: Vec<SeedInfo>,
}

/// The state of one join target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TargetState {
    /// Another node answers at one of the addresses, or has answered before.
    Answers,
    /// The target is this node itself.
    Own,
    /// The target was not tried often enough to tell.
    Unknown,
    /// The target was tried several times, and nobody answers.
    Silent,
}

impl JoinView {
    fn of(shared: &Shared) -> JoinView {
        let members = shared.cluster.members();
        let live = members.iter().filter(|member| member.state.is_live());
        let (me, live): (Vec<_>, Vec<_>) = live.partition(|member| member.identity.name == shared.name);
        JoinView {
            me: me.first().map(|member| member.identity.gossip()),
            live: live.iter().map(|member| member.identity.gossip()).collect(),
            seeds: shared.cluster.seeds(),
        }
    }

    fn is_alone(&self) -> bool {
        self.live.is_empty()
    }

    fn state(&self, target: &Resolved) -> TargetState {
        let Ok(addresses) = &target.addresses else { return TargetState::Silent };
        let seeds: Vec<&SeedInfo> =
            self.seeds.iter().filter(|seed| addresses.contains(&seed.address)).collect();
        if addresses.iter().any(|address| Some(*address) == self.me) || seeds.iter().any(|seed| seed.is_me) {
            TargetState::Own
        } else if addresses.iter().any(|address| self.live.contains(address))
            // What answered before does not count for a node that has lost all others.
            || !self.is_alone() && seeds.iter().any(|seed| seed.has_answered)
        {
            TargetState::Answers
        } else if seeds.iter().any(|seed| seed.tries >= TRIES_MIN) {
            TargetState::Silent
        } else {
            TargetState::Unknown
        }
    }

    /// Returns the targets that do not answer, once all of them were tried.
    fn silent<'a>(&self, targets: &'a [Resolved]) -> Vec<&'a Resolved> {
        let is_tried_soon = |target: &Resolved| {
            let addresses = target.addresses.as_deref().unwrap_or_default();
            // Of very many addresses, the last are never tried.
            let is_taken = self.seeds.iter().any(|seed| addresses.contains(&seed.address));
            self.state(target) == TargetState::Unknown && (is_taken || self.seeds.is_empty())
        };
        if targets.iter().any(is_tried_soon) {
            return Vec::new();
        }
        targets.iter().filter(|target| self.state(target) == TargetState::Silent).collect()
    }
}

/// The time and the kind of the last warning that was logged.
#[derive(Debug, Default)]
pub(super) struct SilenceReports {
    last: Option<(u64, bool)>,
}

impl SilenceReports {
    /// Logs a warning if targets do not answer and a warning is due.
    pub fn look(&mut self, shared: &Shared, targets: &[Resolved]) {
        let known = JoinView::of(shared);
        let silent = known.silent(targets);
        if silent.is_empty() || !self.is_due(clock::mono_us(), known.is_alone()) {
            return;
        }
        let keys = shared.key_file.as_ref().map(KeyFile::of_new_life);
        let is_sealed = keys.is_some();
        let preamble = membership_preamble(&shared.config.cluster_name, (&shared.name, shared.boot), keys);
        let tried = describe(&silent, &Greeting { preamble, is_sealed });
        // Somebody may have answered while that took its time.
        let known = JoinView::of(shared);
        let is_alone = known.is_alone();
        if known.silent(targets).is_empty() || !self.is_due(clock::mono_us(), is_alone) {
            return;
        }
        self.last = Some((clock::mono_us(), is_alone));
        if is_alone {
            tracing::warn!(tried, "this node runs alone: its join targets do not answer; it goes on trying");
        } else {
            tracing::warn!(tried, "join targets do not answer; the node goes on trying them");
        }
    }

    /// Returns whether a warning may be logged. A node that has become alone says so at once.
    fn is_due(&self, now_us: u64, is_alone: bool) -> bool {
        self.last.is_none_or(|(last_us, was_alone)| {
            is_alone && !was_alone || now_us.saturating_sub(last_us) >= REPORT_US
        })
    }
}

/// Returns the targets, the addresses that were tried for each, and what came back.
fn describe(silent: &[&Resolved], greeting: &Greeting) -> String {
    // The addresses are tried at the same time, so that a stopping node waits for one of them at most.
    let asked: Vec<_> = silent
        .iter()
        .take(TARGETS_MAX)
        .map(|target| target.addresses.iter().flatten().take(ADDRESSES_MAX))
        .map(|addresses| addresses.map(|&address| (address, ask_aside(address, greeting.clone()))).collect())
        .collect::<Vec<Vec<_>>>();
    let mut text = String::new();
    for (target, asked) in silent.iter().zip(asked) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{}", target.target);
        let mut answers = Vec::new();
        if let Err(error) = &target.addresses {
            answers.push(format!("no address: {error}"));
        }
        for (address, thread) in asked {
            let answer = thread.map_or_else(|error| error.to_string(), |it| it.join().unwrap_or_default());
            answers.push(format!("{address}: {answer}"));
        }
        let more = target.addresses.iter().flatten().count().saturating_sub(ADDRESSES_MAX);
        if more > 0 {
            answers.push(format!("{more} more addresses"));
        }
        let _ = write!(text, " ({})", answers.join("; "));
    }
    if silent.len() > TARGETS_MAX {
        let _ = write!(text, ", and {} more", silent.len() - TARGETS_MAX);
    }
    text
}

fn ask_aside(address: SocketAddr, greeting: Greeting) -> std::io::Result<std::thread::JoinHandle<String>> {
    std::thread::Builder::new().name("join target".into()).spawn(move || ask(address, &greeting))
}

/// Connects to an address whose node does not answer datagrams, and tells in words what comes back.
fn ask(address: SocketAddr, greeting: &Greeting) -> String {
    match ask_tcp(address, greeting) {
        TcpAnswer::Node => "open for TCP, but no datagram (UDP) comes back".into(),
        other => other.describe(greeting.is_sealed),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn greeting() -> Greeting {
        Greeting { preamble: Bytes::from_static(b"hello"), is_sealed: false }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn target(host: &str, addresses: Result<Vec<SocketAddr>, String>) -> Resolved {
        Resolved { target: HostPort { host: host.into(), port: 1 }, addresses }
    }

    fn seed(port: u16, tries: u32, has_answered: bool) -> SeedInfo {
        SeedInfo { address: at(port), tries, has_answered, is_me: false }
    }

    #[test]
    fn a_target_is_silent_after_the_first_tries() {
        let mut known = JoinView { me: Some(at(9)), live: Vec::new(), seeds: vec![seed(1, 2, false)] };
        let one = target("one", Ok(vec![at(1), at(2)]));
        let nobody = target("nobody", Err("no such name".into()));
        assert_eq!(known.state(&one), TargetState::Unknown);
        assert!(known.silent(&[nobody.clone(), one.clone()]).is_empty(), "the other one was not tried yet");
        assert_eq!(known.silent(std::slice::from_ref(&nobody)).len(), 1);
        known.seeds = vec![seed(1, 3, false), seed(2, 3, true)];
        assert_eq!(known.state(&one), TargetState::Silent, "alone: what answered before does so no longer");
        known.live = vec![at(7)];
        assert_eq!(known.state(&one), TargetState::Answers, "one address is enough");
        assert_eq!(known.state(&target("me", Ok(vec![at(9)]))), TargetState::Own);
        assert_eq!(known.state(&target("member", Ok(vec![at(7)]))), TargetState::Answers);
        assert_eq!(known.state(&nobody), TargetState::Silent);
    }

    #[test]
    fn a_warning_comes_at_once_and_then_every_minute() {
        let mut reports = SilenceReports::default();
        assert!(reports.is_due(5, false));
        reports.last = Some((5, false));
        assert!(!reports.is_due(5 + REPORT_US - 1, false) && reports.is_due(5 + REPORT_US, false));
        assert!(reports.is_due(6, true), "it has become alone");
        reports.last = Some((6, true));
        assert!(!reports.is_due(REPORT_US, true) && !reports.is_due(REPORT_US, false));
        assert!(reports.is_due(6 + REPORT_US, true));
    }

    #[test]
    fn what_came_back_is_told() {
        let listener = std::net::TcpListener::bind(at(0)).expect("bound");
        let address = listener.local_addr().expect("address");
        let open = target("open", Ok(vec![address]));
        let gone = target("gone", Err("no such name".into()));
        let text = describe(&[&open, &gone], &greeting());
        let expected = format!("open:1 ({address}: open for TCP, but no datagram (UDP) comes back), ");
        assert_eq!(text, expected + "gone:1 (no address: no such name)");
        drop(listener);
        assert_eq!(ask(address, &greeting()), "refused");
    }
}
