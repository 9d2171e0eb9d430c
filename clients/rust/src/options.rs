//! The settings of a client, and its fixed bounds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::AnodeError;

/// How long opening one connection may take, greeting included.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(5);
/// After this time a connection counts as one that served, so that waits begin small again.
pub(crate) const SERVED: Duration = Duration::from_secs(5);
/// How long a node may be silent if its greeting names no other time, in milliseconds.
pub(crate) const PING_MS_DEFAULT: u64 = 25_000;
/// The longest silence that a greeting may name, in milliseconds. Longer ones are cut to it.
pub(crate) const PING_MS_MAX: u64 = 3_600_000;
/// The longest time limit: ten years, so that the end of any limit can be computed.
const LIMIT_MAX: Duration = Duration::from_secs(315_360_000);
/// Records that a subscription reads ahead of the program; then the node is not read from.
pub(crate) const READ_AHEAD_RECORDS: usize = 1_024;
/// Bytes of records that a subscription reads ahead of the program.
pub(crate) const READ_AHEAD_BYTES: u32 = 1024 * 1024;

/// Returns the end of a time limit that begins now.
pub(crate) fn end_of(limit: Duration) -> Instant {
    Instant::now() + limit.min(LIMIT_MAX)
}

type ErrorHook = Arc<dyn Fn(&AnodeError) + Send + Sync>;

/// The settings that all parts of a client share.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) outstanding_max: u32,
    pub(crate) outstanding_bytes_max: u32,
    pub(crate) on_error: Option<ErrorHook>,
}

impl Options {
    /// Tells the user of a failure that the client handles by itself.
    pub(crate) fn report(&self, error: &AnodeError) {
        if let Some(hook) = &self.on_error {
            hook(error);
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(10),
            outstanding_max: 1_024,
            outstanding_bytes_max: 4 * 1024 * 1024,
            on_error: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("publish_timeout", &self.publish_timeout).finish_non_exhaustive()
    }
}
