//! Pull: the cluster fetches. A definition says from where, how often, and what becomes of what comes; one live member
//! runs it.
//!
//! What comes is cut into documents ([`document`]), which rules turn into records ([`mapping`]) that go into the node at
//! a bounded rate ([`feed`]). Everything that may take long (files, names of hosts, large answers) is done on threads
//! for it, and everything else in small steps on the one thread of all extensions. So a server that does not answer, a
//! disk that hangs or a program that prints without end holds up no other pull source.

mod cel;
mod definition;
mod document;
mod exec;
mod feed;
mod fields;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod kafka;
mod lines;
mod mapped;
mod mapping;
mod moment;
mod mqtt;
mod pace;
mod pointer;
mod runner;
mod secret;
mod seen;
mod socket;
mod target;
mod template;
mod trial;
mod trust;

pub(crate) use definition::PullDefinition;
pub(crate) use mapped::PullDraft;
pub(crate) use runner::PullRunner;
pub(crate) use trial::{try_at_node, try_once};
