//! The node as a session sees it.

use std::sync::Arc;

use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;
use crate::latest::Latest;
use crate::record::NodeName;
use crate::server::acks::PublishHost;

/// What a session needs to know of its node, fixed at the start.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub node: NodeName,
    /// [`crate::protocol::token::cluster_key`] of the cluster's name.
    pub cluster: u64,
    /// Bytes of a record's data.
    pub max_record_bytes: usize,
    /// Bytes of a frame.
    pub max_frame_bytes: usize,
    /// How long tombstones are kept, in microseconds.
    pub tombstones_us: u64,
}

/// What a session asks of its node and of its worker.
pub trait Host: PublishHost {
    /// What is fixed.
    fn facts(&self) -> &Facts;
    /// The map.
    fn latest(&self) -> &Latest;
    /// Whether the map holds what the store kept: subscriptions wait for it.
    fn is_loaded(&self) -> bool;
    /// The heads of every origin's lives, this node's own included.
    fn heads(&self) -> Arc<Heads>;
    /// The members as this node sees them.
    fn members(&self) -> Arc<[MemberInfo]>;
    /// How many changes were pushed into this worker's mailbox so far.
    fn mailbox_end(&self) -> u64;
}
