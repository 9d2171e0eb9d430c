//! Members that an operator has declared gone for good.
//!
//! While a member is dead that may come back, the cluster keeps its deletions for longer and goes on to look for the
//! member. To forget one is told as a record of the system's name `$anode/forgotten/NODE`, whose data is the boot number
//! of the life that is over. It spreads to all nodes, also to those that are away at the moment, and each forgets the
//! member when it sees the record. A member that is started again has a greater boot number, and takes part as ever.

use std::borrow::Cow;
use std::sync::Arc;

use super::shared::Shared;
use crate::cluster::members::MemberInfo;
use crate::http::ForgetError;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::record::{NodeName, Now};

/// How long the record is kept, in milliseconds: four days, a day longer than members that are dead are remembered.
const FORGOTTEN_TTL_MS: u64 = 4 * 24 * 3600 * 1000;

/// Tells all nodes to forget a member. Returns the boot number of the life that is over.
pub fn tell(shared: &Arc<Shared>, now: Now, name: &str) -> Result<u64, ForgetError> {
    let members = shared.cluster.members();
    let found = members.iter().find(|member| member.identity.name.as_str() == name);
    let member = found.ok_or(ForgetError::Unknown)?;
    if !member.state.is_gone() {
        return Err(ForgetError::Alive);
    }
    let boot = member.identity.boot;
    let text = boot.to_string();
    let draft = Draft {
        source: Cow::Owned(record_name(&member.identity.name)),
        ts: None,
        payload: DraftPayload::Json(text.as_bytes()),
        ttl_ms: FORGOTTEN_TTL_MS,
        ack: None,
    };
    shared.ingest.tell(now, &draft).map_err(|refusal| {
        tracing::warn!(reason = refusal.message, "the cluster cannot be told to forget a member");
        ForgetError::Untold
    })?;
    shared.wake_wanted();
    shared.wake_gossip();
    Ok(boot)
}

/// Returns the members that this node is to forget.
pub fn due(shared: &Shared, now: Now) -> Vec<NodeName> {
    let members = shared.cluster.members();
    let gone = members.iter().filter(|member| member.state.is_gone());
    gone.filter(|member| is_forgotten(shared, now, member))
        .map(|member| member.identity.name.clone())
        .collect()
}

fn is_forgotten(shared: &Shared, now: Now, member: &MemberInfo) -> bool {
    let record = shared.ingest.latest().get(&record_name(&member.identity.name));
    let boot = record.filter(|record| record.is_visible(now.wall_us)).and_then(|record| {
        std::str::from_utf8(record.payload.bytes()).ok().and_then(|text| text.parse::<u64>().ok())
    });
    boot.is_some_and(|boot| member.identity.boot <= boot)
}

fn record_name(name: &NodeName) -> String {
    format!("$anode/forgotten/{name}")
}
