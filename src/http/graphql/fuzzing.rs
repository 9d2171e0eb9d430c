//! The check of what clients of GraphQL send: messages of the WebSocket, and documents.

use async_graphql::Request;

use super::document;
use super::messages::{self, SocketMessage};

/// The input is text: a message, or a document.
pub(crate) fn graphql(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match messages::read(&text) {
        Ok(SocketMessage::Subscribe(id, request)) => {
            assert!(!id.is_empty() && !request.query.is_empty(), "{text:?}");
            measured(*request);
        }
        Ok(SocketMessage::Complete(id)) => assert!(!id.is_empty(), "{text:?}"),
        Ok(SocketMessage::Init(_) | SocketMessage::Ping(_) | SocketMessage::Pong) => {}
        Err(close) => assert_eq!(close.number, 4400, "{text:?}"),
    }
    measured(Request::new(text));
}

/// What is let through is the same request when it is looked at again.
fn measured(mut request: Request) {
    let first = document::check(&mut request);
    assert_eq!(document::check(&mut request), first, "{:?}", request.query);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&str; 8] = [
        r#"{"type":"connection_init","payload":{"token":"t","headers":{"Authorization":"Bearer t"}}}"#,
        r#"{"id":"1","type":"subscribe","payload":{"query":"{node{id}}","variables":{"a":[1,null]},"operationName":null}}"#,
        r#"{"type":"ping","payload":{"a":1}}"#,
        r#"{"id":"1","type":"complete"}"#,
        "query A($a: [String!]! = [\"b\"], $n: Micros) { r: records(pattern: \"**\", first: 7, updatedSince: $n) \
         { nodes { ...F } } } fragment F on Record { ts data @skip(if: true) history { edges { cursor } } }",
        "mutation { publish(ack: STORED, records: [{source: \"a\", data: {k: [1, 2.5e3, null, true, E]}}]) { ts } }",
        "subscription { records(patterns: [\"\"\"a\"\"\"]) { ... on Eos { resume } } } # end",
        "{ __schema { types { name } } }",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
