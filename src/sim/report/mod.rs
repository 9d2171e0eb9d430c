//! Shows outcomes to people and programs: as a table, as lines of JSON, as plots.
//!
//! Nothing here prints or writes files: all functions return text.

mod json;
pub mod plot;
mod text;

pub use json::json_line;
pub use text::{Columns, table};
