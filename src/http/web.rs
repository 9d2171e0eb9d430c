//! The page for browsers: its files, which are in the binary, and the headers that they are answered with.
//!
//! The page is built from `web/` and kept in `web/dist/`; the build script lists what is there. The names of all files
//! but the page itself contain a hash of their content, so a browser may keep them for ever. The page itself is asked for
//! every time, and answered by 304 while it is the same.
//!
//! The page may load nothing from other hosts and has no code or styles in its HTML, so text that others publish can
//! never run in it. It may connect to the members that this node knows, because it goes on at another one when this
//! node ends. Rejected: letting it connect to any host, which would let a mistake in the page send data anywhere.

use std::fmt::Write;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::app::App;
use super::problem::Problem;
use crate::auth::Resource;
use crate::cluster::members::{MemberInfo, State as MemberState};
use crate::protocol::refusal::Code;

/// Most members that the page is told it may connect to. Each takes up to about 100 bytes of a header.
const CONNECTABLE_MEMBERS_MAX: usize = 64;
/// Most bytes of the address of a member that the page may connect to: those of a DNS name with a port.
const MEMBER_ADDRESS_BYTES_MAX: usize = 253 + 6;
/// The policy for the content of the page, but for the hosts that it may connect to.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'";
/// A browser may keep a file whose name changes with its content for a year, and need not ask again.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// A file of the page, as it is in the binary.
struct WebFile {
    /// Name beneath the path of the assets; empty for the page itself.
    name: &'static str,
    plain: &'static [u8],
    /// The content compressed with Brotli, if that makes it smaller.
    brotli: Option<&'static [u8]>,
    /// The content compressed with gzip, if that makes it smaller.
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

impl WebFile {
    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("woff2") => "font/woff2",
            Some("txt") => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        }
    }

    /// The smallest form of the content that the client understands, and the name of its encoding.
    fn encoded_for(&self, headers: &HeaderMap) -> (&'static [u8], Option<&'static str>) {
        let understands = |encoding: &str| names(headers, &ACCEPT_ENCODING, &[encoding]);
        match (self.brotli, self.gzip) {
            (Some(brotli), _) if understands("br") => (brotli, Some("br")),
            (_, Some(gzip)) if understands("gzip") => (gzip, Some("gzip")),
            _ => (self.plain, None),
        }
    }
}

/// Whether a request comes from somebody who asks for HTML by name. Programs that take anything do not.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    names(headers, &ACCEPT, &["text/html", "text/*", "application/xhtml+xml"])
}

/// Whether a header that is a list of choices names one of `wanted`, and does not exclude it by a weight of 0.
fn names(headers: &HeaderMap, header: &HeaderName, wanted: &[&str]) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_excluded =
            weight.is_some_and(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0));
        !is_excluded && wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted))
    })
}

/// Answers with the page.
pub(super) async fn page(State(app): State<App>, headers: HeaderMap) -> Response {
    let (content, encoding) = WEB_PAGE.encoded_for(&headers);
    // The policy belongs to the answer, so another list of members makes another answer.
    let policy = content_policy(&app.node.members());
    let hash = xxh3_64(content) ^ xxh3_64(policy.as_bytes());
    let tag = HeaderValue::from_str(&format!("\"{hash:016x}\"")).ok();
    let is_known = tag.as_ref().is_some_and(|tag| {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        known.flat_map(|value| value.split(',')).any(|known| tag == known.trim().trim_start_matches("W/"))
    });
    let mut response = file_response(&WEB_PAGE, content, encoding);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    let answered = response.headers_mut();
    if let Some(tag) = tag {
        answered.insert(ETAG, tag);
    }
    answered.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answered.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answered.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Answers with a file of the page.
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let name = uri.path().strip_prefix(Resource::WebAsset.path()).unwrap_or_default();
    let Some(file) = WEB_ASSETS.iter().find(|file| file.name == name) else {
        return Err(Problem::new(
            Code::NotFound,
            "the page has no such file; it may be one of another version",
        ));
    };
    let (content, encoding) = file.encoded_for(&headers);
    let mut response = file_response(file, content, encoding);
    let answered = response.headers_mut();
    answered.insert(CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
    answered.insert(VARY, HeaderValue::from_static("accept-encoding"));
    answered.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    Ok(response)
}

/// An answer with a file, and with the headers that all files have.
fn file_response(file: &WebFile, content: &'static [u8], encoding: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(content)));
    let headers = response.headers_mut();
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    for (name, value) in [
        (CONTENT_TYPE, file.media_type()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The policy for the content of the page, with the members that it may connect to.
fn content_policy(members: &[MemberInfo]) -> String {
    let mut policy = String::from(CONTENT_POLICY);
    let is_up = |member: &&MemberInfo| matches!(member.state, MemberState::Alive | MemberState::Suspect);
    let addresses = members.iter().filter(is_up).map(|member| member.identity.http());
    for address in addresses.filter(|address| is_plain_address(address)).take(CONNECTABLE_MEMBERS_MAX) {
        // Either of them stands for its variant over TLS, too. Writing to a `String` cannot fail.
        let _ = write!(policy, " http://{address} ws://{address}");
    }
    policy
}

/// Whether the address that a member tells can stand in a policy: other bytes would end its list of hosts.
fn is_plain_address(address: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !address.is_empty() && address.len() <= MEMBER_ADDRESS_BYTES_MAX && address.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(header: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn who_accepts_html_asks_for_it_by_name() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for html in [browser, "text/html", "TEXT/HTML; q=0.1", "application/json, text/*"] {
            assert!(accepts_html(&with(ACCEPT, html)), "{html}");
        }
        for other in ["*/*", "application/json", "text/html;q=0", "text/html; q=0.0", "text/htmlx", ""] {
            assert!(!accepts_html(&with(ACCEPT, other)), "{other}");
        }
        assert!(!accepts_html(&HeaderMap::new()));
    }

    #[test]
    fn the_smallest_form_that_is_understood_is_sent() {
        let file = WebFile { name: "a.js", plain: b"plain", brotli: Some(b"br"), gzip: Some(b"gzip") };
        let sent = |accepted: &str| file.encoded_for(&with(ACCEPT_ENCODING, accepted)).1;
        assert_eq!(sent("gzip, deflate, br, zstd"), Some("br"));
        assert_eq!(sent("gzip;q=1.0, br;q=0"), Some("gzip"));
        assert_eq!((sent("identity"), sent("brx"), sent("gzip;q=0")), (None, None, None));
        let font = WebFile { name: "a.woff2", plain: b"plain", brotli: None, gzip: None };
        assert_eq!(font.encoded_for(&with(ACCEPT_ENCODING, "br, gzip")), (&b"plain"[..], None));
        assert_eq!((file.media_type(), font.media_type()), ("text/javascript; charset=utf-8", "font/woff2"));
    }

    #[test]
    fn addresses_that_could_end_the_list_of_hosts_are_left_out() {
        for fine in ["127.0.0.1:7070", "[::1]:7070", "node-1.example:443"] {
            assert!(is_plain_address(fine), "{fine}");
        }
        for bad in ["", "a;script-src *", "a b", "a,b", "*", "'self'", "a/b", "\u{e9}", &"a".repeat(300)] {
            assert!(!is_plain_address(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_page_is_whole_and_small() {
        let mut compressed = WEB_PAGE.brotli.unwrap_or(WEB_PAGE.plain).len();
        let html = String::from_utf8_lossy(WEB_PAGE.plain);
        for file in WEB_ASSETS {
            compressed += file.brotli.unwrap_or(file.plain).len();
        }
        assert!(compressed <= 200 * 1024, "{compressed} bytes");
        let named: Vec<&str> =
            html.split("/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() >= 3, "{html}");
        for name in named {
            assert!(WEB_ASSETS.iter().any(|file| file.name == name), "{name}");
        }
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("://"), "{html}");
    }
}
