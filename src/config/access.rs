//! The settings of who may connect to a node, and from which pages and to which names.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::raw::Raw;
use super::{ConfigError, values};

/// Largest value of `--max-connections-per-address`.
const PER_ADDRESS_CEILING: usize = 10_000_000;
/// Largest value of `--max-subscriptions`. The memory of the patterns of a connection is bounded besides.
const SUBSCRIPTIONS_CEILING: usize = 1_000_000;

/// The settings that decide who may connect to a node: the file of rights, and the pages and names that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// File that says who may do what; `None` if everybody may publish, subscribe and observe.
    pub auth: Option<PathBuf>,
    /// Whether pages of every origin may connect.
    pub is_any_origin: bool,
    /// Origins of pages that may connect besides those of the host that they connect to.
    pub origins: Vec<Origin>,
    /// Names, in lower case, under which the node may be addressed while it has no `auth`.
    pub hosts: Vec<String>,
    /// Most connections of one address at a time; `None` for no bound.
    pub connections_per_address_max: Option<NonZeroUsize>,
    /// Most patterns of one connection.
    pub subscriptions_max: usize,
}

/// The origin of a web page (RFC 6454): scheme, host and port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The scheme, such as `https`.
    pub scheme: String,
    /// The host: a name, or an address as it stands in a URL (IPv6 in brackets).
    pub host: String,
    /// The port; the one that the scheme implies if none is written.
    pub port: u16,
}

impl Origin {
    /// Parses `SCHEME://HOST[:PORT]`. Returns `None` for any other text, such as the `null` of pages without an
    /// origin of their own.
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let implied = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => 80,
            _ => 443,
        };
        let (host, port) = split_port(authority)?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let is_host = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        };
        let is_fine = !scheme.is_empty()
            && !host.is_empty()
            && scheme.bytes().all(is_scheme)
            && host.bytes().all(is_host);
        let lower = |text: &str| text.to_ascii_lowercase();
        is_fine.then(|| Origin { scheme: lower(scheme), host: lower(host), port: port.unwrap_or(implied) })
    }

    /// Returns whether a page of this origin lies on the host that the header `Host` names. A header without a
    /// port means the port that the page's scheme implies.
    pub fn is_of_host(&self, host: &str) -> bool {
        let implied = if matches!(self.scheme.as_str(), "http" | "ws") { 80 } else { 443 };
        let Some((name, port)) = split_port(host) else { return false };
        name.eq_ignore_ascii_case(&self.host) && port.unwrap_or(implied) == self.port
    }
}

/// Splits `HOST[:PORT]`. Returns `None` if the port is no number.
pub fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        Some((_, rest)) if rest.ends_with(']') => Some((authority, None)),
        Some((host, "")) => Some((host, None)),
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
        None => Some((authority, None)),
    }
}

/// Checks the settings.
pub(super) fn check(raw: &Raw) -> Result<AccessConfig, ConfigError> {
    let text = |value: &Option<super::raw::Text>| value.as_ref().map(|given| given.0.clone());
    let auth = text(&raw.auth).map(|path| file("auth", path)).transpose()?;
    let (mut is_any_origin, mut origins) = (false, Vec::new());
    for item in items(&text(&raw.allow_origin).unwrap_or_default()) {
        match item {
            "*" => is_any_origin = true,
            _ => {
                let allowed = "*, or SCHEME://HOST[:PORT] as browsers send it (https://app.example), \
                               separated by commas";
                let origin = Origin::parse(item);
                origins.push(origin.ok_or_else(|| ConfigError::new("allow-origin", item, allowed))?);
            }
        }
    }
    let mut hosts = Vec::new();
    for item in items(&text(&raw.allow_host).unwrap_or_default()) {
        if !values::is_host(item) {
            let allowed = "names of hosts without a port, separated by commas";
            return Err(ConfigError::new("allow-host", item, allowed));
        }
        hosts.push(item.to_ascii_lowercase());
    }
    let per_address = values::count(
        "max-connections-per-address",
        &text(&raw.max_connections_per_address).unwrap_or_else(|| "0".into()),
        0..=PER_ADDRESS_CEILING,
    )?;
    let subscriptions_max = values::count(
        "max-subscriptions",
        &text(&raw.max_subscriptions).unwrap_or_else(|| "10000".into()),
        1..=SUBSCRIPTIONS_CEILING,
    )?;
    let connections_per_address_max = NonZeroUsize::new(per_address);
    Ok(AccessConfig { auth, is_any_origin, origins, hosts, connections_per_address_max, subscriptions_max })
}

/// Returns the items of a list that is separated by commas.
fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn file(flag: &str, path: String) -> Result<PathBuf, ConfigError> {
    match path.is_empty() || path.contains('\0') {
        true => Err(ConfigError::new(flag, path, "the path of a file")),
        false => Ok(path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let origin = Origin::parse("HTTPS://App.Example").expect("an origin");
        assert_eq!(
            (origin.scheme.as_str(), origin.host.as_str(), origin.port),
            ("https", "app.example", 443)
        );
        assert_eq!(Origin::parse("http://[::1]:7070").map(|origin| origin.port), Some(7070));
        for bad in ["null", "", "app.example", "https://", "https://a/b", "https://a:x", "https://a b"] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_page_is_of_the_host_it_connects_to_only_with_the_same_port() {
        let is_of = |origin: &str, host: &str| Origin::parse(origin).expect(origin).is_of_host(host);
        assert!(is_of("http://a:7070", "a:7070") && is_of("http://a", "A") && is_of("http://a", "a:80"));
        assert!(is_of("https://a", "a") && is_of("https://a", "a:443") && is_of("http://[::1]:7", "[::1]:7"));
        assert!(!is_of("http://a:7071", "a:7070") && !is_of("http://b:7070", "a:7070"));
        assert!(!is_of("http://a", "a:7070") && !is_of("http://a.evil", "a"));
    }

    fn checked(raw: Raw) -> Result<AccessConfig, ConfigError> {
        check(&raw)
    }

    #[test]
    fn settings_are_checked() {
        let config = checked(Raw {
            allow_origin: Some("https://a.example, *".into()),
            allow_host: Some("Anode,node.example".into()),
            ..Raw::default()
        });
        let config = config.expect("fine");
        assert!(config.is_any_origin && config.origins.len() == 1 && config.auth.is_none());
        assert_eq!(config.hosts, ["anode", "node.example"]);
        assert_eq!((config.connections_per_address_max, config.subscriptions_max), (None, 10_000));
        for (raw, field) in [
            (Raw { allow_origin: Some("a.example".into()), ..Raw::default() }, "--allow-origin"),
            (Raw { allow_host: Some("a:7070".into()), ..Raw::default() }, "--allow-host"),
            (Raw { auth: Some("".into()), ..Raw::default() }, "--auth"),
            (Raw { max_subscriptions: Some("0".into()), ..Raw::default() }, "--max-subscriptions"),
            (
                Raw { max_connections_per_address: Some("-1".into()), ..Raw::default() },
                "--max-connections-per-address",
            ),
        ] {
            assert_eq!(checked(raw).expect_err(field).field, field);
        }
    }
}
