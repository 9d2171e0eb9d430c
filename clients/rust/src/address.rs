//! Addresses of nodes: `ws://HOST:PORT` or `http://HOST:PORT`, with TLS `wss://` or `https://`.

use std::fmt;

use crate::error::AnodeError;

/// Port of the node if its URL names none.
const DEFAULT_PORT: u16 = 7070;

/// The address of a node for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
    /// The beginning of all paths, for a node behind a proxy; usually empty.
    prefix: String,
}

impl NodeAddress {
    /// Parses a URL. Without a scheme it is `ws://`.
    pub(crate) fn parse(url: &str) -> Result<NodeAddress, AnodeError> {
        let allowed = "ws://HOST:PORT, wss://HOST:PORT, http, https";
        let error = || AnodeError::new("bad_url", format!("{url:?} cannot be used; allowed: {allowed}"));
        let (is_tls, rest) = match url.split_once("://") {
            Some(("ws" | "http", rest)) => (false, rest),
            Some(("wss" | "https", rest)) => (true, rest),
            Some(_) => return Err(error()),
            None => (false, url),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| error())?),
            _ => (authority, DEFAULT_PORT),
        };
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or_else(error)?,
            None if host.contains(':') => return Err(error()),
            None => host,
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
        if host.is_empty() || rest.contains(is_odd) {
            return Err(error());
        }
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(NodeAddress { host: host.to_owned(), port, is_tls, prefix })
    }

    /// Returns the address of another member, which is spoken to in the same way; `None` if it is none.
    pub(crate) fn member(&self, http: &str) -> Option<NodeAddress> {
        let parsed = NodeAddress::parse(http).ok()?;
        Some(NodeAddress { is_tls: self.is_tls, prefix: String::new(), ..parsed })
    }

    /// Returns the host and port as in a URL.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Returns a path at this node.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// Writes the URL of the node.
impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "wss" } else { "ws" }, self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, shown) in [
            ("ws://127.0.0.1:7070", "ws://127.0.0.1:7070"),
            ("http://a.example", "ws://a.example:7070"),
            ("https://a.example:1/p/", "wss://a.example:1/p"),
            ("a:1", "ws://a:1"),
            ("ws://[::1]:5/", "ws://[::1]:5"),
        ] {
            assert_eq!(NodeAddress::parse(url).expect(url).to_string(), shown);
        }
        for bad in ["", "ftp://a", "wss://", "ws://a:x", "ws://a b", "::1", "ws://u@a:1", "ws://a:1/?x"] {
            assert_eq!(NodeAddress::parse(bad).expect_err(bad).code, "bad_url");
        }
        let seed = NodeAddress::parse("wss://a:1/p").expect("url");
        assert_eq!(seed.member("b:2").map(|member| member.to_string()).as_deref(), Some("wss://b:2"));
        assert_eq!(seed.member("?"), None);
    }
}
