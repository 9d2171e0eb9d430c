//! The names and addresses of a run, and the commands of `ip` that make its devices.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use anode_loadgen::Outcome;
use anode_loadgen::random::Random;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::run;

/// Packets that a device queues until the runner has read them.
const QUEUE_PACKETS: u32 = 5_000;
/// First address of the links within the network of a run.
const LINKS_BEGIN: usize = 129;
/// Where `ip netns` keeps the namespaces that have names.
const NAMESPACES: &str = "/run/netns";

/// The names and addresses of a run.
#[derive(Clone, Debug)]
pub struct Names {
    /// Name of the run: `anetem-` and four hexadecimal digits.
    pub run: String,
    /// The digits, from which the names of devices are made: these have at most 15 bytes.
    digits: String,
    net: [u8; 2],
}

impl Names {
    /// Draws names at random.
    pub fn draw(random: &mut Random) -> Names {
        let bits = random.next_u64();
        let digits = format!("{:04x}", bits & 0xffff);
        let net = [128 + (bits >> 16 & 0x7f) as u8, (bits >> 24 & 0xff) as u8];
        Names { run: format!("anetem-{digits}"), digits, net }
    }

    /// Returns whether no other run and no route of this machine uses them.
    pub fn is_free(&self) -> Outcome<bool> {
        let route = run(&format!("ip -4 route show root 10.{}.{}.0/24", self.net[0], self.net[1]))?;
        Ok(route.trim().is_empty() && !super::leftovers::exists(&self.run))
    }

    pub fn namespace(&self, node: usize) -> String {
        format!("{}-{}", self.run, node + 1)
    }

    pub fn tun(&self, node: usize) -> String {
        format!("ant{}-{}", self.digits, node + 1)
    }

    fn bridge(&self) -> String {
        format!("anb{}", self.digits)
    }

    fn veth(&self, node: usize) -> String {
        format!("anv{}-{}", self.digits, node + 1)
    }

    pub fn watch_address(&self, node: usize) -> Ipv4Addr {
        self.address(node + 2)
    }

    pub fn link_address(&self, node: usize) -> Ipv4Addr {
        self.address(LINKS_BEGIN + node)
    }

    /// Returns the address of the clients on the links.
    pub fn clients_address(&self) -> Ipv4Addr {
        self.address(254)
    }

    fn address(&self, last: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net[0], self.net[1], last as u8)
    }

    pub fn make_bridge(&self) -> Outcome<()> {
        let bridge = self.bridge();
        run(&format!("ip link add {bridge} type bridge"))?;
        run(&format!("ip addr add {}/25 dev {bridge}", self.address(1)))?;
        run(&format!("ip link set {bridge} up"))?;
        Ok(())
    }

    pub fn make_namespace(&self, node: usize) -> Outcome<()> {
        let (namespace, veth, bridge) = (self.namespace(node), self.veth(node), self.bridge());
        run(&format!("ip netns add {namespace}"))?;
        run(&format!("ip -n {namespace} link set lo up"))?;
        run(&format!("ip link add {veth} type veth peer name eth0 netns {namespace}"))?;
        run(&format!("ip link set {veth} master {bridge} up"))?;
        run(&format!("ip -n {namespace} addr add {}/25 dev eth0", self.watch_address(node)))?;
        run(&format!("ip -n {namespace} link set eth0 up"))?;
        Ok(())
    }

    /// Moves the TUN device of a node into its namespace and gives it its address.
    pub fn bring_up_tun(&self, node: usize, mtu: u32, inside: Option<Ipv4Addr>) -> Outcome<()> {
        let (namespace, tun) = (self.namespace(node), self.tun(node));
        run(&format!("ip link set {tun} netns {namespace}"))?;
        run(&format!("ip -n {namespace} link set {tun} name link0 mtu {mtu} txqueuelen {QUEUE_PACKETS}"))?;
        match inside {
            None => run(&format!("ip -n {namespace} addr add {}/25 dev link0", self.link_address(node)))?,
            Some(inside) => run(&format!("ip -n {namespace} addr add {inside}/24 dev link0"))?,
        };
        run(&format!("ip -n {namespace} link set link0 up"))?;
        if inside.is_some() {
            run(&format!("ip -n {namespace} route add {}/25 dev link0", self.address(128)))?;
        }
        Ok(())
    }

    /// Gives the clients' TUN device, which stays in the namespace of this process, its address.
    pub fn bring_up_clients_tun(&self, tun: &str, mtu: u32) -> Outcome<()> {
        run(&format!("ip addr add {}/25 dev {tun}", self.clients_address()))?;
        run(&format!("ip link set {tun} mtu {mtu} txqueuelen {QUEUE_PACKETS} up"))?;
        Ok(())
    }

    /// Gives the veth of a node the address of its links too, where the kernel plays the links.
    pub fn add_link_address_to_veth(&self, node: usize, mtu: u32) -> Outcome<()> {
        let namespace = self.namespace(node);
        run(&format!("ip -n {namespace} addr add {}/25 dev eth0", self.link_address(node)))?;
        run(&format!("ip -n {namespace} link set eth0 mtu {mtu}"))?;
        Ok(())
    }
}

/// Listens at an address in a namespace. A socket stays in the namespace in which it was made, so a thread moves there,
/// makes the socket, and ends.
pub fn listen_in(namespace: &str, at: SocketAddr) -> Outcome<TcpListener> {
    let namespace = File::open(format!("{NAMESPACES}/{namespace}"))?;
    let made = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpListener::bind(at)
    });
    Ok(made.join().map_err(|_| "the thread that listens panicked")??)
}

/// Returns the address that a node has behind a router that rewrites addresses.
pub fn private_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, node as u8, 2)
}
