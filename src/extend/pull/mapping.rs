//! Turns a document that came from outside into records to publish.
//!
//! A document is one JSON value, or one text, which counts as a JSON text. Without rules it must be a publish object, or
//! an array of them, as a client sends it. A rule with `source`, `pointer` and `ts` finds the data of a record by a
//! pointer. Where a pointer or a place of the template finds nothing in an array, it is tried with each element, so that
//! one rule serves an answer with one thing and an answer with a list of them.

use serde_json::Value;

use super::cel::CelMapping;
use super::fields::PullFields;
use super::mapped::{Mapped, PullData, PullDraft, RECORDS_PER_DOCUMENT_MAX};
use super::moment::{MOMENT_UNITS, MomentUnit, moment};
use super::pointer::{Found, JsonPointer, is_array, json_value};
use super::template::{Facts, SourceTemplate, Unfilled, shortened};
use crate::extend::definition::BadField;
use crate::limits::TTL_MS_MAX;

/// Most rules of a definition.
const RULES_MAX: usize = 64;
/// PullFields of a rule.
const RULE_FIELDS: &[&str] = &["source", "pointer", "ts", "ts_unit", "ttl"];

/// The rules by which documents become records.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    rules: Vec<MappingRule>,
}

/// A way from a document to records.
#[derive(Clone, Debug)]
enum MappingRule {
    /// A rule by pointers.
    Pointers(PointerRule),
    /// A rule by an expression.
    Cel(CelMapping),
}

/// A rule that finds the parts of records by pointers.
#[derive(Clone, Debug)]
struct PointerRule {
    source: SourceTemplate,
    pointer: JsonPointer,
    ts: Option<JsonPointer>,
    unit: MomentUnit,
    ttl_ms: u64,
}

impl Mapping {
    /// Reads the rules of a definition. `default_source` is the template of the only rule if there is none.
    pub fn read(fields: &PullFields<'_>, default_source: Option<&str>) -> Result<Mapping, BadField> {
        let items = fields.list("records", RULES_MAX)?;
        let read = |(at, item): (usize, &Value)| {
            let rule = PullFields::new(&fields.name(&format!("records[{at}]")), item)?;
            match rule.value("cel") {
                Some(_) => rule.only(&[&["cel"]]).and_then(|()| cel(&rule)),
                None => PointerRule::read(&rule).map(MappingRule::Pointers),
            }
        };
        let mut rules = items.iter().enumerate().map(read).collect::<Result<Vec<MappingRule>, BadField>>()?;
        if fields.value("cel").is_some() {
            if fields.value("records").is_some() {
                return Err(
                    fields.bad("cel", "no cel beside records: an entry of records may be { cel = \"…\" }")
                );
            }
            rules.push(cel(fields)?);
        } else if let Some(source) = default_source.filter(|_| fields.value("records").is_none()) {
            let source = SourceTemplate::parse(source).map_err(|allowed| fields.bad("records", allowed))?;
            rules.push(MappingRule::Pointers(PointerRule::whole(source)));
        }
        Ok(Mapping { rules })
    }

    /// Adds bytes that are no JSON as a record of the source that the rules name for them.
    pub fn map_binary(&self, bytes: &[u8], facts: Facts<'_>, mapped: &mut Mapped) {
        if self.rules.is_empty() {
            mapped.fail("bytes that are no text are no publish object".into());
        }
        for rule in &self.rules {
            let MappingRule::Pointers(rule) = rule else {
                mapped.fail("an expression takes no bytes that are no text".into());
                continue;
            };
            match rule.source.fill(&[], None, facts) {
                Ok(source) => {
                    let data = PullData::Binary(bytes.to_vec());
                    mapped.add(PullDraft { source, ts: None, data, ttl_ms: rule.ttl_ms });
                }
                Err(Unfilled::Missing(why) | Unfilled::Unusable(why)) => mapped.fail(why),
            }
        }
    }

    /// Adds deletions of the sources that the rules name by facts alone. A rule that names sources by what stands in the data
    /// cannot tell which to delete, and an expression is not asked.
    #[cfg(feature = "kafka")]
    pub fn map_deletion(&self, facts: Facts<'_>, mapped: &mut Mapped) {
        for rule in &self.rules {
            let MappingRule::Pointers(rule) = rule else { continue };
            if let Ok(source) = rule.source.fill(&[], None, facts) {
                mapped.add(PullDraft { source, ts: None, data: PullData::Deleted, ttl_ms: 0 });
            }
        }
    }

    /// Adds the records of a document to those of others.
    pub fn map(&self, document: &str, facts: Facts<'_>, mapped: &mut Mapped) {
        let Some(document) = json_value(document) else {
            return mapped.fail(format!("{:?} is no JSON", shortened(document)));
        };
        if self.rules.is_empty() {
            return mapped.take_publishes(document);
        }
        self.rules.iter().for_each(|rule| match rule {
            MappingRule::Pointers(rule) => rule.apply(document, facts, mapped),
            MappingRule::Cel(rule) => rule.apply(document, facts, mapped),
        });
    }
}

impl PointerRule {
    /// A rule that publishes whole documents.
    fn whole(source: SourceTemplate) -> PointerRule {
        let pointer = JsonPointer::whole();
        PointerRule { source, pointer, ts: None, unit: MomentUnit::BySize, ttl_ms: 0 }
    }

    fn read(fields: &PullFields<'_>) -> Result<PointerRule, BadField> {
        fields.only(&[RULE_FIELDS])?;
        let pointer = |field: &str| -> Result<Option<JsonPointer>, BadField> {
            let text = match fields.value(field) {
                None => return Ok(None),
                Some(value) => value.as_str().ok_or_else(|| fields.bad(field, "a JSON Pointer"))?,
            };
            JsonPointer::parse(text).map(Some).map_err(|allowed| fields.bad(field, allowed))
        };
        let source = fields.required_text("source", "the name of a source, or a template of it")?;
        let source = SourceTemplate::parse(source).map_err(|allowed| fields.bad("source", allowed))?;
        let data = pointer("pointer")?;
        if source.has_star() && !data.as_ref().is_some_and(JsonPointer::has_star) {
            return Err(fields.bad("source", "{*} only where the pointer has a \"*\""));
        }
        let ts = pointer("ts")?;
        if ts.as_ref().is_some_and(JsonPointer::has_star) {
            return Err(fields.bad("ts", "a JSON Pointer without \"*\": it is looked up in each element"));
        }
        let whole = PointerRule::whole(source);
        Ok(PointerRule {
            pointer: data.unwrap_or(whole.pointer),
            source: whole.source,
            ts,
            unit: fields.choice("ts_unit", &MOMENT_UNITS)?,
            ttl_ms: fields.duration_us("ttl", 1_000..=TTL_MS_MAX * 1_000, 0)? / 1_000,
        })
    }

    fn apply(&self, document: &str, facts: Facts<'_>, mapped: &mut Mapped) {
        if self.apply_to(document, &[], facts, mapped) {
            return;
        }
        if !is_array(document) {
            return mapped.fail(format!("{} finds nothing in {}", self.pointer, shortened(document)));
        }
        let whole = Found { value: document, around: Vec::new(), key: None };
        for element in whole.each().take(RECORDS_PER_DOCUMENT_MAX) {
            if !self.apply_to(element.value, &[document], facts, mapped) {
                mapped.fail(format!("{} finds nothing in {}", self.pointer, shortened(element.value)));
            }
        }
    }

    /// Makes the records of one value. Returns false if the pointer finds nothing in it.
    fn apply_to(&self, value: &str, around: &[&str], facts: Facts<'_>, mapped: &mut Mapped) -> bool {
        let room = RECORDS_PER_DOCUMENT_MAX.saturating_sub(mapped.drafts.len());
        // One more than there is room for, so that it is told that some are left out.
        let all = self.pointer.find_all(value, room + 1);
        let is_found = !all.is_empty();
        for found in all {
            let scopes: Vec<&str> =
                found.around.iter().copied().chain([value]).chain(around.iter().copied()).collect();
            match self.source.fill(&scopes, found.key.as_deref(), facts) {
                Ok(source) => self.make(source, found.value, &scopes, mapped),
                Err(Unfilled::Missing(_)) if is_array(found.value) => {
                    self.make_each(found, &scopes, facts, mapped);
                }
                Err(Unfilled::Missing(why) | Unfilled::Unusable(why)) => mapped.fail(why),
            }
        }
        is_found
    }

    /// Makes a record of each element of an array.
    fn make_each(&self, array: Found<'_>, scopes: &[&str], facts: Facts<'_>, mapped: &mut Mapped) {
        let key = array.key.clone();
        for element in array.each().take(RECORDS_PER_DOCUMENT_MAX + 1) {
            let scopes: Vec<&str> = [element.value].into_iter().chain(scopes.iter().copied()).collect();
            match self.source.fill(&scopes, key.as_deref(), facts) {
                Ok(source) => self.make(source, element.value, &scopes, mapped),
                Err(Unfilled::Missing(why) | Unfilled::Unusable(why)) => mapped.fail(why),
            }
        }
    }

    fn make(&self, source: String, data: &str, scopes: &[&str], mapped: &mut Mapped) {
        let ts = match &self.ts {
            None => None,
            Some(pointer) => {
                let Some(value) = scopes.iter().find_map(|scope| pointer.find(scope)) else {
                    return mapped.fail(format!("ts: {pointer} finds nothing"));
                };
                let Some(ts) = moment(value, self.unit) else {
                    return mapped.fail(format!("ts: {} is no time", shortened(value)));
                };
                Some(ts)
            }
        };
        mapped.add(PullDraft { source, ts, data: PullData::Json(data.to_owned()), ttl_ms: self.ttl_ms });
    }
}

/// Reads the expression of a table.
fn cel(fields: &PullFields<'_>) -> Result<MappingRule, BadField> {
    let text = fields.required_text("cel", "an expression")?;
    CelMapping::parse(text)
        .map(MappingRule::Cel)
        .map_err(|error| fields.bad("cel", format!("an expression of CEL ({error})")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(definition: Value) -> Mapping {
        Mapping::read(&PullFields::new("", &definition).expect("a table"), None).expect("a mapping")
    }

    fn mapped(definition: Value, document: &str) -> Mapped {
        let mut mapped = Mapped::default();
        mapping(definition).map(document, Facts::default(), &mut mapped);
        mapped
    }

    /// Source, timestamp and data of each record, in one text.
    fn told(mapped: &Mapped) -> Vec<String> {
        let tell = |draft: &PullDraft| match &draft.data {
            PullData::Json(text) => format!("{} {:?} {text}", draft.source, draft.ts.unwrap_or(0)),
            other => format!("{} {:?} {other:?}", draft.source, draft.ts.unwrap_or(0)),
        };
        mapped.drafts.iter().map(tell).collect()
    }

    #[test]
    fn one_rule_serves_one_thing_and_a_list_of_them() {
        let rule =
            || json!({"records": [{"source": "weather/{/city}", "pointer": "/current", "ts": "/time"}]});
        let one = r#"{"city":"oslo","time":1763800000,"current":{"c":-1.50}}"#;
        let oslo = r#"weather/oslo 1763800000000000 {"c":-1.50}"#;
        assert_eq!(told(&mapped(rule(), one)), [oslo]);
        let list = format!("[{one},{}]", one.replace("oslo", "rome"));
        assert_eq!(told(&mapped(rule(), &list)), [oslo.to_owned(), oslo.replace("oslo", "rome")]);
        let mixed = mapped(rule(), &format!("[{one},{{\"city\":\"x\"}},{{\"current\":1}},7]"));
        assert_eq!((told(&mixed), mixed.failed), (vec![oslo.to_owned()], 3));
        let none = mapped(rule(), "{}");
        assert_eq!(none.failure.as_deref(), Some("/current finds nothing in {}"));
    }

    #[test]
    fn an_array_at_the_pointer_is_one_value_unless_the_template_needs_its_elements() {
        let document = r#"{"time":5000,"cities":[{"name":"oslo","c":1},{"name":"rome","c":2,"time":6000}]}"#;
        let each = json!({"records": [{"source": "w/{/name}", "pointer": "/cities", "ts": "/time", "ts_unit": "ms"}]});
        let expected = [
            r#"w/oslo 5000000 {"name":"oslo","c":1}"#,
            r#"w/rome 6000000 {"name":"rome","c":2,"time":6000}"#,
        ];
        assert_eq!(told(&mapped(each, document)), expected);
        let whole = json!({"records": [{"source": "all", "pointer": "/cities"}]});
        assert_eq!(mapped(whole, document).drafts.len(), 1);
        let star = json!({"records": [{"source": "w/{/name}", "pointer": "/cities/*/c"}]});
        assert_eq!(told(&mapped(star, document)), ["w/oslo 0 1", "w/rome 0 2"]);
        let rates = json!({"records": [{"source": "rates/{*}", "pointer": "/rates/*"}]});
        assert_eq!(
            told(&mapped(rates, r#"{"rates":{"EUR":1.0,"USD":1.10}}"#)),
            ["rates/EUR 0 1.0", "rates/USD 0 1.10"]
        );
    }

    #[test]
    fn without_rules_documents_are_publish_objects() {
        let publishes = r#"[{"source":"a","data":1.0,"ts":5},{"source":"b","deleted":true},{"source":"a//b","data":1},3]"#;
        let mapped = mapped(json!({}), publishes);
        assert_eq!(told(&mapped), ["a 5 1.0", "b 0 Deleted"]);
        assert_eq!(mapped.failed, 2);
        assert!(
            mapped.failure.as_deref().is_some_and(|why| why.contains("bad_source")),
            "{:?}",
            mapped.failure
        );
    }

    #[test]
    fn what_cannot_be_a_record_is_counted_with_the_first_reason() {
        let rule = || json!({"records": [{"source": "w/{/city}", "ts": "/time"}]});
        let failure = |document: &str| mapped(rule(), document).failure.expect(document);
        assert_eq!(failure(r#"{"city":"a"}"#), "ts: /time finds nothing");
        assert_eq!(failure(r#"{"city":"a","time":"noon"}"#), "ts: \"noon\" is no time");
        assert!(failure(r#"{"city":"..","time":5}"#).contains("has a segment that is empty"));
        assert!(failure(r#"{"city":"*","time":5}"#).contains("control character or \"*\""));
        assert!(failure(r#"{"city":{},"time":5}"#).contains("no text, number or truth value"));
        assert!(failure("<html>").contains("is no JSON"));
        assert!(failure("").contains("is no JSON"));
    }

    #[test]
    fn one_document_makes_a_bounded_number_of_records() {
        let many = format!("[{}1]", "1,".repeat(RECORDS_PER_DOCUMENT_MAX + 5));
        let star = mapped(json!({"records": [{"source": "n/{*}", "pointer": "/*"}]}), &many);
        assert_eq!((star.drafts.len(), star.failed), (RECORDS_PER_DOCUMENT_MAX, 1));
        let large = format!("\"{}\"", "x".repeat(4 << 20));
        let rules: Vec<Value> = (0..20).map(|at| json!({"source": format!("copy/{at}")})).collect();
        let copies = mapped(json!({ "records": rules }), &large);
        assert_eq!((copies.drafts.len(), copies.failed), (15, 5));
    }

    #[test]
    fn bad_rules_name_their_place() {
        let error = |rule: Value| {
            let definition = json!({"records": [{"source": "a"}, rule]});
            let fields = PullFields::new("", &definition).expect("a table");
            Mapping::read(&fields, None).expect_err("a bad rule").to_string()
        };
        assert!(error(json!({"pointer": ""})).starts_with("records[1].source: missing"));
        assert!(
            error(json!({"source": "a/{city}"})).starts_with("records[1].source: \"a/{city}\"; allowed: ")
        );
        assert!(error(json!({"source": "a", "pointer": "x"})).starts_with("records[1].pointer: \"x\""));
        assert!(error(json!({"source": "a/{*}", "pointer": "/x"})).contains("only where the pointer has"));
        assert!(error(json!({"source": "a", "ts": "/*"})).starts_with("records[1].ts"));
        assert!(error(json!({"source": "a", "point": "/x"})).contains("no such field"));
        assert!(error(json!(7)).starts_with("records[1]: 7; allowed: a table"));
    }
}
