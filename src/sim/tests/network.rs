//! Tests of the virtual network: counts what it does to datagrams.

use crate::sim::{Conditions, Delay, Network, NodeId};

const DATAGRAMS: u64 = 200_000;

/// Sends a datagram every 100 µs from node 0 to `to(n)`. Returns when each arrived, if it did.
fn send(network: &mut Network, to: impl Fn(u64) -> usize) -> Vec<Option<u64>> {
    let arrivals = |n: u64| network.send(n * 100, NodeId(0), NodeId(to(n)), 100);
    (0..DATAGRAMS).map(arrivals).map(|arrivals| arrivals.as_slice().first().copied()).collect()
}

fn lost(arrived: &[Option<u64>]) -> f64 {
    arrived.iter().filter(|arrived| arrived.is_none()).count() as f64 / arrived.len() as f64
}

#[test]
fn loses_delays_and_repeats_as_asked() {
    let conditions = Conditions { duplicates_per_million: 20_000, ..Conditions::lossy(50_000) };
    let mut network = Network::new(Conditions { reordered_per_million: 0, ..conditions }, 3);
    let arrived = send(&mut network, |_| 1);
    assert!((lost(&arrived) - 0.05).abs() < 0.003, "{}", lost(&arrived));
    let delays = arrived.iter().zip(0..).filter_map(|(at_us, n)| at_us.map(|at_us| at_us - n * 100));
    let (mut least, mut most) = (u64::MAX, 0);
    delays.for_each(|us| (least, most) = (least.min(us), most.max(us)));
    assert_eq!((least, most), (500, 1_500));
    let traffic = *network.traffic();
    assert_eq!(traffic.sent, DATAGRAMS);
    assert_eq!(traffic.lost, arrived.iter().filter(|arrived| arrived.is_none()).count() as u64);
    let twice = traffic.duplicated as f64 / DATAGRAMS as f64;
    assert!((twice - 0.019).abs() < 0.002, "{twice}");
}

/// The mean loss over all links is the one that was asked for; on one link all losses are in slots of
/// 10 ms, in which half of the datagrams are lost.
#[test]
fn bursts_keep_the_mean_and_last_ten_milliseconds() {
    for loss_per_million in [20_000, 50_000, 100_000] {
        let conditions = Conditions { is_bursty: true, loss_per_million, ..Conditions::lan() };
        let mut network = Network::new(conditions, 5);
        let wanted = f64::from(loss_per_million) / 1e6;
        let mean = lost(&send(&mut network, |n| 1 + (n % 500) as usize));
        assert!((mean - wanted).abs() < 0.1 * wanted, "{mean} for {wanted}");

        let arrived = send(&mut network, |_| 1);
        let first = arrived.iter().position(Option::is_none).expect("some are lost");
        // There are a hundred datagrams in a slot; when slots begin differs from link to link.
        let phase = (0..100)
            .max_by_key(|phase| {
                let slots = arrived[phase + first % 100..].chunks(100);
                slots.filter(|slot| slot.iter().all(Option::is_some)).count()
            })
            .expect("a phase");
        let slots: Vec<f64> = arrived[phase + first % 100..].chunks_exact(100).map(lost).collect();
        let bad: Vec<f64> = slots.iter().copied().filter(|&lost| lost > 0.0).collect();
        let (share, inside) = (bad.len() as f64 / slots.len() as f64, bad.iter().sum::<f64>());
        let inside = inside / bad.len() as f64;
        assert!((share - 2.0 * wanted).abs() < 0.35 * wanted + 0.01, "{share} of slots for {wanted}");
        assert!((0.45..0.55).contains(&inside), "{inside} lost in a bad time");
    }
}

#[test]
fn zones_have_delays_of_their_own() {
    let far = Delay { min_us: 39_000, max_us: 40_000 };
    let mut network = Network::new(Conditions { between_zones: Some(far), ..Conditions::lan() }, 1);
    for (node, zone) in ["a", "a", "b", "c"].into_iter().enumerate() {
        network.place(NodeId(node), zone);
    }
    network.set_delay("a", "c", Delay { min_us: 7, max_us: 7 });
    for _ in 0..200 {
        let mut delay = |from, to| network.send(0, NodeId(from), NodeId(to), 9).as_slice()[0];
        assert!((500..=1_500).contains(&delay(0, 1)));
        assert!((39_000..=40_000).contains(&delay(0, 2)));
        assert_eq!(delay(0, 3), 7);
        assert!((39_000..=40_000).contains(&delay(3, 0)));
    }
}

#[test]
fn a_link_sends_no_faster_than_its_rate_and_drops_what_is_too_much() {
    let conditions = Conditions {
        egress_bytes_per_s: 1_000_000,
        egress_queue_bytes: 10_000,
        delay_us_min: 0,
        delay_us_max: 0,
        ..Conditions::lan()
    };
    let mut network = Network::new(conditions, 1);
    let arrived: Vec<Option<u64>> =
        (0..15).map(|_| network.send(0, NodeId(0), NodeId(1), 1_000).as_slice().first().copied()).collect();
    let expected: Vec<Option<u64>> = (1..=15).map(|n| (n <= 10).then_some(n * 1_000)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(network.traffic().dropped, 5);
    // The link of another node is not concerned, and this one is free again later.
    assert_eq!(network.send(0, NodeId(1), NodeId(0), 1_000).as_slice(), [1_000]);
    assert_eq!(network.send(10_000, NodeId(0), NodeId(1), 1_000).as_slice(), [11_000]);
}

#[test]
fn cuts_have_a_direction_and_partitions_two_sides() {
    let mut network = Network::new(Conditions::lan(), 1);
    let [a, b, c] = [0, 1, 2].map(NodeId);
    network.cut(a, b);
    assert!(!network.is_open(a, b) && network.is_open(b, a));
    network.partition(&[a], &[b]);
    network.partition(&[b], &[c]);
    assert!(!network.is_open(b, a) && !network.is_open(c, b) && network.is_open(a, c));
    network.reunite();
    assert!(!network.is_open(a, b) && network.is_open(b, a) && network.is_open(b, c));
    network.mend(a, b);
    assert!(network.is_open(a, b));
    assert_eq!(network.send(0, a, b, 9).as_slice().len(), 1);
}
