//! JSON Pointers (RFC 6901) into the text of a document, with `*` for every element of an array or member of an object.
//!
//! The text is looked through and never turned into a tree and back: what a pointer finds is a part of the text,
//! verbatim, since data is passed on as it was written, with its spelling of numbers and its order of keys.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Longest pointer, in bytes.
const POINTER_BYTES_MAX: usize = 512;

/// A checked pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonPointer {
    steps: Vec<PointerStep>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PointerStep {
    /// The member of an object with this name, or the element of an array with this index.
    Name(String),
    /// Every member of an object, or every element of an array.
    Each,
}

/// A value that a pointer has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Text of the value, verbatim.
    pub value: &'a str,
    /// The values of the last `*`, the innermost first. Empty for a pointer without `*`.
    pub around: Vec<&'a str>,
    /// Name or index that the last `*` stands for.
    pub key: Option<String>,
}

impl JsonPointer {
    /// Reads a pointer. Returns what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<JsonPointer, &'static str> {
        if text.len() > POINTER_BYTES_MAX {
            return Err("a JSON Pointer of at most 512 bytes");
        }
        let Some(rest) = text.strip_prefix('/') else {
            return match text.is_empty() {
                true => Ok(JsonPointer { steps: Vec::new() }),
                false => Err("a JSON Pointer: empty, or beginning with \"/\""),
            };
        };
        let step = |segment: &str| match segment {
            "*" => Some(PointerStep::Each),
            _ => unescaped(segment).map(PointerStep::Name),
        };
        let steps: Option<Vec<PointerStep>> = rest.split('/').map(step).collect();
        steps
            .map(|steps| JsonPointer { steps })
            .ok_or("a JSON Pointer, in which \"~\" stands before 0 or 1 only")
    }

    /// The pointer to the whole document.
    pub fn whole() -> JsonPointer {
        JsonPointer { steps: Vec::new() }
    }

    /// Returns whether the pointer may find more than one value.
    pub fn has_star(&self) -> bool {
        self.steps.contains(&PointerStep::Each)
    }

    /// Returns the one value at a pointer without `*`.
    pub fn find<'a>(&self, document: &'a str) -> Option<&'a str> {
        self.steps.iter().try_fold(document, |value, step| match step {
            PointerStep::Name(name) => member(value, name),
            PointerStep::Each => None,
        })
    }

    /// Returns every value that the pointer names, in the order of the text, at most `count_max`.
    pub fn find_all<'a>(&self, document: &'a str, count_max: usize) -> Vec<Found<'a>> {
        let mut found = vec![Found { value: document, around: Vec::new(), key: None }];
        for step in &self.steps {
            found = match step {
                PointerStep::Name(name) => found
                    .into_iter()
                    .filter_map(|found| Some(Found { value: member(found.value, name)?, ..found }))
                    .collect(),
                PointerStep::Each => found.into_iter().flat_map(Found::each).take(count_max).collect(),
            };
        }
        found
    }
}

impl<'a> Found<'a> {
    /// All elements or members of the value, each with itself as the innermost value around it.
    pub fn each(self) -> impl Iterator<Item = Found<'a>> {
        parts(self.value).into_iter().map(move |(key, value)| {
            let around = std::iter::once(value).chain(self.around.iter().copied()).collect();
            Found { value, around, key: Some(key) }
        })
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| match step {
            PointerStep::Name(name) => write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")),
            PointerStep::Each => f.write_str("/*"),
        })
    }
}

/// Replaces `~1` by a slash and `~0` by a tilde. Returns `None` if a tilde stands before anything else.
fn unescaped(segment: &str) -> Option<String> {
    let mut parts = segment.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = if let Some(rest) = part.strip_prefix('0') {
            ('~', rest)
        } else {
            ('/', part.strip_prefix('1')?)
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(text)
}

/// Returns whether this is the text of an array.
pub(super) fn is_array(value: &str) -> bool {
    value.trim_start().starts_with('[')
}

/// Returns the text without the white space around it, if it is one JSON value.
pub(super) fn json_value(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get).map(str::trim)
}

/// Returns the member of an object, or the element of an array. Of members with the same name, it is the last one.
fn member<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_str(value);
    match value.trim_start().as_bytes().first()? {
        b'{' => reader.deserialize_map(MemberNamed(name)).ok()?,
        b'[' => {
            let is_index = name == "0" || !name.starts_with('0');
            let index = name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())??;
            is_index.then(|| reader.deserialize_seq(ElementAt(index)).ok())??
        }
        _ => None,
    }
}

/// Returns the elements of an array with their indexes, or the members of an object with their names.
fn parts(value: &str) -> Vec<(String, &str)> {
    let mut reader = serde_json::Deserializer::from_str(value);
    let parts = match value.trim_start().as_bytes().first() {
        Some(b'{') => reader.deserialize_map(AllParts),
        Some(b'[') => reader.deserialize_seq(AllParts),
        _ => return Vec::new(),
    };
    parts.unwrap_or_default()
}

/// Looks for the member with a name.
struct MemberNamed<'n>(&'n str);

impl<'de> Visitor<'de> for MemberNamed<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(NameIs(self.0))? {
            match is_it {
                true => found = Some(map.next_value::<&'de RawValue>()?.get()),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Compares a name with the one that is looked for, without making a copy of it.
struct NameIs<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Looks for the element with an index.
struct ElementAt(usize);

impl<'de> Visitor<'de> for ElementAt {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut at, mut found) = (0, None);
        // All elements are read, because a reader that stops early calls the rest a mistake.
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if at == self.0 {
                found = Some(element.get());
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Collects all elements or members.
struct AllParts;

impl<'de> Visitor<'de> for AllParts {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            parts.push((name, value.get()));
        }
        Ok(parts)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            parts.push((parts.len().to_string(), value.get()));
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Any JSON value of a few levels, with names that need escapes.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a~/\"ä\\\\]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab~/\"0]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        /// A pointer finds in the text what the JSON library finds in the tree.
        #[test]
        fn pointers_find_what_the_tree_has(value in values(), text in "(/([ab0-2]|~0|~1|\"){0,2}){0,3}") {
            let written = serde_json::to_string_pretty(&value).expect("JSON");
            let pointer = JsonPointer::parse(&text).expect(&text);
            let found = pointer.find(&written).map(|found| serde_json::from_str::<Value>(found).expect(found));
            prop_assert_eq!(found.as_ref(), value.pointer(&text));
            prop_assert_eq!(pointer.to_string(), text);
        }
    }

    #[test]
    fn values_are_found_verbatim() {
        let document = r#" {"a": {"b":[1.50, {"c" : 1e3}]}, "k/l":null, "a~b":"x", "a": {"b": [2.50]}} "#;
        let find = |text: &str| JsonPointer::parse(text).expect(text).find(document);
        assert_eq!(find("/a/b/0"), Some("2.50"), "the last of two members with a name");
        assert_eq!(find("/k~1l"), Some("null"));
        assert_eq!(find("/a~0b"), Some("\"x\""));
        assert_eq!(find(""), Some(document));
        for nothing in ["/b", "/a/b/1", "/a/b/00", "/a/b/-", "/a/b/0/x", "/"] {
            assert_eq!(find(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_star_stands_for_every_element_and_member() {
        let document = r#"{"rates":{"EUR":1.0,"USD":1.1},"list":[{"v":[1,2]},{"v":[3]},{"w":1}]}"#;
        let find = |text: &str| JsonPointer::parse(text).expect(text).find_all(document, 100);
        let keys = |found: &[Found<'_>]| -> Vec<String> {
            found
                .iter()
                .map(|found| format!("{}={}", found.key.clone().unwrap_or_default(), found.value))
                .collect()
        };
        assert_eq!(keys(&find("/rates/*")), ["EUR=1.0", "USD=1.1"]);
        let nested = find("/list/*/v/*");
        assert_eq!(keys(&nested), ["0=1", "1=2", "0=3"]);
        assert_eq!(nested[2].around, ["3", r#"{"v":[3]}"#], "the innermost first");
        assert_eq!(keys(&find("/list/*/v")), ["0=[1,2]", "1=[3]"]);
        assert_eq!(JsonPointer::parse("/list/*").expect("pointer").find_all(document, 2).len(), 2);
        assert!(find("/rates/EUR/*").is_empty());
    }

    #[test]
    fn texts_that_are_no_pointers() {
        for bad in ["a", "a/b", "/~", "/~2", "/a~", "#/a"] {
            assert!(JsonPointer::parse(bad).is_err(), "{bad}");
        }
        assert!(JsonPointer::parse(&"/a".repeat(257)).is_err());
    }
}
