//! Measures how much memory a member costs, by how much this process grows.

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use crate::cluster::members::{Common, Identity};
use crate::cluster::{Known, Machine, MachineConfig, Profile};
use crate::record::{NodeName, Now};
use crate::server::clock;
use crate::sim::table::Judgement;
use crate::sim::{Conditions, NodeId, Start, World};

/// Number of members that are measured: enough that the size of a memory page does not matter.
const MEMBERS: usize = 40_000;
/// Number of members that are added to the same machine before the measurement. The memory that a process
/// touches once, for the first members, is thus not counted.
const MEMBERS_BEFORE: usize = 10_000;
/// Number of members that the machine is told of in one message.
const AT_A_TIME: usize = 100;
const NOW: Now = Now { mono_us: 0, wall_us: 1_763_800_000_000_000 };
/// Number of nodes in the measured world: enough that the cost of a node without members does not matter.
const WORLD_NODES: usize = 2_000;
/// Most memory that a member may cost a node, in bytes.
const MEMBER_BYTES_MAX: f64 = 128.0;
/// Most memory that a world of ten thousand nodes may hold, in GiB.
const WORLD_GIB_MAX: f64 = 20.0;

/// How often the allocator is asked to give back what is free before the process is weighed.
const SETTLE_ROUNDS: usize = 5;
/// Time between two of these requests, in microseconds: longer than the allocator keeps what is free.
const SETTLE_US: u64 = 20_000;
/// Size of these requests, in bytes.
const SETTLE_BYTES: usize = 1 << 20;

/// A row of the table of figures that is measured here.
pub struct Row {
    /// The measured quantity.
    pub what: String,
    /// The required value.
    pub wanted: String,
    /// Description of how the value was measured.
    pub sample: String,
    /// The measured value, and whether it meets the requirement.
    pub verdict: Judgement,
}

/// Measures the memory of a machine whose members all tell different things of themselves, and then that of a
/// world whose machines share what members tell, as simulated ones do. It must be called before other threads
/// are started. Returns no rows if the system does not tell the size of a process.
pub fn rows() -> Vec<Row> {
    let mut common = Vec::new();
    let Some(mut machine) = machine() else { return Vec::new() };
    tell(&mut machine, &mut common, 1..MEMBERS_BEFORE);
    let before = machine.ring().len();
    let all = MEMBERS_BEFORE..MEMBERS_BEFORE + MEMBERS;
    let Some(((), one)) = weighed(|| tell(&mut machine, &mut common, all)) else { return Vec::new() };
    let members = machine.ring().len() - before;
    let mut rows = vec![member_row("memory a member costs a node", one, members, 1)];
    // The first machine is kept during the second measurement: memory that it freed would be used again and
    // not be counted.
    if let Some((world, more)) = weighed(world) {
        let known = (0..world.nodes()).map(|node| world.live(NodeId(node))).min().unwrap_or(0);
        rows.push(member_row("the same, in a world that shares names", more, known, world.nodes()));
    }
    rows
}

/// Calls `make` and returns its result and by how many bytes the process grew. `None` means that the system
/// does not tell.
fn weighed<T>(make: impl FnOnce() -> T) -> Option<(T, u64)> {
    let before = settled_bytes()?;
    let made = make();
    Some((made, settled_bytes()?.saturating_sub(before)))
}

/// Returns the resident size of this process after its allocator has given back what is free, in bytes.
fn settled_bytes() -> Option<u64> {
    for _ in 0..SETTLE_ROUNDS {
        clock::sleep(SETTLE_US);
        // The allocator looks for memory to give back when it is asked for some.
        drop(black_box(vec![1u8; SETTLE_BYTES]));
    }
    resident_bytes()
}

fn member_row(what: &str, bytes: u64, members: usize, nodes: usize) -> Row {
    let each = bytes as f64 / (members * nodes).max(1) as f64;
    let among = if nodes > 1 { format!("at each of {nodes} nodes") } else { "at one node".into() };
    Row {
        what: what.into(),
        wanted: format!("<= {MEMBER_BYTES_MAX} bytes"),
        sample: format!("{members} members {among}, growth of the process"),
        verdict: Judgement {
            measured: format!("{each:.0} bytes"),
            has_passed: members * nodes >= MEMBERS && bytes > 0 && each <= MEMBER_BYTES_MAX,
        },
    }
}

/// Makes a world of nodes that know each other and have done nothing yet.
fn world() -> World {
    let mut world = World::new(1, Conditions::figures());
    world.start_known((0..WORLD_NODES).map(|node| Start::new(format!("n{node}"), &[])).collect());
    world
}

/// Tells a machine of members, a few at a time, as they would arrive from the network, so that the memory for
/// passing them does not count.
fn tell(machine: &mut Machine, common: &mut Vec<Arc<Common>>, which: Range<usize>) {
    for first in which.clone().step_by(AT_A_TIME) {
        let some = first..which.end.min(first + AT_A_TIME);
        let members = some.filter_map(|index| {
            let mut member = identity(index)?;
            member.share(common);
            Some(member)
        });
        machine.handle_known(NOW, &Known::new(members));
    }
}

/// Makes a machine that knows no other member.
fn machine() -> Option<Machine> {
    let me = identity(0)?;
    let config = MachineConfig {
        name: me.name.clone(),
        boot: me.boot,
        cluster_name: "sim".into(),
        gossip: me.gossip(),
        http: me.http().into_owned(),
        zone: me.zone().into(),
        version: me.version().into(),
        profile: Profile::Lan,
        tombstones_us: 86_400_000_000,
        agreed_us: None,
        has_seeds: false,
        seed: 1,
        keys: None,
    };
    Some(Machine::new(config, NOW))
}

/// Makes the description of a member as it might be in a real cluster.
fn identity(index: usize) -> Option<Arc<Identity>> {
    let [_, a, b, c] = (index as u32 + 1).to_be_bytes();
    let name = NodeName::parse(&format!("node-{index:07}")).ok()?;
    let boot = 1_763_800_000_000_000 + index as u64;
    let http = format!("10.{a}.{b}.{c}:7070");
    Some(Arc::new(Identity::new(name, boot, ([10, a, b, c], 7946).into(), &http, "zone-a", "0.1.0")))
}

/// Measures the most memory that this process ever held, which is that of one world of ten thousand nodes and
/// some small ones beside it. It must be called after the large world has run. `None` means that the system
/// does not tell.
pub fn peak_row() -> Option<Row> {
    let peak = status_bytes("VmHWM:")? as f64 / f64::from(1 << 30);
    Some(Row {
        what: "memory of a world of 10,000 nodes".into(),
        wanted: format!("< {WORLD_GIB_MAX} GiB"),
        sample: "peak of the process, which ran smaller worlds beside it".into(),
        verdict: Judgement { measured: format!("{peak:.2} GiB"), has_passed: peak < WORLD_GIB_MAX },
    })
}

/// Returns the resident size of this process, in bytes.
fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
