//! Answers whose memory is counted against the node's budget until the client has read them.
//!
//! The bytes of an answer own their lease. hyper keeps them, and no copy of them, until they are sent
//! ([`super::stream`]). So a client that does not read costs its answer once, to the last byte.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::app::{App, typed};
use super::problem::Problem;
use crate::memory::{Lease, MemoryUse, OverBudget};
use crate::protocol::refusal::{Code, Refusal};

/// Bytes, and the lease of their memory.
struct LeasedBytes {
    bytes: Vec<u8>,
    _lease: Lease,
}

impl AsRef<[u8]> for LeasedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Leases `bytes` bytes for a request, or refuses it: as `overloaded` if clients hold as much as they may, and as
/// `too_large` if it would need more than any request may have.
pub(super) fn lease(app: &App, wanted: MemoryUse, bytes: usize) -> Result<Lease, Problem> {
    let mut lease = app.node.memory().lease();
    resize(app, wanted, &mut lease, bytes)?;
    Ok(lease)
}

/// Changes the lease of a request to `bytes` bytes, or refuses the request as [`lease`] does.
pub(super) fn resize(app: &App, wanted: MemoryUse, lease: &mut Lease, bytes: usize) -> Result<(), Problem> {
    lease.set(bytes).map_err(|over| {
        app.node.memory_refused(wanted);
        let code = if let OverBudget::Holder(_) = over { Code::TooLarge } else { Code::Overloaded };
        Refusal::new(code, over.to_string()).into()
    })
}

/// A body whose memory is covered by `lease` until the client has read it.
pub(super) fn leased_body(bytes: Vec<u8>, lease: Lease) -> Body {
    Body::from(Bytes::from_owner(LeasedBytes { bytes, _lease: lease }))
}

/// A body of several pieces, whose memory is covered by `lease` until the client has read all of it.
pub(super) fn leased_pieces(pieces: Vec<Bytes>, lease: Lease) -> Body {
    let lease = Arc::new(lease);
    let left = pieces.iter().map(|piece| piece.len() as u64).sum();
    let owned = |bytes| Bytes::from_owner(LeasedPiece { bytes, _lease: lease.clone() });
    Body::new(PieceBody { pieces: pieces.into_iter().map(owned).collect::<Vec<_>>().into_iter(), left })
}

/// A piece of an answer, and its share of the lease of all of them.
struct LeasedPiece {
    bytes: Bytes,
    _lease: Arc<Lease>,
}

impl AsRef<[u8]> for LeasedPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The pieces that hyper has not taken yet.
struct PieceBody {
    pieces: std::vec::IntoIter<Bytes>,
    /// Length of the pieces in bytes.
    left: u64,
}

impl hyper::body::Body for PieceBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A response whose body is JSON that is written already. Its memory is leased until the client has read it.
pub(super) fn leased_json(app: &App, mut body: Vec<u8>) -> Result<Response, Problem> {
    body.shrink_to_fit();
    let lease = lease(app, MemoryUse::Pages, body.len())?;
    Ok(typed("application/json", leased_body(body, lease)))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use hyper::body::Body as _;

    use super::*;
    use crate::memory::Budget;

    /// The lease was given back when the last piece was handed to hyper, which had not sent it yet.
    #[test]
    fn the_bytes_of_a_body_hold_its_lease_to_the_end() {
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let mut lease = budget.lease();
        lease.set(100_000).expect("leased");
        let mut body = leased_body(vec![7; 100_000], lease);
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Ok(frame))) = polled else { panic!("there is a body") };
        let mut bytes = frame.into_data().expect("data");
        drop(body);
        assert_eq!((bytes.len(), budget.taken()), (100_000, 100_000));
        let rest = bytes.split_off(99_999);
        drop(bytes);
        assert_eq!(budget.taken(), 100_000, "one byte is not sent yet");
        drop(rest);
        assert_eq!(budget.taken(), 0);
    }

    /// A page is sent piece by piece, and each piece that is not sent yet keeps the lease of the whole page.
    #[test]
    fn pieces_are_sent_one_by_one_and_the_last_ends_the_lease() {
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let mut lease = budget.lease();
        lease.set(5).expect("leased");
        let mut body = leased_pieces(vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")], lease);
        assert_eq!(body.size_hint().exact(), Some(5));
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) =
            Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()))
        {
            pieces.push(frame.into_data().expect("data"));
        }
        assert_eq!((pieces.concat(), body.size_hint().exact()), (b"abcde".to_vec(), Some(0)));
        drop(body);
        pieces.remove(0);
        assert_eq!(budget.taken(), 5);
        pieces.clear();
        assert_eq!(budget.taken(), 0);
    }
}
