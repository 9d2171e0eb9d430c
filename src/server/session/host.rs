//! The node as a session sees it.

use std::sync::Arc;

use crate::auth::Auth;
use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;
use crate::latest::Latest;
use crate::record::NodeName;
use crate::server::acks::PublishHost;

/// Facts about its node that a session needs and that do not change while the node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of this node.
    pub node: NodeName,
    /// The [`cluster_key`](crate::protocol::token::cluster_key) of the cluster's name.
    pub cluster: u64,
    /// Largest data of a record, in bytes.
    pub max_record_bytes: usize,
    /// Largest frame, in bytes.
    pub max_frame_bytes: usize,
    /// Most patterns of one connection.
    pub max_subscriptions: usize,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
}

/// The interface by which a session uses its node and its worker, besides publishing.
pub trait Host: PublishHost {
    /// The facts that do not change.
    fn facts(&self) -> &Facts;
    /// The map of the latest records.
    fn latest(&self) -> &Latest;
    /// Returns whether the map holds everything that the store kept. Subscriptions wait for it.
    fn is_loaded(&self) -> bool;
    /// For every origin and boot number, this node's own included, the number up to which this node holds all
    /// records.
    fn heads(&self) -> Arc<Heads>;
    /// The members of the cluster as this node sees them.
    fn members(&self) -> Arc<[MemberInfo]>;
    /// The file of rights; `None` if the node has none.
    fn auth(&self) -> Option<&Auth>;
    /// Number of changes that were pushed into this worker's mailbox so far.
    fn mailbox_end(&self) -> u64;
}
