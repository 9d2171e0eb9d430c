//! Wakes the thread that writes, lets it rest, and tells it to end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Orders to the thread that writes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Orders {
    /// Whether the thread is to write what waits and then end.
    pub(in crate::store) stop: bool,
    /// Whether the thread is to end at once, whatever waits.
    pub(in crate::store) abandon: bool,
}

/// Bell that everyone may ring and that one thread listens to. Ringing it while it still rings costs
/// one read.
#[derive(Default)]
pub(in crate::store) struct Bell {
    rung: AtomicBool,
    orders: Mutex<Orders>,
    woken: Condvar,
    /// Function that is called at every ring, for a thread that does not wait on `woken`.
    listener: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Bell {
    /// Sets a function that is called at every ring, for a thread that does not call
    /// [`Bell::wait_for_work`]. To be set once, before anyone rings.
    pub(in crate::store) fn set_listener(&self, listener: Box<dyn Fn() + Send + Sync>) {
        let is_first = self.listener.set(listener).is_ok();
        debug_assert!(is_first, "one thread listens");
    }

    /// Wakes the thread.
    pub(in crate::store) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            drop(self.orders.lock());
            self.wake();
        }
    }

    /// Wakes the thread after a push. It costs one read while the bell still rings: the lane's lock
    /// orders the push before the writer's look into the lane, or after its silencing the bell.
    pub(in crate::store) fn ring_for_push(&self) {
        if !self.rung.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Tells the thread to write what waits and end, or with `abandon` to end at once.
    pub(in crate::store) fn stop(&self, abandon: bool) {
        let mut orders = self.orders.lock();
        orders.stop = true;
        orders.abandon |= abandon;
        drop(orders);
        self.wake();
    }

    fn wake(&self) {
        self.woken.notify_all();
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    /// Silences the bell and returns the orders. For a thread that has set a listener.
    pub(in crate::store) fn take_orders(&self) -> Orders {
        let orders = self.orders.lock();
        self.rung.swap(false, Ordering::AcqRel);
        *orders
    }

    /// Returns whether the thread is to write what waits and end.
    pub(in crate::store) fn is_stopping(&self) -> bool {
        self.orders.lock().stop
    }

    /// Returns whether what waits is given up.
    pub(in crate::store) fn is_abandoned(&self) -> bool {
        self.orders.lock().abandon
    }

    /// Sleeps until the bell rings, the thread is told to stop, or `timeout` has passed. Returns whether it
    /// is to stop.
    pub(in crate::store) fn wait_for_work(&self, timeout: Option<Duration>) -> bool {
        let mut orders = self.orders.lock();
        let is_idle = |orders: &mut Orders| !orders.stop && !self.rung.load(Ordering::Acquire);
        match timeout {
            Some(timeout) => drop(self.woken.wait_while_for(&mut orders, is_idle, timeout)),
            None => self.woken.wait_while(&mut orders, is_idle),
        }
        // Makes visible what was stored before the ring.
        self.rung.swap(false, Ordering::AcqRel);
        orders.stop
    }

    /// Sleeps for `time` so that the next group can gather. Ends at once when told to stop.
    pub(in crate::store) fn rest(&self, time: Duration) {
        let mut orders = self.orders.lock();
        self.woken.wait_while_for(&mut orders, |orders| !orders.stop, time);
    }

    /// Sleeps for `time` between two tries. Ends at once when what waits is given up.
    pub(in crate::store) fn pause(&self, time: Duration) {
        let mut orders = self.orders.lock();
        self.woken.wait_while_for(&mut orders, |orders| !orders.abandon, time);
    }
}
