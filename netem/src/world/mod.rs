//! The machines of a run: a network namespace for each node, joined by veth pairs and a bridge, and the links on
//! which faults happen. Everything is named after the run, so that runs do not meet, and removed when it is dropped.
//!
//! Every run has a network of 256 addresses that no route of this machine knows. Addresses 1 to 126 are of the bridge,
//! by which the runner watches the nodes whatever happens to the links; those from 128 are of the links, by which
//! nodes reach each other.

pub mod cgroup;
pub mod command;
pub mod leftovers;
mod network;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;
use anode_loadgen::random::Random;

use crate::link::fabric::{Endpoint, Fabric};
use crate::link::shape::Shape;
use crate::link::{tc, tun};
use command::run;
use leftovers::RunDir;
use network::Names;

/// The program that plays the links between the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Links {
    /// tc where the kernel has sch_netem and it can play the profile, else user-space
    #[default]
    Auto,
    /// The kernel's sch_netem
    Tc,
    /// TUN devices of this program
    UserSpace,
}

/// What a world is made for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Number of nodes.
    pub nodes: usize,
    /// Seed of the links.
    pub seed: u64,
    /// Largest packet of the links in bytes.
    pub mtu: u32,
    /// Whether nodes have private addresses, which are rewritten on the links.
    pub nat: bool,
    /// Whether clients reach the nodes over the links.
    pub clients_over_links: bool,
    /// The program that plays the links between the nodes.
    pub links: Links,
    /// Why the links must be of this program, if they must.
    pub needs_own_links: Option<&'static str>,
}

/// The namespaces, devices and links of a run.
pub struct World {
    wanted: Wanted,
    dir: RunDir,
    names: Names,
    fabric: Option<Fabric>,
    shapes: Vec<Vec<Shape>>,
    how: String,
}

impl World {
    /// Makes the world. Fails with a sentence if this process may not make namespaces.
    pub fn new(wanted: Wanted) -> Outcome<World> {
        let seed = u64::from(std::process::id()) << 32 ^ wanted.seed ^ now_ns();
        let mut random = Random::new(seed, 0);
        let (dir, names) = loop {
            let names = Names::draw(&mut random);
            if names.is_free()? {
                break (RunDir::new(&names.run)?, names);
            }
        };
        let mut world = World { wanted, dir, names, fabric: None, shapes: Vec::new(), how: String::new() };
        world.names.make_bridge()?;
        for node in 0..world.wanted.nodes {
            world.names.make_namespace(node)?;
        }
        world.make_links()?;
        Ok(world)
    }

    /// Returns the sentence that says what plays the links, and why.
    pub fn how(&self) -> &str {
        &self.how
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.wanted.nodes
    }

    /// Returns the directory of the run. It is removed with the world.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the directory of a node.
    pub fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("n{}", node + 1))
    }

    /// Returns the name of the namespace of a node.
    pub fn namespace(&self, node: usize) -> String {
        self.names.namespace(node)
    }

    /// Returns the name of the run, of which all other names are made.
    pub fn run_name(&self) -> &str {
        &self.names.run
    }

    /// Returns the address at which the runner reaches a node, whatever the links do.
    pub fn watch_address(&self, node: usize) -> Ipv4Addr {
        self.names.watch_address(node)
    }

    /// Returns the address at which clients reach a node.
    pub fn client_address(&self, node: usize) -> Ipv4Addr {
        match self.wanted.clients_over_links {
            true => self.names.link_address(node),
            false => self.names.watch_address(node),
        }
    }

    /// Returns the address by which other nodes reach a node.
    pub fn link_address(&self, node: usize) -> Ipv4Addr {
        self.names.link_address(node)
    }

    /// Returns the address that a node binds for traffic between nodes.
    pub fn own_address(&self, node: usize) -> Ipv4Addr {
        match self.wanted.nat {
            true => network::private_address(node),
            false => self.names.link_address(node),
        }
    }

    /// Listens at an address in the namespace of a node. The namespace gets the address, if it does not have it.
    pub fn listen_in(&self, node: usize, at: SocketAddr) -> Outcome<TcpListener> {
        let namespace = self.names.namespace(node);
        if !at.ip().is_loopback() {
            run(&format!("ip -n {namespace} addr replace {} dev lo", at.ip()))?;
        }
        network::listen_in(&namespace, at).map_err(|error| format!("{at} in {namespace}: {error}").into())
    }

    /// Gives the links new shapes, by sender and receiver; the clients are the last of both.
    pub fn set_shapes(&mut self, shapes: Vec<Vec<Shape>>) -> Outcome<()> {
        if shapes == self.shapes {
            return Ok(());
        }
        match &self.fabric {
            Some(fabric) => fabric.set(shapes.clone()),
            None => {
                for (from, row) in shapes.iter().enumerate().take(self.wanted.nodes) {
                    for (to, shape) in row.iter().enumerate().take(self.wanted.nodes) {
                        let old = self.shapes.get(from).and_then(|row| row.get(to));
                        if from != to && old != Some(shape) {
                            let arguments = tc::shape("eth0", to, shape);
                            run(&format!("tc -n {} {arguments}", self.names.namespace(from)))?;
                        }
                    }
                }
            }
        }
        self.shapes = shapes;
        Ok(())
    }

    /// Returns the links of this program, if they are used.
    pub fn fabric(&self) -> Option<&Fabric> {
        self.fabric.as_ref()
    }

    fn make_links(&mut self) -> Outcome<()> {
        let has_netem = self.has_netem();
        let (is_own, how) = match (self.wanted.links, self.wanted.needs_own_links) {
            (Links::Tc, Some(why)) => return Err(format!("tc cannot play this profile: {why}").into()),
            (Links::Tc, None) if !has_netem => return Err("this kernel has no sch_netem".into()),
            (Links::Tc, None) => (false, "links: sch_netem, as asked".to_owned()),
            (Links::UserSpace, _) => (true, "links: in user space, as asked".to_owned()),
            (Links::Auto, Some(why)) => (true, format!("links: in user space ({why})")),
            (Links::Auto, None) if has_netem && !self.wanted.clients_over_links => {
                (false, "links: sch_netem".to_owned())
            }
            (Links::Auto, None) if has_netem => (true, "links: in user space (for clients too)".to_owned()),
            (Links::Auto, None) => (true, "links: in user space (this kernel has no sch_netem)".to_owned()),
        };
        self.how = how;
        if is_own { self.make_own_links() } else { self.make_kernel_links() }
    }

    fn has_netem(&self) -> bool {
        let namespace = self.names.namespace(0);
        let has = run(&format!("tc -n {namespace} qdisc add dev lo root netem delay 1us")).is_ok();
        if has {
            // The device is the loopback of a namespace that is about to be used.
            let _ = run(&format!("tc -n {namespace} qdisc del dev lo root"));
        }
        has
    }

    fn make_own_links(&mut self) -> Outcome<()> {
        let mut endpoints = Vec::new();
        for node in 0..self.wanted.nodes {
            let name = self.names.tun(node);
            let device = tun::open(&name).map_err(|error| format!("no TUN device {name}: {error}"))?;
            let inside = self.wanted.nat.then(|| network::private_address(node));
            self.names.bring_up_tun(node, self.wanted.mtu, inside)?;
            endpoints.push(Endpoint { device, address: self.names.link_address(node), inside });
        }
        let name = self.names.tun(self.wanted.nodes);
        let device = tun::open(&name).map_err(|error| format!("no TUN device {name}: {error}"))?;
        if self.wanted.clients_over_links {
            self.names.bring_up_clients_tun(&name, self.wanted.mtu)?;
        }
        endpoints.push(Endpoint { device, address: self.names.clients_address(), inside: None });
        self.fabric = Some(Fabric::start(endpoints, self.wanted.seed)?);
        Ok(())
    }

    fn make_kernel_links(&mut self) -> Outcome<()> {
        let receivers: Vec<_> = (0..self.wanted.nodes).map(|node| self.names.link_address(node)).collect();
        for node in 0..self.wanted.nodes {
            let namespace = self.names.namespace(node);
            self.names.add_link_address_to_veth(node, self.wanted.mtu)?;
            for arguments in tc::prepare("eth0", &receivers) {
                run(&format!("tc -n {namespace} {arguments}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.fabric = None;
        leftovers::remove(&self.names.run);
    }
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
