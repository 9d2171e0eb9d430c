//! Framing: how whole messages stand in the bytes of a connection.
//!
//! A session hands over and is handed messages; which bytes stand around them is decided here, so that a
//! session serves every framing. The two directions are apart:
//! - [`wrap`] is the way out. It has no state: the frame of a message depends on the message alone, so it
//!   is made once for each codec and framing, and copied into the buffer of every connection that wants it.
//! - [`read`] is the way in. It keeps what a connection needs to find the messages in what arrives.
//!
//! There are WebSocket ([`websocket`], with the layout of its frames in [`frame_head`], and the check of text that
//! arrives in pieces in [`text_check`]) and Server-Sent Events ([`event_stream`]). Another one is a file beside them and an
//! arm in each `match` of [`wrap`] and [`read`].
//! [`message`] has the types that sessions and framings share.

pub mod event_stream;
mod frame_head;
pub mod message;
pub mod read;
mod text_check;
mod websocket;
pub mod wrap;
