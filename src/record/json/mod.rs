//! The JSON form of what clients send and are sent.

mod publish;
pub mod scan;
mod write;

pub use publish::publish_frame;
pub use write::{write_publish_answer, write_published, write_record, write_string};
