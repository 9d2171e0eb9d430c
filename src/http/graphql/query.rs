//! The queries of the schema.

use async_graphql::{Context, Object, Result};

use super::errors::refused;
use super::extension::{GraphqlExtension, GraphqlExtensionKind};
use super::pages::{self, LatestAsked, page_cost};
use super::record::{GraphqlRecord, RecordConnection};
use super::requester::Requester;
use super::types::{GraphqlMember, GraphqlNode, Micros};
use crate::auth::Right;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Source;

/// Cost of a list of definitions, as that of so many fields.
const EXTENSIONS_COST: usize = 100;

/// What can be read.
pub(super) struct QueryRoot;

/// What can be read.
#[Object(name = "Query")]
impl QueryRoot {
    /// The latest record of a source; null if there is none, or it is deleted.
    async fn record(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Name of the source.")] source: String,
    ) -> Result<Option<GraphqlRecord>> {
        let requester = Requester::of(context)?;
        let app = requester.app();
        let checked =
            Source::check(&source).map_err(|error| Refusal::new(Code::BadSource, error.to_string()));
        checked.and_then(|()| requester.check_readable(&source)).map_err(|refusal| refused(app, refusal))?;
        let record = app.node.get(&source).filter(|record| record.is_visible(app.node.now().wall_us));
        Ok(record.map(|record| GraphqlRecord::from(&*record)))
    }

    /// The latest records whose sources match a pattern, in the order of their names. Only those that the token may
    /// read are shown.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn records(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "A source name in which * stands for one segment, and ** at the end for one or more.",
            default = "**"
        )]
        pattern: String,
        #[graphql(desc = "Most records of the page.", default_with = "Some(100)")] first: Option<i32>,
        #[graphql(desc = "Cursor behind which the page begins.")] after: Option<String>,
        #[graphql(desc = "Only records with a greater timestamp.")] updated_since: Option<Micros>,
    ) -> Result<RecordConnection> {
        let requester = Requester::of(context)?;
        let asked = LatestAsked { pattern, first, after, updated_since };
        let checked = requester.check(Right::Subscribe, "read records");
        let found = match checked {
            Ok(()) => pages::latest(requester, asked).await,
            Err(refusal) => Err(refusal),
        };
        found.map(RecordConnection::from).map_err(|refusal| refused(requester.app(), refusal))
    }

    /// Every member of the cluster that this node knows of, itself included.
    async fn members(&self, context: &Context<'_>) -> Result<Vec<GraphqlMember>> {
        let requester = Requester::of(context)?;
        let app = requester.app();
        requester.check(Right::Observe, "observe").map_err(|refusal| refused(app, refusal))?;
        Ok(app.node.members().iter().map(GraphqlMember::from).collect())
    }

    /// What users added to the cluster, in the order of names.
    #[graphql(complexity = "EXTENSIONS_COST + child_complexity")]
    async fn extensions(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "What kind of things.")] kind: GraphqlExtensionKind,
    ) -> Result<Vec<GraphqlExtension>> {
        let requester = Requester::of(context)?;
        let app = requester.app();
        requester.check(Right::Observe, "observe").map_err(|refusal| refused(app, refusal))?;
        let node = app.node.clone();
        let listed = tokio::task::spawn_blocking(move || node.extensions(kind.into())).await;
        let listed = listed.map_err(|error| {
            tracing::error!(%error, "a request failed");
            refused(app, Refusal::new(Code::Internal, "the node failed to answer"))
        })?;
        Ok(listed.into_iter().map(GraphqlExtension::from).collect())
    }

    /// The node that answers.
    async fn node(&self, context: &Context<'_>) -> Result<GraphqlNode> {
        let requester = Requester::of(context)?;
        let app = requester.app();
        requester.check(Right::Observe, "observe").map_err(|refusal| refused(app, refusal))?;
        let (members, readiness) = (app.node.members(), app.node.readiness());
        let myself = members.iter().find(|member| member.identity.name.as_str() == app.node.name());
        Ok(GraphqlNode {
            id: app.node.name().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.is_ok(),
            reason: readiness.err(),
            sources: u64::try_from(app.node.fresh_metrics().sources.get()).unwrap_or(0),
            member: myself.map(GraphqlMember::from),
        })
    }
}
