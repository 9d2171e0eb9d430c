//! What a member costs, measured from outside: by how much this process grows.

use std::fs;
use std::sync::Arc;

use crate::cluster::members::Identity;
use crate::cluster::{Config, Known, Machine, Profile};
use crate::record::{NodeName, Now};
use crate::sim::table::Verdict;

/// Members of the machine that is weighed: so many that pages do not matter.
const MEMBERS: usize = 60_000;
/// What a member may cost a node, in bytes.
const MEMBER_BYTES_MAX: f64 = 128.0;
/// What a world of ten thousand nodes may hold.
const WORLD_GIB_MAX: f64 = 20.0;

/// A row of the table that is measured here.
pub struct Row {
    /// What.
    pub what: String,
    /// How much is wanted.
    pub wanted: String,
    /// How it was measured.
    pub sample: String,
    /// What came out.
    pub verdict: Verdict,
}

/// Weighs a machine that knows many members, each of which says something else of itself. To be
/// called before there are threads. `None`: this system does not tell a process's size.
pub fn row() -> Option<Row> {
    let before = resident_bytes()?;
    let machine = machine()?;
    let grown = resident_bytes()?.saturating_sub(before);
    let members = machine.ring().len().max(1);
    let each = grown as f64 / members as f64;
    Some(Row {
        what: "memory a member costs a node".into(),
        wanted: format!("<= {MEMBER_BYTES_MAX} bytes"),
        sample: format!("{members} members, resident size of the process"),
        verdict: Verdict {
            measured: format!("{each:.0} bytes"),
            has_passed: members >= MEMBERS && each <= MEMBER_BYTES_MAX,
        },
    })
}

fn machine() -> Option<Machine> {
    let mut common = Vec::new();
    let identities: Option<Vec<Arc<Identity>>> = (0..MEMBERS)
        .map(|index| {
            let mut identity = identity(index)?;
            identity.share(&mut common);
            Some(identity)
        })
        .collect();
    let me = identity(0)?;
    let config = Config {
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
    };
    let now = Now { mono_us: 0, wall_us: 1_763_800_000_000_000 };
    let mut machine = Machine::new(config, now);
    let known = Known::new(identities?);
    machine.handle_known(now, &known);
    Some(machine)
}

/// What a member of a real cluster might say of itself.
fn identity(index: usize) -> Option<Arc<Identity>> {
    let [_, a, b, c] = (index as u32 + 1).to_be_bytes();
    let name = NodeName::parse(&format!("node-{index:07}")).ok()?;
    let boot = 1_763_800_000_000_000 + index as u64;
    let http = format!("10.{a}.{b}.{c}:7070");
    Some(Arc::new(Identity::new(name, boot, ([10, a, b, c], 7946).into(), &http, "zone-a", "0.1.0")))
}

/// The most that this process ever held: one world of ten thousand nodes, and small ones beside it. To
/// be called after it was there. `None`: this system does not tell.
pub fn peak_row() -> Option<Row> {
    let peak = status_bytes("VmHWM:")? as f64 / f64::from(1 << 30);
    Some(Row {
        what: "memory of a world of 10,000 nodes".into(),
        wanted: format!("< {WORLD_GIB_MAX} GiB"),
        sample: "peak of the process, which ran smaller worlds beside it".into(),
        verdict: Verdict { measured: format!("{peak:.2} GiB"), has_passed: peak < WORLD_GIB_MAX },
    })
}

/// The process's resident size.
fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
