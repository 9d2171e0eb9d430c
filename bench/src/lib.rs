//! The pieces of work that the micro benchmarks and the count of instructions share.
#![forbid(unsafe_code)]

pub mod micro;
