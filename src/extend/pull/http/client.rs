//! The HTTP client: TLS, redirects within the host, and the text of its errors.

use std::error::Error as _;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};

use crate::extend::http_client::http_client;
use crate::extend::pull::trust;

/// Most redirects that are followed.
const POLL_REDIRECTS_MAX: usize = 5;
/// Time for which a connection that is not in use is kept, for polls at short intervals.
const POLL_IDLE: Duration = Duration::from_secs(90);
/// Time after which a silent connection is asked whether the other end is there.
const POLL_KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes a client. Reads the file with the authorities, and may take some milliseconds.
pub(super) fn client(ca: Option<&str>) -> Result<Client, String> {
    let own = ca.map(|path| trust::client_config(Some(path))).transpose()?;
    http_client(|builder| {
        let builder = builder
            .redirect(Policy::custom(within_the_host))
            .pool_idle_timeout(POLL_IDLE)
            .pool_max_idle_per_host(2)
            .tcp_keepalive(POLL_KEEPALIVE)
            .no_proxy()
            .http1_only();
        match own {
            Some(own) => builder.tls_backend_preconfigured(own),
            None => builder,
        }
    })
}

/// Follows a redirect to the same host and port, or from there to TLS at the same host. Headers with secrets would
/// otherwise reach servers that the definition does not name.
fn within_the_host(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last();
    let is_allowed = from.is_some_and(|from| is_within_host(from, attempt.url()));
    if !is_allowed {
        let to = attempt.url().host_str().unwrap_or_default().to_owned();
        return attempt.error(format!("redirected to another host ({to}), which is not followed"));
    }
    if attempt.previous().len() > POLL_REDIRECTS_MAX {
        return attempt.error(format!("redirected more than {POLL_REDIRECTS_MAX} times"));
    }
    attempt.follow()
}

fn is_within_host(from: &Url, to: &Url) -> bool {
    let is_upgrade =
        from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    let is_same_server =
        from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host() == to.host() && (is_same_server || is_upgrade)
}

/// The text of an error with its causes, without the URL, which users know.
pub(super) fn told(error: &reqwest::Error) -> String {
    let mut text = String::new();
    if error.is_timeout() {
        text.push_str("timed out");
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some causes repeat the one beneath them.
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_at_the_host() {
        let is_within =
            |from: &str, to: &str| is_within_host(&Url::parse(from).expect(from), &Url::parse(to).expect(to));
        assert!(is_within("http://a/x", "http://a:80/y"));
        assert!(is_within("http://a/x", "https://a/x"));
        assert!(is_within("https://a:8443/x", "https://a:8443/y"));
        assert!(!is_within("https://a/x", "http://a/x"), "secrets would go in clear");
        assert!(!is_within("http://a/x", "http://b/x"));
        assert!(!is_within("http://a:8080/x", "http://a:8081/x"));
        assert!(!is_within("http://a:8080/x", "https://a/x"));
        assert!(!is_within("http://a/x", "http://a.b/x"));
    }
}
