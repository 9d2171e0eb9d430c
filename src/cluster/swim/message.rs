//! The messages of membership, as types that are always valid. [`super::wire`] has their protobuf forms.

use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cluster::members::Identity;
use crate::record::NodeName;

/// Returns a hash that stands for one life of a member. It is in every ping, and a receiver refuses pings
/// that are meant for another life or member.
pub(super) fn life_key(name: &NodeName, boot: u64) -> u64 {
    // In a ping, 0 means any node at that address.
    xxh3_64_with_seed(name.as_bytes(), boot).max(1)
}

/// The facts by which a member introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Introduction {
    /// Identity of the member.
    pub identity: Arc<Identity>,
    /// Number of suspicions that the member has refuted in this life.
    pub incarnation: u32,
}

/// News about one life of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Update {
    /// Name of the member.
    pub name: NodeName,
    /// Boot number of the life that the news is about.
    pub boot: u64,
    /// Incarnation that the news is about.
    pub incarnation: u32,
    /// The content of the news.
    pub claim: Claim,
}

/// The content of news about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Claim {
    /// The member is alive.
    Alive(Arc<Identity>),
    /// The member is suspected by these members. The more they are, the sooner it is given up.
    Suspect(Vec<NodeName>),
    /// The member was given up.
    Dead,
    /// The member left in an orderly way.
    Left,
}

impl Introduction {
    /// Returns these facts with the greater of their incarnation and the one given.
    pub fn at_least(self, incarnation: u32) -> Introduction {
        Introduction { incarnation: self.incarnation.max(incarnation), ..self }
    }
}

impl From<Introduction> for Update {
    fn from(said: Introduction) -> Update {
        let Introduction { identity, incarnation } = said;
        let (name, boot) = (identity.name.clone(), identity.boot);
        Update { name, boot, incarnation, claim: Claim::Alive(identity) }
    }
}

impl Update {
    /// News that the member of this introduction is alive.
    pub fn alive(introduction: &Introduction) -> Update {
        introduction.clone().into()
    }
}

/// The message of a datagram of membership. The updates that ride on the datagram are kept apart from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum SwimMessage {
    /// A question whether the receiver is alive.
    Ping(Ping),
    /// The answer to a ping.
    Ack(Ack),
    /// A request to ping another member, whose life has the key `target`, at `address`.
    PingRequest { sequence: u32, target: u64, address: SocketAddr, sender: NodeName },
    /// The answer to a ping request whose member did not answer in time.
    Nack { sequence: u32 },
    /// The answer to a ping that was meant for another life or member.
    Refusal { sequence: u32, target: u64, introduction: Option<Introduction> },
    /// News for the life `boot` of the receiver, which introduced itself in the ping `sequence`, that its name is
    /// in use at the address `by`.
    NameTaken { name: NodeName, boot: u64, by: SocketAddr, sequence: u32 },
    /// Nothing but the updates that ride on the datagram.
    Gossip,
}

/// A question whether the receiver is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Ping {
    /// Number that the sender chose; the answer repeats it.
    pub sequence: u32,
    /// [`life_key`] of the member that is meant; 0 for any node at the address.
    pub target: u64,
    /// Name of the node that sends the ping.
    pub sender: NodeName,
    /// Hash of the live members, as the sender sees them.
    pub view: u64,
    /// Introduction of the sender, if it wants one in return.
    pub introduction: Option<Introduction>,
    /// Number of bytes without a meaning that make the ping as large as its answer.
    pub padding: usize,
}

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Ack {
    /// Number of the ping that is answered.
    pub sequence: u32,
    /// Name of the node that answers.
    pub sender: NodeName,
    /// Wall clock of the sender, in microseconds.
    pub wall_us: u64,
    /// Hash of the live members, as the sender sees them.
    pub view: u64,
    /// Whether the sender does not know the node that pinged it.
    pub is_unknown: bool,
    /// Whether the node that sent the ping has not answered at its own address.
    pub is_unreached: bool,
    /// Whether the sender is leaving.
    pub is_leaving: bool,
    /// Whether the sender does not know the other members yet.
    pub is_joining: bool,
    /// Introduction of the sender, if it was asked for.
    pub introduction: Option<Introduction>,
}

impl SwimMessage {
    /// The same answer without the introduction of this node.
    pub fn without_introduction(mut self) -> SwimMessage {
        if let SwimMessage::Ack(Ack { introduction, .. }) | SwimMessage::Refusal { introduction, .. } =
            &mut self
        {
            *introduction = None;
        }
        self
    }
}

/// A frame on a stream of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum MembershipFrame {
    /// A probe of a member that did not answer over UDP.
    Ping(Ping),
    /// The answer to a probe.
    Ack(Ack),
    /// A part of the sender's member list.
    List { introduction: Option<Introduction>, updates: Vec<Update>, is_last: bool },
}
