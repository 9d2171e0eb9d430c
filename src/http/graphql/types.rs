//! The scalars, the enumerations and the plain objects of the schema.

use async_graphql::{
    Enum, InputObject, InputValueError, InputValueResult, MaybeUndefined, Number, Scalar, ScalarType,
    SimpleObject, Value,
};
use serde_json::value::RawValue;

use crate::cluster::members::{MemberInfo, State};
use crate::limits::TS_MAX;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Outcome, Published};
use crate::protocol::refusal::Refusal;

/// A whole number as the schema has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Micros(pub(super) u64);

/// Whole numbers from 0 to 2^53 - 1. As a time: microseconds since the Unix epoch.
#[Scalar(name = "Micros")]
impl ScalarType for Micros {
    fn parse(value: Value) -> InputValueResult<Self> {
        let number = if let Value::Number(number) = &value { number.as_u64() } else { None };
        let refuse = || InputValueError::custom(format!("{value} is no whole number from 0 to {TS_MAX}"));
        number.filter(|&number| number <= TS_MAX).map(Micros).ok_or_else(refuse)
    }

    fn to_value(&self) -> Value {
        Value::Number(Number::from(self.0))
    }
}

/// The text of a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonText(pub(super) String);

/// Any JSON value. In answers it has the very text that was published, with its spelling of numbers, its order of keys
/// and its white space. In requests, white space is not kept, and a number is kept as an integer of 64 bits or else as a
/// double: who needs another spelling publishes at /v1/publish or over the WebSocket at /publish.
#[Scalar(name = "JSON")]
impl ScalarType for JsonText {
    fn parse(value: Value) -> InputValueResult<Self> {
        serde_json::to_string(&value)
            .map(JsonText)
            .map_err(|error| InputValueError::custom(error.to_string()))
    }

    fn to_value(&self) -> Value {
        // A raw value is written as it is. The text was checked when it was published, so this does not fail.
        let raw = RawValue::from_string(self.0.clone()).ok();
        raw.and_then(|raw| async_graphql::to_value(raw).ok()).unwrap_or_default()
    }
}

/// How far a publish must have come before it is answered.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(name = "Ack")]
pub(super) enum GraphqlAck {
    /// The node has applied the record, and it is on its way to the store and the cluster.
    Accepted,
    /// The record survives a power cut.
    Stored,
    /// Every member that was alive when the record was accepted holds it.
    Replicated,
}

impl From<GraphqlAck> for AckLevel {
    fn from(ack: GraphqlAck) -> AckLevel {
        match ack {
            GraphqlAck::Accepted => AckLevel::Accepted,
            GraphqlAck::Stored => AckLevel::Stored,
            GraphqlAck::Replicated => AckLevel::Replicated,
        }
    }
}

impl From<AckLevel> for GraphqlAck {
    fn from(level: AckLevel) -> GraphqlAck {
        match level {
            AckLevel::Accepted => GraphqlAck::Accepted,
            AckLevel::Stored => GraphqlAck::Stored,
            AckLevel::Replicated => GraphqlAck::Replicated,
        }
    }
}

/// What a subscriber gets that cannot keep up.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(name = "Mode")]
pub(super) enum GraphqlMode {
    /// The newest record of each source.
    Latest,
    /// Every record, or an error if too much waits.
    All,
}

impl GraphqlMode {
    /// The name of the mode in the URL of a WebSocket.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            GraphqlMode::Latest => "latest",
            GraphqlMode::All => "all",
        }
    }
}

/// The effect of a publish.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(name = "Outcome")]
pub(super) enum GraphqlOutcome {
    /// The record is the newest of its source now.
    Applied,
    /// The very record was there already.
    Duplicate,
    /// There is a newer record, which stays.
    Stale,
    /// A middleware has dropped the record.
    Dropped,
}

/// A record to be published. Exactly one of data, dataB64 and deleted is given.
#[derive(InputObject, Clone, Debug)]
pub(super) struct RecordInput {
    /// Name of the source.
    pub(super) source: String,
    /// Any JSON value; null is a value, too.
    pub(super) data: MaybeUndefined<JsonText>,
    /// Bytes, in standard base64 with padding.
    pub(super) data_b64: Option<String>,
    /// True deletes the source.
    pub(super) deleted: Option<bool>,
    /// The publisher's timestamp; without it the node gives one.
    pub(super) ts: Option<Micros>,
    /// Milliseconds after which readers do not see the record any more.
    pub(super) ttl_ms: Option<u64>,
}

/// The result of one publish: either an error, or the level that was reached.
#[derive(SimpleObject, Clone, Debug, Default)]
pub(super) struct PublishResult {
    /// Timestamp of the record, if it was applied or is known.
    ts: Option<Micros>,
    /// The effect of the publish.
    outcome: Option<GraphqlOutcome>,
    /// With the outcome STALE: timestamp of the newer record.
    current_ts: Option<Micros>,
    /// The level that was reached.
    level: Option<GraphqlAck>,
    /// Number of members that hold the record, with the level REPLICATED.
    nodes: Option<u32>,
    /// Why the record was refused, or its level was not reached.
    error: Option<PublishError>,
}

/// Why a record was refused, or the level of its publish was not reached.
#[derive(SimpleObject, Clone, Debug)]
pub(super) struct PublishError {
    /// The kind of the error, for programs: a code of the protocol, such as bad_source.
    code: &'static str,
    /// The reason, for people.
    message: String,
    /// Whether the same publish may succeed later.
    temporary: bool,
    /// Whether the record was applied all the same. A retry with the same ts waits for the level.
    applied: bool,
    /// Number of members that hold the record, if the level REPLICATED was not reached in time.
    nodes: Option<u32>,
    /// Milliseconds after which the same publish may succeed, if that is known.
    retry_after_ms: Option<u64>,
}

impl From<&Result<Published, Refusal>> for PublishResult {
    fn from(answer: &Result<Published, Refusal>) -> PublishResult {
        match answer {
            Ok(published) => {
                let (outcome, current_ts) = match published.outcome {
                    Outcome::Applied => (GraphqlOutcome::Applied, None),
                    Outcome::Duplicate => (GraphqlOutcome::Duplicate, None),
                    Outcome::Stale { current_ts } => (GraphqlOutcome::Stale, Some(Micros(current_ts))),
                    Outcome::Dropped => (GraphqlOutcome::Dropped, None),
                };
                PublishResult {
                    ts: Some(Micros(published.ts)),
                    outcome: Some(outcome),
                    current_ts,
                    level: Some(published.level.into()),
                    nodes: published.nodes,
                    error: None,
                }
            }
            Err(refusal) => {
                let error = PublishError {
                    code: refusal.code.as_str(),
                    message: refusal.message.clone(),
                    temporary: refusal.code.is_temporary(),
                    applied: refusal.applied_ts.is_some(),
                    nodes: refusal.nodes,
                    retry_after_ms: refusal.retry_after_ms,
                };
                let ts = refusal.applied_ts.map(Micros);
                PublishResult { ts, error: Some(error), ..PublishResult::default() }
            }
        }
    }
}

/// The state of a member, as this node sees it.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// This node has heard of the member, and waits for its own answer.
    Joining,
    /// The member answers.
    Alive,
    /// The member has not answered lately.
    Suspect,
    /// The member is taken for dead.
    Dead,
    /// The member has left in good order.
    Left,
}

/// A member of the cluster.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(name = "Member")]
pub(super) struct GraphqlMember {
    /// Name of the member.
    id: String,
    /// State of the member, as this node sees it.
    state: MemberState,
    /// Address for clients.
    http: String,
    /// Address for other members.
    gossip: String,
    /// The zone that the member was configured with; empty without one.
    zone: String,
    /// Number by which the member refutes that it is dead.
    incarnation: u32,
    /// Number that is greater at every start of the member.
    boot: Micros,
    /// Version of the program.
    version: String,
    /// Time that a message to the member and its answer take, in microseconds, if it was measured.
    rtt_us: Option<u32>,
    /// Number that is another one each time that the member begins to take part at this node; null while it does not.
    joined: Option<u32>,
}

impl From<&MemberInfo> for GraphqlMember {
    fn from(member: &MemberInfo) -> GraphqlMember {
        let identity = &member.identity;
        GraphqlMember {
            id: identity.name.as_str().to_owned(),
            state: match member.state {
                State::Joining => MemberState::Joining,
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Dead => MemberState::Dead,
                State::Left => MemberState::Left,
            },
            http: identity.http().into_owned(),
            gossip: identity.gossip().to_string(),
            zone: identity.zone().to_owned(),
            incarnation: member.incarnation,
            boot: Micros(identity.boot.min(TS_MAX)),
            version: identity.version().to_owned(),
            rtt_us: member.rtt_us,
            joined: member.joined,
        }
    }
}

/// The node that answers.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(name = "Node")]
pub(super) struct GraphqlNode {
    /// Name of the node.
    pub(super) id: String,
    /// Version of the program.
    pub(super) version: &'static str,
    /// Whether clients should be sent to this node.
    pub(super) ready: bool,
    /// Why clients should not be sent to this node, if they should not.
    pub(super) reason: Option<String>,
    /// Number of sources in the map of the node, deleted ones included.
    pub(super) sources: u64,
    /// The node as a member of its cluster.
    pub(super) member: Option<GraphqlMember>,
}
