//! The promises about what was acknowledged: stored, accepted and replicated records.

use super::*;

#[test]
fn a_stored_record_that_a_node_lacks() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Stored);
    story.end("a", Place::Map, &[("s/1", data(5, "1"))]);
    story.end("b", Place::Map, &[]);
    tells(&story.breaks(Promise::StoredKept), "s/1", 5, "b");
}

#[test]
fn a_stored_record_that_its_own_store_lacks_after_a_kill() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Stored);
    story.publish("s/2", 6, Some("2"), Level::Accepted);
    story.see(Seen::NodeEnded { node: "a".into() });
    story.see(Seen::NodeStarted { node: "a".into() });
    story.end("a", Place::OwnStore, &[]);
    let witness = story.breaks(Promise::StoredKept);
    tells(&witness, "s/1", 5, "a");
    assert!(witness.detail.contains("nothing (OwnStore)"), "{witness:?}");
}

#[test]
fn an_older_record_in_place_of_a_stored_one() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Stored);
    story.end("b", Place::Map, &[("s/1", data(5, "1"))]);
    tells(&story.breaks(Promise::StoredKept), "s/1", 6, "b");
}

#[test]
fn an_accepted_record_is_owed_while_its_node_lives_on() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.end("c", Place::Map, &[]);
    tells(&story.breaks(Promise::AcceptedKept), "s/1", 5, "c");
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.see(Seen::NodeEnded { node: "a".into() });
    story.see(Seen::NodeStarted { node: "a".into() });
    story.end("c", Place::Map, &[]);
    story.keeps();
}

#[test]
fn replicated_that_was_not_true() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Replicated);
    let begun_us = story.at_us;
    story.members("alive");
    story.see(Seen::Read { node: "b".into(), source: "s/1".into(), begun_us, found: None });
    tells(&story.breaks(Promise::ReplicatedTrue), "s/1", 5, "b");
}

#[test]
fn replicated_with_too_few_nodes() {
    let mut story = Story::new();
    let publish = story.offer("a", "s/1", Some("1"), Level::Replicated, 0);
    let answer = Answer::Done { ts: 5, outcome: Outcome::Applied, nodes: Some(2) };
    story.see(Seen::Answered { publish, answer });
    story.members("alive");
    let witness = story.breaks(Promise::ReplicatedTrue);
    tells(&witness, "s/1", 5, "a");
    assert!(witness.detail.contains("2 nodes when 3 were alive"), "{witness:?}");
}

#[test]
fn replicated_says_nothing_of_members_that_may_have_been_dead() {
    let mut story = Story::new();
    story.fault(1, &["c"]);
    story.publish("s/1", 5, Some("1"), Level::Replicated);
    let begun_us = story.at_us;
    story.members("dead");
    story.see(Seen::Read { node: "c".into(), source: "s/1".into(), begun_us, found: None });
    story.keeps();
}

// A node had given up the life of a member that was killed when it answered, and the list that seemed to come after the answer
// had been asked for before it.
#[test]
fn replicated_says_nothing_of_members_in_a_list_that_was_asked_for_before_the_answer() {
    let mut story = Story::new();
    story.fault(1, &["c"]);
    let publish = story.offer("a", "s/1", Some("1"), Level::Replicated, 0);
    let begun_us = story.at_us;
    let answer = Answer::Done { ts: 5, outcome: Outcome::Applied, nodes: Some(2) };
    story.see(Seen::Answered { publish, answer });
    story.members_asked_at(begun_us, "alive");
    story.members("dead");
    story.keeps();
}

/// A record is answered with two nodes, and before and after c is alive and has come as the first and as the `joined`-th, and
/// it refuted a suspicion meanwhile.
fn answered_with_two(joined: u64) -> Story {
    let mut story = Story::new();
    story.members("suspect");
    let publish = story.offer("a", "s/1", Some("1"), Level::Replicated, 0);
    let answer = Answer::Done { ts: 5, outcome: Outcome::Applied, nodes: Some(2) };
    story.see(Seen::Answered { publish, answer });
    story.members_with(story.at_us, "alive", 1, joined);
    story
}

// The lists are half a second apart. The checker could not tell a member that refuted a suspicion from one that took no part
// for a moment, since only the former has another incarnation.
#[test]
fn replicated_counts_a_member_that_refuted_a_suspicion() {
    let witness = answered_with_two(1).breaks(Promise::ReplicatedTrue);
    assert!(witness.detail.contains("2 nodes when 3 were alive"), "{witness:?}");
}

#[test]
fn replicated_says_nothing_of_a_member_that_was_away_between_two_lists() {
    answered_with_two(2).keeps();
}
