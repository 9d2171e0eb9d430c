//! Chooses the node of Cassandra that a statement is sent to.
//!
//! A statement with a key is sent to a replica of its partition; a batch to each node in turn, since each
//! holds everything where there are batches (see `link`). Statements that no key places (schema, system
//! tables) are all sent to the same node, the one that is up and has the least host id: so whatever number
//! of aNodes start at once, changes of the schema are made one after the other by one coordinator, and
//! `IF NOT EXISTS` is exact.
//!
//! A node that hangs keeps its connections, so the driver goes on sending to it. So a request that one
//! node does not answer in time is sent to another one too (see `session`), and the node that was outrun
//! is asked last for a while.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cdrs_tokio::cluster::topology::NodeState;
use cdrs_tokio::cluster::{ClusterMetadata, ConnectionManager};
use cdrs_tokio::load_balancing::{
    LoadBalancingStrategy, QueryPlan, Request, TopologyAwareLoadBalancingStrategy,
};
use cdrs_tokio::transport::CdrsTransport;
use parking_lot::Mutex;

/// Time for which a node that was silent is asked after all others.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// Nodes that did not answer in time, shared by all that hold a clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentNodes(Arc<Mutex<Vec<SocketAddr>>>);

impl SilentNodes {
    fn contains(&self, node: SocketAddr) -> bool {
        self.0.lock().contains(&node)
    }

    /// Makes a node the last to be asked, for [`PASSED_OVER`].
    pub(super) fn pass_over(&self, node: SocketAddr) {
        let mut silent = self.0.lock();
        if silent.contains(&node) {
            return;
        }
        silent.push(node);
        tracing::warn!(%node, "a node of Cassandra is silent; the others are asked first");
        let silent = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PASSED_OVER).await;
            silent.lock().retain(|passed_over| *passed_over != node);
        });
    }
}

/// The first attempt of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    /// Whether the request may be sent to any node, although no key places it; then the nodes take turns.
    pub(super) is_anywhere: bool,
    /// The node that the request was sent to; `None` before it is sent.
    pub(super) node: Option<SocketAddr>,
    /// Whether there are other nodes that the request can be sent to.
    pub(super) has_others: bool,
}

tokio::task_local! {
    /// The request that is being made. It is passed like this because the driver asks for the plan of a
    /// request deep inside.
    pub(super) static TRIED: Cell<Tried>;
}

/// The strategy that the driver asks for the nodes to try, in order.
pub(super) struct Placing<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> {
    by_key: TopologyAwareLoadBalancingStrategy<T, CM>,
    silent: SilentNodes,
}

impl<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> Placing<T, CM> {
    /// A strategy that asks the nodes of `silent` last.
    pub(super) fn new(silent: SilentNodes) -> Placing<T, CM> {
        Placing { by_key: TopologyAwareLoadBalancingStrategy::new(None, false), silent }
    }

    fn placed(&self, request: Option<Request<'_>>, cluster: &ClusterMetadata<T, CM>) -> QueryPlan<T, CM> {
        let is_anywhere = TRIED.try_with(|tried| tried.get().is_anywhere).unwrap_or(false);
        let has_no_key =
            request.as_ref().is_some_and(|request| request.token.is_none() && request.routing_key.is_none());
        if has_no_key && !is_anywhere {
            let mut nodes = cluster.unignored_nodes();
            nodes.sort_by_key(|node| (node.state() != NodeState::Up, node.host_id()));
            return QueryPlan { nodes };
        }
        self.by_key.query_plan(request, cluster)
    }
}

impl<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> LoadBalancingStrategy<T, CM>
    for Placing<T, CM>
{
    fn query_plan(&self, request: Option<Request<'_>>, cluster: &ClusterMetadata<T, CM>) -> QueryPlan<T, CM> {
        let mut plan = self.placed(request, cluster);
        // A change of the schema is made without TRIED, and is always sent to the same node.
        let _ = TRIED.try_with(|tried| {
            let Tried { node: first, has_others, is_anywhere } = tried.get();
            plan.nodes.sort_by_key(|node| {
                let node = node.broadcast_rpc_address();
                (first == Some(node), self.silent.contains(node))
            });
            if first.is_none() {
                let node = plan.nodes.first().map(|node| node.broadcast_rpc_address());
                tried.set(Tried { node, has_others: has_others || plan.nodes.len() > 1, is_anywhere });
            }
        });
        plan
    }
}
