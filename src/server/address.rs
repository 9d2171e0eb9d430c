//! The sockets of the cluster's port, and the addresses of this node that others are told.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::acceptor;
use super::gossip::Sockets;
use crate::config::{Config, HostPort, canonical};

/// Number of ports that are tried until one is free for both UDP and TCP.
const TRIES: usize = 64;
/// Number of connections of peers that the kernel keeps until they are accepted.
const PEER_BACKLOG: i32 = 1024;

/// The address that other members are to be told cannot be determined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--advertise: {reason}; give an address that the other members can reach")]
pub struct AddressError {
    reason: String,
}

/// Binds UDP and TCP to the same port. With port 0 that is any port that is free for both.
pub fn bind_gossip(address: SocketAddr) -> io::Result<(Sockets, SocketAddr)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_both(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_both(address: SocketAddr) -> io::Result<(Sockets, SocketAddr)> {
    let listener = acceptor::socket(address)?;
    listener.bind(&address.into())?;
    listener.listen(PEER_BACKLOG)?;
    let bound = acceptor::local_address(&listener)?;
    let udp = mio::net::UdpSocket::bind(bound)?;
    let tcp = mio::net::TcpListener::from_std(listener.into());
    Ok((Sockets { udp, tcp }, bound))
}

/// The address that other members are told: `--advertise`, else the bound address, else the local address
/// from which the first join target is reached.
pub fn advertised(config: &Config, bound: SocketAddr) -> Result<SocketAddr, AddressError> {
    let fail = |reason: String| AddressError { reason };
    if let Some(given) = &config.advertise {
        let port = if given.port == 0 { bound.port() } else { given.port };
        let resolved = (given.host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| fail(format!("{given} does not resolve ({error})")))?
            // The socket must be able to send to addresses of that family.
            .map(canonical)
            .find(|address| address.is_ipv4() || bound.is_ipv6());
        return resolved
            .ok_or_else(|| fail(format!("{given} has no address that {bound} can be reached by")));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let Some(target) = config.join.first() else {
        return Err(fail(format!("--gossip {bound} is no address that others could use")));
    };
    match route_to((target.host.as_str(), target.port), bound) {
        Some(ip) => Ok(SocketAddr::new(ip, bound.port())),
        None => Err(fail(format!("no route to {target}, the first join target, was found"))),
    }
}

/// The local address from which packets to `target` leave, found by connecting a UDP socket, which sends
/// nothing.
fn route_to(target: (&str, u16), bound: SocketAddr) -> Option<IpAddr> {
    target.to_socket_addrs().ok()?.map(canonical).find_map(|target| {
        let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        if target.is_ipv6() && bound.is_ipv4() {
            return None;
        }
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    })
}

/// The HTTP address that clients are told: `given` if it was given, else the bound one, but with the advertised host if
/// the port is bound to every address of the machine.
pub fn advertised_http(given: Option<&HostPort>, http: SocketAddr, advertised: SocketAddr) -> String {
    if let Some(given) = given {
        let port = if given.port == 0 { http.port() } else { given.port };
        return HostPort { host: given.host.clone(), port }.to_string();
    }
    let ip = if http.ip().is_unspecified() { advertised.ip() } else { http.ip() };
    SocketAddr::new(ip, http.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_for_both() {
        let any = "127.0.0.1:0".parse().expect("address");
        let (sockets, bound) = bind_gossip(any).expect("bound");
        assert_eq!(sockets.udp.local_addr().expect("address"), bound);
        assert_eq!(sockets.tcp.local_addr().expect("address"), bound);
        assert_eq!(bind_gossip(bound).err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn the_route_to_loopback_leaves_from_loopback() {
        let any = "0.0.0.0:7946".parse().expect("address");
        assert_eq!(route_to(("127.0.0.1", 9), any), Some([127, 0, 0, 1].into()));
        let http = |text: &str| text.parse().expect("address");
        let advertised = http("10.0.0.1:7946");
        assert_eq!(advertised_http(None, http("0.0.0.0:7070"), advertised), "10.0.0.1:7070");
        assert_eq!(advertised_http(None, http("127.0.0.1:7070"), advertised), "127.0.0.1:7070");
        let told = |host: &str, port| {
            let given = HostPort { host: host.into(), port };
            advertised_http(Some(&given), http("0.0.0.0:7070"), advertised)
        };
        assert_eq!(told("anode", 0), "anode:7070");
        assert_eq!(told("node.example", 443), "node.example:443");
        assert_eq!(told("::1", 0), "[::1]:7070");
    }
}
