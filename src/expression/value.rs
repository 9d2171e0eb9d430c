//! The values of CEL while an expression is evaluated.

use std::sync::Arc;

use super::budget::WorkBudget;
use super::error::{Failure, Stop};

/// A value. Copying one costs little: what is large is shared.
#[derive(Clone, Debug)]
pub(super) enum CelValue<'v> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(CelText<'v>),
    Bytes(CelBytes<'v>),
    List(Arc<Vec<CelValue<'v>>>),
    Map(Arc<CelMap<'v>>),
    /// A moment, in microseconds since the Unix epoch.
    Timestamp(i64),
    /// A span of time, in microseconds.
    Duration(i64),
    Type(Kind),
}

/// The result of a part of an expression.
pub(super) type Value<'v> = Result<CelValue<'v>, Stop<'v>>;

/// A text, which is a part of the data or the expression, or was made.
#[derive(Clone, Debug)]
pub(super) enum CelText<'v> {
    Borrowed(&'v str),
    Made(Arc<str>),
}

/// A sequence of bytes, which is the data or a part of the expression, or was made.
#[derive(Clone, Debug)]
pub(super) enum CelBytes<'v> {
    Borrowed(&'v [u8]),
    Made(Arc<[u8]>),
}

/// The kind of a value, which CEL calls its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    UInt,
    Double,
    Text,
    Bytes,
    List,
    Map,
    Timestamp,
    Duration,
    Type,
}

/// All kinds with the names that CEL gives them.
pub(super) const KINDS: [(&str, Kind); 12] = [
    ("null_type", Kind::Null),
    ("bool", Kind::Bool),
    ("int", Kind::Int),
    ("uint", Kind::UInt),
    ("double", Kind::Double),
    ("string", Kind::Text),
    ("bytes", Kind::Bytes),
    ("list", Kind::List),
    ("map", Kind::Map),
    ("timestamp", Kind::Timestamp),
    ("duration", Kind::Duration),
    ("type", Kind::Type),
];

impl Kind {
    /// The name that CEL gives the kind.
    pub(super) fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("type", |(word, _)| word)
    }
}

impl<'v> CelValue<'v> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            CelValue::Null => Kind::Null,
            CelValue::Bool(_) => Kind::Bool,
            CelValue::Int(_) => Kind::Int,
            CelValue::UInt(_) => Kind::UInt,
            CelValue::Double(_) => Kind::Double,
            CelValue::Text(_) => Kind::Text,
            CelValue::Bytes(_) => Kind::Bytes,
            CelValue::List(_) => Kind::List,
            CelValue::Map(_) => Kind::Map,
            CelValue::Timestamp(_) => Kind::Timestamp,
            CelValue::Duration(_) => Kind::Duration,
            CelValue::Type(_) => Kind::Type,
        }
    }

    /// A text that was made.
    pub(super) fn text(text: &str) -> CelValue<'v> {
        CelValue::Text(CelText::Made(text.into()))
    }

    /// A timestamp of a record, or another number that is not negative.
    pub(super) fn count(count: u64) -> CelValue<'v> {
        i64::try_from(count).map_or(CelValue::UInt(count), CelValue::Int)
    }

    /// Copies a value with all that it borrows. The nesting is that of JSON, which is bounded.
    pub(super) fn owned<'w>(&self) -> CelValue<'w> {
        match self {
            CelValue::Null => CelValue::Null,
            CelValue::Bool(value) => CelValue::Bool(*value),
            CelValue::Int(value) => CelValue::Int(*value),
            CelValue::UInt(value) => CelValue::UInt(*value),
            CelValue::Double(value) => CelValue::Double(*value),
            CelValue::Text(text) => CelValue::Text(CelText::Made(text.as_str().into())),
            CelValue::Bytes(bytes) => CelValue::Bytes(CelBytes::Made(bytes.as_slice().into())),
            CelValue::List(values) => CelValue::list(values.iter().map(CelValue::owned).collect()),
            CelValue::Map(map) => {
                let entries = map.entries().iter().map(|(key, value)| (key.owned(), value.owned()));
                CelValue::Map(CelMap::of_json(entries.collect()).into())
            }
            CelValue::Timestamp(us) => CelValue::Timestamp(*us),
            CelValue::Duration(us) => CelValue::Duration(*us),
            CelValue::Type(kind) => CelValue::Type(*kind),
        }
    }

    /// A list of these values.
    pub(super) fn list(values: Vec<CelValue<'v>>) -> CelValue<'v> {
        CelValue::List(Arc::new(values))
    }
}

impl<'v> CelText<'v> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            CelText::Borrowed(text) => text,
            CelText::Made(text) => text,
        }
    }
}

impl CelBytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            CelBytes::Borrowed(bytes) => bytes,
            CelBytes::Made(bytes) => bytes,
        }
    }
}

/// Entries up to which a map is searched from its first entry on. Larger ones have an index.
const SEARCHED_ENTRIES_MAX: usize = 16;

/// A map, whose entries keep the order in which they were put in.
#[derive(Clone, Debug, Default)]
pub(super) struct CelMap<'v> {
    entries: Vec<(CelValue<'v>, CelValue<'v>)>,
    /// Places of the entries, in the order of their keys; empty while the map is small.
    sorted: Vec<u32>,
}

/// Compares two keys. Whole numbers are equal whatever their kind.
fn order(a: &CelValue<'_>, b: &CelValue<'_>) -> std::cmp::Ordering {
    let whole = |value: &CelValue<'_>| match value {
        CelValue::Int(number) => Some(i128::from(*number)),
        CelValue::UInt(number) => Some(i128::from(*number)),
        _ => None,
    };
    match (a, b) {
        (CelValue::Text(a), CelValue::Text(b)) => a.as_str().cmp(b.as_str()),
        (CelValue::Bool(a), CelValue::Bool(b)) => a.cmp(b),
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => (a.kind() as u8).cmp(&(b.kind() as u8)),
        },
    }
}

impl<'v> CelMap<'v> {
    pub(super) fn entries(&self) -> &[(CelValue<'v>, CelValue<'v>)] {
        &self.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes a map. Of entries with the same key the last one counts, as in JSON, in the place of the first.
    pub(super) fn of_json(entries: Vec<(CelValue<'v>, CelValue<'v>)>) -> CelMap<'v> {
        let mut map = CelMap { entries, sorted: Vec::new() };
        if map.entries.len() <= SEARCHED_ENTRIES_MAX {
            let mut at = 1;
            while at < map.entries.len() {
                let (before, rest) = map.entries.split_at_mut(at);
                let twin = before.iter_mut().find(|(key, _)| order(key, &rest[0].0).is_eq());
                match twin {
                    Some(twin) => {
                        std::mem::swap(&mut twin.1, &mut rest[0].1);
                        map.entries.remove(at);
                    }
                    None => at += 1,
                }
            }
            return map;
        }
        map.index();
        let sorted = &map.sorted;
        let is_twin =
            |pair: &[u32]| order(&map.entries[pair[0] as usize].0, &map.entries[pair[1] as usize].0).is_eq();
        let mut dropped: Vec<bool> = Vec::new();
        if sorted.windows(2).any(is_twin) {
            dropped.resize(map.entries.len(), false);
            let groups: Vec<Vec<u32>> =
                sorted.chunk_by(|a, b| is_twin(&[*a, *b])).map(<[u32]>::to_vec).collect();
            for group in groups {
                // The sort is stable, so a group is in the order of the text.
                let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
                map.entries.swap(*first as usize, *last as usize);
                group[1..].iter().for_each(|at| dropped[*at as usize] = true);
            }
            let mut kept = dropped.iter().map(|dropped| !dropped);
            map.entries.retain(|_| kept.next().unwrap_or(true));
            map.index();
        }
        map
    }

    /// Makes a map of a literal, whose keys must differ.
    pub(super) fn of_literal(entries: Vec<(CelValue<'v>, CelValue<'v>)>) -> Result<CelMap<'v>, Failure<'v>> {
        let mut map = CelMap { entries, sorted: Vec::new() };
        map.index();
        let is_repeated =
            |pair: &[u32]| order(&map.entries[pair[0] as usize].0, &map.entries[pair[1] as usize].0).is_eq();
        if map.sorted.windows(2).any(is_repeated) {
            return Err(Failure::RepeatedKey);
        }
        if map.entries.len() <= SEARCHED_ENTRIES_MAX {
            map.sorted = Vec::new();
        }
        Ok(map)
    }

    fn index(&mut self) {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.sorted = (0..count).collect();
        self.sorted.sort_by(|a, b| order(&self.entries[*a as usize].0, &self.entries[*b as usize].0));
    }

    /// Returns the value of a key, and charges the search.
    pub(super) fn get(
        &self,
        key: &CelValue<'_>,
        budget: &mut WorkBudget,
    ) -> Result<Option<&CelValue<'v>>, Stop<'v>> {
        budget.charge(1 + self.entries.len().min(SEARCHED_ENTRIES_MAX) / 4)?;
        if let CelValue::Text(text) = key {
            budget.charge_bytes(text.as_str().len())?;
        }
        if self.sorted.is_empty() {
            return Ok(self
                .entries
                .iter()
                .find(|(known, _)| order(known, key).is_eq())
                .map(|(_, value)| value));
        }
        let place = self.sorted.binary_search_by(|at| order(&self.entries[*at as usize].0, key));
        Ok(place
            .ok()
            .and_then(|place| self.entries.get(*self.sorted.get(place)? as usize))
            .map(|(_, value)| value))
    }

    /// Returns the value of a field.
    pub(super) fn field(
        &self,
        name: &'v str,
        budget: &mut WorkBudget,
    ) -> Result<Option<&CelValue<'v>>, Stop<'v>> {
        self.get(&CelValue::Text(CelText::Borrowed(name)), budget)
    }
}
