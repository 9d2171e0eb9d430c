//! The page about expressions, checked against what expressions do.

use super::dialect::Dialect;
use super::names::function_names;
use super::regexes::REGEXES_MAX;
use super::*;

const PAGE: &str = include_str!("../../docs/extend/filters.md");
const DATA: &str = r#"{"c":21,"room":"kitchen","tags":["a","b"],"limits":{"max":30.5}}"#;

/// The part of the page below a heading.
fn section(title: &str) -> &'static str {
    let (_, rest) =
        PAGE.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The cells of the rows of a table, without its head.
fn rows(section: &'static str) -> Vec<Vec<&'static str>> {
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    lines.map(|line| line.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect()).collect()
}

/// The text of a cell that is an expression.
fn code(cell: &str) -> &str {
    cell.trim_matches('`').trim()
}

fn value(text: &str) -> String {
    let data = ExpressionData::json(DATA);
    let variables = Variables::of_record("home/kitchen", &data, 1_700_000_000_000_000, false);
    match Expression::compile(text, Dialect::Filter) {
        Ok(expression) => match expression.evaluate(&variables) {
            Ok(Evaluated::Json(text)) => text,
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("no value: {error}"),
        },
        Err(bad) => format!("refused: {bad}"),
    }
}

#[test]
fn every_example_has_the_value_that_stands_beside_it() {
    let block = section("What an expression may say").split("```").nth(1).expect("examples");
    let lines: Vec<&str> = block.trim().lines().collect();
    assert!(lines.len() >= 30, "{}", lines.len());
    for line in lines {
        let (text, expected) = line.split_once(" => ").expect(line);
        assert_eq!(value(text.trim()), expected.trim(), "{text}");
    }
}

#[test]
fn everything_that_is_said_to_be_left_out_is_and_can_be_written_otherwise() {
    let rows = rows(section("What of CEL there is not"));
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let [what, example, _, instead] = row[..] else { panic!("{row:?}") };
        let (example, instead) = (value(code(example)), value(code(instead)));
        let has_value = |text: &str| !text.starts_with("refused") && !text.starts_with("no value: ");
        assert!(!has_value(&example), "{what}: {example}");
        assert!(example.starts_with("refused") || row[2].contains("no value"), "{what}: {example}");
        assert!(has_value(&instead) || instead.contains("there is no data."), "{what}: {instead}");
    }
}

/// What can be called stands on the page, and what stands there with a pair of parentheses can be called.
#[test]
fn every_function_is_on_the_page() {
    for name in function_names() {
        let forms = [format!("`{name}`"), format!("`{name}("), format!(" {name}("), format!("`{name}()`")];
        assert!(forms.iter().any(|form| PAGE.contains(form)), "{name}");
    }
    for name in ["all", "exists", "exists_one", "map", "filter", "has", "matches", "drop", "reject", "latest"]
    {
        assert!(PAGE.contains(&format!("`{name}")), "{name}");
    }
}

#[test]
fn variables_are_those_of_the_table() {
    let dialects =
        [("filters", Dialect::Filter), ("middlewares", Dialect::Middleware), ("pull", Dialect::Pull)];
    let rows = rows(section("Variables"));
    assert_eq!(rows.len(), 7);
    for row in rows {
        let [name, _, used] = row[..] else { panic!("{row:?}") };
        for (word, dialect) in dialects {
            let is_known = dialect.variable(code(name)).is_some();
            assert_eq!(is_known, used.split(", ").any(|used| used == word), "{name} in {word}");
        }
    }
    for text in ["drop()", "reject('x')", "latest('x')"] {
        assert!(Expression::compile(text, Dialect::Middleware).is_ok(), "{text}");
        for dialect in [Dialect::Filter, Dialect::Pull] {
            assert!(Expression::compile(text, dialect).is_err(), "{text}");
        }
    }
}

#[test]
fn bounds_are_those_of_the_page() {
    let bounds = section("Bounds");
    assert!(bounds.contains(&format!("at most {} KiB of text", EXPRESSION_BYTES_MAX / 1_024)));
    let (levels, regexes) = (super::parser::DEPTH_MAX, REGEXES_MAX);
    assert!(bounds.contains(&format!("{levels} levels of nesting and {regexes} regular expressions")));
    // A unit of work is about ten nanoseconds.
    assert!(bounds.contains(&format!("about {} microseconds for a filter", Dialect::Filter.work() / 100)));
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let is_read = |text: &str| Expression::compile(text, Dialect::Filter).is_ok();
    assert!(is_read(&nested(levels - 1)) && !is_read(&nested(levels + 1)));
    let searches = |count: usize| vec!["source.matches('a')"; count].join(" || ");
    assert!(is_read(&searches(regexes)) && !is_read(&searches(regexes + 1)));
    let comment = |bytes: usize| format!("true //{}", "x".repeat(bytes - 7));
    assert!(is_read(&comment(EXPRESSION_BYTES_MAX)) && !is_read(&comment(EXPRESSION_BYTES_MAX + 1)));
}
