//! One middleware in force at this node: its rule, the records that it is for, and how it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use super::bounds::FAILURES_IN_A_ROW_MAX;
use super::rule::{MiddlewareRule, RuleFailure};
use crate::record::Pattern;

/// What becomes of a record when a middleware fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused with `middleware_failed`.
    #[default]
    Refuse,
    /// It goes on as if there were no such middleware.
    Pass,
}

/// A middleware in force.
pub struct MiddlewareLink {
    /// Name of the middleware.
    pub name: String,
    /// Timestamp of the record with its definition, in microseconds, which tells its versions apart.
    pub ts: u64,
    /// The sources whose records it is for.
    pub pattern: Pattern,
    /// Place of the middleware among all: those with smaller numbers decide first, equal ones in the order of names.
    pub order: i64,
    /// What becomes of a record when it fails.
    pub on_failure: OnFailure,
    /// What decides; `None` while that is being prepared, and nothing may pass before.
    pub rule: Option<Arc<dyn MiddlewareRule>>,
    /// How it is doing.
    pub health: LinkHealth,
}

/// How a middleware is doing at this node.
#[derive(Default)]
pub struct LinkHealth {
    failures_in_a_row: AtomicU32,
    is_off: AtomicBool,
    /// The reason of the failure after which it was switched off here.
    reason: Mutex<Option<String>>,
}

impl LinkHealth {
    /// Returns whether it was switched off.
    pub fn is_off(&self) -> bool {
        self.is_off.load(Relaxed)
    }

    /// Switches it off, because another node has.
    pub fn switch_off(&self) {
        self.is_off.store(true, Relaxed);
    }

    /// Notes that it has decided about a record.
    #[inline]
    pub fn note_success(&self) {
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
    }

    /// Notes that it has failed. Returns whether that was once too often, so that it is off now.
    pub fn note_failure(&self, failure: &RuleFailure) -> bool {
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        if failures < FAILURES_IN_A_ROW_MAX || self.is_off.swap(true, Relaxed) {
            return false;
        }
        *self.reason.lock() = Some(failure.0.clone());
        true
    }

    /// Takes the reason for which this node has switched it off since the last call.
    pub fn take_reason(&self) -> Option<String> {
        self.reason.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_in_a_row_switch_it_off() {
        let (health, failure) = (LinkHealth::default(), RuleFailure("bad".into()));
        for _ in 0..3 {
            for _ in 0..FAILURES_IN_A_ROW_MAX - 1 {
                assert!(!health.note_failure(&failure));
            }
            health.note_success();
        }
        assert!(!health.is_off() && health.take_reason().is_none());
        let told = (0..30).filter(|_| health.note_failure(&failure)).count();
        assert_eq!((told, health.is_off()), (1, true));
        assert_eq!((health.take_reason(), health.take_reason()), (Some("bad".into()), None));
    }
}
