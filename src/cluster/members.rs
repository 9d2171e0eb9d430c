//! Members as everyone in the cluster core sees them.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::record::NodeName;

/// Different sets of zone and version that a node keeps only once: more than a cluster has in the
/// midst of an upgrade.
const COMMON_MAX: usize = 64;

/// What a member is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Answers.
    Alive,
    /// Did not answer; may still refute.
    Suspect,
    /// Given up, and probed once in a while all the same.
    Dead,
    /// Went by itself.
    Left,
}

impl State {
    /// The state's name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
        }
    }

    /// Whether records are sent to it: alive, or not yet given up.
    pub fn is_live(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }
}

/// What a member says of itself, the same for as long as it lives. Shared: a member must cost a
/// node little (10,000 machines of 10,000 members stand in one simulated world).
///
/// So what nearly all members have in common is kept once ([`Identity::share`]), an IPv4 address is
/// kept as its four bytes, and of an HTTP address on the same host only the port: 40 bytes for a
/// name of up to 14, in one allocation. Whoever is different costs an allocation more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: NodeName,
    /// Which of its lives.
    pub boot: u64,
    ip: Ipv4Addr,
    gossip_port: u16,
    http_port: u16,
    common: Arc<Common>,
}

/// What many members have in common, and the fields that do not fit in an [`Identity`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Common {
    zone: Box<str>,
    version: Box<str>,
    /// An address that is not IPv4.
    gossip: Option<SocketAddr>,
    /// An HTTP address that is not `IP:PORT` on the same IPv4 host.
    http: Option<Box<str>>,
}

impl Common {
    /// Whether others may have all of it in common with a member.
    fn is_sharable(&self) -> bool {
        self.gossip.is_none() && self.http.as_deref().is_none_or(str::is_empty)
    }
}

impl Identity {
    /// What this member says of itself: its name, which of its lives, where its UDP and TCP are,
    /// `host:port` of its HTTP port, its zone (empty if it named none), its program's version.
    pub fn new(
        name: NodeName,
        boot: u64,
        gossip: SocketAddr,
        http: &str,
        zone: &str,
        version: &str,
    ) -> Identity {
        let ip = match gossip {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        };
        let http_port = ip.and_then(|ip| port_at(ip, http));
        let common = Common {
            zone: zone.into(),
            version: version.into(),
            gossip: ip.is_none().then_some(gossip),
            http: http_port.is_none().then(|| http.into()),
        };
        Identity {
            name,
            boot,
            ip: ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            gossip_port: gossip.port(),
            http_port: http_port.unwrap_or(0),
            common: Arc::new(common),
        }
    }

    /// Where its UDP and TCP are.
    pub fn gossip(&self) -> SocketAddr {
        let address = SocketAddr::from((self.ip, self.gossip_port));
        self.common.gossip.unwrap_or(address)
    }

    /// `host:port` of its HTTP port.
    pub fn http(&self) -> Cow<'_, str> {
        match &self.common.http {
            Some(http) => Cow::Borrowed(http),
            None => Cow::Owned(format!("{}:{}", self.ip, self.http_port)),
        }
    }

    /// Its zone; empty if it named none.
    pub fn zone(&self) -> &str {
        &self.common.zone
    }

    /// Its program's version.
    pub fn version(&self) -> &str {
        &self.common.version
    }

    /// Keeps what it has in common with others once: takes it from `known`, or adds it there. An
    /// identity that is shared itself stays as it is.
    pub fn share(self: &mut Arc<Identity>, known: &mut Vec<Arc<Common>>) {
        let Some(identity) = Arc::get_mut(self).filter(|identity| identity.common.is_sharable()) else {
            return;
        };
        match known.iter().find(|common| **common == identity.common) {
            Some(common) => identity.common = common.clone(),
            None => {
                if known.len() >= COMMON_MAX {
                    known.retain(|common| Arc::strong_count(common) > 1);
                }
                if known.len() < COMMON_MAX {
                    known.push(identity.common.clone());
                }
            }
        }
    }

    /// Its place on the ring: a hash of the name, so that it outlives restarts and moves.
    pub fn ring_hash(&self) -> u64 {
        xxh3_64(self.name.as_bytes())
    }
}

/// Makes room in a list of members for one more, and little else: a list that doubles costs a
/// member up to twice its bytes.
pub(super) fn grow_a_little<T>(members: &mut Vec<T>) {
    if members.len() == members.capacity() {
        members.reserve_exact(members.len() / 16 + 4);
    }
}

/// The port of `http` if it is this host, written as we would write it.
fn port_at(ip: Ipv4Addr, http: &str) -> Option<u16> {
    let address: SocketAddrV4 = http.parse().ok()?;
    (*address.ip() == ip && address.to_string() == http).then(|| address.port())
}

/// A member as one node sees it at one time; what `GET /v1/members` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// What it says of itself.
    pub identity: Arc<Identity>,
    /// What it is believed to be.
    pub state: State,
    /// How often it refuted a suspicion in this life.
    pub incarnation: u32,
    /// Smoothed round trip, in microseconds; `None`: not measured (or this very node).
    pub rtt_us: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(gossip: &str, http: &str, zone: &str) -> Arc<Identity> {
        let name = NodeName::parse("n").expect("name");
        let gossip = gossip.parse().expect("address");
        Arc::new(Identity::new(name, 1, gossip, http, zone, "0.1.0"))
    }

    #[test]
    fn every_address_comes_back_as_it_was_told() {
        for gossip in ["10.0.0.1:7946", "0.0.0.0:0", "[::1]:7946", "[fe80::1%3]:1"] {
            for http in ["10.0.0.1:7070", "10.0.0.1:07070", "10.0.0.2:7070", "n.example:80", "[::1]:7070", ""]
            {
                let it = identity(gossip, http, "z");
                assert_eq!((it.gossip().to_string().as_str(), &*it.http()), (gossip, http));
                assert_eq!((it.zone(), it.version()), ("z", "0.1.0"));
            }
        }
    }

    #[test]
    fn what_members_have_in_common_is_kept_once_and_bounded() {
        let mut known = Vec::new();
        let mut members = Vec::new();
        for index in 0..4 * COMMON_MAX {
            let zone = format!("z{}", index % 8);
            let mut it = identity("10.0.0.1:7946", "10.0.0.1:7070", &zone);
            it.share(&mut known);
            assert_eq!(it.zone(), zone);
            members.push(it);
        }
        assert_eq!(known.len(), 8);
        assert!(members.chunks(8).all(|eight| Arc::ptr_eq(&eight[3].common, &members[3].common)));
        // Somebody makes zones up, and goes again; and some are like nobody else.
        for index in 0..4 * COMMON_MAX {
            identity("10.0.0.1:7946", "10.0.0.1:7070", &format!("y{index}")).share(&mut known);
            identity("[::1]:7946", "", &format!("x{index}")).share(&mut known);
        }
        assert!(known.len() <= COMMON_MAX);
        assert!(members.iter().all(|it| known.iter().any(|common| Arc::ptr_eq(common, &it.common))));
    }

    #[test]
    fn an_identity_is_five_words() {
        assert_eq!(size_of::<Identity>(), 40);
    }
}
