//! What members say that they can run.
//!
//! A member that is ready to run definitions tells the record `$extend/NODE`:
//! `{"boot":…,"cannot":{"pull/weather":"WEATHER_KEY is not set in the environment"}}`. It is a candidate from then on,
//! for everything but what it cannot run. A member of which there is no such record of its present life is no candidate:
//! it runs a program without extensions, or is not ready. A member that stops, or is not ready any longer, deletes the
//! record, so that others go on at once. Nothing is told while a cluster has no definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host::ExtendHost;
use super::system_record::{read_kept, tell_system};
use crate::cluster::members::State;
use crate::protocol::draft::DraftPayload;
use crate::protocol::extension::ABILITY_PREFIX;
use crate::protocol::refusal::Refusal;
use crate::record::NodeName;

/// Most bytes of the reasons of one member, so that the record stays small whatever definitions there are.
const REASON_BYTES_MAX: usize = 160;

/// The record by which one member tells the others which definitions it cannot run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Boot number of the life of the member that says so, as members see it: it may take a new one while it runs.
    pub boot: u64,
    /// The tasks that the member cannot run, each with the reason.
    #[serde(default)]
    pub cannot: BTreeMap<String, String>,
}

/// What all live members say of themselves, by their names.
pub type Abilities = BTreeMap<String, Ability>;

impl Ability {
    /// An ability of a member in its life `boot` with the tasks that it cannot run.
    pub fn new(boot: u64, cannot: impl IntoIterator<Item = (String, String)>) -> Ability {
        let shortened = cannot.into_iter().map(|(task, mut reason)| {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            (task, reason)
        });
        Ability { boot, cannot: shortened.collect() }
    }

    /// Tells this as the ability of the node.
    pub fn tell(&self, host: &dyn ExtendHost) -> Result<(), Refusal> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        tell_system(host, &record_of(host.name()), DraftPayload::Json(&text))
    }

    /// Returns whether the member can run a task.
    pub fn can(&self, task: &str) -> bool {
        !self.cannot.contains_key(task)
    }
}

/// Tells that the node is no candidate any longer.
pub fn withdraw(host: &dyn ExtendHost) -> Result<(), Refusal> {
    tell_system(host, &record_of(host.name()), DraftPayload::Deleted)
}

/// Name of the record by which a member tells what it cannot run.
fn record_of(member: &str) -> String {
    format!("{ABILITY_PREFIX}{member}")
}

/// A member as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMember {
    /// Name of the member.
    pub name: NodeName,
    /// Boot number of its present life.
    pub boot: u64,
    /// It takes part. A suspect does not: if it is dead, nobody waits for its end, and if it is not, it stops running what
    /// another one has taken, and gets it back.
    pub is_alive: bool,
}

/// All members that a node sees.
pub fn seen_members(host: &dyn ExtendHost) -> Vec<SeenMember> {
    let members = host.members();
    let seen = members.iter().map(|member| SeenMember {
        name: member.identity.name.clone(),
        boot: member.identity.boot,
        is_alive: member.state == State::Alive,
    });
    seen.collect()
}

/// Those of the members that take part and have told what they can run in their present life.
pub fn candidates(host: &dyn ExtendHost, seen: &[SeenMember]) -> Abilities {
    let told = seen.iter().filter(|member| member.is_alive).filter_map(|member| {
        let ability: Ability = read_kept(&*host.get(&record_of(member.name.as_str()))?)?;
        (ability.boot == member.boot).then(|| (member.name.as_str().to_owned(), ability))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let ability = Ability::new(7, [("pull/a".to_owned(), "ä".repeat(500))]);
        assert_eq!(ability.cannot["pull/a"].len(), REASON_BYTES_MAX);
        let text = serde_json::to_string(&ability).expect("JSON");
        assert_eq!(serde_json::from_str::<Ability>(&text).expect("an ability"), ability);
        let sparse: Ability = serde_json::from_str(r#"{"boot":1,"later":2}"#).expect("an ability");
        assert_eq!(sparse, Ability::new(1, []));
    }
}
