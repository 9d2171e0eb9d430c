//! The promises about what subscribers get: the newest, in order, once, and everything.

use super::*;

#[test]
fn a_latest_subscriber_that_misses_the_end() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::Latest, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.end("b", Place::Map, &[("s/1", data(6, "2"))]);
    let witness = story.breaks(Promise::LatestEndsNewest);
    tells(&witness, "s/1", 6, "b");
    assert!(witness.detail.contains("subscriber 1"), "{witness:?}");
}

#[test]
fn a_subscriber_may_keep_what_was_lost_with_a_killed_node() {
    let story = |is_killed: bool| {
        let mut story = Story::new();
        story.publish("s/1", 5, Some("1"), Level::Stored);
        story.connect(1, 1, "a", Mode::Latest, None);
        story.deliver(1, "s/1", data(5, "1"));
        story.publish("s/1", 6, Some("2"), Level::Accepted);
        story.publish("s/2", 7, Some("3"), Level::Accepted);
        story.deliver(1, "s/1", data(6, "2"));
        story.deliver(1, "s/2", data(7, "3"));
        if is_killed {
            story.see(Seen::NodeEnded { node: "a".into() });
            story.see(Seen::NodeStarted { node: "a".into() });
        }
        story.connect(1, 2, "b", Mode::Latest, Some(true));
        story.end("b", Place::Map, &[("s/1", data(5, "1"))]);
        story
    };
    story(true).keeps();
    assert!(story(false).judge().broken().contains(&"latest-ends-newest"), "nobody was killed");
}

#[test]
fn stamps_that_fall() {
    let mut story = Story::new();
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.connect(1, 1, "b", Mode::Latest, None);
    story.deliver(1, "s/1", data(6, "2"));
    story.deliver(1, "s/1", data(5, "1"));
    tells(&story.breaks(Promise::StampsRise), "s/1", 5, "b");
}

#[test]
fn stamps_that_fall_across_a_resume() {
    let story = |is_covered: bool| {
        let mut story = Story::new();
        story.publish("s/1", 5, Some("1"), Level::Accepted);
        story.publish("s/1", 6, Some("2"), Level::Accepted);
        story.connect(1, 1, "b", Mode::Latest, None);
        story.deliver(1, "s/1", data(6, "2"));
        if is_covered {
            story.wait(10 * SECOND);
            story.see(Seen::TokenTaken { subscriber: 1 });
        }
        story.see(Seen::Disconnected { subscriber: 1 });
        story.connect(1, 2, "c", Mode::Latest, Some(true));
        story.deliver(1, "s/1", data(5, "1"));
        story
    };
    tells(&story(true).breaks(Promise::StampsRise), "s/1", 5, "c");
    let report = story(false).keeps();
    assert_eq!(report.figures.resume_overlap, 1, "what came after the token may come again");
}

#[test]
fn an_all_subscriber_that_gets_a_record_twice() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.deliver(1, "s/1", data(5, "1"));
    tells(&story.breaks(Promise::AllOnce), "s/1", 5, "b");
}

#[test]
fn an_all_subscriber_may_get_a_record_again_after_a_resume() {
    let mut story = Story::new();
    story.connect(1, 1, "b", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.deliver(1, "s/1", data(5, "1"));
    story.wait(10 * SECOND);
    story.see(Seen::TokenTaken { subscriber: 1 });
    story.see(Seen::Disconnected { subscriber: 1 });
    story.connect(1, 2, "c", Mode::All, Some(true));
    story.deliver(1, "s/1", data(5, "1"));
    assert_eq!(story.keeps().figures.resume_overlap, 1);
}

#[test]
fn an_all_subscriber_that_misses_a_record_of_its_node() {
    let mut story = Story::new();
    story.connect(1, 1, "a", Mode::All, None);
    story.publish("s/1", 5, Some("1"), Level::Accepted);
    story.publish("s/1", 6, Some("2"), Level::Accepted);
    story.deliver(1, "s/1", data(6, "2"));
    story.wait(20 * SECOND);
    story.members("alive");
    tells(&story.breaks(Promise::AllComplete), "s/1", 5, "a");
}
