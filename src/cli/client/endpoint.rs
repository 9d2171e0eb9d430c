//! The address of a node: `ws://host:port`, `http://host:port` or just `host:port`; with TLS `wss://` and `https://`.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::stream::NodeStream;
use super::token::NodeToken;
use super::trust::{Trust, TrustArguments};
use crate::cli::CliError;

/// Port of the node if its URL names none.
const DEFAULT_PORT: u16 = 7070;
/// How long connecting to one address may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The address of a node for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl {
    host: String,
    port: u16,
    /// The beginning of all paths, for a node behind a proxy, without a slash at its end; usually empty.
    prefix: String,
    /// The settings of TLS; `None` if the connection is plain.
    trust: Option<Trust>,
    /// The token to bring, if there is one.
    token: Option<NodeToken>,
}

impl NodeUrl {
    /// Parses a URL. `field` is where it was given, such as `--url`, for the error. For a URL with TLS, reads the
    /// authorities that are trusted.
    pub fn parse(url: &str, field: &str, trust: &TrustArguments) -> Result<NodeUrl, CliError> {
        let error = || {
            let allowed = "ws://HOST:PORT or http://HOST:PORT, with TLS wss:// or https://, IPv6 in brackets";
            CliError::Usage(format!("{field}: {url:?} cannot be used; allowed: {allowed}"))
        };
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
        Ok(NodeUrl { host: host.into(), port, prefix, trust: trust.trust(is_tls)?, token: None })
    }

    /// Returns the address of another member of the cluster, which is spoken to in the same way; `None` if it is no
    /// `host:port`.
    pub fn member(&self, address: &str) -> Option<NodeUrl> {
        let parsed = NodeUrl::parse(address, "--url", &TrustArguments::default()).ok()?;
        Some(NodeUrl { trust: self.trust.clone(), token: self.token.clone(), ..parsed })
    }

    /// Returns the same node, to which this token is to be brought.
    pub fn with_token(self, token: Option<NodeToken>) -> NodeUrl {
        NodeUrl { token, ..self }
    }

    /// The token to bring, if there is one.
    pub fn token(&self) -> Option<&NodeToken> {
        self.token.as_ref()
    }

    /// Returns the URL of `path` for browsers and other programs that speak HTTP.
    pub fn http_url(&self, path: &str) -> String {
        let scheme = if self.trust.is_some() { "https" } else { "http" };
        format!("{scheme}://{self}{}", self.path(path))
    }

    /// Returns `path` with the prefix of this endpoint in front.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Connects to the first address of the host that answers, and does the handshake of TLS, if the URL asks for it.
    pub fn connect(&self) -> io::Result<NodeStream> {
        let tls = self.trust.as_ref().map(|trust| trust.begin(&self.host)).transpose()?;
        NodeStream::open(self.connect_socket()?, tls)
    }

    fn connect_socket(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Writes `host:port`, in the form of the header `Host`.
impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Encodes the name of a source as a part of a URL's path.
pub fn percent_encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, shown, path) in [
            ("ws://127.0.0.1:7070", "127.0.0.1:7070", "/x"),
            ("http://a.example", "a.example:7070", "/x"),
            ("a:1", "a:1", "/x"),
            ("ws://[::1]:5/", "[::1]:5", "/x"),
            ("http://[::1]/p/q/", "[::1]:7070", "/p/q/x"),
        ] {
            let endpoint = NodeUrl::parse(url, "--to", &TrustArguments::default()).expect(url);
            assert_eq!((endpoint.to_string().as_str(), endpoint.path("/x").as_str()), (shown, path), "{url}");
        }
        for bad in
            ["", "wsss://a:1", "wss://", "ws://", "ws://a:x", "ws://a b", "::1", "ws://u@a:1", "ws://a:1/?x"]
        {
            let parsed = NodeUrl::parse(bad, "--to", &TrustArguments::default());
            assert!(matches!(parsed, Err(CliError::Usage(_))), "{bad:?}");
        }
    }

    #[test]
    fn names_in_paths() {
        assert_eq!(percent_encoded("a/history"), "a%2Fhistory");
        assert_eq!(percent_encoded("ä +"), "%C3%A4%20%2B");
    }
}
