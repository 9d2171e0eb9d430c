//! Which nodes there are to connect to, and how long to wait before the next attempt.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::address::NodeAddress;
use crate::error::Retry;

/// The longest wait before an attempt.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The bound of the first wait after a loss.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The bound of the first wait after a node has asked to back off.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// The nodes that the user has named, and those that greetings have named.
#[derive(Debug)]
pub(crate) struct Roster {
    seeds: Vec<NodeAddress>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    greeted: Vec<NodeAddress>,
    current: Option<NodeAddress>,
}

impl Roster {
    /// Makes a roster of the nodes that the user has named.
    pub(crate) fn new(seeds: Vec<NodeAddress>) -> Roster {
        Roster { seeds, known: Mutex::default() }
    }

    /// Takes the members of a greeting in place of the earlier ones.
    pub(crate) fn handle_greeting(&self, node: &NodeAddress, members: &[String]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.current = Some(node.clone());
        let named: Vec<NodeAddress> = members.iter().filter_map(|http| node.member(http)).collect();
        if !named.is_empty() {
            known.greeted = named;
        }
    }

    /// Returns the node to which the client was connected last.
    pub(crate) fn current(&self) -> Option<NodeAddress> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// Returns all nodes, the next to try first: greeted ones in random order, then seeds, `avoid` last. Before the
    /// first attempt the seeds come first.
    pub(crate) fn candidates(&self, avoid: Option<&NodeAddress>) -> VecDeque<NodeAddress> {
        let mut greeted = self.known.lock().unwrap_or_else(PoisonError::into_inner).greeted.clone();
        fastrand::shuffle(&mut greeted);
        let seeds = self.seeds.iter().cloned();
        let all: Vec<NodeAddress> = match avoid {
            Some(_) => greeted.into_iter().chain(seeds).collect(),
            None => seeds.chain(greeted).collect(),
        };
        let mut nodes: Vec<NodeAddress> = Vec::with_capacity(all.len());
        for node in all {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|node| Some(node) == avoid);
        nodes.into()
    }
}

/// The attempts to open one connection, over all nodes, with growing waits between them.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    left: VecDeque<NodeAddress>,
    failures: u32,
    last: Option<NodeAddress>,
}

impl Attempts {
    /// Returns the node to try. Every node is tried once before any is tried again.
    pub(crate) fn next(&mut self, roster: &Roster) -> Option<NodeAddress> {
        if self.left.is_empty() {
            self.left = roster.candidates(self.last.as_ref());
        }
        self.last = self.left.pop_front().or(self.last.take());
        self.last.clone()
    }

    /// Notes that a connection has served for a while, so that the next loss is the first of its kind.
    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure, and returns the wait before the next attempt: full jitter, with a doubling bound.
    pub(crate) fn wait(&mut self, retry: Retry) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            self.left.clear();
            if retry == Retry::Now {
                return Duration::ZERO;
            }
        }
        let first = if retry == Retry::BackOff { FIRST_BACK_OFF } else { FIRST_WAIT };
        jitter(first, self.failures - 1, WAIT_MAX)
    }
}

/// Returns a random time below `first` doubled `times`, and below `max`.
pub(crate) fn jitter(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(url: &str) -> NodeAddress {
        NodeAddress::parse(url).expect("url")
    }

    #[test]
    fn the_lost_node_is_tried_last() {
        let roster = Roster::new(vec![node("a:1"), node("b:1")]);
        let mut attempts = Attempts::default();
        assert_eq!(attempts.next(&roster), Some(node("a:1")));
        roster.handle_greeting(&node("a:1"), &["a:1".into(), "c:1".into(), "d:1".into()]);
        attempts.wait(Retry::Soon);
        let mut tried: Vec<String> =
            (0..4).filter_map(|_| attempts.next(&roster)).map(|node| node.host).collect();
        assert_eq!(tried.last().map(String::as_str), Some("a"));
        assert_eq!(tried[2], "b", "seeds come after those that were greeted");
        tried.sort();
        assert_eq!(tried, ["a", "b", "c", "d"]);
    }

    #[test]
    fn waits_grow_and_are_random() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.wait(Retry::Now), Duration::ZERO);
        let waits: Vec<Duration> = (0..200).map(|_| attempts.wait(Retry::Now)).collect();
        assert!(waits.iter().all(|wait| *wait <= WAIT_MAX));
        assert!(waits[0] <= FIRST_WAIT * 2 && waits.iter().any(|wait| *wait > WAIT_MAX / 2));
        attempts.succeed();
        assert_eq!(attempts.wait(Retry::Now), Duration::ZERO);
    }
}
