//! The event loops: sockets, timers, mailboxes.
pub mod clock;
mod head;
mod mailbox;
mod outbound;
mod timer;
mod websocket;
