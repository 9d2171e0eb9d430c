//! The body of a publish, read as it arrives.
//!
//! Nothing of the node is taken while a body arrives but its place and its memory, which both have bounds
//! ([`super::places`]); so slow bodies do not hold up others. A body that arrives too slowly is cut.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};

use super::app::App;
use super::pace::{PACE_WINDOW, PACE_WINDOW_BYTES, Pace};
use super::places::{HeldBody, Seat};
use super::problem::Problem;
use crate::protocol::refusal::{Code, Refusal};

/// Number of windows of the least rate in which a body must arrive.
const BODY_WINDOWS_MAX: u32 = 3;

/// Reads the body of a publish to its end. Afterwards its client is not waited for any longer.
pub(super) async fn read(app: &App, seat: &Arc<Seat>, body: Body) -> Result<HeldBody, Problem> {
    read_up_to(app, seat, body, app.body_bytes_max).await
}

/// Reads a body of at most `bytes_max` bytes as [`read`] does.
pub(super) async fn read_up_to(
    app: &App,
    seat: &Arc<Seat>,
    body: Body,
    bytes_max: usize,
) -> Result<HeldBody, Problem> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(app, bytes_max));
    }
    let mut held = seat.hold_body();
    let mut pieces = BodyPieces::within(body, BODY_WINDOWS_MAX);
    while let Some(piece) = pieces.next(app, seat).await? {
        if held.bytes().len() + piece.len() > bytes_max {
            return Err(too_large(app, bytes_max));
        }
        held.extend(&piece);
    }
    seat.end_waiting();
    Ok(held)
}

/// The pieces of a body, which must arrive at the least rate.
pub(super) struct BodyPieces {
    body: Body,
    pace: Option<Pace>,
    /// Number of windows of the least rate within which the body must have arrived.
    windows_max: u32,
}

impl BodyPieces {
    /// The pieces of a body of any length, which may take any time.
    pub(super) fn new(body: Body) -> BodyPieces {
        BodyPieces::within(body, u32::MAX)
    }

    fn within(body: Body, windows_max: u32) -> BodyPieces {
        BodyPieces { body, pace: None, windows_max }
    }

    /// Waits for the next piece; `None` at the end of the body.
    pub(super) async fn next(&mut self, app: &App, seat: &Seat) -> Result<Option<Bytes>, Problem> {
        poll_fn(|cx| self.poll_next(app, seat, cx)).await
    }

    /// Notes that the body was not read for a while, for which the client is not to blame.
    pub(super) fn handle_pause(&mut self) {
        self.pace = None;
    }

    fn poll_next(
        &mut self,
        app: &App,
        seat: &Seat,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Problem>> {
        if seat.is_cut() {
            let detail = "others needed the place or the memory of this request while its body arrived";
            return Poll::Ready(Err(Problem::new(Code::Overloaded, detail)));
        }
        loop {
            return match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => Poll::Ready(Ok(None)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing that anybody wants to know.
                    let Ok(piece) = frame.into_data() else { continue };
                    if let Some(pace) = &mut self.pace {
                        pace.handle_moved(piece.len());
                    }
                    Poll::Ready(Ok(Some(piece)))
                }
                Poll::Ready(Some(Err(error))) => {
                    let detail = format!("the body did not arrive whole: {error}");
                    Poll::Ready(Err(Refusal::new(Code::BadRequest, detail).into()))
                }
                Poll::Pending => {
                    let pace = self.pace.get_or_insert_with(Pace::start);
                    if pace.poll_too_slow(cx).is_pending() && pace.windows() < self.windows_max {
                        return Poll::Pending;
                    }
                    app.node.metrics().http_cuts.slow_body.increment();
                    Poll::Ready(Err(too_slow()))
                }
            };
        }
    }
}

fn too_slow() -> Problem {
    let seconds = PACE_WINDOW.as_secs();
    let detail = format!(
        "the body arrives too slowly: at least {PACE_WINDOW_BYTES} bytes in {seconds} s are needed, and all of \
         it within {} s",
        seconds * u64::from(BODY_WINDOWS_MAX)
    );
    Problem::new(Code::TooSlow, detail)
}

fn too_large(app: &App, bytes_max: usize) -> Problem {
    app.node.metrics().refused(Code::TooLarge);
    Refusal::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes")).into()
}
