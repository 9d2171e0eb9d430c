//! Runs with the services of a compose file: containers are the machines, and the faults of a profile are what docker and the
//! network namespaces of the containers can do.
//!
//! [`Setup`] reads the compose file and finds out what this machine allows, [`Mapping`] says which parts of a profile are left,
//! and [`Services`] are the running containers as a testbed. What is pure is apart from what runs docker: `parse` reads its
//! JSON, `mapping` and `firewall` say what is to be done, `containers`, `links` and `project` do it.

mod containers;
mod docker;
mod firewall;
mod links;
pub mod mapping;
pub mod parse;
mod project;
mod services;
mod setup;
#[cfg(test)]
mod tests;

pub use docker::refusal;
pub use mapping::Mapping;
pub use project::remove;
pub use services::Services;
pub use setup::Setup;
