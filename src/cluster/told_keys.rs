//! What other members tell of their keys, for those who look after the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::members::{KeyStatus, MemberInfo};
use crate::record::NodeName;

/// The keys of other members, by their addresses. There is one entry for each member at most.
#[derive(Debug, Default)]
pub(super) struct ToldKeys {
    by_address: BTreeMap<SocketAddr, Arc<KeyStatus>>,
}

impl ToldKeys {
    /// Notes what the member at an address tells, if it tells anything.
    pub fn note(&mut self, address: SocketAddr, keys: Option<KeyStatus>) {
        let Some(keys) = keys else { return };
        if self.by_address.get(&address).is_none_or(|known| **known != keys) {
            self.by_address.insert(address, Arc::new(keys));
        }
    }

    /// Forgets the members at other addresses than those that are kept.
    pub fn retain(&mut self, is_kept: impl Fn(SocketAddr) -> bool) {
        self.by_address.retain(|address, _| is_kept(*address));
    }

    /// Adds to each member what it tells, and `mine` to the node of the name `me`.
    pub fn show(&self, members: &mut [MemberInfo], me: &NodeName, mine: Option<KeyStatus>) {
        if mine.is_none() && self.by_address.is_empty() {
            return;
        }
        let mine = mine.map(Arc::new);
        for member in members {
            let told = || self.by_address.get(&member.identity.gossip()).cloned();
            member.keys = if member.identity.name == *me { mine.clone() } else { told() };
        }
    }
}
