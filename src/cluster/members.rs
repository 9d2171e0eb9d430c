//! Members of the cluster: their states, and the facts that each states about itself.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config::cluster_key::{KeyId, KeyPhase};
use crate::record::NodeName;

/// Most different sets of zone and version that a node shares between members: more than a cluster has in the
/// midst of an upgrade.
const COMMON_MAX: usize = 64;

/// The state that a node believes a member to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The member has not answered at its own address so far. It takes no part: it is not on the ring, its clock
    /// does not count, and no answer waits for it.
    Joining,
    /// The member answers probes, or is not known to be silent.
    Alive,
    /// The member did not answer a probe, and may still prove that it is alive.
    Suspect,
    /// The member was given up; it is still contacted once in a while.
    Dead,
    /// The member left in an orderly way.
    Left,
}

impl State {
    /// Name of the state as users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Joining => "joining",
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
        }
    }

    /// Returns whether a member in this state takes part: it has answered at its address, and was not given up
    /// since.
    pub fn is_live(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }

    /// Returns whether a member in this state is gone: it was given up, or it left.
    pub fn is_gone(self) -> bool {
        matches!(self, State::Dead | State::Left)
    }
}

/// The facts that a member states about itself, which stay the same for one life of it in membership: from its
/// start, or from when it took a new boot number while it runs, to its end or the next boot number.
///
/// An identity is small, because one simulated world holds 10,000 machines with 10,000 members each. Fields
/// that nearly all members have in common are kept once ([`Identity::share`]), an IPv4 address is kept as
/// four bytes, and of an HTTP address on the same host only the port is kept. So an identity takes 40 bytes
/// in one allocation, with a name of up to 14 bytes. A member that differs costs one more allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the member.
    pub name: NodeName,
    /// Boot number of this life of the member.
    pub boot: u64,
    ip: Ipv4Addr,
    gossip_port: u16,
    http_port: u16,
    common: Arc<Common>,
}

/// Fields that many members have in common, and those that do not fit in an [`Identity`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    zone: Box<str>,
    version: Box<str>,
    /// Address for UDP and TCP, if it is not IPv4.
    gossip: Option<SocketAddr>,
    /// HTTP address, if it is not `IP:PORT` on the same IPv4 host.
    http: Option<Box<str>>,
    /// Number of boot numbers that the member has taken while it runs.
    renewals: u32,
}

impl Common {
    /// Returns whether nothing in the description is particular to one member.
    fn is_sharable(&self) -> bool {
        self.gossip.is_none() && self.http.as_deref().is_none_or(str::is_empty)
    }
}

impl Identity {
    /// Makes the identity of the life `boot` of a member from its address for UDP and TCP, `host:port` of its
    /// HTTP port, its zone (empty if it has none), and the version of its program.
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
            renewals: 0,
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

    /// This identity, of a member that has taken `renewals` boot numbers while it runs. `None`: it cannot have
    /// taken so many.
    pub fn with_renewals(self, renewals: u32) -> Option<Identity> {
        if renewals == 0 {
            return Some(self);
        }
        self.boot.checked_sub(u64::from(renewals))?;
        let mut common = (*self.common).clone();
        common.renewals = renewals;
        Some(Identity { common: Arc::new(common), ..self })
    }

    /// The identity of this member with the next boot number, which it takes while it runs. `None`: there is no
    /// next one.
    pub fn renewed(&self) -> Option<Identity> {
        let (boot, renewals) = (self.boot.checked_add(1)?, self.renewals().checked_add(1)?);
        Identity { boot, ..self.clone() }.with_renewals(renewals)
    }

    /// Number of boot numbers that the member has taken while it runs.
    pub fn renewals(&self) -> u32 {
        self.common.renewals
    }

    /// Boot number with which the member started. It stands in the births of the member's records, and in all that
    /// follows from them: heads, resume tokens, and what is known of records that are stored.
    pub fn start_boot(&self) -> u64 {
        self.boot.saturating_sub(u64::from(self.common.renewals))
    }

    /// Address of the member's UDP and TCP ports, which have the same number.
    pub fn gossip(&self) -> SocketAddr {
        let address = SocketAddr::from((self.ip, self.gossip_port));
        self.common.gossip.unwrap_or(address)
    }

    /// Address of the member's HTTP port as `host:port`.
    pub fn http(&self) -> Cow<'_, str> {
        match &self.common.http {
            Some(http) => Cow::Borrowed(http),
            None => Cow::Owned(format!("{}:{}", self.ip, self.http_port)),
        }
    }

    /// Zone of the member; empty if it named none.
    pub fn zone(&self) -> &str {
        &self.common.zone
    }

    /// Version of the member's program.
    pub fn version(&self) -> &str {
        &self.common.version
    }

    /// Shares the common fields with other members: takes them from `known`, or adds them there. An
    /// identity that others hold already stays as it is.
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

    /// Place of the member on the ring: a hash of its name, so that it outlives restarts and moves.
    pub fn ring_hash(&self) -> u64 {
        xxh3_64(self.name.as_bytes())
    }
}

/// Makes room in a list of members for one more and a sixteenth. A list that doubled would take up to twice
/// the memory for each member.
pub(super) fn grow_a_little<T>(members: &mut Vec<T>) {
    if members.len() == members.capacity() {
        members.reserve_exact(members.len() / 16 + 4);
    }
}

/// Hash of an address, for the index by address.
pub(super) fn address_hash(address: SocketAddr) -> u64 {
    let port = u64::from(address.port());
    match address.ip() {
        IpAddr::V4(ip) => xxh3_64_with_seed(&ip.octets(), port),
        IpAddr::V6(ip) => xxh3_64_with_seed(&ip.octets(), port),
    }
}

/// Returns the port of the HTTP address `http` if that is on host `ip` and in its usual written form.
fn port_at(ip: Ipv4Addr, http: &str) -> Option<u16> {
    let address: SocketAddrV4 = http.parse().ok()?;
    (*address.ip() == ip && address.to_string() == http).then(|| address.port())
}

/// The keys that a member tells others it has, each named by the beginning of its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Id of the key that the member seals with; `None`: it sends plain messages.
    pub seals: Option<KeyId>,
    /// Ids of all keys that the member opens, in its order.
    pub opens: Vec<KeyId>,
    /// How far the member has gone over to sealed messages.
    pub phase: KeyPhase,
}

/// A member as one node sees it at one time. `GET /v1/members` shows this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Identity of the member.
    pub identity: Arc<Identity>,
    /// State that the member is believed to be in.
    pub state: State,
    /// Number of suspicions that the member has refuted in this life.
    pub incarnation: u32,
    /// Number that is another one each time that the member begins to take part at this node; `None`: it takes no part.
    pub joined: Option<u32>,
    /// Smoothed round trip in microseconds; `None` if it was not measured, or for this node itself.
    pub rtt_us: Option<u32>,
    /// Whether the member said in its last answer that this node does not answer at the address which this node
    /// advertises.
    pub cannot_reach_us: bool,
    /// What the member tells of its keys; `None`: nothing so far, or it has none.
    pub keys: Option<Arc<KeyStatus>>,
}

impl MemberInfo {
    /// A member of which nothing more is known than who it is and its state.
    pub fn new(identity: Arc<Identity>, state: State) -> MemberInfo {
        MemberInfo {
            identity,
            state,
            incarnation: 0,
            joined: None,
            rtt_us: None,
            cannot_reach_us: false,
            keys: None,
        }
    }
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
        // Members with made-up zones, and members whose fields nobody shares, come and go: the list of common
        // fields stays short.
        for index in 0..4 * COMMON_MAX {
            identity("10.0.0.1:7946", "10.0.0.1:7070", &format!("y{index}")).share(&mut known);
            identity("[::1]:7946", "", &format!("x{index}")).share(&mut known);
        }
        assert!(known.len() <= COMMON_MAX);
        assert!(members.iter().all(|it| known.iter().any(|common| Arc::ptr_eq(common, &it.common))));
    }

    #[test]
    fn a_new_boot_number_leaves_that_of_the_start() {
        let it = identity("10.0.0.1:7946", "10.0.0.1:7070", "z");
        assert_eq!((it.boot, it.renewals(), it.start_boot()), (1, 0, 1));
        let next = it.renewed().and_then(|next| next.renewed()).expect("there are more");
        assert_eq!((next.boot, next.renewals(), next.start_boot()), (3, 2, 1));
        assert_eq!((next.gossip(), &*next.http(), next.zone()), (it.gossip(), &*it.http(), "z"));
        let last = Identity { boot: u64::MAX, ..next };
        assert_eq!(last.renewed(), None);
        let it = Arc::unwrap_or_clone(it);
        assert_eq!(it.clone().with_renewals(2), None, "it would have started below 0");
        assert_eq!(it.with_renewals(1).map(|it| it.start_boot()), Some(0));
    }

    #[test]
    fn an_identity_is_five_words() {
        assert_eq!(size_of::<Identity>(), 40);
    }
}
