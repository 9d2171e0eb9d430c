//! How long it takes after the last fault until everybody has what was acknowledged before.

use std::collections::HashMap;

use super::version::Version;

/// What subscribers still lacked when the last fault ended, and when the last of it came.
#[derive(Debug, Default)]
pub(super) struct Convergence {
    /// Time at which the last fault ended, in microseconds.
    healed_us: Option<u64>,
    /// The version that a subscriber lacks, by the numbers of the subscriber and the source.
    lacking: HashMap<(u32, u32), Version>,
    /// Number of versions that were lacking when the last fault ended.
    lacked: u64,
    /// Time at which the last of them came.
    last_us: u64,
}

impl Convergence {
    /// Begins anew at the end of a fault after which none is left, with what the subscribers lack.
    pub(super) fn begin(&mut self, at_us: u64, lacking: HashMap<(u32, u32), Version>) {
        self.healed_us = Some(at_us);
        self.lacked = lacking.len() as u64;
        self.lacking = lacking;
        self.last_us = at_us;
    }

    /// Forgets the last healing, because a new fault begins.
    pub(super) fn interrupt(&mut self) {
        *self = Convergence::default();
    }

    /// Notes what a subscriber got.
    pub(super) fn handle_delivery(&mut self, at_us: u64, subscriber: u32, source: u32, version: Version) {
        if self.lacking.is_empty() {
            return;
        }
        let key = (subscriber, source);
        if self.lacking.get(&key).is_some_and(|lacking| version >= *lacking) {
            self.lacking.remove(&key);
            self.last_us = at_us;
        }
    }

    /// The time from the end of the last fault until the last version came that was lacking, in microseconds. `None`
    /// without a fault, or while something is lacking.
    pub(super) fn took_us(&self) -> Option<u64> {
        let healed_us = self.healed_us?;
        self.lacking.is_empty().then(|| self.last_us.saturating_sub(healed_us))
    }

    /// The time at which the last fault ended, in microseconds; `None` without a fault.
    pub(super) fn healed_us(&self) -> Option<u64> {
        self.healed_us
    }

    /// Number of versions that were lacking when the last fault ended; `None` without a fault.
    pub(super) fn lacked(&self) -> Option<u64> {
        self.healed_us.map(|_| self.lacked)
    }

    /// What is lacking still: the numbers of the subscriber and the source, and the version.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (u32, u32, Version)> {
        self.lacking.iter().map(|((subscriber, source), version)| (*subscriber, *source, *version))
    }
}
