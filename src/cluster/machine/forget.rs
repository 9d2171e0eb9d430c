//! Members that an operator has declared gone for good.

use super::Machine;
use crate::cluster::seal::Seal;
use crate::record::NodeName;

impl<S: Seal> Machine<S> {
    /// Forgets a member that is dead or has left. Does nothing if the member takes part.
    pub fn handle_forget(&mut self, name: &NodeName) {
        self.swim.forget_gone(name);
        self.collect_swim();
    }
}
