//! Reconciliation
mod riblt;
