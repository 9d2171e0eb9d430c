//! The instructions and events by which the machine and its driver handle streams between nodes (TCP).
//!
//! The driver owns the sockets: it is the server, or the simulator. The machine tells it by [`StreamOutput`]
//! what to do, and it tells the machine by [`StreamEvent`] what happened. All parts of the machine that use
//! streams produce this one type of output.

use std::net::SocketAddr;

use bytes::Bytes;

/// Number of one stream, unique for the life of a machine. Streams that peers opened have even numbers, given
/// by the driver; streams that this machine asks for have odd ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// An instruction to the driver about one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamOutput {
    /// Open a stream. The driver answers with [`StreamEvent::Opened`] or [`StreamEvent::Closed`].
    Connect {
        /// Number of the new stream.
        stream: StreamId,
        /// Address of the peer.
        to: SocketAddr,
    },
    /// Send bytes on a stream after everything written before. The driver keeps what the socket does not
    /// take, and says [`StreamEvent::Drained`] when all of it is out; the machine bounds how much is in
    /// flight.
    Write {
        /// Number of the stream.
        stream: StreamId,
        /// Bytes to send.
        bytes: Bytes,
    },
    /// Close a stream once everything written on it is out. No event of this stream follows.
    Close {
        /// Number of the stream.
        stream: StreamId,
    },
}

/// Something that happened to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A peer opened the stream to this node.
    Accepted {
        /// Address of the peer's end.
        from: SocketAddr,
    },
    /// The stream that was asked for is open.
    Opened,
    /// Bytes arrived. They come in order, but cut at arbitrary places.
    Received(Bytes),
    /// Everything written so far has left this process.
    Drained,
    /// The stream has ended: the peer closed it, it failed, or it could not be opened.
    Closed,
}
