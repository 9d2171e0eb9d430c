//! Back-pressure: those who bring records are made to wait while the queues behind them are full, and
//! connections beyond the node's bound are counted.
//!
//! Publishers are not read while any of three queues is over its soft bound: the store's, the cluster's, and
//! the mailbox of any worker. Peers that bring records in bulk are not read while the store lags. Whoever is
//! made to wait sets a flag ([`Pressure`]), and whoever takes something out of a queue looks at the flag. A
//! connection that does not read its own answers is handled by its session: see
//! [`super::session::Session::blocks_reading`].

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// The fill levels of a node's queues, as far as they make others wait.
pub trait Queues {
    /// Returns whether more waits for the store than it can take in good time.
    fn is_store_lagging(&self) -> bool;
    /// Returns whether any queue is so full that publishers must wait.
    fn are_over_soft(&self) -> bool;
}

/// Keeps whether any publisher or peer waits for room in the queues.
#[derive(Debug, Default)]
pub struct Pressure {
    is_room_wanted: AtomicBool,
}

impl Pressure {
    /// Returns whether publishers are to wait. If so, [`Pressure::take_room`] returns `true` once they need
    /// not wait any longer.
    pub fn holds_publishers(&self, queues: &impl Queues) -> bool {
        if !queues.are_over_soft() {
            return false;
        }
        self.is_room_wanted.store(true, SeqCst);
        // Room may have come since the first look; then nothing more would be taken out, and nobody would be
        // woken.
        queues.are_over_soft()
    }

    /// Returns whether peers that bring records in bulk are to wait. If so, [`Pressure::take_room`] returns
    /// `true` once they need not wait any longer.
    pub fn holds_bulk(&self, queues: &impl Queues) -> bool {
        let is_lagging = queues.is_store_lagging();
        if is_lagging {
            self.is_room_wanted.store(true, SeqCst);
        }
        is_lagging
    }

    /// Returns whether those who wait are to be woken, since there is room again. To be called after
    /// something was taken out of a queue. Returns `true` once for all who wait.
    pub fn take_room(&self, queues: &impl Queues) -> bool {
        self.is_room_wanted.load(SeqCst) && !queues.are_over_soft() && self.is_room_wanted.swap(false, SeqCst)
    }

    /// Returns whether anyone waits until the queues have room again.
    pub fn is_room_awaited(&self) -> bool {
        self.is_room_wanted.load(SeqCst)
    }
}

/// The number of connections of all workers, and the node's bound on it. Connections whose request has not
/// been read yet are counted, too.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    /// Makes a count of no connections, with the bound `max`.
    pub fn new(max: usize) -> Places {
        Places { taken: AtomicUsize::new(0), max }
    }

    /// Counts a connection in. Returns whether it is within the bound. Either way it is counted until
    /// [`Places::give_back`].
    pub fn take(&self) -> bool {
        self.taken.fetch_add(1, Relaxed) < self.max
    }

    /// Counts a connection out.
    pub fn give_back(&self) {
        let taken = self.taken.fetch_sub(1, Relaxed);
        debug_assert!(taken > 0, "a connection was counted out that was not counted in");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Queues whose state is set by hand, and may change between two looks.
    #[derive(Default)]
    struct Fake {
        is_lagging: bool,
        is_over: Cell<bool>,
        drains_after_a_look: bool,
    }

    impl Queues for Fake {
        fn is_store_lagging(&self) -> bool {
            self.is_lagging
        }

        fn are_over_soft(&self) -> bool {
            match self.drains_after_a_look {
                true => self.is_over.replace(false),
                false => self.is_over.get(),
            }
        }
    }

    #[test]
    fn who_waits_is_told_once_there_is_room() {
        let (pressure, queues) = (Pressure::default(), Fake::default());
        assert!(!pressure.holds_publishers(&queues) && !pressure.is_room_awaited());
        queues.is_over.set(true);
        assert!(pressure.holds_publishers(&queues) && pressure.is_room_awaited());
        assert!(!pressure.take_room(&queues), "no room yet");
        queues.is_over.set(false);
        assert!(pressure.take_room(&queues));
        assert!(!pressure.take_room(&queues) && !pressure.is_room_awaited(), "told once");
        let lagging = Fake { is_lagging: true, ..Fake::default() };
        assert!(pressure.holds_bulk(&lagging) && pressure.is_room_awaited());
    }

    #[test]
    fn room_that_comes_between_two_looks_is_not_missed() {
        let queues = Fake { is_over: Cell::new(true), drains_after_a_look: true, ..Fake::default() };
        assert!(!Pressure::default().holds_publishers(&queues));
    }

    #[test]
    fn places_are_within_the_bound_until_it_is_reached() {
        let places = Places::new(2);
        assert!(places.take() && places.take() && !places.take());
        places.give_back();
        places.give_back();
        assert!(places.take());
    }
}
