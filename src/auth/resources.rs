//! The one table of all paths: what they are, and which right a request for them needs.
//!
//! The control plane makes its router of this table, so there is no path without a right. A request for a path that
//! is not in the table reaches no handler.

use super::rights::Right;
use crate::protocol::extension::ExtensionKind;

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
    /// All definitions of a kind.
    Extensions(ExtensionKind),
    /// One definition of a kind, and what can be asked of it.
    Extension(ExtensionKind),
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
    /// GraphQL: requests and the WebSocket. What a request may do is decided for each of its fields.
    Graphql,
    /// The files of the page by which people explore GraphQL.
    GraphqlPage,
    /// The page for browsers.
    WebPage,
    /// The files that the page for browsers consists of.
    WebAsset,
}

impl Resource {
    /// All there are.
    pub const ALL: [Resource; 28] = [
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
        Resource::Extensions(ExtensionKind::Pull),
        Resource::Extension(ExtensionKind::Pull),
        Resource::Extensions(ExtensionKind::Middleware),
        Resource::Extension(ExtensionKind::Middleware),
        Resource::Extensions(ExtensionKind::Archive),
        Resource::Extension(ExtensionKind::Archive),
        Resource::Extensions(ExtensionKind::Hook),
        Resource::Extension(ExtensionKind::Hook),
        Resource::OpenApi,
        Resource::AsyncApi,
        Resource::Publish,
        Resource::PublishSocket,
        Resource::SubscribeSocket,
        Resource::Graphql,
        Resource::GraphqlPage,
        Resource::WebPage,
        Resource::WebAsset,
    ];

    /// The path; see [`Resource::has_beneath`] for one that ends with a slash.
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
            Resource::Extensions(ExtensionKind::Pull) => "/v1/pull",
            Resource::Extension(ExtensionKind::Pull) => "/v1/pull/",
            Resource::Extensions(ExtensionKind::Middleware) => "/v1/middleware",
            Resource::Extension(ExtensionKind::Middleware) => "/v1/middleware/",
            Resource::Extensions(ExtensionKind::Archive) => "/v1/archive",
            Resource::Extension(ExtensionKind::Archive) => "/v1/archive/",
            Resource::Extensions(ExtensionKind::Hook) => "/v1/hook",
            Resource::Extension(ExtensionKind::Hook) => "/v1/hook/",
            Resource::OpenApi => "/v1/openapi.json",
            Resource::AsyncApi => "/v1/asyncapi.json",
            Resource::Publish => "/v1/publish",
            Resource::PublishSocket => "/publish",
            Resource::SubscribeSocket => "/subscribe",
            Resource::Graphql => "/graphql",
            Resource::GraphqlPage => "/graphql/",
            Resource::WebPage => "/",
            Resource::WebAsset => "/assets/",
        }
    }

    /// Whether the path also stands for every path beneath it.
    pub fn has_beneath(self) -> bool {
        self != Resource::WebPage && self.path().ends_with('/')
    }

    /// Whether requests are answered under whatever name they are addressed to. Supervisors may use any name, and what
    /// they are told is of no use to a page.
    pub fn is_for_any_host(self) -> bool {
        matches!(self, Resource::Live | Resource::Ready)
    }

    /// The methods that the path knows, which the descriptions of all requests must name. `HEAD` is known wherever
    /// `GET` is, and is not named.
    #[cfg(test)]
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Resource::Extension(ExtensionKind::Archive | ExtensionKind::Middleware | ExtensionKind::Pull) => {
                &["GET", "PUT", "POST", "DELETE"]
            }
            Resource::Source | Resource::Extension(_) => &["GET", "PUT", "DELETE"],
            Resource::Graphql => &["GET", "POST"],
            Resource::Publish | Resource::Import | Resource::Drain | Resource::Forget => &["POST"],
            _ => &["GET"],
        }
    }

    /// The right that a request needs that reads, or that has the only method of the path.
    pub fn right(self) -> Right {
        match self {
            Resource::Live | Resource::Ready => Right::Public,
            // The pages hold nothing of the node. They ask for a token by themselves where one is needed.
            Resource::GraphqlPage | Resource::WebPage | Resource::WebAsset => Right::Public,
            Resource::OpenApi | Resource::AsyncApi | Resource::Graphql => Right::Known,
            Resource::Metrics | Resource::Members => Right::Observe,
            Resource::Extensions(_) | Resource::Extension(_) => Right::Observe,
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
            (Resource::Extensions(_) | Resource::Extension(_), "PUT" | "POST" | "DELETE") => Right::Admin,
            _ => self.right(),
        }
    }

    /// The right that a request needs that reads `path` with `query`, both as they stand in the request. Whether all that
    /// it names may be read is decided afterwards.
    pub fn right_to_read(self, path: &str, query: &str) -> Right {
        let is_system = |text: &str| text.starts_with('$') || text.starts_with("%24");
        let value = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            matches!(name, "source" | "pattern") && is_system(value)
        };
        let names_system = match self {
            Resource::Source => path.strip_prefix(self.path()).is_some_and(is_system),
            Resource::Sources | Resource::Stream | Resource::Export | Resource::SubscribeSocket => {
                query.split('&').any(value)
            }
            _ => false,
        };
        if names_system { Right::ReadSystem } else { self.right() }
    }

    /// Returns what a path, as it stands in the request, asks for; `None` if there is nothing.
    pub fn of(path: &str) -> Option<Resource> {
        let is_it = |resource: &Resource| match resource.has_beneath() {
            true => path.starts_with(resource.path()),
            false => path == resource.path(),
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
        assert_eq!(Resource::of("/assets/a-1.js"), Some(Resource::WebAsset));
        assert_eq!(Resource::of("/v1/admin/forget/a"), Some(Resource::Forget));
        for nothing in [
            "",
            "/assets",
            "//",
            "/healthz/",
            "/v1",
            "/v1/sourcesx",
            "/V1/members",
            "/v1/members/a",
            "/v1/admin/",
        ] {
            assert_eq!(Resource::of(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn who_reads_the_systems_names_needs_less() {
        let reads = |path: &str, query| Resource::of(path).expect(path).right_to_read(path, query);
        for (path, query) in [
            ("/v1/sources/$pull/a", ""),
            ("/v1/sources/%24pull%2Fa", "x=1"),
            ("/v1/sources", "limit=1&pattern=$pull/*"),
            ("/v1/stream", "source=%24pull/**"),
            ("/subscribe", "source=$pull/**"),
        ] {
            assert_eq!(reads(path, query), Right::ReadSystem, "{path} {query}");
        }
        for (path, query) in
            [("/v1/sources/a/$b", ""), ("/v1/sources", "pattern=a/$b"), ("/v1/stream", "mode=$")]
        {
            assert_eq!(reads(path, query), Right::Subscribe, "{path} {query}");
        }
        assert_eq!(reads("/v1/members", "source=$a"), Right::Observe);
    }

    #[test]
    fn what_changes_a_source_needs_the_right_to_publish() {
        assert_eq!(Resource::Source.right_for("GET"), Right::Subscribe);
        assert_eq!(Resource::Source.right_for("HEAD"), Right::Subscribe);
        for method in ["PUT", "DELETE"] {
            assert_eq!(Resource::Source.right_for(method), Right::Publish);
            assert_eq!(Resource::Drain.right_for(method), Right::Admin);
            assert_eq!(Resource::Extension(ExtensionKind::Pull).right_for(method), Right::Admin);
        }
        assert_eq!(Resource::Extension(ExtensionKind::Hook).right_for("GET"), Right::Observe);
    }
}
