//! The face of a kind of which each definition is run by one member.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::definition::Definition;
use super::host::ExtendHost;
use super::state::StateWriter;

/// What runs a definition. It is dropped wherever it waits when the definition is no longer this member's to run.
pub type Run = Pin<Box<dyn Future<Output = ()>>>;

/// Runs the definitions of one kind.
pub trait Runner {
    /// Returns the reason why this node cannot run the definition, if there is one. Another member runs it then. Called
    /// once in some seconds, so the reason may go away.
    fn cannot(&self, definition: &Definition, host: &dyn ExtendHost) -> Option<String>;
    /// Makes what runs the definition. If it ends, it is not run again before the definition is put anew; if it
    /// panics, it is run again after some seconds.
    fn run(&self, definition: Rc<Definition>, context: RunContext) -> Run;
}

/// What a definition that runs is given.
#[derive(Clone)]
pub struct RunContext {
    /// The node that it runs at.
    pub host: Arc<dyn ExtendHost>,
    /// The way to tell how it is doing.
    pub state: StateWriter,
}
