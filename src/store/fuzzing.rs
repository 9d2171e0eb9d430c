//! The checks of the store's file, handed on from the backend that reads it.

pub(crate) use super::embedded::fuzzing::{journal, journal_seeds, store, store_seeds};
