//! Answers whose memory is counted against the node's budget until the client has read them.
//!
//! A body is handed to hyper in pieces, since hyper copies whatever it is given into a buffer of its own. So a
//! client that does not read costs its answer once, and not twice.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::app::{App, typed};
use super::problem::Problem;
use crate::memory::{Lease, MemoryUse, OverBudget};
use crate::protocol::refusal::{Code, Refusal};

/// Largest piece of a body that hyper is given at a time, in bytes.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// The body of an answer, and the lease of its memory.
struct LeasedBody {
    rest: Bytes,
    _lease: Lease,
}

impl hyper::body::Body for LeasedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let count = self.rest.len().min(PIECE_BYTES_MAX);
        let piece = self.rest.split_to(count);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Leases `bytes` bytes for a request, or refuses it: as `overloaded` if clients hold as much as they may, and as
/// `too_large` if it would need more than any request may have.
pub(super) fn lease(app: &App, wanted: MemoryUse, bytes: usize) -> Result<Lease, Problem> {
    let mut lease = app.node.memory().lease();
    match lease.set(bytes) {
        Ok(()) => Ok(lease),
        Err(over) => {
            app.node.memory_refused(wanted);
            let code = if let OverBudget::Holder(_) = over { Code::TooLarge } else { Code::Overloaded };
            Err(Refusal::new(code, over.to_string()).into())
        }
    }
}

/// A response whose body is JSON that is written already. Its memory is leased until the client has read it.
pub(super) fn leased_json(app: &App, mut body: Vec<u8>) -> Result<Response, Problem> {
    body.shrink_to_fit();
    let lease = lease(app, MemoryUse::Pages, body.len())?;
    Ok(typed("application/json", Body::new(LeasedBody { rest: body.into(), _lease: lease })))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use hyper::body::Body as _;

    use super::*;
    use crate::memory::Budget;

    #[test]
    fn a_body_comes_in_pieces_and_holds_its_lease_to_the_end() {
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let whole: Vec<u8> = (0..100_000).map(|at| at as u8).collect();
        let mut lease = budget.lease();
        lease.set(whole.len()).expect("leased");
        let mut body = LeasedBody { rest: whole.clone().into(), _lease: lease };
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let (mut read, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        while !body.is_end_stream() {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
                panic!("there is more")
            };
            let piece = frame.into_data().expect("data");
            assert!(piece.len() <= PIECE_BYTES_MAX);
            read.extend_from_slice(&piece);
            assert_eq!(budget.taken(), 100_000);
        }
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
        assert!(read == whole);
        drop(body);
        assert_eq!(budget.taken(), 0);
    }
}
