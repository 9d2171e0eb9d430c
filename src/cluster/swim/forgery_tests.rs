//! What one stranger's datagram may do to a member. The stranger knows the name of the cluster, writes any
//! address as its own, and sees no datagram that is sent to others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::message::{Ack, Claim, Introduction, Ping, SwimMessage, Update, life_key};
use crate::cluster::members::{Identity, State};
use crate::cluster::seal::Checksum;
use crate::cluster::wire::{Body, OpenedDatagram, Riders, Said, Wire};
use crate::cluster::{Effect, Known, Machine, MachineConfig, Profile};
use crate::record::{NodeName, Now};
use crate::sim::SimReplica;

const STRANGER: u8 = 66;

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("name")
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

fn introduction(member: &str, boot: u64, incarnation: u32, last: u8) -> Introduction {
    let identity = Identity::new(name(member), boot, address(last), "10.0.0.9:7070", "", "0.1.0");
    Introduction { identity: Arc::new(identity), incarnation }
}

/// Builds a datagram that passes on that a member is alive at this incarnation, and, if `is_accused`, that it is
/// suspected there. It says that it comes from the life `boot` of a node of the cluster of this name.
pub(crate) fn forged_news(
    (cluster, boot): (&str, u64),
    to: SocketAddr,
    member: &Arc<Identity>,
    incarnation: u32,
    is_accused: bool,
) -> Bytes {
    let alive = Update::alive(&Introduction { identity: member.clone(), incarnation });
    let accused = Update { claim: Claim::Suspect(vec![name("b")]), ..alive.clone() };
    let updates = if is_accused { vec![alive, accused] } else { vec![alive] };
    Wire::new(cluster, boot, Checksum).datagram(
        to,
        Said::Members(SwimMessage::Gossip, updates),
        Riders::default(),
    )
}

/// Machines that reach each other at once, and a stranger among them.
struct Net {
    machines: BTreeMap<SocketAddr, Machine>,
    replica: SimReplica,
    now: Now,
    /// Datagrams to addresses without a machine.
    strays: Vec<(SocketAddr, usize)>,
    /// Nodes that were told to stop.
    ended: Vec<SocketAddr>,
    /// Boot numbers that nodes took while they ran.
    taken: Vec<(SocketAddr, u64)>,
}

impl Net {
    /// Starts `a`, `b` and `c`, which know each other, with boot number 5 at the addresses 1, 2 and 3.
    fn new() -> Net {
        let mut net = Net {
            machines: BTreeMap::new(),
            replica: SimReplica::default(),
            now: Now { mono_us: 1, wall_us: 1 },
            strays: Vec::new(),
            ended: Vec::new(),
            taken: Vec::new(),
        };
        for (last, member) in [(1, "a"), (2, "b"), (3, "c")] {
            net.start(member, 5, last);
        }
        let known = Known::new(net.machines.values().map(|machine| machine.identity().clone()));
        net.machines.values_mut().for_each(|machine| machine.handle_known(net.now, &known));
        net.run_us(3_000_000);
        net.assert_whole();
        net
    }

    fn start(&mut self, member: &str, boot: u64, last: u8) {
        let config = MachineConfig {
            name: name(member),
            boot,
            cluster_name: "c".into(),
            gossip: address(last),
            http: "10.0.0.9:7070".into(),
            zone: String::new(),
            version: "0.1.0".into(),
            profile: Profile::Lan,
            tombstones_us: 0,
            agreed_us: None,
            has_seeds: last > 3,
            seed: u64::from(last),
            keys: None,
        };
        let mut machine = Machine::new(config, self.now);
        if last > 3 {
            machine.handle_seeds(self.now, &[address(1)]);
        }
        self.machines.insert(address(last), machine);
        self.deliver();
    }

    fn machine(&self, last: u8) -> &Machine {
        &self.machines[&address(last)]
    }

    fn state(&self, last: u8, member: &str) -> Option<State> {
        self.machine(last).member(member).map(|member| member.state)
    }

    /// Lets time pass in steps of 10 ms.
    fn run_us(&mut self, us: u64) {
        for _ in 0..us / 10_000 {
            self.now = self.now.plus_us(10_000);
            for machine in self.machines.values_mut() {
                if machine.poll_timeout().is_some_and(|due_us| due_us <= self.now.mono_us) {
                    machine.handle_timeout(self.now, &mut self.replica);
                }
            }
            self.deliver();
        }
    }

    /// Carries datagrams until nothing is left to carry. No stream is ever opened.
    fn deliver(&mut self) {
        loop {
            let mut carried = Vec::new();
            for (&from, machine) in &mut self.machines {
                while let Some(effect) = machine.poll_effect() {
                    match effect {
                        Effect::Datagram { to, bytes } => carried.push((from, to, bytes)),
                        Effect::NameTaken { .. } => self.ended.push(from),
                        Effect::NewBoot { boot } => self.taken.push((from, boot)),
                        _ => {}
                    }
                }
            }
            if carried.is_empty() {
                return;
            }
            for (from, to, bytes) in carried {
                match self.machines.get_mut(&to) {
                    Some(machine) => machine.handle_datagram(self.now, from, &bytes, &mut self.replica),
                    None => self.strays.push((to, bytes.len())),
                }
            }
        }
    }

    /// Sends a node a datagram that claims to come from the life `boot` of a node at `from`.
    fn forge(&mut self, to: u8, (from, boot): (u8, u64), message: SwimMessage, updates: Vec<Update>) {
        let mut wire = Wire::new("c", boot, Checksum);
        let datagram = wire.datagram(address(to), Said::Members(message, updates), Riders::default());
        let machine = self.machines.get_mut(&address(to)).expect("a node");
        machine.handle_datagram(self.now, address(from), &datagram, &mut self.replica);
        self.deliver();
    }

    /// Asserts that all see each other alive, with nobody else among them, in the lives that they began with.
    fn assert_whole(&self) {
        assert_eq!(self.taken, []);
        self.assert_whole_with(5);
    }

    /// Asserts that all see each other alive, with nobody else among them, and `c` with this boot number.
    fn assert_whole_with(&self, boot_of_c: u64) {
        for last in 1..=3 {
            for (member, boot) in [("a", 5), ("b", 5), ("c", boot_of_c)] {
                let member = self.machine(last).member(member).expect("known");
                let found = (member.state, member.identity.boot, member.identity.start_boot());
                assert_eq!(found, (State::Alive, boot, 5), "{member:?} at {last}");
            }
            assert_eq!(self.machine(last).ring().len(), 3);
        }
        assert!(self.ended.is_empty(), "{:?}", self.ended);
    }
}

/// One datagram that said `Dead` or `Left` of a member was believed, and spread. `Left` was final for its life.
#[test]
fn that_a_member_is_gone_is_looked_into_and_not_believed() {
    for claim in [Claim::Dead, Claim::Left] {
        for from in [STRANGER, 2, 3] {
            let mut net = Net::new();
            let gone = Update { claim: claim.clone(), ..Update::alive(&introduction("c", 5, 0, 3)) };
            for _ in 0..3 {
                net.forge(1, (from, 5), SwimMessage::Gossip, vec![gone.clone()]);
                assert_ne!(net.state(1, "c"), Some(State::Dead));
                assert_ne!(net.state(1, "c"), Some(State::Left));
                assert_eq!(net.machine(1).ring().len(), 3, "a suspect is on the ring");
            }
            net.run_us(2_000_000);
            net.assert_whole();
        }
    }
}

/// A node that leaves is known to have left at once by those that it tells: it says so itself when they ask.
#[test]
fn a_member_that_leaves_proves_it() {
    let mut net = Net::new();
    let now = net.now;
    net.machines.get_mut(&address(3)).expect("c").handle_leave(now);
    net.deliver();
    assert_eq!((net.state(1, "c"), net.state(2, "c")), (Some(State::Left), Some(State::Left)));
}

/// A member that was suspected at the greatest incarnation could not refute it, and was dead for ever.
#[test]
fn an_incarnation_beyond_reason_ends_no_member() {
    for incarnation in [2_000, u32::MAX - 1, u32::MAX] {
        let suspected = Claim::Suspect(vec![name("b")]);
        for claim in [Claim::Dead, Claim::Left, suspected] {
            let mut net = Net::new();
            let said = introduction("c", 5, incarnation, 3);
            let alive = Update::alive(&said);
            let lie = Update { claim, ..alive.clone() };
            // The node itself, and two others.
            for to in 1..=3 {
                net.forge(to, (to % 3 + 1, 9), SwimMessage::Gossip, vec![alive.clone(), lie.clone()]);
            }
            net.run_us(5_000_000);
            net.assert_whole();
            assert!(net.machine(3).member("c").is_some_and(|me| me.incarnation < 2_000));
        }
    }
}

/// In steps that are small enough to be believed, what others hold of an incarnation can be driven anywhere. The
/// member cannot refute what is said of it there, and was a suspect until it was asked for the last time. It takes
/// a new boot number as soon as it is accused, and at most one in a minute. Its own word and its answers to
/// pings do the rest.
#[test]
fn an_incarnation_that_was_driven_up_ends_in_a_new_boot_number() {
    let mut net = Net::new();
    let drive_up = |net: &mut Net, boot: u64| {
        let identity = net.machine(3).identity().clone();
        assert_eq!(identity.boot, boot);
        for step in 1..200 {
            let said = Introduction { identity: identity.clone(), incarnation: step * 1_000 };
            for to in [1, 2] {
                net.forge(to, (to % 2 + 1, 5), SwimMessage::Gossip, vec![Update::alive(&said)]);
            }
        }
        let said = Introduction { identity, incarnation: 199_000 };
        assert_eq!(net.machine(1).member("c").map(|member| member.incarnation), Some(199_000));
        let doubted = Update { claim: Claim::Suspect(vec![name("b")]), ..Update::alive(&said) };
        net.forge(1, (2, 5), SwimMessage::Gossip, vec![doubted]);
    };
    drive_up(&mut net, 5);
    net.run_us(300_000);
    assert_eq!(net.taken, [(address(3), 6)]);
    net.assert_whole_with(6);
    assert!([1, 2, 3].iter().all(|&at| net.machine(at).member("c").is_some_and(|c| c.incarnation == 0)));
    drive_up(&mut net, 6);
    for _ in 0..40 {
        net.run_us(1_000_000);
        assert!([1, 2].iter().all(|&at| net.machine(at).ring().len() == 3), "it is not given up");
    }
    assert_eq!(net.taken.len(), 1, "within a minute");
    net.assert_whole_with(6);
    net.run_us(30_000_000);
    drive_up(&mut net, 6);
    net.run_us(300_000);
    assert_eq!(net.taken, [(address(3), 6), (address(3), 7)]);
    net.assert_whole_with(7);
}

/// A stranger that names an incarnation beyond reason, in the name of members, must not make a node change its boot
/// number, which every member would have to find out about: those members are asked, and do not hold it.
#[test]
fn a_boot_number_is_not_taken_because_a_stranger_says_something() {
    let mut net = Net::new();
    for incarnation in [1_025, 1 << 20, u32::MAX] {
        for from in [1, 2, STRANGER] {
            let said = introduction("c", 5, incarnation, 3);
            for claim in [Claim::Suspect(vec![name("b")]), Claim::Dead, Claim::Left] {
                let lie = Update { claim, ..Update::alive(&said) };
                net.forge(3, (from, 5), SwimMessage::Gossip, vec![Update::alive(&said), lie.clone()]);
                // An answer with a number that the stranger guesses.
                let (sequence, sender, wall_us, view) = (7, name("a"), 1, 0);
                let (is_unknown, is_unreached, is_leaving, is_joining) = (false, false, false, false);
                let introduction = None;
                let ack = Ack {
                    sequence,
                    sender,
                    wall_us,
                    view,
                    is_unknown,
                    is_unreached,
                    is_leaving,
                    is_joining,
                    introduction,
                };
                net.forge(3, (from, 5), SwimMessage::Ack(ack), vec![lie]);
                net.run_us(50_000);
            }
        }
    }
    net.run_us(10_000_000);
    net.assert_whole();
}

/// `NameTaken` in one datagram stopped a node that served clients.
#[test]
fn only_a_node_that_joins_is_told_that_its_name_is_taken() {
    let mut net = Net::new();
    for sequence in [0, 1, u32::MAX] {
        let taken = SwimMessage::NameTaken { name: name("b"), boot: 5, by: address(STRANGER), sequence };
        net.forge(2, (1, 5), taken, Vec::new());
    }
    // Another node of that name, which says that it is older.
    let twin = introduction("b", 1, 0, STRANGER);
    net.forge(2, (STRANGER, 1), SwimMessage::Gossip, vec![Update::alive(&twin)]);
    let ping =
        Ping { sequence: 9, target: 0, sender: name("b"), view: 0, introduction: Some(twin), padding: 0 };
    net.forge(2, (STRANGER, 1), SwimMessage::Ping(ping), Vec::new());
    net.run_us(2_000_000);
    net.assert_whole();
}

/// Only a real twin stops a node, and only while that joins: the newcomer gets the number of its own ping back.
#[test]
fn a_newcomer_with_a_name_that_is_in_use_ends() {
    let mut net = Net::new();
    net.start("b", 9, 4);
    net.run_us(2_000_000);
    assert!(net.ended.contains(&address(4)) && net.ended.iter().all(|&ended| ended == address(4)));
}

/// A greater boot number, or another address, took a member's place in one datagram.
#[test]
fn a_life_that_nobody_lives_takes_no_place() {
    for (boot, last) in [(6, 3), (6, STRANGER), (u64::MAX, STRANGER), (5, STRANGER)] {
        let mut net = Net::new();
        let said = introduction("c", boot, 0, last);
        net.forge(1, (STRANGER, boot), SwimMessage::Gossip, vec![Update::alive(&said)]);
        let ping = Ping {
            sequence: 9,
            target: 0,
            sender: name("c"),
            view: 0,
            introduction: Some(said.clone()),
            padding: 0,
        };
        net.forge(1, (STRANGER, boot), SwimMessage::Ping(ping), Vec::new());
        net.forge(1, (2, boot), SwimMessage::Gossip, vec![Update::alive(&said)]);
        net.run_us(3_000_000);
        net.assert_whole();
    }
}

/// A thousand invented members were on the ring, in the median of the clocks, and passed on to all.
#[test]
fn fakes_reach_neither_ring_nor_clocks_and_are_few() {
    let mut net = Net::new();
    let before = net.machine(1).clock();
    for fake in 0..1_000u32 {
        let said = introduction(&format!("fake-{fake}"), 1, 0, 100 + (fake % 100) as u8);
        let ping = Ping {
            sequence: fake,
            target: 0,
            sender: said.identity.name.clone(),
            view: 0,
            introduction: Some(said.clone()),
            padding: 0,
        };
        net.forge(1, (100 + (fake % 100) as u8, 1), SwimMessage::Ping(ping), vec![Update::alive(&said)]);
        // An answer with a number that the stranger guesses.
        let ack = Ack {
            sequence: fake,
            sender: said.identity.name.clone(),
            wall_us: 1 << 50,
            view: 0,
            is_unknown: true,
            is_unreached: false,
            is_leaving: false,
            is_joining: false,
            introduction: Some(said),
        };
        net.forge(1, (100 + (fake % 100) as u8, 1), SwimMessage::Ack(ack), Vec::new());
    }
    let joining = net.machine(1).members().len() - 3;
    assert!(joining <= 256, "{joining} are remembered");
    net.strays.clear();
    net.run_us(60_000_000);
    net.assert_whole();
    assert_eq!(net.machine(1).clock(), before);
    assert!(
        net.machine(2).members().len() == 3 && net.machine(3).members().len() == 3,
        "they were passed on"
    );
    let bytes: usize = net.strays.iter().map(|stray| stray.1).sum();
    assert!(net.strays.len() <= 256 * 3, "{} pings, {bytes} bytes, in a minute", net.strays.len());
    net.run_us(300_000_000);
    assert_eq!(net.machine(1).members().len(), 3, "they are forgotten");
    assert!(net.strays.len() <= 256 * 3);
}

/// A stranger that names fakes in news makes nobody ping them, nor does a request to ping somebody.
#[test]
fn nobody_pings_whom_a_stranger_names() {
    let mut net = Net::new();
    net.strays.clear();
    let said = introduction("fake", 1, 0, 200);
    net.forge(1, (STRANGER, 1), SwimMessage::Gossip, vec![Update::alive(&said)]);
    let (sequence, target) = (7, life_key(&name("fake"), 1));
    let request = SwimMessage::PingRequest { sequence, target, address: address(200), sender: name("fake") };
    net.forge(1, (STRANGER, 1), request, Vec::new());
    net.run_us(10_000_000);
    assert!(net.strays.iter().all(|stray| stray.0 != address(200)), "{:?}", net.strays);
    assert_eq!(net.state(1, "fake"), None);
}

/// A member that answers from its own address takes part at once, and one that answers with a wrong number does
/// not.
#[test]
fn a_member_takes_part_with_its_first_answer() {
    let mut net = Net::new();
    let said = introduction("d", 7, 0, 4);
    let me = name("d");
    let ping =
        Ping { sequence: 1, target: 0, sender: me.clone(), view: 0, introduction: Some(said), padding: 700 };
    let mut wire = Wire::new("c", 7, Checksum);
    let bytes =
        wire.datagram(address(1), Said::Members(SwimMessage::Ping(ping), Vec::new()), Riders::default());
    let machine = net.machines.get_mut(&address(1)).expect("a");
    machine.handle_datagram(net.now, address(4), &bytes, &mut net.replica);
    machine.handle_timeout(net.now, &mut net.replica);
    let mut asked = None;
    while let Some(effect) = machine.poll_effect() {
        let Effect::Datagram { to, bytes } = effect else { continue };
        if let Ok(OpenedDatagram { body: Body::Members(SwimMessage::Ping(ping), _), .. }) =
            wire.open(address(1), &bytes)
        {
            asked = (to == address(4)).then_some(ping.sequence).or(asked);
        }
    }
    let asked = asked.expect("it is pinged where it says that it is");
    for (sequence, from, state) in [
        (asked.wrapping_add(1), 4, State::Joining),
        (asked, STRANGER, State::Joining),
        (asked, 4, State::Alive),
    ] {
        let ack = Ack {
            sequence,
            sender: me.clone(),
            wall_us: 1,
            view: 0,
            is_unknown: false,
            is_unreached: false,
            is_leaving: false,
            is_joining: false,
            introduction: None,
        };
        net.forge(1, (from, 7), SwimMessage::Ack(ack), Vec::new());
        assert_eq!(net.state(1, "d"), Some(state));
    }
}

/// Two members may learn of each other at different times. While nothing of a node was taken that the receiver did
/// not know, 2 % of unknown pairs among a thousand members cost 2 % of the deliveries down the tree.
#[test]
fn records_of_a_node_that_is_not_known_yet_are_taken_and_nothing_else() {
    use crate::cluster::spread::Opened;
    use crate::proto::gossip as proto;
    let part =
        |number, batch: &'static [u8]| proto::Part { number, batch: batch.into(), ..Default::default() };
    let want = proto::Want { line: 3, runs: vec![0, 1] };
    let spread =
        |parts| proto::Spread { parts, wants: vec![want.clone()], uncounted: vec![1], ..Default::default() };
    let read = |message: proto::Spread| {
        Opened::read(&prost::Message::encode_to_vec(&message)).expect("what was written is read")
    };
    let question = read(spread(vec![part(1, b"")]));
    assert!(!question.brings_records(), "a question is no record");
    let mut both = read(spread(vec![part(1, b""), part(2, b"batch")]));
    assert!(both.brings_records());
    both.keep_records();
    assert_eq!(both, read(proto::Spread { parts: vec![part(2, b"batch")], ..Default::default() }));
}
