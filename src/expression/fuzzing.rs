//! The check of expressions: reading any text, and evaluating what was read over any data.

use super::{Dialect, Evaluated, Expression, ExpressionData, Variables};

/// The input is the text of an expression, and behind a zero byte the data.
pub(crate) fn expression(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (text, data) = text.split_once('\0').unwrap_or((&text, r#"{"a":[1,2.5,"x"],"b":{"c":null}}"#));
    for dialect in [Dialect::Filter, Dialect::Middleware, Dialect::Pull] {
        let expression = match Expression::compile(text, dialect) {
            Ok(expression) => expression,
            Err(bad) => {
                assert!(bad.line >= 1 && bad.column >= 1 && !bad.message.is_empty(), "{bad:?}");
                assert!(bad.line as usize <= text.matches('\n').count() + 1, "{bad:?} of {text:?}");
                continue;
            }
        };
        let contents = [
            ExpressionData::json(data),
            ExpressionData::json("21"),
            ExpressionData::bytes(data.as_bytes()),
            ExpressionData::nothing(),
        ];
        for content in &contents {
            let variables = Variables::of_record("a/b", content, 1_700_000_000_000_000, false);
            let first = expression.evaluate(&variables);
            if let Ok(Evaluated::Json(text)) = &first {
                let read: Result<serde_json::Value, _> = serde_json::from_str(text);
                assert!(read.is_ok() || is_deep(text), "{text}");
            }
            // By now the data may be converted as a whole, which must make no difference.
            assert_eq!(expression.evaluate(&variables), first, "{text:?}");
            let _ = expression.is_true(&variables);
        }
    }
}

/// Returns whether JSON text may be nested deeper than its reader allows.
fn is_deep(text: &str) -> bool {
    text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() >= 100
}

/// Expressions as users write them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "data.temp > 20.0 && source.startsWith('sensors/')",
        "has(data.room) ? data.room in ['a', 'b'] : deleted",
        "data.items.exists(i, i.price * 1.2 >= 10) || ts > 1700000000000000",
        "{'c': (data.f - 32.0) / 1.8, 'at': micros(timestamp('2026-01-31T12:00:00Z'))}\0{\"f\":70}",
        "data.a.map(x, x + 1).filter(y, y != 2)[0] == -1u ? drop() : reject(r'why' + \"\\u00e9\")",
        "math.round(data * 10.0) / 10.0\0 21.45",
        "latest(source) == data ? drop() : data",
        "data.a.matches('^[a-z]+$') && size(data.a) < 10 // a comment",
        "string(data).split(',').join(';').replace('a', 'b').substring(1, 2)",
        "duration('1h30m') + timestamp(ts / 1000000) < fromMicros(now)",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
