//! TLS between a client and the plain bytes that it sends and receives, by rustls.
//!
//! A connection has a [`layer`] that lives in its [`Transport`](super::transport::Transport). The layer encrypts
//! as much as waits for the connection at a time, and gives the socket the outcome in one write, so that
//! encryption costs once a flush and not once a record. It never waits: it hands rustls what the socket has, and takes all plain bytes
//! that come of it. [`identity`] reads certificates and keys, at the start and when they change; [`peer`] finds
//! the name in a client's certificate; [`meter`] counts what the layer holds of records that are not whole.
//!
//! Rejected: `rustls::Stream`, which may wait for ever on a socket that does not block, and rustls' interface
//! without buffers of its own, which would save 4 KiB of a connection and leave its handshakes to us.

mod identity;
mod layer;
mod meter;
mod peer;

pub use identity::{TlsAcceptor, open};
pub use layer::{LAYER_BYTES_MAX, TlsFault, TlsLayer};

#[cfg(test)]
mod tests;
