//! The tokens under which sockets are registered with a worker's poll, and the socket that each stands for.
//!
//! All of them are handed out here, so that no two sockets of a worker share a token.

use mio::Token;

use crate::cluster::StreamId;

/// Token of the waker of the worker's mailbox.
pub const WAKER: Token = Token(0);
/// Token of the cluster's UDP socket.
pub const DATAGRAMS: Token = Token(1);
/// Token of the listener for streams of other nodes.
pub const PEERS: Token = Token(2);
/// Token of the listener for clients.
pub const CLIENTS: Token = Token(3);
/// Token of the listener for those who watch the node.
pub const WATCHERS: Token = Token(4);
/// Connections of clients have tokens from here on, by their place in the worker's table.
const FIRST_CONNECTION: usize = 16;
/// Tokens of streams are their numbers with this bit.
const STREAM_BIT: usize = 1 << (usize::BITS - 1);

/// The source of an event of the poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The mailbox, or anyone who wants the worker to take another turn.
    Waker,
    /// The cluster's UDP socket.
    Datagrams,
    /// The listener for streams of other nodes.
    Peers,
    /// A stream to another node.
    Stream(StreamId),
    /// The listener for clients.
    Clients,
    /// The listener for those who watch the node.
    Watchers,
    /// The connection at this place of the worker's table.
    Connection(usize),
}

/// The token of the connection at a place of the worker's table.
pub fn of_connection(key: usize) -> Token {
    debug_assert!(key < STREAM_BIT - FIRST_CONNECTION, "a table has fewer places");
    Token(key + FIRST_CONNECTION)
}

/// The token of a stream to another node.
pub fn of_stream(id: StreamId) -> Token {
    Token(id.0 as usize | STREAM_BIT)
}

/// Returns the source that the token of an event stands for.
pub fn source_of(token: Token) -> EventSource {
    match token {
        WAKER => EventSource::Waker,
        DATAGRAMS => EventSource::Datagrams,
        PEERS => EventSource::Peers,
        CLIENTS => EventSource::Clients,
        WATCHERS => EventSource::Watchers,
        Token(number) if number & STREAM_BIT != 0 => {
            EventSource::Stream(StreamId((number & !STREAM_BIT) as u64))
        }
        // Numbers that nobody hands out are read as a place that no table has.
        Token(number) => EventSource::Connection(number.wrapping_sub(FIRST_CONNECTION)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_says_whose_it_is() {
        for (token, source) in [
            (WAKER, EventSource::Waker),
            (DATAGRAMS, EventSource::Datagrams),
            (PEERS, EventSource::Peers),
            (CLIENTS, EventSource::Clients),
            (WATCHERS, EventSource::Watchers),
        ] {
            assert_eq!(source_of(token), source);
        }
        for number in [0, 1, 2, 1 << 40] {
            assert_eq!(source_of(of_connection(number)), EventSource::Connection(number));
            let stream = StreamId(number as u64);
            assert_eq!(source_of(of_stream(stream)), EventSource::Stream(stream));
        }
    }
}
