//! Expressions that are in use, of which all who use the same text share one.
//!
//! Thousands of clients subscribe with the same filter. Reading it takes some ten microseconds, and what was read holds
//! several times the memory of the text. So it is read for the first of them, found by its text for all others, and
//! forgotten with the last. What an expression says does not depend on who shares it.
//!
//! Rejected: a table for each event loop, because requests are read before it is known which event loop they are for.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{BadExpression, Dialect, Expression};

/// The filters that are in use, by their texts.
static IN_USE: Mutex<BTreeMap<Arc<str>, Weak<InUse>>> = Mutex::new(BTreeMap::new());

/// A filter that takes itself out of the table of those in use when nobody uses it any more.
#[derive(Debug, PartialEq, Eq)]
struct InUse(Expression);

impl Drop for InUse {
    fn drop(&mut self) {
        let mut in_use = IN_USE.lock();
        // Another thread may have read the same text again in the meantime.
        if in_use.get(self.0.text()).is_some_and(|found| found.strong_count() == 0) {
            in_use.remove(self.0.text());
        }
    }
}

/// The expression of a filter, which is shared by all who use the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedExpression(Arc<InUse>);

impl SharedExpression {
    /// Returns the filter with this text, which is read unless somebody uses it. An error names the line and the column.
    pub fn filter(text: &str) -> Result<SharedExpression, BadExpression> {
        SharedExpression::found_or_read(text, |text| Expression::compile(text, Dialect::Filter))
    }

    fn found_or_read(
        text: &str,
        read: impl FnOnce(&str) -> Result<Expression, BadExpression>,
    ) -> Result<SharedExpression, BadExpression> {
        let found = IN_USE.lock().get(text).and_then(Weak::upgrade);
        if let Some(found) = found {
            return Ok(SharedExpression(found));
        }
        // Nobody else has to wait while this text is read.
        let expression = read(text)?;
        let mut in_use = IN_USE.lock();
        if let Some(found) = in_use.get(text).and_then(Weak::upgrade) {
            return Ok(SharedExpression(found));
        }
        let text = expression.text.clone();
        let shared = Arc::new(InUse(expression));
        in_use.insert(text, Arc::downgrade(&shared));
        Ok(SharedExpression(shared))
    }

    /// Returns how many handles there are of the filter with this text.
    #[cfg(test)]
    pub fn users(text: &str) -> usize {
        IN_USE.lock().get(text).map_or(0, Weak::strong_count)
    }
}

impl Deref for SharedExpression {
    type Target = Expression;

    fn deref(&self) -> &Expression {
        &self.0.0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Other tests use the same table, so each test here has a text of its own.
    fn is_in_use(text: &str) -> bool {
        IN_USE.lock().contains_key(text)
    }

    #[test]
    fn a_text_is_read_once_for_all_who_use_it_and_forgotten_with_the_last() {
        const TEXT: &str = "data.read_once > 1";
        let reads = Cell::new(0);
        let read = |text: &str| {
            reads.set(reads.get() + 1);
            Expression::compile(text, Dialect::Filter)
        };
        let enter = || SharedExpression::found_or_read(TEXT, read).expect("a filter");
        let mut users: Vec<SharedExpression> = (0..1_000).map(|_| enter()).collect();
        assert_eq!((reads.get(), SharedExpression::users(TEXT)), (1, 1_000));
        assert!(users.iter().all(|user| std::ptr::eq::<Expression>(&**user, &*users[0])));
        users.truncate(1);
        assert!(is_in_use(TEXT));
        users.clear();
        assert!(!is_in_use(TEXT), "the last user was the last to hold it");
        drop(enter());
        assert_eq!(reads.get(), 2);
    }

    #[test]
    fn a_text_that_is_no_filter_leaves_nothing_behind() {
        const TEXT: &str = "data.left_behind >";
        assert!(SharedExpression::filter(TEXT).is_err());
        assert!(!is_in_use(TEXT));
    }

    /// A thread that has given its expression up may be overtaken by another one that reads the same text.
    #[test]
    fn who_goes_late_leaves_the_one_that_came_meanwhile() {
        const TEXT: &str = "data.goes_late > 1";
        let late = InUse(Expression::compile(TEXT, Dialect::Filter).expect("a filter"));
        let held = SharedExpression::filter(TEXT).expect("a filter");
        drop(late);
        assert_eq!(SharedExpression::users(TEXT), 1);
        drop(held);
        assert!(!is_in_use(TEXT));
    }

    /// Threads that read the same text at the same time end with one expression.
    #[test]
    fn threads_that_come_and_go_at_the_same_time_share_one() {
        const TEXT: &str = "data.by_threads > 1";
        let barrier = std::sync::Barrier::new(4);
        for _ in 0..200 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        drop(SharedExpression::filter(TEXT));
                        let held = SharedExpression::filter(TEXT).expect("a filter");
                        let again = SharedExpression::filter(TEXT).expect("a filter");
                        assert!(Arc::ptr_eq(&held.0, &again.0), "what is held is found");
                        barrier.wait();
                        let among = SharedExpression::users(TEXT);
                        barrier.wait();
                        assert_eq!(among, 8, "all threads hold the same one");
                    });
                }
            });
            assert!(!is_in_use(TEXT));
        }
    }
}
