//! The keys of a machine: those that it is configured with, and those that it is given later.

use super::Machine;
use crate::cluster::members::MemberInfo;
use crate::cluster::seal::{ClusterSeal, KeyMismatch, Keyring, Seal};
use crate::cluster::{MachineConfig, Replica};
use crate::record::Now;

impl Machine {
    /// A node that knows no other member, and whose messages are sealed with the keys of its configuration.
    pub fn new(config: MachineConfig, now: Now) -> Machine {
        let seal = ClusterSeal::new(&config.cluster_name, &config.name, config.boot, config.keys.clone());
        Machine::with_seal(config, now, seal)
    }

    /// Takes other keys, if the node has keys. Streams that began with a key which is no longer among them end: who has
    /// that key alone takes part no more.
    pub fn handle_keys(&mut self, now: Now, keyring: &Keyring, replica: &mut dyn Replica) {
        self.wire.seal_mut().set_keys(keyring);
        for stream in self.streams.outdated(self.wire.seal()) {
            self.end_stream(now, stream, replica);
        }
        self.collect(now, replica);
    }

    /// Takes the last message that was refused since its sender and this node have no key in common.
    pub fn take_key_mismatch(&mut self) -> Option<KeyMismatch> {
        self.wire.seal_mut().take_mismatch()
    }
}

impl<S: Seal> Machine<S> {
    /// All members, this node included, by name, with what they tell of their keys.
    pub fn members(&self) -> Vec<MemberInfo> {
        let mut members = self.swim.members();
        self.told_keys.show(&mut members, &self.swim.identity().name, self.wire.seal().key_status());
        members
    }
}
