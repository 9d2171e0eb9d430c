//! Facts about the node that are kept with the records, and when they have to be written again.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::cluster::Heads;

/// Greatest age of the kept time of the last agreement, in microseconds: an idle node must not sync every
/// second.
const AGREED_US_MAX: u64 = 60_000_000;

/// Facts that are kept with the records. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Marks {
    /// When the node last agreed fully with the cluster, in microseconds since the Unix epoch. 0: never.
    pub(in crate::store) agreed_us: u64,
    /// Boot number that the node has taken last. 0: that of its start.
    pub(in crate::store) boot: u64,
}

/// The marks as the node knows them, beside those that are in the store already.
pub(in crate::store) struct NodeMarks {
    agreed_us: AtomicU64,
    /// The mark as it is in the store.
    kept_agreed_us: AtomicU64,
    /// Boot number that the node has taken since its start; 0: none.
    boot: AtomicU64,
    /// The boot number as it is in the store.
    kept_boot: AtomicU64,
    /// Heads to be kept at an orderly end.
    heads: Mutex<Heads>,
}

impl NodeMarks {
    /// `kept`: the marks as the store has them after opening.
    pub(super) fn new(kept: Marks) -> NodeMarks {
        NodeMarks {
            agreed_us: AtomicU64::new(kept.agreed_us),
            kept_agreed_us: AtomicU64::new(kept.agreed_us),
            boot: AtomicU64::new(kept.boot),
            kept_boot: AtomicU64::new(kept.boot),
            heads: Mutex::default(),
        }
    }

    /// Notes that the node agreed fully with the cluster at `us`. Returns whether the marks are to be
    /// written.
    pub(super) fn raise_agreed(&self, us: u64) -> bool {
        self.agreed_us.fetch_max(us, Ordering::Relaxed);
        self.are_due()
    }

    /// Notes that the node has taken this boot number while it runs. Returns whether the marks are to be written.
    pub(super) fn raise_boot(&self, boot: u64) -> bool {
        self.boot.fetch_max(boot, Ordering::Relaxed);
        self.are_due()
    }

    /// Returns whether the marks are to be written, even if no record waits.
    pub(in crate::store) fn are_due(&self) -> bool {
        let kept = self.kept_agreed_us.load(Ordering::Relaxed);
        let is_agreement_due = self.agreed_us.load(Ordering::Relaxed)
            > kept.saturating_add(if kept == 0 { 0 } else { AGREED_US_MAX });
        is_agreement_due || self.boot.load(Ordering::Relaxed) > self.kept_boot.load(Ordering::Relaxed)
    }

    /// The marks to write with a commit, and at an orderly end.
    pub(in crate::store) fn current(&self) -> Marks {
        let (agreed_us, boot) = (self.agreed_us.load(Ordering::Relaxed), self.boot.load(Ordering::Relaxed));
        Marks { agreed_us, boot }
    }

    /// Notes that these marks, of [`NodeMarks::current`], are in the store.
    pub(in crate::store) fn handle_kept(&self, marks: Marks) {
        self.kept_agreed_us.store(marks.agreed_us, Ordering::Relaxed);
        self.kept_boot.store(marks.boot, Ordering::Relaxed);
    }

    /// Sets the heads that an orderly end keeps.
    pub(in crate::store) fn set_heads(&self, heads: Heads) {
        *self.heads.lock() = heads;
    }

    /// Takes the heads that an orderly end keeps; empty if none were set.
    pub(in crate::store) fn take_heads(&self) -> Heads {
        std::mem::take(&mut *self.heads.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_number_is_written_at_once_and_a_time_once_a_minute() {
        let marks = NodeMarks::new(Marks::default());
        assert!(!marks.are_due() && marks.raise_boot(7) && marks.raise_boot(6));
        assert_eq!(marks.current(), Marks { agreed_us: 0, boot: 7 });
        marks.handle_kept(marks.current());
        assert!(!marks.are_due() && !marks.raise_boot(7) && marks.raise_agreed(1));
        marks.handle_kept(marks.current());
        assert!(!marks.raise_agreed(2) && marks.raise_boot(8));
    }
}
