//! Expressions against what CEL says of them, against the crate `cel`, and against those who mean harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::objects::Map as OtherMap;
use cel::{Context, Env, Value as OtherValue};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const ROOM: &str = r#"{"room":"kitchen","temp":21,"humidity":40.5,"tags":["a","b"],"list":[1,2,3],"sub":{"x":null,"y":7},"big":18446744073709551615,"twice":1,"twice":2,"esc":"a\u00e9\n"}"#;

fn compiled(text: &str, dialect: Dialect) -> Expression {
    Expression::compile(text, dialect).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

fn evaluated_over(text: &str, data: &ExpressionData<'_>) -> Result<Evaluated, EvaluationError> {
    let mut variables = Variables::of_record("home/kitchen", data, 1_700_000_000_000_000, false);
    (variables.now, variables.token) = (1_700_000_001_000_000, Some("sensors"));
    compiled(text, Dialect::Middleware).evaluate(&variables)
}

/// Evaluates an expression over the data of a room, to JSON text or the words of an error.
fn evaluated(text: &str) -> String {
    match evaluated_over(text, &ExpressionData::json(ROOM)) {
        Ok(Evaluated::Json(text)) => text,
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn expressions_have_the_values_that_cel_says() {
    for (text, value) in [
        ("data.temp > 20", "true"),
        ("data.temp > 20.0 && data.temp < 21.5", "true"),
        ("data.temp == 21.0", "true"),
        ("data.humidity >= 40", "true"),
        ("data.temp * 1.8 + 32", "69.80000000000001"),
        ("7 / 2 + 7 % 4", "6"),
        ("-7 / 2", "-3"),
        ("1 + 2 * 3 - 4", "3"),
        ("(1 + 2) * 3", "9"),
        ("--5", "5"),
        ("!true || !!true", "true"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0x1F + 1", "32"),
        ("2u + 3u", "5"),
        ("data.big > 1", "true"),
        ("data.twice", "2"),
        ("data.esc", "\"a\u{e9}\\n\""),
        ("data['room'] + '!'", "\"kitchen!\""),
        ("data.tags[1]", "\"b\""),
        ("data.list[data.list[0]]", "2"),
        ("'a' in data.tags", "true"),
        ("'temp' in data", "true"),
        ("has(data.temp) && !has(data.nope)", "true"),
        ("has(data.sub.x)", "true"),
        ("data.sub.x == null", "true"),
        ("data.nope == 1 || true", "true"),
        ("false && data.nope == 1", "false"),
        ("data.nope == 1 && false", "false"),
        ("data.list.map(x, x * 2)", "[2,4,6]"),
        ("data.list.map(x, x > 1, x * 2)", "[4,6]"),
        ("data.list.filter(x, x != 2)", "[1,3]"),
        ("data.list.all(x, x > 0) && data.list.exists(x, x == 2)", "true"),
        ("data.list.exists_one(x, x > 2)", "true"),
        ("data.list.map(x, data.list.map(y, x * y))", "[[1,2,3],[2,4,6],[3,6,9]]"),
        ("data.sub.map(k, k)", "[\"x\",\"y\"]"),
        ("[1, 2.0, 'x', null, true, [b'ab']]", "[1,2.0,\"x\",null,true,[\"YWI=\"]]"),
        ("{'b': 1, 'a': {2: 3}}", "{\"b\":1,\"a\":{\"2\":3}}"),
        ("{1: 'x'}[1.0]", "\"x\""),
        ("type(1) == int && type(1.0) == double && type('a') != bytes", "true"),
        ("size('a\u{e9}') + size(data.tags) + size(data.sub)", "6"),
        ("int('7') + int(7.9) + int(3u)", "17"),
        ("string(7) + string(true) + string(1.5)", "\"7true1.5\""),
        ("double('1.5') * 2.0", "3.0"),
        ("bool('true')", "true"),
    ] {
        assert_eq!(evaluated(text), value, "{text}");
    }
}

#[test]
fn texts_times_and_functions_have_values() {
    for (text, value) in [
        ("source.startsWith('home/') && source.endsWith('en') && source.contains('/kit')", "true"),
        ("source.matches('^home/[a-z]+$') && !matches(source, 'x')", "true"),
        ("source.split('/')[1].upperAscii()", "\"KITCHEN\""),
        ("['a', 'b'].join('-') + ' x '.trim()", "\"a-bx\""),
        ("'banana'.replace('an', 'o').substring(1, 3)", "\"oo\""),
        ("'banana'.indexOf('n') + 'banana'.lastIndexOf('n')", "6"),
        ("'a\u{e9}x'.charAt(1)", "\"\u{e9}\""),
        ("math.round(21.46 * 10.0) / 10.0", "21.5"),
        ("math.abs(-3) + math.greatest(1, 5, 2) + math.least([4, 3])", "11"),
        ("math.floor(2.7) + math.ceil(data.temp)", "23.0"),
        ("r'\\d' + '\\x41\\u00e9\\101' + \"\"\"a'b\"\"\"", "\"\\\\dA\u{e9}Aa'b\""),
        ("ts < now ? token : 'none'", "\"sensors\""),
        ("timestamp('2026-01-31T12:00:00.25+01:00')", "\"2026-01-31T11:00:00.25Z\""),
        ("int(timestamp('1970-01-02T00:00:00Z'))", "86400"),
        ("micros(timestamp('2024-02-29T00:00:00Z')) == micros(timestamp(1709164800))", "true"),
        ("fromMicros(ts).getFullYear()", "2023"),
        ("duration('1h30m') > duration('89m')", "true"),
        ("timestamp('2026-01-31T00:00:00Z') - duration('1s')", "\"2026-01-30T23:59:59Z\""),
        ("duration('1.5s')", "\"1.5s\""),
        ("base64.decode('YWI=') == b'ab' ? base64.encode(b'\\xff') : ''", "\"/w==\""),
        ("deleted ? 1 : data.temp > 30 ? 2 : 3 // which of them", "3"),
        ("1 == 1.0 && 1 == 1u && 1 != '1' && [1] == [1.0]", "true"),
        ("drop()", "Drop"),
        ("data.temp > 30 ? data : reject('cold ' + string(data.temp))", "Reject(\"cold 21\")"),
        ("data.temp > 20 ? data : 1", "Unchanged"),
        ("latest('x')", "null"),
        // Expressions without a value, each with a part of the reason that is given.
        ("data.nope", "there is no data.nope"),
        ("data.temp.x", "there is no data.temp.x"),
        ("1 / 0", "a number is divided by zero"),
        ("9223372036854775807 + 1", "the result of + is out of range"),
        ("'a' < 1", "< does not take string and int"),
        ("[1][1]", "an index is out of range"),
        ("{'a': 1, 'a': 2}", "a key is repeated"),
        ("int('x')", "int() cannot convert this string"),
        ("data.temp ? 1 : 2", "a condition is int, not bool"),
        ("0.0 / 0.0", "JSON() cannot convert this double"),
    ] {
        assert_eq!(evaluated(text), value, "{text}");
    }
}

#[test]
fn data_of_bytes_and_none_have_values() {
    let bytes = evaluated_over("data == b'ab' ? data + b'c' : data", &ExpressionData::bytes(b"ab"));
    assert_eq!(bytes, Ok(Evaluated::Bytes(b"abc".to_vec())));
    let nothing = evaluated_over("data == null", &ExpressionData::nothing());
    assert_eq!(nothing, Ok(Evaluated::Json("true".to_owned())));
}

#[test]
fn a_filter_is_true_or_not() {
    let (data, none) = (ExpressionData::json(ROOM), ExpressionData::nothing());
    let is_true = |text: &str, data: &ExpressionData<'_>, deleted| {
        let variables = Variables::of_record("home/kitchen", data, 5, deleted);
        compiled(text, Dialect::Filter).is_true(&variables).map_err(|error| error.to_string())
    };
    assert_eq!(is_true("data.temp > 20.5", &data, false), Ok(true));
    assert_eq!(is_true("deleted && data == null && ts == 5", &none, true), Ok(true));
    assert_eq!(is_true("data.temp", &data, false), Err("the result is int, not bool".to_owned()));
    assert_eq!(is_true("data.nope > 1", &data, false), Err("there is no data.nope".to_owned()));
}

#[test]
fn bad_expressions_are_refused_with_the_place() {
    let digits = "1".repeat(EXPRESSION_BYTES_MAX + 1);
    for (text, place, part) in [
        ("dat.temp > 1", (1, 1), "there is no variable \"dat\"; there are source, data, ts, deleted"),
        ("data.a &&\n  now > 1", (2, 3), "there is no variable \"now\""),
        ("foo(1)", (1, 1), "there is no function foo() here"),
        ("drop()", (1, 1), "there is no function drop() here"),
        ("'a'.latest()", (1, 5), "there is no function .latest() here"),
        ("'\u{e9}' + data.x.foo()", (1, 14), "there is no function .foo() here"),
        ("startsWith('a', 'b')", (1, 1), "write value.startsWith()"),
        ("size(1, 2)", (1, 1), "size() takes 1 arguments, not 2"),
        ("1 +", (1, 4), "the expression ends where a value is expected"),
        ("", (1, 1), "the expression ends where a value is expected"),
        ("1 2", (1, 3), "\"2\" stands where an operator is expected"),
        ("(1", (1, 3), "the expression ends where \")\" is expected"),
        ("a = 1", (1, 3), "'=' has no meaning here"),
        ("data.x == 'abc", (1, 11), "does not end"),
        ("'\\q'", (1, 2), "this escape has no meaning"),
        ("99999999999999999999", (1, 1), "this number is out of range"),
        ("data.x.matches(data.y)", (1, 8), "must be a text in quotes"),
        ("data.x.matches('(')", (1, 8), "unclosed group"),
        ("data.x.matches('(\\\\w{500}){500}')", (1, 8), "too large"),
        ("has(1)", (1, 1), "has() takes one field"),
        ("data.map(1, 2)", (1, 10), "the name of the item"),
        ("data.all(x)", (1, 6), "all takes 2 arguments, not 1"),
        ("x", (1, 1), "there is no variable"),
        ("data.exists(x, x) && x", (1, 22), "there is no variable"),
        (&digits, (1, 1), "has 4097 bytes; at most 4096"),
    ] {
        let bad = Expression::compile(text, Dialect::Filter).expect_err(text);
        assert!(bad.message.contains(part), "{text}: {bad}");
        assert_eq!((bad.line, bad.column), place, "{text}: {bad}");
    }
}

/// Texts that nest, in every way there is.
fn deep(levels: usize) -> Vec<String> {
    let around = |open: &str, inside: &str, close: &str| {
        format!("{}{inside}{}", open.repeat(levels), close.repeat(levels))
    };
    vec![
        around("(", "1", ")"),
        around("[", "1", "]"),
        around("{'a':", "1", "}"),
        around("size(", "'a'", ")"),
        around("true?1:", "1", ""),
        around("(true?", "1", ":1)"),
        around("[1].all(x,", "true", ")"),
        format!("data{}", ".a".repeat(levels)),
        format!("data{}", "[0]".repeat(levels)),
        format!("1{}", "+1".repeat(levels)),
        format!("true{}", "==true".repeat(levels)),
        format!("'a'{}", ".trim()".repeat(levels)),
        format!("{}data.a.b", "(data.a.b || data.a == (".repeat(levels)),
        format!("{}true", "!".repeat(levels)),
        format!("{}data", "-".repeat(levels)),
        format!("true{}", "&&true".repeat(levels)),
        "[".repeat(levels),
        "{".repeat(levels),
        "(-!".repeat(levels),
    ]
}

#[test]
fn no_nesting_takes_much_of_the_stack() {
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    let run = thread.spawn(|| {
        for levels in [10, 60, 70, 400, 1_300] {
            for text in deep(levels) {
                let Ok(expression) = Expression::compile(&text, Dialect::Middleware) else { continue };
                let data = ExpressionData::json(ROOM);
                let _ = expression.evaluate(&Variables::of_record("a", &data, 1, false));
            }
        }
        assert!(Expression::compile(&deep(15)[0], Dialect::Filter).is_ok());
        assert!(Expression::compile(&deep(100)[0], Dialect::Filter).is_err());
    });
    assert!(run.expect("a thread").join().is_ok());
}

#[test]
fn no_expression_works_without_end() {
    let items = format!("[{}]", vec!["1"; 5_000].join(","));
    let long = format!("\"{}\"", "a".repeat(500_000));
    for (text, data) in [
        ("data.all(a, data.all(b, a == b))", &items),
        ("data.map(a, data).map(b, b.map(c, data)) == []", &items),
        ("(data + data).map(a, data + data) == []", &items),
        ("data.exists(a, data == [a])&& data.all(a, a in data)", &items),
        ("['a'].map(a, data + data).map(b, b + b).map(c, c + c).map(d, d + d) == []", &long),
        ("data.replace('', data) == ''", &long),
        ("data.matches('(a|aa)+$|([a-z]{30}){10}b')", &long),
        ("data.split('').map(a, data) == []", &long),
    ] {
        let data = ExpressionData::json(data);
        let expression = compiled(text, Dialect::Filter);
        let result = expression.is_true(&Variables::of_record("a", &data, 1, false));
        let message = result.expect_err(text).to_string();
        assert_eq!(message, "takes more work than an expression may", "{text}");
    }
}

#[test]
fn many_paths_find_what_one_finds() {
    let data = ExpressionData::json(ROOM);
    let variables = Variables::of_record("a", &data, 1, false);
    for path in
        ["data.room == 'kitchen'", "data.sub.y == 7", "data.twice == 2", "data.tags == ['a', 'b']"].repeat(3)
    {
        assert_eq!(compiled(path, Dialect::Filter).is_true(&variables), Ok(true), "{path}");
    }
}

#[test]
fn another_source_can_be_looked_up() {
    struct Table;
    impl Latestness for Table {
        fn latest(&self, source: &str) -> Option<String> {
            (source == "limits/kitchen").then(|| r#"{"max":20,"names":["x"]}"#.to_owned())
        }
    }
    let data = ExpressionData::json(ROOM);
    let mut variables = Variables::of_record("kitchen", &data, 1, false);
    variables.records = Some(&Table);
    let text = "data.temp > latest('limits/' + source).max ? latest('limits/kitchen').names : latest('y')";
    let evaluated = compiled(text, Dialect::Middleware).evaluate(&variables);
    assert_eq!(evaluated, Ok(Evaluated::Json("[\"x\"]".to_owned())));
}

/// Writes a value of the other interpreter so that it can be compared with JSON text of this one.
fn other_text(value: &OtherValue) -> String {
    match value {
        OtherValue::Float(number) => {
            serde_json::Number::from_f64(*number).map_or("?".to_owned(), |number| number.to_string())
        }
        OtherValue::Int(number) => number.to_string(),
        OtherValue::UInt(number) => number.to_string(),
        OtherValue::Bool(value) => value.to_string(),
        OtherValue::Null => "null".to_owned(),
        OtherValue::String(text) => serde_json::to_string(text.as_str()).expect("text"),
        OtherValue::List(values) => {
            format!("[{}]", values.iter().map(other_text).collect::<Vec<_>>().join(","))
        }
        OtherValue::Map(map) => {
            let entries: BTreeMap<String, String> =
                map.map.iter().map(|(key, value)| (key.to_string(), other_text(value))).collect();
            format!("{entries:?}")
        }
        other => format!("{other:?}"),
    }
}

fn other_value(value: &serde_json::Value) -> OtherValue {
    match value {
        serde_json::Value::Null => OtherValue::Null,
        serde_json::Value::Bool(value) => OtherValue::Bool(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => OtherValue::Int(number),
            None => OtherValue::Float(number.as_f64().expect("a number")),
        },
        serde_json::Value::String(text) => OtherValue::String(Arc::new(text.clone())),
        serde_json::Value::Array(values) => {
            OtherValue::List(values.iter().map(other_value).collect::<Vec<_>>().into())
        }
        serde_json::Value::Object(entries) => {
            let entries: std::collections::HashMap<String, OtherValue> =
                entries.iter().map(|(key, value)| (key.clone(), other_value(value))).collect();
            OtherValue::Map(OtherMap::from(entries))
        }
    }
}

/// Expressions of values, lists and maps. Kinds are mixed, so many have no value.
fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "1",
            "2",
            "-3",
            "0",
            "2.5",
            "-0.5",
            "1.0",
            "7u",
            "'a'",
            "'abc'",
            "''",
            "true",
            "false",
            "null",
            "data",
            "data.a",
            "data.b",
            "data.c.d",
            "data.l",
            "data.l[0]",
            "data.nope",
            "[]",
            "[1, 2, 2]",
            "{'a': 1}",
            "source",
            "x",
            "y",
            "has(data.a)",
            "has(data.c.e)",
            "9223372036854775807",
            "b'ab'",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
        ]);
        let looping = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        let function = prop::sample::select(vec!["size", "string", "int", "double"]);
        let member = prop::sample::select(vec!["contains", "startsWith", "endsWith"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            2 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            2 => (inner.clone(), looping, inner.clone()).prop_map(|(a, name, b)| format!("[{a}, 1, 'a'].{name}(x, {b})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.map(y, {b})")),
            1 => (function, inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            1 => (inner.clone(), member, inner.clone()).prop_map(|(a, name, b)| format!("{a}.{name}({b})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => inner.clone().prop_map(|a| format!("-({a})")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, {b}]")),
        ]
    })
}

/// The seed of the expressions that are compared.
fn seed() -> RngSeed {
    let given = std::env::var("ANODE_EXPRESSIONS").ok().and_then(|text| text.parse().ok());
    RngSeed::Fixed(given.unwrap_or(1))
}

const COMPARED: &str = r#"{"a":3,"b":"abc","c":{"d":2.5},"l":[1,"a",null]}"#;

proptest! {
    // The cases are the same in every run, so that what the other interpreter makes of a new one fails nobody's change.
    // `ANODE_EXPRESSIONS` is another seed, to look for more.
    #![proptest_config(ProptestConfig { cases: 3_000, rng_seed: seed(), ..ProptestConfig::default() })]

    /// Whatever has a value for the other interpreter has the same value here. The other way round, arithmetic with
    /// numbers of several kinds has a value only here.
    #[test]
    fn values_are_those_of_the_other_interpreter(text in any_expression()) {
        let env = Arc::new(Env::stdlib());
        let mut context = Context::with_env(Arc::clone(&env));
        let json: serde_json::Value = serde_json::from_str(COMPARED).expect("JSON");
        context.add_variable_from_value("data", other_value(&json));
        context.add_variable_from_value("source", "a/b");
        let other = env.compile(&text).ok().map(|program| program.execute(&context));
        let data = ExpressionData::json(COMPARED);
        let own = Expression::compile(&text, Dialect::Filter)
            .map(|expression| expression.evaluate(&Variables::of_record("a/b", &data, 1, false)));
        match (other, own) {
            (Some(Ok(OtherValue::Map(_) | OtherValue::Bytes(_) | OtherValue::Opaque(_))), _) => {}
            (Some(Ok(value)), Ok(Ok(own))) => {
                let own = match own {
                    Evaluated::Unchanged => return Ok(()),
                    Evaluated::Json(text) => text,
                    other => format!("{other:?}"),
                };
                let other = other_text(&value);
                prop_assert!(own == other || other.contains(['?', '{', '(']), "{text}: {own}, but {other}");
            }
            // A name that no macro declares is an error before the evaluation here.
            (Some(Ok(value)), Err(bad)) => {
                prop_assert!(bad.message.contains("there is no variable"), "{text}: {bad}, but {value:?}");
            }
            // It leaves a map out that is added to a list, for which there is no sum in CEL.
            (Some(Ok(_)), Ok(Err(error))) if error.to_string().contains("does not take list and map") => {}
            (Some(Ok(value)), Ok(Err(error))) => {
                let is_json = !other_text(&value).contains(['?', '(']);
                prop_assert!(!is_json, "{text}: {error}, but {value:?}");
            }
            _ => {}
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// Any text is read or refused, and what is read can be evaluated.
    #[test]
    fn any_text_is_taken(text in "[-!a-z0-9.,()\\[\\]{}'\"?:&|=<>+*/% \\\\]{0,60}") {
        fuzzing::expression(text.as_bytes());
    }

    /// JSON comes out as it went in, as far as its meaning goes.
    #[test]
    fn json_comes_back(number in any::<f64>(), whole in any::<i64>(), text in ".{0,20}") {
        let value = serde_json::json!({"n": number, "w": whole, "t": text, "l": [null, true, text]});
        let json = value.to_string();
        let evaluated = evaluated_over("[data][0]", &ExpressionData::json(&json));
        let Ok(Evaluated::Json(back)) = evaluated else { panic!("{evaluated:?}") };
        let back: serde_json::Value = serde_json::from_str(&back).expect("JSON");
        prop_assert_eq!(&back["t"], &value["t"]);
        prop_assert_eq!(&back["w"], &value["w"]);
        prop_assert_eq!(&back["l"], &value["l"]);
    }
}

/// Prints what an evaluation costs; run by hand with `--release`.
#[test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::disallowed_methods)]
fn measure() {
    for text in ["data.temp > 20.0", "data.temp > 20.0 && data.room == 'kitchen'", "data.list.all(x, x > 0)"]
    {
        let expression = compiled(text, Dialect::Filter);
        let start = std::time::Instant::now();
        let rounds = 200_000;
        for _ in 0..rounds {
            let data = ExpressionData::json(ROOM);
            let is_true = expression.is_true(&Variables::of_record("a/b", &data, 1, false));
            assert_eq!(std::hint::black_box(is_true), Ok(true));
        }
        println!("{text}: {:?} each", start.elapsed() / rounds);
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            assert!(std::hint::black_box(Expression::compile(text, Dialect::Filter)).is_ok());
        }
        println!("{text}: {:?} to compile", start.elapsed() / rounds);
    }
}
