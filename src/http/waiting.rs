//! Pages whose clients may have gone.
//!
//! Pages are put together one after the other. A client that goes away without a word has ended its side of the
//! connection, as one has that sends its request and then waits for the answer: only what is sent to it tells the two
//! apart. So a page for such a client is made if its turn comes soon, and not if many others are before it. Else a
//! node would make pages for minutes after the clients that asked for them have gone.

use std::sync::Arc;

use super::app::App;
use super::places::Seat;
use super::problem::Problem;
use crate::protocol::refusal::Code;

/// Time after which no page is made any longer for a client that has ended its side of the connection, in microseconds.
const ENDED_WAIT_US_MAX: u64 = 1_000_000;

/// The wait of one request for its page.
pub(super) struct PageWait {
    seat: Arc<Seat>,
    since_us: u64,
}

impl PageWait {
    /// Begins when the request has come.
    pub(super) fn begin(app: &App, seat: Arc<Seat>) -> PageWait {
        PageWait { seat, since_us: app.node.now().mono_us }
    }

    /// Ends the request if its client has ended its side and the page has taken long. To be called before each part of
    /// the work.
    pub(super) fn check(&self, app: &App) -> Result<(), Problem> {
        let waited_us = app.node.now().mono_us.saturating_sub(self.since_us);
        if waited_us > ENDED_WAIT_US_MAX && self.seat.has_client_ended() {
            let detail =
                "the client has ended its side of the connection, and other pages were before this one";
            return Err(Problem::new(Code::Overloaded, detail));
        }
        Ok(())
    }
}
