//! The one table of all paths: what they are, and which right a request for them needs.
//!
//! The control plane makes its router of this table, so there is no path without a right. A request for a path that
//! is not in the table reaches no handler.

use super::rights::Right;

/// Something that clients can ask for by a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Whether the event loops turn.
    Live,
    /// Whether clients should be sent to this node.
    Ready,
    /// The metrics in the text format of Prometheus.
    Metrics,
    /// The members of the cluster.
    Members,
    /// Pages of latest records.
    Sources,
    /// The latest record of a source, or its history.
    Source,
    /// Publishing over HTTP.
    Publish,
    /// The WebSocket of publishers.
    PublishSocket,
    /// The WebSocket of subscribers.
    SubscribeSocket,
    /// GraphQL: requests and the WebSocket. What a request may do is decided for each of its fields.
    Graphql,
    /// The files of the page by which people explore GraphQL.
    GraphqlPage,
}

impl Resource {
    /// All there are.
    pub const ALL: [Resource; 11] = [
        Resource::Live,
        Resource::Ready,
        Resource::Metrics,
        Resource::Members,
        Resource::Sources,
        Resource::Source,
        Resource::Publish,
        Resource::PublishSocket,
        Resource::SubscribeSocket,
        Resource::Graphql,
        Resource::GraphqlPage,
    ];

    /// The path; one that ends with a slash stands for everything beneath it, too.
    pub fn path(self) -> &'static str {
        match self {
            Resource::Live => "/healthz",
            Resource::Ready => "/readyz",
            Resource::Metrics => "/metrics",
            Resource::Members => "/v1/members",
            Resource::Sources => "/v1/sources",
            Resource::Source => "/v1/sources/",
            Resource::Publish => "/v1/publish",
            Resource::PublishSocket => "/publish",
            Resource::SubscribeSocket => "/subscribe",
            Resource::Graphql => "/graphql",
            Resource::GraphqlPage => "/graphql/",
        }
    }

    /// The right that a request needs, by whatever method.
    pub fn right(self) -> Right {
        match self {
            Resource::Live | Resource::Ready | Resource::GraphqlPage => Right::Public,
            Resource::Graphql => Right::Known,
            Resource::Metrics | Resource::Members => Right::Observe,
            Resource::Sources | Resource::Source | Resource::SubscribeSocket => Right::Subscribe,
            Resource::Publish | Resource::PublishSocket => Right::Publish,
        }
    }

    /// Returns what a path, as it stands in the request, asks for; `None` if there is nothing.
    pub fn of(path: &str) -> Option<Resource> {
        let is_it = |resource: &Resource| match resource.path() {
            beneath if beneath.ends_with('/') => path.starts_with(beneath),
            exact => path == exact,
        };
        Resource::ALL.into_iter().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_again() {
        for resource in Resource::ALL {
            assert_eq!(Resource::of(resource.path()), Some(resource));
        }
        assert_eq!(Resource::of("/v1/sources/a/b"), Some(Resource::Source));
        for nothing in ["", "/", "/healthz/", "/v1", "/v1/sourcesx", "/V1/members", "/v1/members/a"] {
            assert_eq!(Resource::of(nothing), None, "{nothing:?}");
        }
    }
}
