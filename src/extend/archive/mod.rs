//! Archives: what changed since the last one is written to S3, IPFS or Tableland at intervals, and can be verified and restored.
//!
//! An archive is a folder of frames with records ([`frame`]) and a manifest ([`manifest`]), which is written last, so it
//! is whole or absent. A full archive has everything; each further one has what the resume token of the one before does
//! not cover ([`checkpoint`], [`collect`]), so the archives form chains ([`chain`]). The store says which archives there
//! are ([`store`]), and records of the system's names say the same to the cluster ([`records`]).
//!
//! Rejected: archives by timestamp. Publishers choose timestamps, and a record that was late, or on the other side of a
//! partition, would be in no archive.

mod chain;
mod checkpoint;
mod collect;
mod definition;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ipfs;
mod job;
mod kubo_answer;
mod lineage;
mod manifest;
mod progress;
mod records;
mod restore;
mod runner;
mod s3;
mod store;
mod tableland;
mod verify;
mod write;

pub use definition::ArchiveDefinition;
pub use job::{begin_job, listed_archives};
pub use runner::ArchiveRunner;
