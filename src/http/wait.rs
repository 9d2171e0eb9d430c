//! Long polling: a request that waits until its source has a newer version than the client knows.
//!
//! The request is woken by the change itself ([`Nudge`]), and looks at the map only then. While it waits, it lends its
//! place to others as any connection does that waits for its client, and is answered early if they need it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::app::App;
use super::leased::lease;
use super::places::Seat;
use super::problem::Problem;
use crate::memory::MemoryUse;
use crate::protocol::etag::{EntityTag, TagList};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{Record, SharedRecord};

/// Most requests of a node that wait for changes: as many as there are places for connections.
pub const WATCHES_MAX: usize = 1_024;
/// Longest time for which a request may ask to wait, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 60_000;
/// Memory of a request that waits, besides its connection, in bytes: its entries in the lists, with the longest name.
const WATCH_BYTES: usize = 1_024;

/// Wakes one request that waits for a change.
#[derive(Clone, Debug, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// Wakes the request. Nothing is lost if the request does not wait at the moment.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns whether the request has been woken, and forgets that.
    #[cfg(test)]
    pub fn has_woken(&self) -> bool {
        let woken = pin!(self.0.notified());
        woken.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }
}

/// The place of one request among those that wait for a change. It is given back when it is dropped.
pub trait SourceWatch: Send {}

/// Waits until the source has a version that `known` does not cover, for at most `wait_ms` milliseconds. Without `known`,
/// waits until there is a value. Returns what the source has then.
pub(super) async fn wait_for(
    app: &App,
    seat: &Arc<Seat>,
    source: &str,
    known: Option<&TagList>,
    wait_ms: u64,
) -> Result<Option<SharedRecord>, Problem> {
    let _lease = lease(app, MemoryUse::Answers, WATCH_BYTES)?;
    let mut time = pin!(sleep(Duration::from_millis(wait_ms)));
    let nudge = Nudge::default();
    loop {
        // It is registered first, so that no change comes between.
        let Some(_watch) = app.node.watch(source, nudge.clone()) else {
            let message = format!("{WATCHES_MAX} requests wait for changes at this node, which is the most");
            app.node.metrics().refused(Code::Overloaded);
            return Err(Refusal::new(Code::Overloaded, message).into());
        };
        let found = app.node.get(source);
        if is_news(found.as_deref(), known, app.node.now().wall_us) {
            return Ok(found);
        }
        seat.begin_waiting();
        let is_over = wait_once(app, seat, &nudge, time.as_mut()).await;
        seat.end_waiting();
        if is_over {
            return Ok(app.node.get(source));
        }
    }
}

/// Returns whether the client is to be told of this version.
fn is_news(found: Option<&Record>, known: Option<&TagList>, wall_us: u64) -> bool {
    match (found, known) {
        (None, _) => false,
        (Some(record), None) => record.is_visible(wall_us),
        (Some(record), Some(known)) => !known.covers(EntityTag::of(record, wall_us)),
    }
}

/// Waits for the nudge. Returns `true` if the time is over, if others need the place of the request, or if the node is
/// stopping.
async fn wait_once(
    app: &App,
    seat: &Seat,
    nudge: &Nudge,
    mut time: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    let mut woken = pin!(nudge.0.notified());
    poll_fn(|cx: &mut Context<'_>| {
        // A connection that is cut, and every one of a node that stops, is polled.
        if time.as_mut().poll(cx).is_ready() || seat.is_cut() || app.node.is_stopping() {
            return Poll::Ready(true);
        }
        woken.as_mut().poll(cx).map(|()| false)
    })
    .await
}
