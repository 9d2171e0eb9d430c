//! Outcomes for people and programs: a table, a line of JSON, curves.
//!
//! Nothing here prints or writes files: it makes text.

mod json;
pub mod plot;
mod text;

pub use json::json_line;
pub use text::{Columns, table};
