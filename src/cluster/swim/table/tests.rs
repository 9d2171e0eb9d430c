use std::net::SocketAddr;

use super::*;
use crate::cluster::ring::RingEntry;
use crate::record::NodeName;

fn introduction(name: &str, boot: u64) -> Introduction {
    let name = NodeName::parse(name).expect("name");
    let identity = Identity::new(name, boot, SocketAddr::from(([10, 0, 0, 1], 7946)), "", "", "");
    Introduction { identity: Arc::new(identity), incarnation: 0 }
}

fn table(count: usize) -> (MemberTable, Random) {
    let mut random = Random::new(5);
    let mut table = MemberTable::new(introduction("me", 1).identity, 0);
    for index in 0..count {
        table.insert(introduction(&format!("n{index}"), 1), State::Alive, 0, &mut random);
    }
    (table, random)
}

fn kill(table: &mut MemberTable, slot: Slot, random: &mut Random) {
    let member = table.get(slot).expect("there").clone();
    let dead = Introduction { identity: member.identity, incarnation: member.incarnation };
    table.set(slot, dead, State::Dead, 9, random);
}

#[test]
fn a_member_costs_little() {
    assert_eq!((size_of::<Option<MemberEntry>>(), size_of::<RingEntry>()), (24, 24));
}

/// A node needs 128 bytes for each member, at usual sizes: 12 bytes of name, 14 of HTTP address.
#[test]
fn ten_thousand_members_cost_128_bytes_each() {
    const COUNT: usize = 10_000;
    // As glibc hands memory out: eight bytes more, in steps of 16.
    let chunk = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
    let mut random = Random::new(5);
    let mut table = MemberTable::new(introduction("me", 1).identity, 0);
    for index in 0..COUNT {
        let name = NodeName::parse(&format!("node-{index:07}")).expect("name");
        let gossip = SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 7946));
        let http = format!("{}:80", gossip.ip());
        let zone = format!("zone-{}", index % 3);
        let identity = Identity::new(name, 1_763_800_000_000, gossip, &http, &zone, "0.1.0");
        table.insert(
            Introduction { identity: Arc::new(identity), incarnation: 0 },
            State::Alive,
            0,
            &mut random,
        );
    }
    // Longer names, other addresses and other zones would be allocations of their own.
    assert_eq!(table.common.len(), 3);
    let lists = table.slots.capacity() * size_of::<Option<MemberEntry>>()
        + table.ring.capacity() * size_of::<RingEntry>()
        + table.order.capacity() * size_of::<Slot>()
        + table.index.allocation_size()
        + table.by_address.allocation_size();
    let identities = COUNT * chunk(2 * size_of::<usize>() + size_of::<Identity>());
    let each = (lists + identities) as f64 / COUNT as f64;
    println!("{each:.1} bytes a member");
    assert!(each <= 128.0, "{each}");
}

#[test]
fn filled_at_once_is_filled_one_by_one() {
    let (one_by_one, _) = table(40);
    let identities = one_by_one.ring().entries().iter().map(|entry| entry.identity.clone());
    let known = Known::new(identities);
    for me in [introduction("me", 1), introduction("n7", 1), introduction("other", 1)] {
        let mut random = Random::new(6);
        let mut table = MemberTable::new(me.identity.clone(), 0);
        table.fill(&known, 0, &mut random);
        let is_one_of_them = me.identity.name.as_str() != "other";
        assert_eq!(table.ring().len(), if is_one_of_them { 41 } else { 42 });
        assert_eq!(Arc::ptr_eq(table.ring(), &known.ring), is_one_of_them);
        assert_eq!(table.view() == one_by_one.view(), is_one_of_them);
        for entry in known.ring.entries() {
            let slot = table.find(entry.name().as_str()).expect("known");
            assert_eq!(table.get(slot).map(|it| it.identity.clone()), Some(entry.identity.clone()));
            assert_eq!(slot == ME, *entry.name() == me.identity.name);
        }
        let others = table.ring().len() - 1;
        let mut probed: Vec<Slot> = (0..others).filter_map(|_| table.next_probe(&mut random)).collect();
        probed.sort_unstable();
        let names = known.ring.entries().iter().map(|entry| entry.name().as_str());
        let mut slots: Vec<Slot> = names.filter_map(|name| table.find(name)).collect();
        slots.retain(|&slot| slot != ME);
        slots.sort_unstable();
        assert_eq!(probed, slots);
        let new = table.insert(introduction("new", 1), State::Alive, 0, &mut random).expect("there is room");
        assert_eq!((table.find("new"), table.ring().len()), (Some(new), others + 2));
        kill(&mut table, new, &mut random);
        let slot = table.find("n3").expect("known");
        kill(&mut table, slot, &mut random);
        assert_eq!((table.ring().len(), known.len()), (others, 41));
    }
}

#[test]
fn members_that_take_part_are_found_by_address() {
    let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 7946));
    let said = |name: &str, boot, last| {
        let name = NodeName::parse(name).expect("name");
        let identity = Arc::new(Identity::new(name, boot, at(last), "", "", ""));
        Introduction { identity, incarnation: 0 }
    };
    let (mut table, mut random) = (MemberTable::new(said("me", 1, 1).identity, 0), Random::new(5));
    let slots: Vec<Slot> = (2..60)
        .filter_map(|last| table.insert(said(&format!("n{last}"), 1, last), State::Alive, 0, &mut random))
        .collect();
    assert!((2..60).all(|last| table.has_live_at(at(last))));
    assert!(!table.has_live_at(at(1)) && !table.has_live_at(at(60)), "this node and nobody");
    table.set(slots[0], said("n2", 2, 70), State::Alive, 0, &mut random);
    assert!(!table.has_live_at(at(2)) && table.has_live_at(at(70)), "it has moved");
    kill(&mut table, slots[1], &mut random);
    assert!(!table.has_live_at(at(3)));
    let known = Known::new(table.ring().entries().iter().map(|entry| entry.identity.clone()));
    let mut filled = MemberTable::new(said("n9", 1, 9).identity, 0);
    filled.fill(&known, 0, &mut random);
    assert!(filled.has_live_at(at(8)) && filled.has_live_at(at(1)) && !filled.has_live_at(at(9)));
}

#[test]
fn every_round_probes_everyone_once() {
    let (mut table, mut random) = table(50);
    for _ in 0..3 {
        let mut probed: Vec<Slot> = (0..50).filter_map(|_| table.next_probe(&mut random)).collect();
        probed.sort_unstable();
        assert_eq!(probed, (1..=50).collect::<Vec<_>>());
    }
}

/// When many members had gone, the order of probing was made anew: the round began from its beginning, at every node with the
/// same members, and those that had not been probed yet waited once more.
#[test]
fn a_round_of_probes_goes_on_while_many_members_go() {
    let (mut table, mut random) = table(100);
    (0..100).for_each(|_| _ = table.next_probe(&mut random));
    let probed: Vec<Slot> = (0..20).filter_map(|_| table.next_probe(&mut random)).collect();
    let planned: Vec<Slot> = table.order[table.next..].to_vec();
    (1..=60).for_each(|slot| kill(&mut table, slot, &mut random));
    assert_eq!(table.random_live(3, ME, &mut random).len(), 3);
    let left: Vec<Slot> = planned.into_iter().filter(|slot| *slot > 60).collect();
    let next: Vec<Slot> = (0..left.len()).filter_map(|_| table.next_probe(&mut random)).collect();
    assert_eq!(next, left, "those that are left, in the order that they had");
    assert!(probed.iter().all(|slot| !next.contains(slot)), "none of them was probed before in this round");
    let mut again: Vec<Slot> = (0..40).filter_map(|_| table.next_probe(&mut random)).collect();
    assert_ne!(again, (61..=100).collect::<Vec<_>>(), "the next round has another order");
    again.sort_unstable();
    assert_eq!(again, (61..=100).collect::<Vec<_>>(), "and each member once");
}

#[test]
fn suspects_are_chosen_only_where_there_is_nobody_else() {
    let (mut table, mut random) = table(10);
    let suspect = |table: &mut MemberTable, random: &mut Random, slot: Slot| {
        let member = table.get(slot).expect("there").clone();
        let said = Introduction { identity: member.identity, incarnation: member.incarnation };
        table.set(slot, said, State::Suspect, 9, random);
    };
    (1..=9).for_each(|slot| suspect(&mut table, &mut random, slot));
    for _ in 0..20 {
        assert_eq!(table.random_live(30, ME, &mut random), [10]);
        assert!(table.random_live(3, 10, &mut random).len() <= 3);
    }
    suspect(&mut table, &mut random, 10);
    assert!(table.is_suspect(10) && !table.is_suspect(ME));
    assert_eq!(table.random_live(3, ME, &mut random).len(), 3);
}

#[test]
fn view_ring_and_gone_follow_states() {
    let (mut table, mut random) = table(20);
    assert!(table.neighbour().is_some_and(|slot| slot != ME));
    let view = table.view();
    let slot = table.find("n7").expect("there");
    kill(&mut table, slot, &mut random);
    assert_ne!(table.view(), view);
    assert_eq!((table.ring().len(), table.gone().len()), (20, 1));
    assert!((0..100).all(|_| table.next_probe(&mut random) != Some(slot)));
    assert!(table.random_live(30, ME, &mut random).len() <= 19);

    table.set(slot, introduction("n7", 1), State::Alive, 10, &mut random);
    assert_eq!((table.view(), table.ring().len(), table.gone().len()), (view, 21, 0));

    kill(&mut table, slot, &mut random);
    table.forget(slot);
    assert_eq!(table.find("n7"), None);
    assert_eq!(table.insert(introduction("new", 1), State::Alive, 11, &mut random), Some(slot));
    assert_eq!(table.find("new"), Some(slot));
}

/// A member that goes mad may name any number of others. Beyond the bound nobody is taken in, and those who were there
/// before stay.
#[test]
fn a_full_table_takes_nobody_in() {
    let said = |index: usize| {
        let gossip = SocketAddr::from(([10, (index >> 16) as u8, (index >> 8) as u8, index as u8], 7946));
        let name = NodeName::parse(&format!("fake-{index}")).expect("name");
        Introduction { identity: Arc::new(Identity::new(name, 1, gossip, "", "", "")), incarnation: 0 }
    };
    let (mut table, mut random) = table(3);
    let taken = (0..2 * MEMBERS_MAX)
        .take_while(|&index| table.insert(said(index), State::Joining, 0, &mut random).is_some())
        .count();
    // The node itself and three members were there before.
    assert_eq!(taken, MEMBERS_MAX - 4);
    assert_eq!(table.insert(said(taken), State::Joining, 0, &mut random), None);
    assert_eq!(table.ring().len(), 4);
    assert!(["me", "n0", "n1", "n2"].iter().all(|name| table.find(name).is_some()));
}

#[test]
fn the_gone_are_bounded() {
    let (mut table, mut random) = table(3 * GONE_MAX);
    for slot in 1..=3 * GONE_MAX as Slot {
        kill(&mut table, slot, &mut random);
    }
    let forgettable = table.forgettable(|_| false);
    assert_eq!(forgettable, (1..=2 * GONE_MAX as Slot).collect::<Vec<_>>());
}
