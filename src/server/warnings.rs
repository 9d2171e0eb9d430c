//! Warnings at the start of a node that others can reach without being asked who they are.

use std::net::SocketAddr;

use crate::auth::Door;
use crate::config::Config;
use crate::config::cluster_key::KeyPhase;

/// Warns if others than this machine can reach a node that asks nobody who they are.
pub fn warn_of_strangers(door: &Door, http: SocketAddr) {
    if door.auth().is_none() && !http.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %http,
            "everybody who reaches this address may publish, subscribe and observe: there is no --auth"
        );
    }
}

/// Says that anybody who reaches the gossip port takes part, if that may be others than this machine.
pub fn warn_of_open_gossip(config: &Config) {
    if let Some(keys) = &config.cluster_key
        && keys.phase != KeyPhase::Require
    {
        tracing::info!(
            phase = keys.phase.as_str(),
            "messages without a seal are taken until --cluster-key-phase is require"
        );
    }
    if config.cluster_key.is_none() && !config.gossip.ip().is_loopback() {
        tracing::warn!(
            gossip = %config.gossip,
            "there is no --cluster-key: whoever reaches the gossip address can take part in the cluster, and read and \
             change all records"
        );
    }
}
