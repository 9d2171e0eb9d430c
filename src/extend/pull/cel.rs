//! Records by an expression: what it makes of a document is a publish object, or a list of them.

use std::sync::Arc;

use super::mapped::Mapped;
use super::template::Facts;
use crate::expression::{Dialect, Evaluated, Expression, ExpressionData, Variables};

/// An expression that makes publish objects of documents. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct CelMapping(Arc<Expression>);

impl CelMapping {
    /// Reads an expression. An error says where it is wrong.
    pub fn parse(text: &str) -> Result<CelMapping, String> {
        let compiled = Expression::compile(text, Dialect::Pull);
        compiled.map(|expression| CelMapping(Arc::new(expression))).map_err(|error| error.to_string())
    }

    /// Adds the records that the expression makes of a document.
    pub fn apply(&self, document: &str, facts: Facts<'_>, mapped: &mut Mapped) {
        let data = ExpressionData::json(document);
        let mut variables = Variables::of_record("", &data, 0, false);
        (variables.now, variables.topic) = (facts.now_us, facts.topic);
        match self.0.evaluate(&variables) {
            Ok(Evaluated::Json(text)) => mapped.take_publishes(&text),
            Ok(Evaluated::Unchanged) => mapped.take_publishes(document),
            Ok(other) => mapped.fail(format!("cel: {other:?} is no publish object and no list of them")),
            Err(error) => mapped.fail(format!("cel: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str, document: &str) -> Mapped {
        let mut mapped = Mapped::default();
        let facts = Facts { topic: Some("a/b"), now_us: 7, ..Facts::default() };
        CelMapping::parse(text).expect(text).apply(document, facts, &mut mapped);
        mapped
    }

    #[test]
    fn expressions_make_publish_objects() {
        let hourly = r#"{"time":[1,2],"celsius":[0.5,1.5],"place":"oslo"}"#;
        let made_of = made(r#"[{"source": "w/" + data.place, "ts": now, "data": data.celsius[0]}]"#, hourly);
        assert_eq!(made_of.drafts.len(), 1, "{made_of:?}");
        assert_eq!((made_of.drafts[0].source.as_str(), made_of.drafts[0].ts), ("w/oslo", Some(7)));
        let by_topic = made(r#"{"source": topic, "data": data}"#, "5");
        assert_eq!(by_topic.drafts[0].source, "a/b");
        assert_eq!(made("[]", "1"), Mapped::default());
        assert_eq!(made("1", "1").failed, 1);
        assert!(made("data.x.y", "1").failure.is_some_and(|why| why.starts_with("cel: ")));
        assert!(CelMapping::parse("data.").is_err());
    }
}
