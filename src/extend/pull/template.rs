//! Names of sources with places that are filled from what came: `weather/{/city}`.

use std::fmt;

use super::pointer::JsonPointer;
use crate::record::Source;

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 512;
/// What may stand between braces, for errors.
const ALLOWED: &str = "a name of a source in which {/JSON/Pointer}, {*}, {topic}, {topic/N}, {event}, {key} or {file} may \
                       stand, and {{ and }} for braces";

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceTemplate {
    parts: Vec<TemplatePart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    /// This text as it is.
    Literal(String),
    /// The text, number or truth value at a pointer.
    At(JsonPointer),
    /// The name or index that the last `*` of the rule's pointer stands for.
    Star,
    /// The topic of a message.
    Topic,
    /// One segment of the topic, counted from 0.
    TopicSegment(usize),
    /// A fact about what came that has a name.
    Fact(FactName),
}

/// Names of facts about what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FactName {
    /// The type of an event of a stream of Server-Sent Events.
    Event,
    /// The key of a message.
    Key,
    /// The name of the file, without its folder.
    File,
}

/// What is known of a document beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts<'a> {
    /// The topic of the message.
    pub topic: Option<&'a str>,
    /// The type of the event.
    pub event: Option<&'a str>,
    /// The key of the message.
    pub key: Option<&'a str>,
    /// The name of the file.
    pub file: Option<&'a str>,
    /// The wall clock, in microseconds.
    pub now_us: u64,
}

/// The reason why a place of a template cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The pointer finds nothing. An element of an array may have it.
    Missing(String),
    /// There is a value that is no part of a name, or a fact that this kind does not have.
    Unusable(String),
}

impl SourceTemplate {
    /// Reads a template. Returns what is allowed otherwise.
    pub fn parse(text: &str) -> Result<SourceTemplate, String> {
        if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("1 to {TEMPLATE_BYTES_MAX} bytes"));
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (inner, after) = rest.split_once('}').filter(|_| brace == "{").ok_or(ALLOWED)?;
            if !literal.is_empty() {
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::parse(inner)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal));
        }
        let template = SourceTemplate { parts };
        template.check()?;
        Ok(template)
    }

    /// Checks the name that the template gives when every place is filled with a letter.
    fn check(&self) -> Result<(), String> {
        let filled: String = self
            .parts
            .iter()
            .map(|part| match part {
                TemplatePart::Literal(text) => text,
                _ => "x",
            })
            .collect();
        if Source::is_system(&filled) {
            return Err("a name that does not begin with \"$\", since such names belong to the system".into());
        }
        Source::check(&filled).map_err(|error| format!("a name of a source ({error})"))
    }

    /// Returns whether a place refers to a `*` of the rule's pointer.
    pub fn has_star(&self) -> bool {
        self.parts.contains(&TemplatePart::Star)
    }

    /// Fills the places. Pointers are looked up in the `scopes`, one after another, until one has what they name.
    pub fn fill(&self, scopes: &[&str], star: Option<&str>, facts: Facts<'_>) -> Result<String, Unfilled> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Literal(text) => name.push_str(text),
                TemplatePart::At(pointer) => {
                    let value = scopes.iter().find_map(|scope| pointer.find(scope));
                    let value =
                        value.ok_or_else(|| Unfilled::Missing(format!("{{{pointer}}} finds nothing")))?;
                    name.push_str(&part_of_name(value).ok_or_else(|| {
                        let what = "which is no text, number or truth value";
                        Unfilled::Unusable(format!("{{{pointer}}} is {}, {what}", shortened(value)))
                    })?);
                }
                TemplatePart::Star => name.push_str(fact("*", star)?),
                TemplatePart::Topic => name.push_str(fact("topic", facts.topic)?),
                TemplatePart::TopicSegment(index) => {
                    let segment = fact("topic", facts.topic)?.split('/').nth(*index);
                    name.push_str(fact(&format!("topic/{index}"), segment)?);
                }
                TemplatePart::Fact(which) => name.push_str(fact(&which.to_string(), facts.get(*which))?),
            }
        }
        Ok(name)
    }
}

impl TemplatePart {
    fn parse(inner: &str) -> Result<TemplatePart, String> {
        match inner {
            "*" => Ok(TemplatePart::Star),
            "topic" => Ok(TemplatePart::Topic),
            "event" => Ok(TemplatePart::Fact(FactName::Event)),
            "key" => Ok(TemplatePart::Fact(FactName::Key)),
            "file" => Ok(TemplatePart::Fact(FactName::File)),
            _ if inner.starts_with('/') => {
                let pointer = JsonPointer::parse(inner).map_err(str::to_owned)?;
                match pointer.has_star() {
                    true => Err("{*} for what a \"*\" in the pointer stands for".into()),
                    false => Ok(TemplatePart::At(pointer)),
                }
            }
            _ => {
                let index = inner.strip_prefix("topic/").and_then(|index| index.parse().ok());
                index.map(TemplatePart::TopicSegment).ok_or_else(|| ALLOWED.into())
            }
        }
    }
}

impl<'a> Facts<'a> {
    /// No facts but the time.
    pub fn at(now_us: u64) -> Facts<'a> {
        Facts { now_us, ..Facts::default() }
    }

    fn get(self, name: FactName) -> Option<&'a str> {
        match name {
            FactName::Event => self.event,
            FactName::Key => self.key,
            FactName::File => self.file,
        }
    }
}

impl fmt::Display for FactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FactName::Event => "event",
            FactName::Key => "key",
            FactName::File => "file",
        })
    }
}

fn fact<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, Unfilled> {
    value.ok_or_else(|| Unfilled::Unusable(format!("there is no {{{name}}} here")))
}

/// The text of a JSON value as a part of a name.
fn part_of_name(value: &str) -> Option<String> {
    match value.trim_start().as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.trim().to_owned()),
    }
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, scopes: &[&str], facts: Facts<'_>) -> Result<String, Unfilled> {
        SourceTemplate::parse(template).expect(template).fill(scopes, Some("EUR"), facts)
    }

    #[test]
    fn places_are_filled() {
        let scopes = [r#"{"id":7}"#, r#"{"city":"Oslo/West","id":8,"on":true,"none":null}"#];
        let facts = Facts { topic: Some("plant/7/temp"), event: Some("tick"), ..Facts::default() };
        let filled = |template: &str| fill(template, &scopes, facts).expect(template);
        assert_eq!(filled("weather/{/city}"), "weather/Oslo/West");
        assert_eq!(filled("a/{/id}/{/on}"), "a/7/true", "the innermost scope comes first");
        assert_eq!(filled("mqtt/{topic}"), "mqtt/plant/7/temp");
        assert_eq!(filled("{topic/2}/{topic/1}/{event}"), "temp/7/tick");
        assert_eq!(filled("rates/{*}"), "rates/EUR");
        assert_eq!(filled("a{{b}}"), "a{b}");
        let missing = fill("{/none/x}", &scopes, facts).expect_err("missing");
        assert_eq!(missing, Unfilled::Missing("{/none/x} finds nothing".into()));
        for unusable in ["{/none}", "{key}", "{topic/3}"] {
            let error = fill(unusable, &scopes, facts).expect_err(unusable);
            assert!(matches!(error, Unfilled::Unusable(_)), "{error:?}");
        }
    }

    #[test]
    fn texts_that_are_no_templates() {
        for bad in [
            "",
            "{",
            "}",
            "a{",
            "a}",
            "{}",
            "{city}",
            "{/a~}",
            "{/a/*}",
            "{topic/x}",
            "$sys/{/a}",
            "a//b",
            "a/*",
            "{/a}/",
        ] {
            assert!(SourceTemplate::parse(bad).is_err(), "{bad}");
        }
        assert!(SourceTemplate::parse(&"a".repeat(513)).is_err());
    }
}
