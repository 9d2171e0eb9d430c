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
    /// A stream of records, as Server-Sent Events.
    Stream,
    /// All records that match, one a line.
    Export,
    /// The lines of an export on their way back.
    Import,
    /// The request that the node leaves in good order.
    Drain,
    /// The request that the cluster forgets a member.
    Forget,
    /// The description of all requests over HTTP.
    OpenApi,
    /// The description of the messages over WebSocket.
    AsyncApi,
    /// Publishing over HTTP.
    Publish,
    /// The WebSocket of publishers.
    PublishSocket,
    /// The WebSocket of subscribers.
    SubscribeSocket,
}

impl Resource {
    /// All there are.
    pub const ALL: [Resource; 16] = [
        Resource::Live,
        Resource::Ready,
        Resource::Metrics,
        Resource::Members,
        Resource::Sources,
        Resource::Source,
        Resource::Stream,
        Resource::Export,
        Resource::Import,
        Resource::Drain,
        Resource::Forget,
        Resource::OpenApi,
        Resource::AsyncApi,
        Resource::Publish,
        Resource::PublishSocket,
        Resource::SubscribeSocket,
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
            Resource::Stream => "/v1/stream",
            Resource::Export => "/v1/export",
            Resource::Import => "/v1/import",
            Resource::Drain => "/v1/admin/drain",
            Resource::Forget => "/v1/admin/forget/",
            Resource::OpenApi => "/v1/openapi.json",
            Resource::AsyncApi => "/v1/asyncapi.json",
            Resource::Publish => "/v1/publish",
            Resource::PublishSocket => "/publish",
            Resource::SubscribeSocket => "/subscribe",
        }
    }

    /// The methods that the path knows, which the descriptions of all requests must name. `HEAD` is known wherever `GET` is, and is not named.
    #[cfg(test)]
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Resource::Source => &["GET", "PUT", "DELETE"],
            Resource::Publish | Resource::Import | Resource::Drain | Resource::Forget => &["POST"],
            _ => &["GET"],
        }
    }

    /// The right that a request needs that reads, or that has the only method of the path.
    pub fn right(self) -> Right {
        match self {
            Resource::Live | Resource::Ready => Right::Public,
            Resource::OpenApi | Resource::AsyncApi => Right::Known,
            Resource::Metrics | Resource::Members => Right::Observe,
            Resource::Sources | Resource::Source | Resource::SubscribeSocket => Right::Subscribe,
            Resource::Stream | Resource::Export => Right::Subscribe,
            Resource::Publish | Resource::PublishSocket | Resource::Import => Right::Publish,
            Resource::Drain | Resource::Forget => Right::Admin,
        }
    }

    /// The right that a request with this method needs.
    pub fn right_for(self, method: &str) -> Right {
        match (self, method) {
            (Resource::Source, "PUT" | "DELETE") => Right::Publish,
            _ => self.right(),
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
        for nothing in
            ["", "/", "/healthz/", "/v1", "/v1/sourcesx", "/V1/members", "/v1/members/a", "/v1/admin/"]
        {
            assert_eq!(Resource::of(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_changes_a_source_needs_the_right_to_publish() {
        assert_eq!(Resource::Source.right_for("GET"), Right::Subscribe);
        assert_eq!(Resource::Source.right_for("HEAD"), Right::Subscribe);
        for method in ["PUT", "DELETE"] {
            assert_eq!(Resource::Source.right_for(method), Right::Publish);
            assert_eq!(Resource::Drain.right_for(method), Right::Admin);
        }
    }
}
