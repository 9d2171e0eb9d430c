//! All definitions that a node knows.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::ability::{candidates, seen_members};
use super::claim::RunClaim;
use super::definition::Definition;
use super::election;
use super::host::ExtendHost;
use super::kinds;
use crate::protocol::extension::{ExtensionKind, ExtensionName, ListedExtension};
use crate::record::{Pattern, SharedRecord};

/// Most definitions of one kind that a cluster works with. Those whose names come last are left out beyond it.
const DEFINITIONS_MAX: usize = 10_000;

/// The definitions at a node, as they were when it last looked.
#[derive(Default)]
pub struct Directory {
    definitions: BTreeMap<(ExtensionKind, ExtensionName), Rc<Definition>>,
}

impl Directory {
    /// Looks for definitions that were put, changed or taken away. Returns whether there are any.
    pub fn refresh(&mut self, host: &dyn ExtendHost) -> bool {
        let mut found = BTreeMap::new();
        for kind in ExtensionKind::ALL {
            for record in records(kind, host) {
                let Some((_, name)) = ExtensionKind::of_record(record.source.as_str()) else { continue };
                let key = (kind, name);
                let known = self.definitions.get(&key).filter(|known| known.ts == record.stamp.ts);
                let definition = match known {
                    Some(known) => Some(known.clone()),
                    None => Definition::of_record(&record).map(Rc::new),
                };
                if let Some(definition) = definition {
                    found.insert(key, definition);
                }
            }
        }
        let has_changed = !found.values().map(|one| one.ts).eq(self.definitions.values().map(|one| one.ts))
            || !found.keys().eq(self.definitions.keys());
        self.definitions = found;
        has_changed
    }

    /// The definition of this kind and name, if there is one.
    pub fn get(&self, key: &(ExtensionKind, ExtensionName)) -> Option<&Rc<Definition>> {
        self.definitions.get(key)
    }

    /// All definitions, in the order of kinds and names.
    pub fn all(&self) -> impl Iterator<Item = &Rc<Definition>> {
        self.definitions.values()
    }

    /// Returns whether there is no definition.
    pub fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }
}

/// The records with the definitions of a kind.
fn records(kind: ExtensionKind, host: &dyn ExtendHost) -> Vec<SharedRecord> {
    let Ok(pattern) = Pattern::parse(kind.pattern()) else { return Vec::new() };
    let mut records = host.list(&pattern);
    if records.len() > DEFINITIONS_MAX {
        tracing::warn!(
            kind = kind.as_str(),
            definitions = records.len(),
            allowed = DEFINITIONS_MAX,
            "there are too many definitions; the last by name are left out"
        );
        records.truncate(DEFINITIONS_MAX);
    }
    records
}

/// What a node knows of all definitions of a kind.
pub fn list(kind: ExtensionKind, host: &dyn ExtendHost) -> Vec<ListedExtension> {
    let candidates = candidates(host, &seen_members(host));
    let listed = records(kind, host).into_iter().filter_map(|record| {
        let (_, name) = ExtensionKind::of_record(record.source.as_str())?;
        let task = format!("{}/{name}", kind.as_str());
        let claim =
            RunClaim::read(host, &kind.claim_name(&name)).filter(|claim| claim.holds(&task, &candidates));
        let runner = match claim {
            Some(claim) => Some(claim.runner),
            None => election::elect(&task, &candidates).map(str::to_owned),
        };
        let reasons = candidates.iter().filter_map(|(member, ability)| {
            ability.cannot.get(&task).map(|reason| (member.clone(), reason.clone()))
        });
        let state = host.get(&kind.state_name(&name)).filter(|state| state.is_visible(host.now().wall_us));
        Some(ListedExtension {
            ts: record.stamp.ts,
            definition: record.payload.bytes().to_vec(),
            runner: runner.filter(|_| kinds::is_run_by_one(kind)),
            cannot: reasons.collect(),
            state: state.map(|state| state.payload.bytes().to_vec()),
            name,
        })
    });
    listed.collect()
}
