//! Tests of the public contract from outside: real processes and real sockets, without any code of the
//! server.

#[path = "../harness/mod.rs"]
mod harness;

mod addresses;
mod admin;
mod api;
mod cassandra;
mod cli;
mod clocks;
mod closing;
mod cluster;
mod config;
mod data;
mod durability;
mod forgery;
mod guide;
mod healing;
mod hostile;
mod http;
mod http_bulk;
mod http_sources;
mod interop;
mod jwt;
mod members;
mod memory;
mod order;
mod pages;
mod publish;
mod quorum;
mod rates;
mod resume;
mod rights;
mod scans;
mod sealed;
mod slow_http;
mod strangers;
mod streams;
mod strict;
mod subscribe;
mod tls;
mod tls_clients;
mod trouble;
mod volume;
