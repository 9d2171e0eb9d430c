//! Bounds of what the text of a request may ask for, checked before the schema sees it.
//!
//! The library bounds the complexity of a request, but looks at the fragments of a document once for each place in which
//! they are used. A document in which every fragment uses the next one twice would keep it busy for ever, and deeply
//! nested values would use up the stack. So the nesting of the text, the depth of the fields and their number with all
//! fragments in place are computed here, each fragment once.

use std::collections::BTreeMap;

use async_graphql::Request;
use async_graphql::parser::types::{ExecutableDocument, OperationType, Selection, SelectionSet};

use crate::protocol::refusal::{Code, Refusal};

/// Longest text of a request, in bytes. Reading so much takes some milliseconds.
const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of brackets in the text, of lists and objects among the arguments, too.
const BRACKETS_MAX: usize = 48;
/// Deepest nesting of fields. The schema needs six.
pub(super) const DEPTH_MAX: usize = 10;
/// Deepest nesting of fields with those by which clients ask for the schema itself, of which tools send up to fifteen.
pub(super) const INTROSPECTION_DEPTH_MAX: usize = 20;
/// Most fields of a document, with all fragments in place. Tools ask for the schema with some hundred.
const FIELDS_MAX: usize = 2_000;
/// Most fragments that are used within each other.
const FRAGMENTS_DEEP_MAX: usize = 16;
/// Greatest complexity of a request: a field counts 1, and a page its fields as often as it may have records. A page of
/// 10,000 records with nine fields each has 100,000.
pub(super) const COMPLEXITY_MAX: usize = 100_000;
/// Most directives of one field.
pub(super) const DIRECTIVES_MAX: usize = 8;

const _: () = assert!(DEPTH_MAX < INTROSPECTION_DEPTH_MAX && INTROSPECTION_DEPTH_MAX < BRACKETS_MAX);

/// What a document asks for, with all fragments in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    /// Nesting of fields.
    depth: usize,
    /// Number of fields.
    fields: usize,
}

/// Refuses a request that asks for too much, or says what it is. The text of the request is parsed, and kept with it.
pub(super) fn check(request: &mut Request) -> Result<OperationType, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadRequest, message);
    let bytes = request.query.len();
    if bytes > QUERY_BYTES_MAX {
        let message = format!("the query has {bytes} bytes; at most {QUERY_BYTES_MAX}");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    if nesting(&request.query) > BRACKETS_MAX {
        return Err(bad(format!("brackets are nested too deep; at most {BRACKETS_MAX}")));
    }
    let name = request.operation_name.clone();
    let document = request.parsed_query().map_err(|error| bad(error.message))?;
    let mut known = BTreeMap::new();
    for (_, operation) in document.operations.iter() {
        let set = &operation.node.selection_set.node;
        let extent = extent_of(set, document, &mut known, 0).map_err(|reason| bad(reason.into()))?;
        if extent.depth > DEPTH_MAX {
            return Err(bad(format!("fields are nested {} deep; at most {DEPTH_MAX}", extent.depth)));
        }
        if extent.fields > FIELDS_MAX {
            return Err(bad(format!("more than {FIELDS_MAX} fields")));
        }
        let is_subscription = operation.node.ty == OperationType::Subscription;
        if is_subscription && !has_one_field(set) {
            return Err(bad("a subscription has exactly one field, and no fragment, at its root".into()));
        }
    }
    kind_of(document, name.as_deref()).map_err(bad)
}

/// The kind of the operation that is asked for.
fn kind_of(document: &ExecutableDocument, name: Option<&str>) -> Result<OperationType, String> {
    let mut operations = document.operations.iter();
    let found = match name {
        Some(name) => operations.find(|(other, _)| other.is_some_and(|other| other.as_str() == name)),
        None if document.operations.iter().count() > 1 => {
            return Err("there are several operations; operationName says which is meant".into());
        }
        None => operations.next(),
    };
    match (found, name) {
        (Some((_, operation)), _) => Ok(operation.node.ty),
        (None, Some(name)) => {
            Err(format!("there is no operation {:?}", name.chars().take(64).collect::<String>()))
        }
        (None, None) => Err("the query has no operation".into()),
    }
}

fn has_one_field(set: &SelectionSet) -> bool {
    matches!(set.items.as_slice(), [only] if matches!(only.node, Selection::Field(_)))
}

/// Computes the extent of a selection. `known` has the fragments that were computed already; `None` those that are being
/// computed.
fn extent_of<'a>(
    set: &'a SelectionSet,
    document: &'a ExecutableDocument,
    known: &mut BTreeMap<&'a str, Option<Extent>>,
    fragments_deep: usize,
) -> Result<Extent, &'static str> {
    let mut whole = Extent::default();
    for selection in &set.items {
        let part = match &selection.node {
            Selection::Field(field) => {
                let beneath = extent_of(&field.node.selection_set.node, document, known, fragments_deep)?;
                // The fields by which a client asks for the schema have a bound of their own.
                let is_introspection = field.node.name.node.starts_with("__");
                let depth = if is_introspection { 0 } else { beneath.depth };
                Extent { depth: depth + 1, fields: beneath.fields.saturating_add(1) }
            }
            Selection::InlineFragment(fragment) => {
                extent_of(&fragment.node.selection_set.node, document, known, fragments_deep)?
            }
            Selection::FragmentSpread(spread) => extent_of_fragment(
                spread.node.fragment_name.node.as_str(),
                document,
                known,
                fragments_deep + 1,
            )?,
        };
        whole.depth = whole.depth.max(part.depth);
        whole.fields = whole.fields.saturating_add(part.fields);
    }
    Ok(whole)
}

fn extent_of_fragment<'a>(
    name: &'a str,
    document: &'a ExecutableDocument,
    known: &mut BTreeMap<&'a str, Option<Extent>>,
    fragments_deep: usize,
) -> Result<Extent, &'static str> {
    match known.get(name) {
        Some(Some(extent)) => return Ok(*extent),
        Some(None) => return Err("a fragment uses itself"),
        None if fragments_deep > FRAGMENTS_DEEP_MAX => return Err("too many fragments that use each other"),
        None => {}
    }
    // The schema says that a fragment is missing.
    let Some(fragment) = document.fragments.get(name) else { return Ok(Extent::default()) };
    known.insert(name, None);
    let mut extent = extent_of(&fragment.node.selection_set.node, document, known, fragments_deep)?;
    // A fragment is work wherever it is used, even if it has no fields.
    extent.fields = extent.fields.max(1);
    known.insert(name, Some(extent));
    Ok(extent)
}

/// The deepest nesting of brackets in a text, without those in strings and comments.
fn nesting(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut deepest) = (0, 0usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' | b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at),
            b'#' => at += rest_of(bytes, at).iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count(),
            _ => {}
        }
    }
    deepest
}

fn rest_of(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// The place behind a string whose first quote is before `at`. A string that does not end, or ends with its line, is
/// none, and what follows is looked at.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    if rest_of(bytes, at).starts_with(b"\"\"") {
        let mut end = at + 2;
        while let Some(&byte) = bytes.get(end) {
            let rest = rest_of(bytes, end);
            match byte {
                b'"' if rest.starts_with(b"\"\"\"") => return end + 3,
                b'\\' if rest.starts_with(b"\\\"\"\"") => end += 4,
                _ => end += 1,
            }
        }
        return at + 2;
    }
    let mut end = at;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            b'\n' | b'\r' => break,
            _ => end += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(query: &str) -> Result<OperationType, Refusal> {
        check(&mut Request::new(query))
    }

    fn refused(query: &str) -> String {
        checked(query).expect_err(query).message
    }

    #[test]
    fn depth_is_that_of_the_fields() {
        let deep = |depth: usize| format!("{}{}", "{a".repeat(depth), "}".repeat(depth));
        assert_eq!(checked(&deep(DEPTH_MAX)), Ok(OperationType::Query));
        assert!(refused(&deep(DEPTH_MAX + 1)).contains("11 deep"));
        // The fragment adds its own depth.
        let spread = format!("{{a{{a{{...F}}}}}} fragment F on T {}", deep(8));
        assert_eq!(checked(&spread), Ok(OperationType::Query));
        let spread = format!("{{a{{a{{a{{...F}}}}}}}} fragment F on T {}", deep(8));
        assert!(refused(&spread).contains("11 deep"));
        let schema = format!("{{__schema{}}}", deep(14));
        assert_eq!(checked(&schema), Ok(OperationType::Query));
    }

    #[test]
    fn fragments_that_grow_or_turn_in_circles_end_at_once() {
        let mut bomb = "{...F0}".to_owned();
        for number in 0..14 {
            let next = number + 1;
            bomb.push_str(&format!(" fragment F{number} on T {{...F{next} ...F{next}}}"));
        }
        bomb.push_str(" fragment F14 on T {a b}");
        assert!(refused(&bomb).contains("fields"));
        assert!(refused("{...A} fragment A on T {...B} fragment B on T {...A}").contains("itself"));
        let chain: String = (0..40).map(|n| format!(" fragment F{n} on T {{...F{}}}", n + 1)).collect();
        assert!(refused(&format!("{{...F0}}{chain}")).contains("use each other"));
        assert!(refused(&format!("{{{}}}", "a ".repeat(FIELDS_MAX + 1))).contains("fields"));
    }

    #[test]
    fn brackets_are_counted_where_they_nest() {
        assert_eq!(nesting("{a(b:[1,{c:2}])}"), 4);
        assert_eq!(nesting(r#"{a(b:"[[[\"[[",c:"""[[ \""" [ """)} # [[[["#), 2);
        assert_eq!(nesting("\"[[\n[["), 4, "a string ends with its line");
        assert_eq!(nesting("\"\"\"[["), 2, "a string that does not end");
        assert!(refused(&format!("{{a(b:{})}}", "[".repeat(30_000))).contains("nested"));
        assert_eq!(checked(&" ".repeat(70_000)).expect_err("too long").code, Code::TooLarge);
    }

    #[test]
    fn the_operation_that_is_meant_is_found() {
        assert_eq!(checked("mutation {a}"), Ok(OperationType::Mutation));
        assert_eq!(checked("subscription {a}"), Ok(OperationType::Subscription));
        assert!(refused("subscription {a b}").contains("exactly one"));
        assert!(refused("query A {a} mutation B {b}").contains("operationName"));
        let mut named = Request::new("query A {a} mutation B {b}").operation_name("B");
        assert_eq!(check(&mut named), Ok(OperationType::Mutation));
        let mut missing = Request::new("query A {a}").operation_name("C");
        assert!(check(&mut missing).expect_err("no such operation").message.contains("\"C\""));
        for bad in ["", "{", "{a", "nothing", "fragment F on T {a}"] {
            assert_eq!(checked(bad).expect_err(bad).code, Code::BadRequest);
        }
    }
}
