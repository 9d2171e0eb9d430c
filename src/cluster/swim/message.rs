//! What membership says, as types that cannot be wrong; [`super::wire`] has their protobuf forms.

use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cluster::members::Identity;
use crate::record::NodeName;

/// One life of a member, short enough to stand in every ping: a receiver refuses pings that mean
/// another.
pub(super) fn life_key(name: &NodeName, boot: u64) -> u64 {
    // 0 means "whoever is there".
    xxh3_64_with_seed(name.as_bytes(), boot).max(1)
}

/// A member that says "here I am", in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Introduction {
    pub identity: Arc<Identity>,
    pub incarnation: u32,
}

/// News of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Update {
    pub name: NodeName,
    pub boot: u64,
    pub incarnation: u32,
    pub claim: Claim,
}

/// What the news is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Claim {
    Alive(Arc<Identity>),
    /// Doubted by these: the more, the sooner it is given up.
    Suspect(Vec<NodeName>),
    /// Given up.
    Dead,
    Left,
}

impl From<Introduction> for Update {
    fn from(said: Introduction) -> Update {
        let Introduction { identity, incarnation } = said;
        let (name, boot) = (identity.name.clone(), identity.boot);
        Update { name, boot, incarnation, claim: Claim::Alive(identity) }
    }
}

impl Update {
    pub fn alive(introduction: &Introduction) -> Update {
        introduction.clone().into()
    }
}

/// What a datagram of membership is. The updates that ride on it travel beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Message {
    Ping(Ping),
    Ack(Ack),
    PingRequest { sequence: u32, target: u64, address: SocketAddr, sender: NodeName },
    Nack { sequence: u32 },
    Refusal { sequence: u32, target: u64, introduction: Option<Introduction> },
    NameTaken { name: NodeName, boot: u64, by: SocketAddr },
    Gossip,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Ping {
    pub sequence: u32,
    /// [`life_key`] of who is meant; 0: whoever is there.
    pub target: u64,
    pub sender: NodeName,
    /// Hash of the live members as the sender sees them.
    pub view: u64,
    pub introduction: Option<Introduction>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Ack {
    pub sequence: u32,
    pub sender: NodeName,
    pub wall_us: u64,
    pub view: u64,
    /// The sender does not know who pinged it.
    pub is_unknown: bool,
    pub introduction: Option<Introduction>,
}

/// A frame on a stream of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum MembershipFrame {
    /// A probe that distrusts UDP.
    Ping(Ping),
    /// Its answer.
    Ack(Ack),
    /// A part of the sender's member list.
    List { introduction: Option<Introduction>, updates: Vec<Update>, is_last: bool },
}
