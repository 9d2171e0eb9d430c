//! The schema, made when it is first needed, and how it answers.

use std::sync::{Arc, OnceLock};

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response, Schema};
use futures_util::stream::BoxStream;

use super::document::{self, COMPLEXITY_MAX, DIRECTIVES_MAX, INTROSPECTION_DEPTH_MAX};
use super::errors::give_codes;
use super::mutation::MutationRoot;
use super::permits::Permits;
use super::query::QueryRoot;
use super::requester::Requester;
use super::subscription::SubscriptionRoot;
use crate::protocol::refusal::{Code, Refusal};

/// The schema of all that GraphQL can be asked for.
type GraphqlSchema = Schema<QueryRoot, MutationRoot, SubscriptionRoot>;

/// What answers requests of GraphQL. Every control plane has one.
pub(in crate::http) struct Engine {
    schema: OnceLock<GraphqlSchema>,
    permits: Arc<Permits>,
}

impl Engine {
    /// An engine that may have `sockets_max` WebSockets at a time.
    pub(in crate::http) fn new(sockets_max: usize) -> Engine {
        Engine { schema: OnceLock::new(), permits: Arc::new(Permits::new(sockets_max)) }
    }

    /// The places for WebSockets and subscriptions.
    pub(super) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    fn schema(&self) -> &GraphqlSchema {
        self.schema.get_or_init(|| {
            Schema::build(QueryRoot, MutationRoot, SubscriptionRoot)
                .limit_depth(INTROSPECTION_DEPTH_MAX)
                .limit_complexity(COMPLEXITY_MAX)
                .limit_directives(DIRECTIVES_MAX)
                .finish()
        })
    }

    /// Answers a request that `is_allowed` lets through by the kind of its operation.
    pub(super) async fn answer(
        &self,
        mut request: Request,
        requester: Requester,
        is_allowed: impl FnOnce(OperationType) -> Result<(), Refusal>,
    ) -> Result<Response, Refusal> {
        document::check(&mut request).and_then(is_allowed)?;
        let mut response = self.schema().execute(request.data(requester)).await;
        give_codes(&mut response);
        Ok(response)
    }

    /// Runs an operation of a WebSocket: a subscription brings many answers, everything else one.
    pub(super) fn run(
        &self,
        mut request: Request,
        requester: Requester,
    ) -> Result<BoxStream<'static, Response>, Refusal> {
        document::check(&mut request)?;
        Ok(self.schema().execute_stream(request.data(requester)))
    }
}

/// Refuses mutations, which would be sent again by whoever repeats a GET, and subscriptions, of which a request over HTTP
/// has one answer.
pub(super) fn check_kind(kind: OperationType, is_get: bool) -> Result<(), Refusal> {
    match kind {
        OperationType::Mutation if is_get => {
            Err(Refusal::new(Code::MethodNotAllowed, "a mutation is sent by POST or over a WebSocket"))
        }
        OperationType::Subscription => {
            let message =
                "a subscription needs a WebSocket at /graphql, with the subprotocol graphql-transport-ws";
            Err(Refusal::new(Code::BadRequest, message))
        }
        OperationType::Query | OperationType::Mutation => Ok(()),
    }
}
