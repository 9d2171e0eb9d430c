//! The JSON form of the messages between clients and nodes.

mod auth;
mod export;
mod grammar;
mod problem;
mod publish;
pub mod scan;
mod subscribe;
mod write;

pub use auth::auth_frame;
pub use export::write_export_line;
pub use problem::{ProblemFields, write_problem};
pub use publish::publish_frame;
pub use subscribe::{subscribe_frame, write_notice};
pub use write::{
    write_gone, write_publish_answers, write_published, write_record, write_refusal, write_refusal_facts,
    write_string, write_up_to_data,
};
