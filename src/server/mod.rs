//! The event loops: sockets, timers, mailboxes.
mod acceptor;
pub mod clock;
mod datagram;
mod head;
mod mailbox;
mod outbound;
mod stream;
mod timer;
mod websocket;
