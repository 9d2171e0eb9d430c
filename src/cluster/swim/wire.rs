//! The protobuf forms of the messages of membership. A message that cannot be read is `None`, and its
//! datagram counts as corrupt: no node of this program writes such a message.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::message::{Ack, Claim, Introduction, MembershipFrame, Ping, SwimMessage, Update};
use super::timing::ACCUSERS_MAX;
use crate::cluster::members::Identity;
use crate::config::canonical;
use crate::limits::{HTTP_ADDRESS_BYTES_MAX, VERSION_BYTES_MAX, ZONE_BYTES_MAX};
use crate::proto::gossip as proto;
use crate::proto::gossip::datagram::Body;
use crate::record::NodeName;

/// Returns how many bytes an update adds to a datagram.
pub(super) fn update_bytes(update: &Update) -> usize {
    // There are two bytes of tag, and up to two of length.
    update_to_proto(update).encoded_len() + 4
}

/// Returns how many bytes a message takes in a datagram, without updates.
pub(super) fn message_bytes(message: &SwimMessage) -> usize {
    proto::Datagram { body: Some(message_to_proto(message)), ..Default::default() }.encoded_len()
}

/// Returns the protobuf form of a datagram with this message and the updates that ride on it.
pub(in crate::cluster) fn to_proto(message: &SwimMessage, updates: &[Update]) -> proto::Datagram {
    proto::Datagram {
        body: Some(message_to_proto(message)),
        updates: updates.iter().map(update_to_proto).collect(),
        ..Default::default()
    }
}

fn message_to_proto(message: &SwimMessage) -> Body {
    match message {
        SwimMessage::Ping(ping) => Body::Ping(ping_to_proto(ping)),
        SwimMessage::Ack(ack) => Body::Ack(ack_to_proto(ack)),
        SwimMessage::PingRequest { sequence, target, address, sender } => {
            Body::PingRequest(proto::PingRequest {
                sequence: *sequence,
                target: *target,
                address: address.to_string(),
                sender: sender.as_str().into(),
            })
        }
        SwimMessage::Nack { sequence } => Body::Nack(proto::Nack { sequence: *sequence }),
        SwimMessage::Refusal { sequence, target, introduction } => Body::Refusal(proto::Refusal {
            sequence: *sequence,
            target: *target,
            introduction: introduction.as_ref().map(introduction_to_proto),
        }),
        SwimMessage::NameTaken { name, boot, by, sequence } => Body::NameTaken(proto::NameTaken {
            name: name.as_str().into(),
            boot: *boot,
            by: by.to_string(),
            sequence: *sequence,
        }),
        SwimMessage::Gossip => Body::Gossip(proto::Gossip {}),
    }
}

/// Reads the message in the body of a datagram of membership; `None` if it is malformed.
pub(in crate::cluster) fn message_from_proto(body: Body) -> Option<SwimMessage> {
    Some(match body {
        Body::Ping(ping) => SwimMessage::Ping(ping_from_proto(ping)?),
        Body::Ack(ack) => SwimMessage::Ack(ack_from_proto(ack)?),
        Body::PingRequest(request) => SwimMessage::PingRequest {
            sequence: request.sequence,
            target: request.target,
            address: address_from_text(&request.address)?,
            sender: NodeName::parse(&request.sender).ok()?,
        },
        Body::Nack(nack) => SwimMessage::Nack { sequence: nack.sequence },
        Body::Refusal(refusal) => SwimMessage::Refusal {
            sequence: refusal.sequence,
            target: refusal.target,
            introduction: introduction_from_proto(refusal.introduction)?,
        },
        Body::NameTaken(taken) => SwimMessage::NameTaken {
            name: NodeName::parse(&taken.name).ok()?,
            boot: taken.boot,
            by: address_from_text(&taken.by)?,
            sequence: taken.sequence,
        },
        Body::Gossip(_) => SwimMessage::Gossip,
        _ => return None,
    })
}

fn ping_to_proto(ping: &Ping) -> proto::Ping {
    proto::Ping {
        sequence: ping.sequence,
        target: ping.target,
        sender: ping.sender.as_str().into(),
        view: ping.view,
        introduction: ping.introduction.as_ref().map(introduction_to_proto),
        padding: vec![0; ping.padding].into(),
    }
}

fn ping_from_proto(ping: proto::Ping) -> Option<Ping> {
    Some(Ping {
        sequence: ping.sequence,
        target: ping.target,
        sender: NodeName::parse(&ping.sender).ok()?,
        view: ping.view,
        introduction: introduction_from_proto(ping.introduction)?,
        padding: ping.padding.len(),
    })
}

fn ack_to_proto(ack: &Ack) -> proto::Ack {
    proto::Ack {
        sequence: ack.sequence,
        sender: ack.sender.as_str().into(),
        wall_us: ack.wall_us,
        view: ack.view,
        unknown: ack.is_unknown,
        unreached: ack.is_unreached,
        leaving: ack.is_leaving,
        joining: ack.is_joining,
        introduction: ack.introduction.as_ref().map(introduction_to_proto),
    }
}

fn ack_from_proto(ack: proto::Ack) -> Option<Ack> {
    Some(Ack {
        sequence: ack.sequence,
        sender: NodeName::parse(&ack.sender).ok()?,
        wall_us: ack.wall_us,
        view: ack.view,
        is_unknown: ack.unknown,
        is_unreached: ack.unreached,
        is_leaving: ack.leaving,
        is_joining: ack.joining,
        introduction: introduction_from_proto(ack.introduction)?,
    })
}

fn introduction_to_proto(introduction: &Introduction) -> proto::MemberUpdate {
    update_to_proto(&Update::alive(introduction))
}

/// Reads an introduction, which may be missing. The outer `None`: it is malformed.
fn introduction_from_proto(update: Option<proto::MemberUpdate>) -> Option<Option<Introduction>> {
    let Some(update) = update else { return Some(None) };
    match update_from_proto(update)? {
        Update { incarnation, claim: Claim::Alive(identity), .. } => {
            Some(Some(Introduction { identity, incarnation }))
        }
        _ => None,
    }
}

fn update_to_proto(update: &Update) -> proto::MemberUpdate {
    let mut message = proto::MemberUpdate {
        name: update.name.as_str().into(),
        boot: update.boot,
        incarnation: update.incarnation,
        ..Default::default()
    };
    let state = match &update.claim {
        Claim::Alive(identity) => {
            message.gossip = identity.gossip().to_string();
            message.http = identity.http().into_owned();
            message.zone = identity.zone().into();
            message.version = identity.version().into();
            message.renewals = identity.renewals();
            proto::MemberState::Alive
        }
        Claim::Suspect(accusers) => {
            message.accusers = accusers.iter().map(|accuser| accuser.as_str().into()).collect();
            proto::MemberState::Suspect
        }
        Claim::Dead => proto::MemberState::Dead,
        Claim::Left => proto::MemberState::Left,
    };
    message.set_state(state);
    message
}

/// Reads an update; `None` if it is malformed.
pub(in crate::cluster) fn update_from_proto(message: proto::MemberUpdate) -> Option<Update> {
    let name = NodeName::parse(&message.name).ok()?;
    let claim = match proto::MemberState::try_from(message.state).ok()? {
        proto::MemberState::Suspect => {
            let accusers = message.accusers.iter().take(ACCUSERS_MAX);
            Claim::Suspect(accusers.map(|name| NodeName::parse(name).ok()).collect::<Option<_>>()?)
        }
        proto::MemberState::Dead => Claim::Dead,
        proto::MemberState::Left => Claim::Left,
        proto::MemberState::Alive => {
            let gossip = address_from_text(&message.gossip)?;
            let fits = message.http.len() <= HTTP_ADDRESS_BYTES_MAX
                && message.zone.len() <= ZONE_BYTES_MAX
                && message.version.len() <= VERSION_BYTES_MAX;
            // A member that cannot be reached is refused.
            if !fits || gossip.port() == 0 || gossip.ip().is_unspecified() {
                return None;
            }
            let proto::MemberUpdate { boot, http, zone, version, renewals, .. } = &message;
            let identity = Identity::new(name.clone(), *boot, gossip, http, zone, version);
            Claim::Alive(Arc::new(identity.with_renewals(*renewals)?))
        }
    };
    Some(Update { name, boot: message.boot, incarnation: message.incarnation, claim })
}

/// Reads an address. An IPv4 address in its IPv6 form becomes the IPv4 address that it stands for, so that every
/// node has one address only.
fn address_from_text(text: &str) -> Option<SocketAddr> {
    text.parse().ok().map(canonical)
}

/// Returns the protobuf form of a frame.
pub(in crate::cluster) fn frame_to_proto(frame: &MembershipFrame) -> proto::MembersFrame {
    use proto::members_frame::Body;
    let body = match frame {
        MembershipFrame::Ping(ping) => Body::Ping(ping_to_proto(ping)),
        MembershipFrame::Ack(ack) => Body::Ack(ack_to_proto(ack)),
        MembershipFrame::List { introduction, updates, is_last } => Body::List(proto::MemberList {
            introduction: introduction.as_ref().map(introduction_to_proto),
            updates: updates.iter().map(update_to_proto).collect(),
            last: *is_last,
        }),
    };
    proto::MembersFrame { body: Some(body) }
}

/// Reads a frame; `None` if it is malformed.
pub(in crate::cluster) fn frame_from_bytes(bytes: Bytes) -> Option<MembershipFrame> {
    use proto::members_frame::Body;
    // Common fields are shared at once: what one update frees is used for the next, so memory is not
    // fragmented.
    let mut common = Vec::new();
    let mut listed = |update| {
        let mut update = update_from_proto(update)?;
        if let Claim::Alive(identity) = &mut update.claim {
            identity.share(&mut common);
        }
        Some(update)
    };
    Some(match proto::MembersFrame::decode(bytes).ok()?.body? {
        Body::Ping(ping) => MembershipFrame::Ping(ping_from_proto(ping)?),
        Body::Ack(ack) => MembershipFrame::Ack(ack_from_proto(ack)?),
        Body::List(list) => MembershipFrame::List {
            introduction: introduction_from_proto(list.introduction)?,
            updates: list.updates.into_iter().map(&mut listed).collect::<Option<_>>()?,
            is_last: list.last,
        },
    })
}
