//! The subscriptions of the schema.

use async_graphql::{Context, Result, SimpleObject, Subscription, Union};
use futures_util::{Stream, StreamExt};

use super::errors::refused;
use super::feed::{self, FeedAsked, FeedEvent};
use super::record::GraphqlRecord;
use super::requester::Requester;
use super::types::GraphqlMode;
use crate::auth::Right;

/// What can be subscribed to.
pub(super) struct SubscriptionRoot;

/// What a subscription to records brings.
#[derive(Union)]
pub(super) enum RecordEvent {
    /// A record of the snapshot, or one that was published since.
    Record(GraphqlRecord),
    /// The end of the snapshot.
    Eos(EosEvent),
}

/// The end of the snapshot: what comes from here on was published since.
#[derive(SimpleObject)]
#[graphql(name = "Eos")]
pub(super) struct EosEvent {
    /// Token by which a client of /subscribe or /v1/stream may go on from here, at any node of the cluster.
    resume: String,
}

/// What can be subscribed to.
#[Subscription(name = "Subscription")]
impl SubscriptionRoot {
    /// The latest record of every source that matches, the end of that snapshot, and from then on every record that is
    /// published. No record is lost or repeated in between.
    async fn records(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Source names in which * stands for one segment, and ** at the end for one or more."
        )]
        patterns: Vec<String>,
        #[graphql(desc = "Whether the latest records come first.", default_with = "Some(true)")]
        snapshot: Option<bool>,
        #[graphql(
            desc = "What is sent to a client that cannot keep up.",
            default_with = "Some(GraphqlMode::Latest)"
        )]
        mode: Option<GraphqlMode>,
        #[graphql(
            desc = "An expression of CEL over source, data, ts and deleted: only records for which it is true come, and deletions."
        )]
        filter: Option<String>,
    ) -> Result<impl Stream<Item = Result<RecordEvent>> + use<>> {
        let requester = Requester::of(context)?;
        let asked = FeedAsked {
            patterns,
            snapshot: snapshot.unwrap_or(true),
            mode: mode.unwrap_or(GraphqlMode::Latest),
            filter,
        };
        let opened = match requester.check(Right::Subscribe, "subscribe") {
            Ok(()) => feed::open(requester, asked).await,
            Err(refusal) => Err(refusal),
        };
        let feed = opened.map_err(|refusal| refused(requester.app(), refusal))?;
        Ok(feed.map(|event| {
            event.map(|event| match event {
                FeedEvent::Record(record) => RecordEvent::Record(record),
                FeedEvent::Eos(resume) => RecordEvent::Eos(EosEvent { resume }),
            })
        }))
    }
}
