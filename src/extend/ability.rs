//! What members say that they can run.
//!
//! A member that is ready to run definitions tells the record `$extend/NODE`:
//! `{"boot":…,"cannot":{"pull/weather":"WEATHER_KEY is not set in the environment"}}`. It is a candidate from then on,
//! for everything but what it cannot run. A member of which there is no such record of its present life is no candidate:
//! it runs a program without extensions, or is not ready. Nothing is told while a cluster has no definition.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host::ExtendHost;
use crate::cluster::members::State;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::extension::ABILITY_PREFIX;
use crate::protocol::refusal::Refusal;

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
            let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
            (task, reason)
        });
        Ability { boot, cannot: shortened.collect() }
    }

    /// Tells this as the ability of the node.
    pub fn tell(&self, host: &dyn ExtendHost) -> Result<(), Refusal> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let draft = Draft {
            source: Cow::Owned(format!("{ABILITY_PREFIX}{}", host.name())),
            ts: None,
            payload: DraftPayload::Json(&text),
            ttl_ms: 0,
            ack: None,
        };
        host.tell(&draft).map(drop)
    }
}

/// The boot number of the present life of this node, as other members see it.
pub fn own_boot(host: &dyn ExtendHost) -> Option<u64> {
    let members = host.members();
    let own = members.iter().find(|member| member.identity.name.as_str() == host.name());
    own.map(|member| member.identity.boot)
}

/// The members that take part and have told what they can run in their present life. A suspect is no candidate: if it is
/// dead, nobody waits for its end, and if it is not, two members run the same for a moment.
pub fn candidates(host: &dyn ExtendHost) -> Abilities {
    let members = host.members();
    let alive = members.iter().filter(|member| member.state == State::Alive);
    let told = alive.filter_map(|member| {
        let name = member.identity.name.as_str();
        let record = host.get(&format!("{ABILITY_PREFIX}{name}"))?;
        let ability: Ability = serde_json::from_slice(record.payload.bytes()).ok()?;
        (ability.boot == member.identity.boot).then(|| (name.to_owned(), ability))
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
