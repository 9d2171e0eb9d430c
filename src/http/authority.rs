//! The header `Host` of a request (RFC 9112, 3.2).
//!
//! Programs in front of a node may choose by it where a request goes. Where two of them could read a request
//! differently, it is refused.

use axum::http::uri::Authority;

/// Checks the values of all `Host` headers of a request. A request of HTTP/1.1 has exactly one, an older one
/// at most one. An error says what is wrong.
pub fn check_host<'a>(is_http_11: bool, mut hosts: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
    let Some(host) = hosts.next() else {
        return match is_http_11 {
            true => Err("a request of HTTP/1.1 needs exactly one Host header; there is none".into()),
            false => Ok(()),
        };
    };
    if hosts.next().is_some() {
        return Err("a request has at most one Host header; there are more".into());
    }
    if !is_host(host) {
        let shown: String = String::from_utf8_lossy(host).chars().take(64).collect();
        return Err(format!(
            "the Host header is {shown:?}; allowed is a name or an address, with or without a port"
        ));
    }
    Ok(())
}

/// Returns whether `host` is `name`, `name:port`, or nothing, which a client sends for a URL without a name.
fn is_host(host: &[u8]) -> bool {
    if host.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(host) else { return false };
    let text = authority.as_str();
    let after_address = text.rsplit_once(']').map_or(text, |(_, rest)| rest);
    let port = after_address.rsplit_once(':').map_or("", |(_, port)| port);
    !text.contains('@') && !authority.host().is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_http_11: bool, hosts: &[&str]) -> bool {
        check_host(is_http_11, hosts.iter().map(|host| host.as_bytes())).is_ok()
    }

    #[test]
    fn exactly_one_valid_host_is_allowed() {
        for host in ["x", "x:7070", "127.0.0.1:7070", "[::1]", "[::1]:7070", "a_b.example", "", "x:"] {
            assert!(check(true, &[host]) && check(false, &[host]), "{host:?}");
        }
        for host in ["a b", "a/b", "a,b c", "a@b", "a:b", "a?b", "http://a", ":80"] {
            assert!(!check(true, &[host]) && !check(false, &[host]), "{host:?}");
        }
        assert!(!check(true, &[]) && check(false, &[]));
        assert!(!check(true, &["x", "x"]) && !check(false, &["x", "x"]));
    }
}
