//! Tests of the public contract from outside: real processes and real sockets, without any code of the
//! server.

#[path = "../harness/mod.rs"]
mod harness;

mod addresses;
mod cassandra;
mod cli;
mod closing;
mod cluster;
mod config;
mod data;
mod durability;
mod forgery;
mod healing;
mod hostile;
mod http;
mod interop;
mod members;
mod memory;
mod order;
mod publish;
mod quorum;
mod resume;
mod scans;
mod sealed;
mod slow_http;
mod strangers;
mod strict;
mod subscribe;
mod trouble;
mod volume;
