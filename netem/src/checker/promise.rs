//! The promises that a run checks, and what was found of each.

use std::collections::BTreeMap;

use serde::Serialize;

use super::version::Version;

/// Number of witnesses that are kept of each promise.
const WITNESSES_MAX: usize = 5;

/// A promise to clients. Its name in verdicts is [`Promise::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// A record acknowledged at `stored` is in the end the latest, or older than the latest, on every node and in
    /// the store.
    StoredKept,
    /// A record that a node has accepted is so too, if that node did not end afterwards.
    AcceptedKept,
    /// When `replicated` was answered, every live member held the record or a newer one.
    ReplicatedTrue,
    /// A `latest` subscriber ends with the newest record of every source.
    LatestEndsNewest,
    /// The versions of a source strictly rise for each subscriber, across resumes too.
    StampsRise,
    /// An `all` subscriber gets no record twice, the overlap after a resume aside.
    AllOnce,
    /// An `all` subscriber gets every record that its node has answered as applied.
    AllComplete,
    /// Nobody sees a record that was not offered, or that was refused.
    OnlyAccepted,
    /// A deleted or expired record does not come back.
    NothingReturns,
    /// After the last fault, all subscribers and nodes get what they lack.
    Converges,
    /// A member that no deadly fault has hit is not declared dead.
    HealthyNotDead,
    /// No node needs more memory than it may.
    MemoryBounded,
}

impl Promise {
    /// All promises, in the order in which they are reported.
    pub const ALL: [Promise; 12] = [
        Promise::StoredKept,
        Promise::AcceptedKept,
        Promise::ReplicatedTrue,
        Promise::LatestEndsNewest,
        Promise::StampsRise,
        Promise::AllOnce,
        Promise::AllComplete,
        Promise::OnlyAccepted,
        Promise::NothingReturns,
        Promise::Converges,
        Promise::HealthyNotDead,
        Promise::MemoryBounded,
    ];

    /// The name in verdicts and reports.
    pub fn name(self) -> &'static str {
        match self {
            Promise::StoredKept => "stored-kept",
            Promise::AcceptedKept => "accepted-kept",
            Promise::ReplicatedTrue => "replicated-true",
            Promise::LatestEndsNewest => "latest-ends-newest",
            Promise::StampsRise => "stamps-rise",
            Promise::AllOnce => "all-once",
            Promise::AllComplete => "all-complete",
            Promise::OnlyAccepted => "only-accepted",
            Promise::NothingReturns => "nothing-returns",
            Promise::Converges => "converges",
            Promise::HealthyNotDead => "healthy-not-dead",
            Promise::MemoryBounded => "memory-bounded",
        }
    }
}

/// An instance of a broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Time since the beginning of the run, in microseconds.
    pub at_us: u64,
    /// Name of the source; empty if the promise is not about records.
    pub source: String,
    /// Timestamp of the record; 0 if the promise is not about records.
    pub ts: u64,
    /// Name of the node at which it shows.
    pub node: String,
    /// A sentence that says what was expected and what was found.
    pub detail: String,
}

/// The findings about one promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Number of times that the promise was checked. With 0 the run says nothing about it.
    pub checked: u64,
    /// Number of times that it was broken.
    pub broken: u64,
    /// The first times that it was broken.
    pub witnesses: Vec<Witness>,
    /// Number of times that a bound in time was passed while the machine had too much to do to judge it.
    pub unjudged: u64,
    /// The first such time.
    pub excused: Option<Witness>,
}

/// The findings about all promises.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    findings: BTreeMap<Promise, Findings>,
}

impl Ledger {
    /// Notes that a promise was checked, and with a witness that it was broken.
    pub(super) fn check(&mut self, promise: Promise, witness: Option<Witness>) {
        let findings = self.findings.entry(promise).or_default();
        findings.checked += 1;
        if let Some(witness) = witness {
            findings.broken += 1;
            if findings.witnesses.len() < WITNESSES_MAX {
                findings.witnesses.push(witness);
            }
        }
    }

    /// Notes that a bound in time was checked. While the machine is too busy, a bound that was passed is not judged.
    pub(super) fn check_time(&mut self, promise: Promise, is_scarce: bool, witness: Option<Witness>) {
        match witness {
            Some(witness) if is_scarce => {
                let findings = self.findings.entry(promise).or_default();
                findings.unjudged += 1;
                findings.excused.get_or_insert(witness);
            }
            witness => self.check(promise, witness),
        }
    }

    /// The findings about a promise.
    pub(super) fn findings(&self, promise: Promise) -> Findings {
        self.findings.get(&promise).cloned().unwrap_or_default()
    }
}

/// A version in the words of a witness.
pub(super) fn say(version: Option<Version>) -> String {
    match version {
        None => "nothing".to_owned(),
        Some(version) if version.deleted => format!("a deletion at {}", version.ts),
        Some(version) => format!("a record at {} (data hash {:08x})", version.ts, version.hash as u32),
    }
}
