//! The page by which people explore GraphQL: GraphiQL, from the binary.
//!
//! It is a third of a megabyte, so only builds with the feature `graphiql` have it. `scripts/graphiql` makes the files of
//! the packages of npm. They are compressed already, and sent so: every browser takes gzip.

use axum::http::header::HeaderMap;
use axum::http::{Method, Uri};
use axum::response::Response;

use crate::auth::Resource;
use crate::http::problem::Problem;
use crate::http::web::accepts_html;

/// Returns whether a GET of `/graphql` asks for the page: it has no query, and its sender takes HTML.
pub(in crate::http) fn wants_page(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && uri.query().unwrap_or_default().is_empty()
        && accepts_html(headers)
}

/// A file of the page, by its name beneath `/graphql/`.
pub(in crate::http) async fn page_file(uri: Uri) -> Result<Response, Problem> {
    built::file(uri.path().strip_prefix(Resource::GraphqlPage.path()).unwrap_or_default())
}

/// The page itself.
pub(super) fn page() -> Result<Response, Problem> {
    built::file("index.html")
}

#[cfg(feature = "graphiql")]
mod built {
    use axum::http::header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    };
    use axum::response::Response;

    use crate::http::app::typed;
    use crate::http::problem::Problem;
    use crate::protocol::refusal::Code;

    /// What the page may load and do: nothing of another host, no script within the page, and no style sheet within it
    /// either. Pictures in the style sheet are data of its own.
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                          connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// The files: name, media type, content, and whether it is compressed.
    const FILES: [(&str, &str, &[u8], bool); 4] = [
        ("index.html", "text/html; charset=utf-8", include_bytes!("page/index.html"), false),
        ("start.js", "text/javascript; charset=utf-8", include_bytes!("page/start.js"), false),
        ("graphiql.js", "text/javascript; charset=utf-8", include_bytes!("page/graphiql.js.gz"), true),
        ("graphiql.css", "text/css; charset=utf-8", include_bytes!("page/graphiql.css.gz"), true),
    ];

    pub(super) fn file(name: &str) -> Result<Response, Problem> {
        let found = FILES.iter().find(|(other, ..)| *other == name);
        let Some((_, media_type, content, is_compressed)) = found else {
            return Err(Problem::new(Code::NotFound, format!("the page has no file {name:.100}")));
        };
        let mut response = typed(media_type, *content);
        let headers = response.headers_mut();
        let mut set =
            |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set(CONTENT_SECURITY_POLICY, POLICY);
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(REFERRER_POLICY, "no-referrer");
        // The files change with the program alone.
        set(CACHE_CONTROL, "public, max-age=600");
        if *is_compressed {
            set(CONTENT_ENCODING, "gzip");
        }
        Ok(response)
    }
}

#[cfg(not(feature = "graphiql"))]
mod built {
    use axum::response::Response;

    use crate::http::problem::Problem;
    use crate::protocol::refusal::Code;

    pub(super) fn file(_: &str) -> Result<Response, Problem> {
        let detail =
            "this program was built without GraphiQL (the feature graphiql); send a query by GET or POST";
        Err(Problem::new(Code::NotFound, detail))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::ACCEPT;

    use super::*;

    #[test]
    fn browsers_get_the_page_and_programs_their_answer() {
        let wants = |method: Method, uri: &str, accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            wants_page(&method, &uri.parse().expect("a URI"), &headers)
        };
        assert!(wants(Method::GET, "/graphql", "text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!wants(Method::GET, "/graphql?query=%7Ba%7D", "text/html"));
        assert!(!wants(Method::GET, "/graphql", "*/*"));
        assert!(!wants(Method::POST, "/graphql", "text/html"));
    }
}
