//! The descriptions of what a node offers to clients, for people and for programs that are made from them: OpenAPI 3.1
//! of the requests over HTTP, and AsyncAPI 3 of the messages over WebSocket.
//!
//! The documents are written by hand. Tests hold them against the table of all paths and the table of all codes, and
//! execute every example in them.

use axum::extract::RawQuery;
use axum::response::Response;

use super::app::typed;
use super::params::Query;
use super::problem::Problem;

/// The description of the requests over HTTP.
const OPENAPI: &str = include_str!("api/openapi.json");
/// The description of the messages over WebSocket.
const ASYNCAPI: &str = include_str!("api/asyncapi.json");

/// Answers with the OpenAPI document.
pub(super) async fn openapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    document(query, OPENAPI)
}

/// Answers with the AsyncAPI document.
pub(super) async fn asyncapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    document(query, ASYNCAPI)
}

fn document(query: Option<String>, text: &'static str) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    Ok(typed("application/json", text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::auth::Resource;
    use crate::protocol::refusal::ALL_CODES;

    /// Files of the pages for browsers, which are no part of the API.
    const PAGE_FILES: [Resource; 2] = [Resource::WebAsset, Resource::GraphqlPage];

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    /// The paths of the document, with their methods, as the table of all paths has them.
    fn described() -> BTreeSet<(String, String)> {
        let document = parsed(OPENAPI);
        let paths = document["paths"].as_object().expect("paths");
        let table_path = |path: &str| {
            let named = path.split('{').next().unwrap_or(path);
            Resource::of(named).map_or_else(|| named.to_owned(), |resource| resource.path().to_owned())
        };
        let methods = paths.iter().flat_map(|(path, operations)| {
            let methods = operations.as_object().expect("operations").keys();
            methods.map(move |method| (table_path(path), method.to_uppercase()))
        });
        methods.collect()
    }

    #[test]
    fn the_document_has_the_paths_and_methods_of_the_table_and_no_others() {
        let table = Resource::ALL.into_iter().filter(|resource| !PAGE_FILES.contains(resource));
        let table: BTreeSet<(String, String)> = table
            .flat_map(|resource| {
                resource
                    .methods()
                    .iter()
                    .map(move |method| (resource.path().to_owned(), (*method).to_owned()))
            })
            .collect();
        assert_eq!(described(), table);
    }

    #[test]
    fn both_documents_name_all_codes() {
        let all: BTreeSet<&str> = ALL_CODES.iter().map(|code| code.as_str()).collect();
        for text in [OPENAPI, ASYNCAPI] {
            let document = parsed(text);
            let codes = document["components"]["schemas"]["Code"]["enum"].as_array().expect("codes").clone();
            let codes: BTreeSet<&str> = codes.iter().filter_map(Value::as_str).collect();
            assert_eq!(codes, all);
        }
    }

    /// Every reference leads to something.
    #[test]
    fn no_reference_is_dangling() {
        fn visit(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').expect(reference);
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|member| visit(member, document));
                }
                Value::Array(items) => items.iter().for_each(|item| visit(item, document)),
                _ => {}
            }
        }
        for text in [OPENAPI, ASYNCAPI] {
            let document = parsed(text);
            visit(&document, &document);
        }
    }
}
