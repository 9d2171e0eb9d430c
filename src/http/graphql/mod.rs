//! GraphQL at `/graphql`: queries and mutations by GET and POST, subscriptions over a WebSocket.
//!
//! A request passes these files: [`handler`] reads it from HTTP, [`document`] bounds what its text may ask for, and the
//! schema answers it ([`query`], [`mutation`], [`subscription`], with the types of [`record`] and [`types`]). Whoever asks
//! is known to all of them as the [`requester`], which has the rights and the memory of the request. Publishes go through
//! the same gate as those of `POST /v1/publish`, and pages come from the same searches as those of `/v1/sources`.
//!
//! A WebSocket changes hands as [`super::upgrade`] says, after [`handshake`]. [`socket`] drives it: it speaks
//! `graphql-transport-ws` ([`messages`]) and runs the operations. The records of a subscription come from an event loop
//! ([`feed`]).
//!
//! The schema is made when it is first asked for, so that a node on which nobody uses GraphQL does not hold it.
//!
//! Rejected: async-graphql's own WebSocket, which closes connections with other codes than the protocol names, and its
//! integration with axum, which brings a second implementation of WebSocket.

mod document;
mod errors;
mod extension;
mod feed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod graphiql;
mod handler;
mod handshake;
mod messages;
mod mutation;
mod operations;
mod pages;
mod permits;
mod query;
mod record;
mod requester;
mod schema;
mod socket;
mod subscription;
mod types;

pub(super) use self::graphiql::{page_file, wants_page};
pub(super) use self::handler::{get, post};
pub(super) use self::handshake::asks_for_socket;
pub(super) use self::schema::Engine;
