//! Which member may run a definition at the moment: the record `$KIND/NAME/runner`, `{"runner":"n1","boot":…}`.
//!
//! The election ([`super::election`]) says which member should run a definition, as one member sees the cluster. Members that
//! hear of a death or of a new member at different times elect differently for some seconds. So a member runs a
//! definition only while the record names it, and there are two ways to be named:
//!
//! - The member that is named passes the record on when it elects another one, after it has stopped.
//! - If the member that is named has gone, the one that is elected names itself. It waits for [`CLAIMED_US`] before it
//!   begins. If another one names itself at the same time, one of the two records is newer, and both obey it.
//!
//! So two members that hear of each other's records within that time never run the same. During a partition each side has
//! a record, and a runner that it names. Afterwards the newer record wins, and the runner that it does not name stops.
//!
//! The record is written when a definition moves, and never otherwise. It is no lock: a member that is cut off, or whose
//! process is halted, does not hear that another one was named, and runs what it has until it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ability::{Abilities, SeenMember};
use super::host::ExtendHost;
use super::system_record::{read_kept, tell_system};
use crate::protocol::draft::DraftPayload;
use crate::protocol::refusal::Refusal;
use crate::record::SharedRecord;

/// Time from when a member has named itself until it runs the definition, in microseconds. Records are at all members of
/// a healthy cluster earlier.
pub const CLAIMED_US: u64 = 150_000;
/// Longest time for which a member that is elected waits for the one that is named, in microseconds. It is longer than news
/// takes to all members, and is needed only where the one that is named runs a program without such records.
pub const PASSED_ON_US_MAX: u64 = 15_000_000;
/// The same if the one that is named is not known: in a healthy cluster, one hears of it within seconds.
pub const UNKNOWN_US_MAX: u64 = 5_000_000;

/// The claims of all definitions, each read again only when its record is another one.
#[derive(Default)]
pub struct ClaimBook {
    read: BTreeMap<String, (SharedRecord, Option<RunClaim>)>,
}

impl ClaimBook {
    /// The claim that a record has now.
    pub fn look(&mut self, host: &dyn ExtendHost, record: &str) -> Option<&RunClaim> {
        let held = host.get(record)?;
        let is_same = self.read.get(record).is_some_and(|(known, _)| Arc::ptr_eq(known, &held));
        if !is_same {
            let claim = read_kept(&held);
            self.read.insert(record.to_owned(), (held, claim));
        }
        self.read.get(record)?.1.as_ref()
    }

    /// Forgets the claim of a definition that was taken away.
    pub fn forget(&mut self, record: &str) {
        self.read.remove(record);
    }
}

/// The member that may run a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunClaim {
    /// Name of the member.
    pub runner: String,
    /// Boot number of the life in which it may.
    pub boot: u64,
}

/// The member that decides, and what it does about the definition at the moment.
#[derive(Clone, Copy, Debug)]
pub struct ClaimView<'a> {
    /// Name of the member that decides.
    pub name: &'a str,
    /// Boot number of its present life.
    pub boot: u64,
    /// It runs the definition.
    pub is_running: bool,
    /// It has been a candidate for long enough to name itself. It runs what is passed on to it before.
    pub may_claim: bool,
    /// What it has been doing without running the definition, and for how long in microseconds.
    pub pending: Option<(PendingRun, u64)>,
}

/// What a member does that is elected and does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingRun {
    /// It has named itself, and waits for records of others that did the same.
    Claimed,
    /// It waits until the member that is named passes the definition on.
    Awaiting,
}

/// What a member is to do about a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStep<'a> {
    /// Run it, or go on with that.
    Run,
    /// Name itself again, and go on running it: it has a new boot number.
    Renew,
    /// Stop running it, name itself, and wait.
    Claim,
    /// Stop running it, and be as this says.
    Wait(PendingRun),
    /// Stop running it, and then name this member, which has this boot number.
    PassOn(&'a str, u64),
    /// Stop running it.
    Leave,
}

impl RunClaim {
    /// Reads the record.
    pub fn read(host: &dyn ExtendHost, record: &str) -> Option<RunClaim> {
        host.get(record).and_then(|record| read_kept(&record))
    }

    /// Writes the record.
    pub fn tell(&self, host: &dyn ExtendHost, record: &str) -> Result<(), Refusal> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        tell_system(host, record, DraftPayload::Json(&text))
    }

    /// Returns whether the member that is named takes part in the same life, and can run the task.
    pub fn holds(&self, task: &str, candidates: &Abilities) -> bool {
        candidates.get(&self.runner).is_some_and(|ability| ability.boot == self.boot && ability.can(task))
    }

    /// Returns whether the member that is named, or the life in which it is, is not known here yet: it has joined, and this is
    /// heard of sooner than that.
    fn is_unknown(&self, members: &[SeenMember]) -> bool {
        let known = members.iter().find(|member| member.name.as_str() == self.runner);
        known.is_none_or(|member| member.boot < self.boot)
    }
}

/// Decides what a member does about a task, from the record, from whom it elects, and from all candidates.
pub fn decide<'a>(
    task: &str,
    claim: Option<&RunClaim>,
    elected: Option<&'a str>,
    candidates: &Abilities,
    members: &[SeenMember],
    own: ClaimView<'_>,
) -> RunStep<'a> {
    // A member that runs the definition was named in this life, even if it has taken a new boot number since.
    let is_same_life = |claim: &&RunClaim| own.is_running || claim.boot == own.boot;
    let own_claim = claim.filter(|claim| claim.runner == own.name).filter(is_same_life);
    match (elected, own_claim) {
        (Some(elected), Some(claim)) if elected == own.name => match own.pending {
            Some((PendingRun::Claimed, for_us)) if for_us < CLAIMED_US => RunStep::Wait(PendingRun::Claimed),
            _ if claim.boot != own.boot => RunStep::Renew,
            _ => RunStep::Run,
        },
        (Some(elected), None) if elected == own.name => {
            let patience_us = match claim {
                Some(claim) if claim.holds(task, candidates) => PASSED_ON_US_MAX,
                Some(claim) if claim.is_unknown(members) => UNKNOWN_US_MAX,
                _ => 0,
            };
            let waits_us = match own.pending {
                Some((PendingRun::Awaiting, for_us)) => for_us,
                _ => 0,
            };
            match waits_us < patience_us {
                true => RunStep::Wait(PendingRun::Awaiting),
                false if own.may_claim => RunStep::Claim,
                false => RunStep::Leave,
            }
        }
        (Some(elected), Some(_)) => {
            candidates.get(elected).map_or(RunStep::Leave, |ability| RunStep::PassOn(elected, ability.boot))
        }
        (Some(_), None) | (None, _) => RunStep::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extend::ability::Ability;
    use crate::record::NodeName;

    const TASK: &str = "pull/x";
    const BOOT: u64 = 7;

    /// Candidates `a`, `b` and `c`, each in its life 7.
    fn candidates() -> Abilities {
        ["a", "b", "c"].map(|name| (name.to_owned(), Ability::new(BOOT, []))).into()
    }

    /// These and `dead`, which was in its life 7.
    fn members() -> Vec<SeenMember> {
        let member = |name| {
            let parsed = NodeName::parse(name).expect("a name");
            SeenMember { name: parsed, boot: BOOT, is_alive: name != "dead" }
        };
        ["a", "b", "c", "dead"].map(member).into()
    }

    fn named(runner: &str, boot: u64) -> RunClaim {
        RunClaim { runner: runner.to_owned(), boot }
    }

    /// Returns the step that member `a` takes if the record holds `claim` and this member is elected.
    fn step(
        claim: Option<RunClaim>,
        elected: Option<&'static str>,
        is_running: bool,
        pending: Option<(PendingRun, u64)>,
    ) -> RunStep<'static> {
        let own = ClaimView { name: "a", boot: BOOT, is_running, may_claim: true, pending };
        decide(TASK, claim.as_ref(), elected, &candidates(), &members(), own)
    }

    #[test]
    fn a_member_that_is_elected_names_itself_and_waits_before_it_runs() {
        assert_eq!(step(None, Some("a"), false, None), RunStep::Claim);
        let claimed =
            |for_us| step(Some(named("a", BOOT)), Some("a"), false, Some((PendingRun::Claimed, for_us)));
        assert_eq!(claimed(CLAIMED_US - 1), RunStep::Wait(PendingRun::Claimed));
        assert_eq!(claimed(CLAIMED_US), RunStep::Run);
        // Another one has named itself meanwhile.
        let lost = step(Some(named("b", BOOT)), Some("a"), false, Some((PendingRun::Claimed, CLAIMED_US)));
        assert_eq!(lost, RunStep::Wait(PendingRun::Awaiting));
    }

    #[test]
    fn a_member_that_is_elected_waits_for_one_that_is_named_and_lives() {
        let waits = |claim, for_us| step(Some(claim), Some("a"), false, Some((PendingRun::Awaiting, for_us)));
        assert_eq!(waits(named("b", BOOT), PASSED_ON_US_MAX - 1), RunStep::Wait(PendingRun::Awaiting));
        assert_eq!(waits(named("b", BOOT), PASSED_ON_US_MAX), RunStep::Claim);
        for gone in [named("b", BOOT - 1), named("dead", BOOT), named("a", BOOT - 1)] {
            assert_eq!(waits(gone, 0), RunStep::Claim);
        }
        for unknown in [named("b", BOOT + 1), named("new", BOOT)] {
            assert_eq!(waits(unknown.clone(), UNKNOWN_US_MAX - 1), RunStep::Wait(PendingRun::Awaiting));
            assert_eq!(waits(unknown, UNKNOWN_US_MAX), RunStep::Claim);
        }
        assert_eq!(step(Some(named("a", BOOT)), Some("a"), false, None), RunStep::Run, "it was passed on");
    }

    #[test]
    fn a_member_that_has_just_come_runs_what_is_passed_on_to_it_and_nothing_else() {
        let own = ClaimView { name: "a", boot: BOOT, is_running: false, may_claim: false, pending: None };
        let step =
            |claim: Option<RunClaim>| decide(TASK, claim.as_ref(), Some("a"), &candidates(), &members(), own);
        assert_eq!(step(None), RunStep::Leave);
        assert_eq!(step(Some(named("b", BOOT - 1))), RunStep::Leave);
        assert_eq!(step(Some(named("b", BOOT))), RunStep::Wait(PendingRun::Awaiting));
        assert_eq!(step(Some(named("a", BOOT))), RunStep::Run);
    }

    #[test]
    fn a_member_runs_nothing_that_the_record_gives_to_another() {
        assert_eq!(step(Some(named("b", BOOT)), Some("a"), true, None), RunStep::Wait(PendingRun::Awaiting));
        assert_eq!(step(Some(named("b", BOOT)), Some("b"), true, None), RunStep::Leave);
        assert_eq!(step(Some(named("b", BOOT)), None, true, None), RunStep::Leave);
        assert_eq!(step(None, Some("a"), true, None), RunStep::Claim);
    }

    #[test]
    fn a_member_that_is_named_passes_on_what_another_should_run() {
        for is_running in [true, false] {
            assert_eq!(step(Some(named("a", BOOT)), Some("b"), is_running, None), RunStep::PassOn("b", BOOT));
            assert_eq!(step(Some(named("a", BOOT)), None, is_running, None), RunStep::Leave);
        }
    }

    #[test]
    fn a_new_boot_number_of_a_member_that_runs_is_written_into_the_record() {
        assert_eq!(step(Some(named("a", BOOT - 1)), Some("a"), true, None), RunStep::Renew);
    }

    #[test]
    fn a_member_that_cannot_run_it_any_longer_holds_it_no_longer() {
        let mut candidates = candidates();
        assert!(named("b", BOOT).holds(TASK, &candidates));
        candidates.insert("b".into(), Ability::new(BOOT, [(TASK.to_owned(), "why".to_owned())]));
        assert!(!named("b", BOOT).holds(TASK, &candidates));
    }
}
