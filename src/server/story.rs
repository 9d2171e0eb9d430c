//! The log of members that come, fail, return and leave, and of a cluster that falls apart and heals.
//!
//! Each change is one line, and each state is told once: a member that is suspected and then answers is not mentioned.
//! Where many members change at once, some are named and the others counted.

use crate::cluster::members::{MemberInfo, State};
use crate::record::NodeName;

/// Most lines about single members in one window.
const LINES_MAX: u32 = 32;
/// Length of the window in which lines are counted, in microseconds.
const WINDOW_US: u64 = 10_000_000;
/// Least number of nodes in a cluster that is said to have fallen apart: of two nodes, one has failed.
const SPLIT_NODES_MIN: usize = 3;

/// The state of a member as the log has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToldState {
    Live,
    Dead,
    Left,
}

/// A member that the log has mentioned.
#[derive(Clone, Debug)]
struct KnownMember {
    name: NodeName,
    told: ToldState,
    boot: u64,
    /// Monotonic time of the last line, in microseconds.
    since_us: u64,
}

/// A change that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Joined,
    Failed,
    Returned,
    Restarted,
    Left,
    Forgotten,
}

/// What the log has told of the members so far.
#[derive(Debug, Default)]
pub(super) struct MemberStory {
    /// Members in order of their names.
    known: Vec<KnownMember>,
    is_split: bool,
    window_us: u64,
    lines: u32,
    unlogged: u64,
}

impl MemberStory {
    /// Tells what has changed. `members` are all members in order of their names, this node, `me`, among them.
    pub fn look(&mut self, now_us: u64, members: &[MemberInfo], me: &NodeName) {
        let live = members.iter().filter(|member| member.state.is_live()).count();
        for (event, member, away_us) in self.changes(now_us, members, me) {
            self.tell(now_us, event, &member, away_us, live);
        }
        let dead = self.known.iter().filter(|member| member.told == ToldState::Dead).count();
        if let Some(is_split) = self.judge_split(live, dead) {
            match is_split {
                true => tracing::warn!(
                    alive = live,
                    lost = dead,
                    "half of the members or more are lost: they have failed together, or the network is partitioned"
                ),
                false => tracing::info!(alive = live, lost = dead, "the partition has healed"),
            }
        }
    }

    /// Returns whether the cluster has fallen apart or healed, if that has changed.
    fn judge_split(&mut self, live: usize, dead: usize) -> Option<bool> {
        let is_split = live + dead >= SPLIT_NODES_MIN && dead > 0 && live * 2 <= live + dead;
        (std::mem::replace(&mut self.is_split, is_split) != is_split).then_some(is_split)
    }

    /// Returns the members of which something is to be told, with what and the time since the last line about them,
    /// and remembers it as told.
    fn changes(
        &mut self,
        now_us: u64,
        members: &[MemberInfo],
        me: &NodeName,
    ) -> Vec<(Event, Described, u64)> {
        let mut known = std::mem::take(&mut self.known).into_iter().peekable();
        let mut changes = Vec::new();
        for member in members.iter().filter(|member| member.identity.name != *me) {
            let name = &member.identity.name;
            while let Some(gone) = known.next_if(|known| known.name < *name) {
                if gone.told == ToldState::Dead {
                    changes.push((Event::Forgotten, Described::gone(&gone.name), now_us - gone.since_us));
                }
            }
            let before = known.next_if(|known| known.name == *name);
            let boot = member.identity.boot;
            let Some((told, event)) = judge(member, before.as_ref()) else {
                self.known.extend(before);
                continue;
            };
            let before_boot = before.as_ref().map(|before| before.boot);
            let since_us = before.map_or(now_us, |before| before.since_us);
            let is_told = event.is_some();
            if let Some(event) = event {
                changes.push((event, Described::of(member), now_us - since_us));
            }
            // A new life is told when it has answered, and not when it was heard of.
            let known_boot = before_boot.filter(|_| !is_told).unwrap_or(boot);
            let since_us = if is_told { now_us } else { since_us };
            self.known.push(KnownMember { name: name.clone(), told, boot: known_boot, since_us });
        }
        for gone in known.filter(|gone| gone.told == ToldState::Dead) {
            changes.push((Event::Forgotten, Described::gone(&gone.name), now_us - gone.since_us));
        }
        changes
    }

    /// Writes a line, unless there were many in this window.
    fn tell(&mut self, now_us: u64, event: Event, member: &Described, away_us: u64, alive: usize) {
        if now_us >= self.window_us + WINDOW_US {
            if self.unlogged > 0 {
                tracing::info!(changes = self.unlogged, alive, "further members have come or gone");
            }
            (self.window_us, self.lines, self.unlogged) = (now_us, 0, 0);
        }
        if self.lines >= LINES_MAX {
            self.unlogged += 1;
            return;
        }
        self.lines += 1;
        let Described { name, address, zone, version } = member;
        let away_ms = away_us / 1_000;
        match event {
            Event::Joined => {
                tracing::info!(member = name, address, zone, version, alive, "a member has joined")
            }
            Event::Failed => tracing::warn!(member = name, address, zone, alive, "a member has failed"),
            Event::Returned => {
                tracing::info!(
                    member = name,
                    address,
                    zone,
                    version,
                    away_ms,
                    alive,
                    "a member has returned"
                );
            }
            Event::Restarted => {
                tracing::info!(member = name, address, zone, version, alive, "a member has restarted");
            }
            Event::Left => tracing::info!(member = name, address, zone, alive, "a member has left"),
            Event::Forgotten => tracing::info!(member = name, away_ms, "a member that failed is forgotten"),
        }
    }
}

/// A member as the log names it.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    name: String,
    address: String,
    zone: String,
    version: String,
}

impl Described {
    fn of(member: &MemberInfo) -> Described {
        let identity = &member.identity;
        Described {
            name: identity.name.to_string(),
            address: identity.gossip().to_string(),
            zone: identity.zone().to_owned(),
            version: identity.version().to_owned(),
        }
    }

    fn gone(name: &NodeName) -> Described {
        let (address, zone, version) = (String::new(), String::new(), String::new());
        Described { name: name.to_string(), address, zone, version }
    }
}

/// Returns the state of a member as it is told from now on, and the event that is to be told, if there is one. `None`:
/// nothing is remembered of the member.
fn judge(member: &MemberInfo, before: Option<&KnownMember>) -> Option<(ToldState, Option<Event>)> {
    let told = before.map(|before| before.told);
    match (member.state, told) {
        // A member that has not answered yet may be an invention of a stranger.
        (State::Joining, _) => told.map(|told| (told, None)),
        (State::Alive, None) => Some((ToldState::Live, Some(Event::Joined))),
        (State::Alive, Some(ToldState::Live)) => {
            let is_same = before.is_some_and(|before| before.boot == member.identity.boot);
            Some((ToldState::Live, (!is_same).then_some(Event::Restarted)))
        }
        (State::Alive, Some(ToldState::Dead | ToldState::Left)) => {
            Some((ToldState::Live, Some(Event::Returned)))
        }
        // A suspicion is not told. If the member was never seen alive, that is waited for.
        (State::Suspect, _) => told.map(|told| (told, None)),
        (State::Dead, Some(ToldState::Live)) => Some((ToldState::Dead, Some(Event::Failed))),
        (State::Left, Some(ToldState::Live)) => Some((ToldState::Left, Some(Event::Left))),
        (State::Left, Some(_)) => Some((ToldState::Left, None)),
        (State::Dead | State::Left, _) => told.map(|told| (told, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::members::Identity;

    fn member(name: &str, boot: u64, state: State) -> MemberInfo {
        let name = NodeName::parse(name).expect("a name");
        let gossip = "127.0.0.1:1".parse().expect("an address");
        let identity = Arc::new(Identity::new(name, boot, gossip, "127.0.0.1:2", "", "0.1.0"));
        MemberInfo::new(identity, state)
    }

    fn events(story: &mut MemberStory, members: &[(&str, u64, State)]) -> Vec<(Event, String)> {
        let members: Vec<MemberInfo> =
            members.iter().map(|(name, boot, state)| member(name, *boot, *state)).collect();
        let me = NodeName::parse("me").expect("a name");
        story.changes(0, &members, &me).into_iter().map(|(event, member, _)| (event, member.name)).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut story = MemberStory::default();
        let of = |event, name: &str| vec![(event, name.to_owned())];
        let me = ("me", 1, State::Alive);
        assert_eq!(events(&mut story, &[("a", 1, State::Joining), me]), []);
        assert_eq!(events(&mut story, &[("a", 1, State::Alive), me]), of(Event::Joined, "a"));
        assert_eq!(events(&mut story, &[("a", 1, State::Suspect), me]), []);
        assert_eq!(events(&mut story, &[("a", 1, State::Alive), me]), []);
        assert_eq!(events(&mut story, &[("a", 1, State::Dead), me]), of(Event::Failed, "a"));
        assert_eq!(events(&mut story, &[("a", 1, State::Dead), me]), []);
        assert_eq!(events(&mut story, &[("a", 2, State::Joining), me]), []);
        assert_eq!(events(&mut story, &[("a", 2, State::Alive), me]), of(Event::Returned, "a"));
        assert_eq!(events(&mut story, &[("a", 3, State::Joining), me]), []);
        assert_eq!(events(&mut story, &[("a", 3, State::Alive), me]), of(Event::Restarted, "a"));
        assert_eq!(events(&mut story, &[("a", 3, State::Left), me]), of(Event::Left, "a"));
        assert_eq!(events(&mut story, &[me]), [], "who has left is forgotten in silence");
        assert_eq!(events(&mut story, &[me, ("z", 1, State::Alive)]), of(Event::Joined, "z"));
        assert_eq!(events(&mut story, &[me, ("z", 1, State::Dead)]), of(Event::Failed, "z"));
        assert_eq!(events(&mut story, &[me]), of(Event::Forgotten, "z"));
        assert_eq!(events(&mut story, &[("b", 1, State::Dead), me]), [], "dead before this node came");
    }

    #[test]
    fn a_cluster_falls_apart_and_heals_once() {
        let mut story = MemberStory::default();
        assert_eq!(story.judge_split(1, 1), None, "of two, one has failed");
        assert_eq!(story.judge_split(2, 1), None, "the greater side");
        assert_eq!(story.judge_split(1, 2), Some(true));
        assert_eq!(story.judge_split(1, 2), None);
        assert_eq!(story.judge_split(3, 0), Some(false));
    }

    #[test]
    fn many_changes_are_few_lines() {
        let mut story = MemberStory::default();
        let one = Described::of(&member("a", 1, State::Alive));
        for _ in 0..100 {
            story.tell(WINDOW_US, Event::Joined, &one, 0, 1);
        }
        assert_eq!((story.lines, story.unlogged), (LINES_MAX, 100 - u64::from(LINES_MAX)));
        story.tell(2 * WINDOW_US, Event::Joined, &one, 0, 1);
        assert_eq!((story.lines, story.unlogged), (1, 0));
    }
}
