//! Opening files of redb that may be damaged.
//!
//! redb trusts the pages that the header of a file points to. On a disk that has lost what it said it had kept, such a page
//! may hold anything, and redb 4.6 then panics where it should return an error. A panic while a file is opened is
//! therefore taken for damage of the file, so that the node says so, with the name of the file, and ends in good order.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::error::StoreError;

/// Runs `open`, and turns a panic into damage. What `open` was about to make is dropped, so nobody sees it half made.
pub(super) fn guarded<T, E>(
    open: impl FnOnce() -> Result<T, E>,
    damaged: impl FnOnce(StoreError) -> E,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let reason = format!("the file is damaged: {}", message(&*panic));
        Err(damaged(StoreError::Damaged(reason)))
    })
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it cannot be read")
}
