//! Figures of the test world: who has which record, and how many copies were received.

use super::World;
use super::members::identity;

impl World {
    /// Times from `since_us` until a record arrived at each node that is up and not its origin, ascending;
    /// and the number of nodes that lack it.
    pub fn delivery(&self, origin: usize, seq: u64, since_us: u64) -> (Vec<u64>, usize) {
        let birth = (identity(origin).name.clone(), seq);
        let mut times = Vec::new();
        let mut missing = 0;
        for node in self.nodes.iter().enumerate().filter(|node| node.0 != origin && node.1.is_up) {
            match node.1.arrivals.0.get(&birth) {
                Some((at_us, _)) => times.push(at_us - since_us),
                None => missing += 1,
            }
        }
        times.sort_unstable();
        (times, missing)
    }

    /// Number of copies that nodes which are up lack of `count` records of `origin` from number `first` on.
    pub fn missing(&self, origin: usize, first: u64, count: u64) -> usize {
        (first..first + count).map(|seq| self.delivery(origin, seq, 0).1).sum()
    }

    /// Number of copies of records that all nodes together received.
    pub fn copies(&self) -> u64 {
        self.nodes.iter().map(|node| node.spread.stats().data_copies_received).sum()
    }
}
