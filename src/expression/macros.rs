//! The macros of CEL, which take the items of a list in turn: `all`, `exists`, `exists_one`, `map` and `filter`.

use super::error::Words;
use super::node::LoopKind;

/// Returns what a name behind a point means, if it is that of a macro.
pub(super) fn loop_kind(name: &str) -> Option<LoopKind> {
    Some(match name {
        "all" => LoopKind::All,
        "exists" => LoopKind::Exists,
        "exists_one" | "existsOne" => LoopKind::ExistsOne,
        "map" => LoopKind::Map,
        "filter" => LoopKind::Filter,
        _ => return None,
    })
}

/// Returns how many arguments a macro takes, in words, if `count` is not allowed.
pub(super) fn wrong_count(kind: LoopKind, count: usize) -> Option<Words> {
    match kind {
        LoopKind::Map => (!(2..=3).contains(&count)).then_some("2 or 3"),
        _ => (count != 2).then_some("2"),
    }
}
