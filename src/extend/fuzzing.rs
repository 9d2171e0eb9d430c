//! The checks of what admins and other nodes say of what users add.

pub use super::middleware::fuzzing::{middleware, middleware_seeds, module, module_seeds};
