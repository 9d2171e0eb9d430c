use super::*;

fn plan(nodes: usize, conditions: Conditions) -> BaselinePlan {
    BaselinePlan { nodes, records: 40, rate_per_s: 10, record_bytes: 128, conditions, seed: 7 }
}

#[test]
fn a_record_is_sent_four_times_a_digit() {
    let expected = [(1, 4), (2, 4), (9, 4), (10, 8), (99, 8), (100, 12), (1_000, 16), (10_000, 20)];
    for (nodes, times) in expected {
        assert_eq!(transmissions(nodes), times, "{nodes} nodes");
    }
}

#[test]
fn a_queue_sends_the_least_sent_and_of_those_the_newest() {
    let mut queue = UpdateQueue::new(2, 400);
    (0..4).for_each(|record| queue.push(record));
    assert_eq!(queue.packet(), (vec![3, 2, 1], 2 + 3 * 403));
    assert_eq!(queue.packet().0, [0, 3, 2]);
    assert_eq!(queue.packet().0, [1, 0]);
    assert!(queue.is_empty() && queue.packet().0.is_empty());
}

#[test]
fn rumours_take_rounds_and_many_copies() {
    let measures = rumours(&plan(100, Conditions::figures()));
    let (p50, max) = (measures.last.quantile(0.5), measures.last.max());
    assert!((300_000..1_000_000).contains(&p50) && max < 2_000_000, "{p50} us, {max} us");
    // Each of 100 nodes sends 12 times, and 99 nodes need the record.
    let sent = 12.0 * 100.0 / 99.0;
    assert!((measures.copies_mean() - sent).abs() < 0.01, "{}", measures.copies_mean());
    assert!(measures.missing_share() < 0.01, "{}", measures.missing_share());
    assert_eq!(measures.times.count() + measures.missing, 40 * 99);
}

#[test]
fn rumours_reach_few_nodes_too() {
    let measures = rumours(&plan(2, Conditions::figures()));
    assert_eq!((measures.missing, measures.copies), (0, 2 * 4 * 40));
    assert!(measures.times.max() <= GOSSIP_US + 1_530, "{}", measures.times.max());
}

#[test]
fn flooding_takes_one_hop_and_the_origins_time() {
    let measures = flooding(&plan(100, Conditions::figures()));
    assert_eq!((measures.missing, measures.copies, measures.datagrams), (0, 40 * 99, 40 * 99));
    assert_eq!(measures.bytes, 40 * 99 * (128 + 28));
    // The origin needs 6 µs for each of 99 datagrams, and the last one takes the longest delay.
    let last_us = measures.last.quantile(0.5);
    assert!((1_000..=99 * 6 + 1_500 + 6).contains(&last_us), "{last_us}");
}

#[test]
fn what_flooding_loses_stays_lost() {
    let measures = flooding(&plan(100, Conditions { loss_per_million: 50_000, ..Conditions::figures() }));
    assert!((0.03..0.07).contains(&measures.missing_share()), "{}", measures.missing_share());
    assert!(measures.partial > 30);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let lossy = plan(50, Conditions::lossy(50_000));
    assert_eq!(rumours(&lossy), rumours(&lossy));
    assert_eq!(flooding(&lossy), flooding(&lossy));
    assert_ne!(rumours(&lossy), rumours(&BaselinePlan { seed: 8, ..lossy }));
}
