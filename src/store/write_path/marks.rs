//! Facts about the node that are kept with the records, and when they have to be written again.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::cluster::Heads;

/// Time by which the clock's mark is kept ahead of the stamps issued, in microseconds. A longer time makes a
/// node that was killed stamp further ahead of a clock that was set back; a shorter one costs more writes.
pub(in crate::store) const CLOCK_LEASE_US: u64 = 2_000_000;
/// Greatest age of the kept time of the last agreement, in microseconds: an idle node must not sync every
/// second.
const AGREED_US_MAX: u64 = 60_000_000;

/// Two points in time that are kept with the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Marks {
    /// No stamp that the node has issued so far, in this or earlier lives, is greater than this, in
    /// microseconds since the Unix epoch. 0: none was issued.
    pub(in crate::store) clock_high_water_us: u64,
    /// When the node last agreed fully with the cluster, in microseconds since the Unix epoch. 0: never.
    pub(in crate::store) agreed_us: u64,
}

/// The marks as the node knows them, beside those that are in the store already.
pub(in crate::store) struct NodeMarks {
    /// Greatest stamp issued in this life; 0 if none was.
    issued_us: AtomicU64,
    agreed_us: AtomicU64,
    /// The marks as they are in the store.
    kept_clock_us: AtomicU64,
    kept_agreed_us: AtomicU64,
    /// Heads to be kept at an orderly end.
    heads: Mutex<Heads>,
}

impl NodeMarks {
    /// `kept`: the marks as the store has them after opening.
    pub(super) fn new(kept: Marks) -> NodeMarks {
        NodeMarks {
            issued_us: AtomicU64::new(0),
            agreed_us: AtomicU64::new(kept.agreed_us),
            kept_clock_us: AtomicU64::new(kept.clock_high_water_us),
            kept_agreed_us: AtomicU64::new(kept.agreed_us),
            heads: Mutex::default(),
        }
    }

    /// Notes that stamps up to `us` have been issued. Returns whether the marks are to be written.
    pub(super) fn raise_clock(&self, us: u64) -> bool {
        self.issued_us.fetch_max(us, Ordering::Relaxed);
        self.is_clock_due()
    }

    /// Notes that the node agreed fully with the cluster at `us`. Returns whether the marks are to be
    /// written.
    pub(super) fn raise_agreed(&self, us: u64) -> bool {
        self.agreed_us.fetch_max(us, Ordering::Relaxed);
        self.is_agreed_due()
    }

    /// Returns whether the marks are to be written, even if no record waits.
    pub(in crate::store) fn are_due(&self) -> bool {
        self.is_clock_due() || self.is_agreed_due()
    }

    fn is_clock_due(&self) -> bool {
        let issued = self.issued_us.load(Ordering::Relaxed);
        issued > 0 && issued.saturating_add(CLOCK_LEASE_US / 2) > self.kept_clock_us.load(Ordering::Relaxed)
    }

    fn is_agreed_due(&self) -> bool {
        let kept = self.kept_agreed_us.load(Ordering::Relaxed);
        self.agreed_us.load(Ordering::Relaxed)
            > kept.saturating_add(if kept == 0 { 0 } else { AGREED_US_MAX })
    }

    /// The marks to write with a commit: the clock's a lease ahead of what was issued.
    pub(in crate::store) fn leased(&self) -> Marks {
        let issued = self.issued_us.load(Ordering::Relaxed);
        let lease = if issued > 0 { issued.saturating_add(CLOCK_LEASE_US) } else { 0 };
        Marks {
            clock_high_water_us: lease.max(self.kept_clock_us.load(Ordering::Relaxed)),
            agreed_us: self.agreed_us.load(Ordering::Relaxed),
        }
    }

    /// The marks to write at an orderly end: the clock's exactly at what was issued, in this life or,
    /// up to `clock_floor_us`, in those before.
    pub(in crate::store) fn exact(&self, clock_floor_us: u64) -> Marks {
        Marks {
            clock_high_water_us: self.issued_us.load(Ordering::Relaxed).max(clock_floor_us),
            agreed_us: self.agreed_us.load(Ordering::Relaxed),
        }
    }

    /// Notes that these marks, of [`NodeMarks::leased`], are in the store.
    pub(in crate::store) fn handle_kept(&self, marks: Marks) {
        debug_assert!(
            marks.clock_high_water_us >= self.kept_clock_us.load(Ordering::Relaxed),
            "the kept mark of the clock never falls while the node lives"
        );
        self.kept_clock_us.store(marks.clock_high_water_us, Ordering::Relaxed);
        self.kept_agreed_us.store(marks.agreed_us, Ordering::Relaxed);
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
