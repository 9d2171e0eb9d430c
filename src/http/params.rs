//! The parts of a URL: the name of a source in the path, and the parameters of the query.

use crate::limits::TS_MAX;
use crate::protocol::AckLevel;
use crate::protocol::query::{decode_path, parameters};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{Pattern, Source};

/// The largest number of records of one page.
pub const LIMIT_MAX: usize = 10_000;
/// Number of records of a page whose request names no `limit`.
const LIMIT_DEFAULT: usize = 100;

fn bad_request(message: String) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

/// A path below `/v1/sources/`, decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// The latest record of a source.
    Latest(String),
    /// The history of a source.
    History(String),
}

impl Target {
    /// Decodes the path that follows `/v1/sources/`. Both `/` and `%2F` separate the segments of a name,
    /// but only a literal `/history` at the end asks for the history.
    pub fn parse(raw: &str) -> Result<Target, Refusal> {
        let (name, is_history) = match raw.strip_suffix("/history") {
            Some(name) => (name, true),
            None => (raw, false),
        };
        let name = decode_path(name).map_err(|error| Refusal::new(Code::BadSource, error.to_string()))?;
        Source::check(&name).map_err(|error| Refusal::new(Code::BadSource, error.to_string()))?;
        Ok(if is_history { Target::History(name.into()) } else { Target::Latest(name.into()) })
    }
}

/// The parameters of a query, decoded. A parameter that is unknown or repeated is refused, so that a
/// misspelt `limti` is not silently ignored.
#[derive(Debug)]
pub struct Query {
    values: Vec<(&'static str, String)>,
}

impl Query {
    /// Decodes `query`, in which only the parameters `known` may stand.
    pub fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Query, Refusal> {
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for parameter in parameters(query.unwrap_or_default()) {
            let (name, value) = parameter?;
            let Some(&name) = known.iter().find(|&&known| known == name) else {
                let names = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad_request(format!("unknown parameter {name:?}; known are {names}")));
            };
            if values.iter().any(|&(seen, _)| seen == name) {
                return Err(bad_request(format!("parameter {name} is there twice")));
            }
            values.push((name, value));
        }
        Ok(Query { values })
    }

    /// The value of a parameter, if it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The number of records asked for by `limit`, or the default.
    pub fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT_DEFAULT) };
        match text.parse() {
            Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
            _ => Err(bad_request(format!("limit is {text:?}; allowed are integers in 1 to {LIMIT_MAX}"))),
        }
    }

    /// The pattern asked for by `pattern`; without it, the one that all sources match.
    pub fn pattern(&self) -> Result<Pattern, Refusal> {
        Pattern::parse(self.get("pattern").unwrap_or("**"))
            .map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))
    }

    /// The time given by the parameter `name`, in microseconds, or `default`.
    pub fn ts(&self, name: &'static str, default: u64) -> Result<u64, Refusal> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().ok().filter(|&ts| ts <= TS_MAX).ok_or_else(|| {
            let message = format!("{name} is {text:?}; allowed are integers in 0 to {TS_MAX}, microseconds");
            Refusal::new(Code::BadTimestamp, message)
        })
    }

    /// The time given by the parameter `name`, in microseconds, if it is given.
    pub fn ts_if_given(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        self.get(name).map(|_| self.ts(name, 0)).transpose()
    }

    /// The number given by the parameter `name`, of at most `most` and at least `least`; `None` if it is not given.
    pub fn number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let message = format!("{name} is {text:?}; allowed are integers in {least} to {most}");
                Err(bad_request(message))
            }
        }
    }

    /// The ack level asked for by `ack`, or the default.
    pub fn ack(&self) -> Result<AckLevel, Refusal> {
        let Some(text) = self.get("ack") else { return Ok(AckLevel::default()) };
        AckLevel::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let latest = |name: &str| Ok(Target::Latest(name.into()));
        let history = |name: &str| Ok(Target::History(name.into()));
        assert_eq!(Target::parse("a/b"), latest("a/b"));
        assert_eq!(Target::parse("a%2Fb%2fc"), latest("a/b/c"));
        assert_eq!(Target::parse("a/b/history"), history("a/b"));
        assert_eq!(Target::parse("a%2Fb/history"), history("a/b"));
        assert_eq!(Target::parse("a/b%2Fhistory"), latest("a/b/history"));
        assert_eq!(Target::parse("a/history/history"), history("a/history"));
        assert_eq!(Target::parse("history"), latest("history"));
        assert_eq!(Target::parse("%C3%A4+b%20c"), latest("ä+b c"));
        for bad in ["", "/history", "a//b", "a/../b", "%00", "%FF", "a%2A", "*", "a%zz%4"] {
            assert_eq!(Target::parse(bad).map_err(|refusal| refusal.code), Err(Code::BadSource), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let known = ["pattern", "limit", "after", "ack", "from", "to"];
        let query = Query::parse(Some("pattern=a%2F*&limit=7&&after=x+y&from=5"), &known).expect("query");
        assert_eq!((query.pattern().expect("pattern").as_str(), query.limit()), ("a/*", Ok(7)));
        assert_eq!((query.get("after"), query.ts("from", 0)), (Some("x y"), Ok(5)));
        assert_eq!(query.ack(), Ok(AckLevel::Accepted));
        let empty = Query::parse(None, &known).expect("query");
        assert_eq!((empty.pattern().expect("pattern").as_str(), empty.limit()), ("**", Ok(100)));
        for bad in ["limti=1", "limit=1&limit=2", "limit=%FF"] {
            assert_eq!(Query::parse(Some(bad), &known).expect_err(bad).code, Code::BadRequest);
        }
        let refused = |text: &str| Query::parse(Some(text), &known).expect(text);
        assert!(refused("limit=0").limit().is_err() && refused("limit=10001").limit().is_err());
        assert!(refused("limit=").limit().is_err() && refused("ack=best").ack().is_err());
        assert_eq!(refused("pattern=a**").pattern().expect_err("pattern").code, Code::BadPattern);
        assert_eq!(refused("from=7").number("from", 1, 7), Ok(Some(7)));
        assert_eq!(refused("to=7").number("from", 1, 7), Ok(None));
        assert!(
            refused("from=8").number("from", 1, 7).is_err()
                && refused("from=0").number("from", 1, 7).is_err()
        );
        assert_eq!(refused("from=-1").ts("from", 0).expect_err("from").code, Code::BadTimestamp);
    }
}
