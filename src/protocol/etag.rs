//! Entity tags of sources, and the conditions that requests make on them (RFC 9110, 8.8.3 and 13).
//!
//! The tag of a source names its latest record by the record's place in the total order: `"TS-HASH"`, or `"TS-deleted"`
//! where readers see a deletion. So every node gives the same record the same tag, and of two tags it can be told which
//! one is of the newer record.

use std::fmt;

use super::refusal::{Code, Refusal, shortened};
use crate::record::{Record, Stamp};

/// Most tags in one header. A client seldom has more than two versions of a source.
const TAGS_MAX: usize = 32;

/// The tag of one version of a source.
///
/// The derived order is that of the records: a deletion with a timestamp comes after the values with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityTag {
    ts: u64,
    is_deleted: bool,
    hash: u128,
}

impl EntityTag {
    /// The tag of a record as readers see it at the wall clock `wall_us`, in microseconds.
    pub fn of(record: &Record, wall_us: u64) -> EntityTag {
        match record.is_visible(wall_us) {
            true => EntityTag::of_value(record.stamp),
            false => EntityTag { ts: record.stamp.ts, is_deleted: true, hash: 0 },
        }
    }

    /// The tag of a value with this stamp.
    pub fn of_value(stamp: Stamp) -> EntityTag {
        EntityTag { ts: stamp.ts, is_deleted: false, hash: stamp.hash }
    }

    /// Reads the text between the quotes of a tag; `None` if no node has made it.
    fn read(text: &str) -> Option<EntityTag> {
        let (ts, hash) = text.split_once('-')?;
        let ts = ts.parse().ok()?;
        let tag = match hash {
            "deleted" => EntityTag { ts, is_deleted: true, hash: 0 },
            _ => EntityTag { ts, is_deleted: false, hash: u128::from_str_radix(hash, 16).ok()? },
        };
        // One tag has one spelling.
        (tag.to_string().trim_matches('"') == text).then_some(tag)
    }
}

/// The tag as it stands in a header, with its quotes.
impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_deleted {
            true => write!(f, "\"{}-deleted\"", self.ts),
            false => write!(f, "\"{}-{:032x}\"", self.ts, self.hash),
        }
    }
}

/// One tag of a header: what it names, and whether it is weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListedTag {
    /// The tag; `None` if no node has made it, so that it matches nothing.
    tag: Option<EntityTag>,
    is_weak: bool,
}

/// The value of a header `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagList {
    /// `*`: whatever there is.
    Any,
    /// The tags that the header lists, at least one.
    Tags(Tags),
}

/// The tags of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags(Vec<ListedTag>);

impl TagList {
    /// Reads the values of all headers of a name; `None` if there is none. `name` is for the refusal.
    pub fn read<'a>(name: &str, values: impl Iterator<Item = &'a [u8]>) -> Result<Option<TagList>, Refusal> {
        let mut tags = Vec::new();
        let (mut is_any, mut count) = (false, 0);
        for value in values {
            let refused = || malformed(name, value);
            count += 1;
            let text = std::str::from_utf8(value).map_err(|_| refused())?.trim();
            if text == "*" {
                is_any = true;
                continue;
            }
            let mut rest = text;
            while !rest.is_empty() {
                let (tag, after) = first_tag(rest).ok_or_else(refused)?;
                tags.push(tag);
                if tags.len() > TAGS_MAX {
                    let message = format!("{name} has more than {TAGS_MAX} tags");
                    return Err(Refusal::new(Code::BadRequest, message));
                }
                rest = after.trim_start();
                rest = match rest.strip_prefix(',') {
                    Some(next) => next.trim_start(),
                    None if rest.is_empty() => rest,
                    None => return Err(refused()),
                };
            }
            if tags.is_empty() {
                return Err(refused());
            }
        }
        match (count, is_any, tags.is_empty()) {
            (0, ..) => Ok(None),
            (1, true, true) => Ok(Some(TagList::Any)),
            (_, true, _) => {
                let message = format!("{name} has * beside something else");
                Err(Refusal::new(Code::BadRequest, message))
            }
            (_, false, _) => Ok(Some(TagList::Tags(Tags(tags)))),
        }
    }

    /// Returns whether the list names this version, as `If-None-Match` compares: weak tags count.
    pub fn names(&self, current: EntityTag) -> bool {
        match self {
            TagList::Any => true,
            TagList::Tags(Tags(tags)) => tags.iter().any(|listed| listed.tag == Some(current)),
        }
    }

    /// Returns whether the list names this version, as `If-Match` compares: weak tags do not count.
    fn names_strongly(&self, current: EntityTag) -> bool {
        match self {
            TagList::Any => true,
            TagList::Tags(Tags(tags)) => {
                tags.iter().any(|listed| listed.tag == Some(current) && !listed.is_weak)
            }
        }
    }

    /// Returns whether the client that sends these tags has this version already, or a newer one.
    pub fn covers(&self, current: EntityTag) -> bool {
        match self {
            TagList::Any => true,
            TagList::Tags(Tags(tags)) => tags.iter().any(|listed| listed.tag >= Some(current)),
        }
    }
}

fn malformed(name: &str, value: &[u8]) -> Refusal {
    let shown = String::from_utf8_lossy(value);
    let message = format!(
        "{name} is {:?}; allowed are * and entity tags in quotes, separated by commas",
        shortened(&shown)
    );
    Refusal::new(Code::BadRequest, message)
}

/// Returns the first tag of a list and what follows it.
fn first_tag(text: &str) -> Option<(ListedTag, &str)> {
    let (is_weak, text) = text.strip_prefix("W/").map_or((false, text), |text| (true, text));
    let (tag, rest) = text.strip_prefix('"')?.split_once('"')?;
    Some((ListedTag { tag: EntityTag::read(tag), is_weak }, rest))
}

/// The condition that a request makes on the latest version of its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The value of `If-Match`: one of these versions must be there.
    pub if_match: Option<TagList>,
    /// The value of `If-None-Match`: none of these versions may be there.
    pub if_none_match: Option<TagList>,
}

impl Precondition {
    /// Returns whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        *self == Precondition::default()
    }

    /// Checks the condition against the latest record of the source. A source whose value was deleted or has expired is
    /// not there.
    pub fn check(&self, current: Option<&Record>, wall_us: u64) -> Result<(), Refusal> {
        let tag = current.map(|record| EntityTag::of(record, wall_us)).filter(|tag| !tag.is_deleted);
        if self.if_match.as_ref().is_some_and(|list| !tag.is_some_and(|tag| list.names_strongly(tag))) {
            return Err(failed("If-Match", tag));
        }
        if self.if_none_match.as_ref().is_some_and(|list| tag.is_some_and(|tag| list.names(tag))) {
            return Err(failed("If-None-Match", tag));
        }
        Ok(())
    }
}

fn failed(header: &str, tag: Option<EntityTag>) -> Refusal {
    let has = tag.map_or("no value".to_owned(), |tag| format!("the version {tag}"));
    Refusal::new(
        Code::PreconditionFailed,
        format!("{header} does not hold: the source has {has} at this node"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Birth, NodeName, Payload, Source};

    fn record(ts: u64, data: &'static str, ttl_ms: u64) -> Record {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let source = Source::parse("s").expect("source");
        let stamp = Stamp::of_data(ts, data.as_bytes());
        Record::new(source, stamp, Payload::Json(data.into()), birth, ts, ttl_ms)
    }

    fn list(value: &str) -> TagList {
        TagList::read("If-Match", [value.as_bytes()].into_iter()).expect(value).expect(value)
    }

    #[test]
    fn tags_are_written_and_read_again() {
        let (value, other) = (EntityTag::of(&record(5, "1", 0), 9), EntityTag::of(&record(5, "2", 0), 9));
        let ended = EntityTag::of(&record(5, "1", 1), 9_000_000);
        assert_eq!(ended.to_string(), "\"5-deleted\"");
        for tag in [value, other, ended] {
            assert_eq!(
                list(&tag.to_string()),
                TagList::Tags(Tags(vec![ListedTag { tag: Some(tag), is_weak: false }]))
            );
        }
        assert!(value < ended && other < ended && ended < EntityTag::of(&record(6, "1", 0), 9));
        let both = list(&format!("W/{value} , {other}"));
        assert!(both.names(value) && both.names(other) && !both.names(ended));
        assert!(!both.names_strongly(value) && both.names_strongly(other));
        assert!(both.covers(value) && !both.covers(ended));
        let foreign = list("\"x\", \"5-1\", \"05-deleted\"");
        assert!(!foreign.names(value) && !foreign.names(ended) && !foreign.covers(value));
        assert!(list("*").names(value) && list(" * ").covers(ended));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let read = |values: &[&str]| TagList::read("If-Match", values.iter().map(|value| value.as_bytes()));
        assert_eq!(read(&[]), Ok(None));
        assert!(read(&["\"a\"", "\"b\""]).is_ok());
        let many = "\"a\",".repeat(TAGS_MAX + 1);
        for bad in [&["a"][..], &[""], &["\"a"], &["\"a\" \"b\""], &["*", "\"a\""], &["\"a\", *"], &[&many]] {
            assert_eq!(read(bad).expect_err("bad").code, Code::BadRequest, "{bad:?}");
        }
    }

    #[test]
    fn conditions_hold_or_not() {
        let (one, gone) = (record(5, "1", 0), record(5, "1", 1));
        let tag = EntityTag::of(&one, 9).to_string();
        let condition = |if_match: Option<&str>, if_none_match: Option<&str>| Precondition {
            if_match: if_match.map(list),
            if_none_match: if_none_match.map(list),
        };
        let holds =
            |condition: &Precondition, record: Option<&Record>| condition.check(record, 9_000_000).is_ok();
        assert!(Precondition::default().is_empty() && holds(&Precondition::default(), Some(&one)));
        let new = condition(None, Some("*"));
        assert!(holds(&new, None) && holds(&new, Some(&gone)) && !holds(&new, Some(&one)));
        let same = condition(Some(&tag), None);
        assert!(holds(&same, Some(&one)) && !holds(&same, Some(&gone)) && !holds(&same, None));
        assert!(!holds(&condition(Some("\"5-x\""), None), Some(&one)));
        assert!(holds(&condition(Some("*"), None), Some(&one)) && !holds(&condition(Some("*"), None), None));
        assert!(
            !holds(&condition(None, Some(&tag)), Some(&one)) && holds(&condition(None, Some(&tag)), None)
        );
        let refused = same.check(None, 0).expect_err("there is none");
        assert_eq!((refused.code, refused.code.http_status()), (Code::PreconditionFailed, 412));
    }
}
