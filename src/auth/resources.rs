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
    /// The page for browsers.
    WebPage,
    /// The files that the page for browsers consists of.
    WebAsset,
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
            Resource::Publish => "/v1/publish",
            Resource::PublishSocket => "/publish",
            Resource::SubscribeSocket => "/subscribe",
            Resource::WebPage => "/",
            Resource::WebAsset => "/assets/",
        }
    }

    /// Whether the path also stands for every path beneath it.
    pub fn has_beneath(self) -> bool {
        matches!(self, Resource::Source | Resource::WebAsset)
    }

    /// Whether requests are answered under whatever name they are addressed to. Supervisors may use any name, and what
    /// they are told is of no use to a page.
    pub fn is_for_any_host(self) -> bool {
        matches!(self, Resource::Live | Resource::Ready)
    }

    /// The right that a request needs, by whatever method.
    pub fn right(self) -> Right {
        match self {
            // The page holds nothing of the node. It asks for a token by itself where one is needed.
            Resource::Live | Resource::Ready | Resource::WebPage | Resource::WebAsset => Right::Public,
            Resource::Metrics | Resource::Members => Right::Observe,
            Resource::Sources | Resource::Source | Resource::SubscribeSocket => Right::Subscribe,
            Resource::Publish | Resource::PublishSocket => Right::Publish,
        }
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
        for nothing in
            ["", "/assets", "//", "/healthz/", "/v1", "/v1/sourcesx", "/V1/members", "/v1/members/a"]
        {
            assert_eq!(Resource::of(nothing), None, "{nothing:?}");
        }
    }
}
