//! Records in a store that all nodes share, whose node is gone before they were in it.
//!
//! Each node writes the records that it accepted, and says in a record of its own, under the system
//! name `$anode/stored/NODE/BOOT`, up to which number all of them are stored. That record travels
//! like every other. Everyone holds everyone's records; when a life ends, the survivors look for those
//! of it that are over its mark and write them. One of them, chosen by hash, is first; the next
//! looks only some time later, at the mark that the one before it left. Whatever is written twice
//! changes nothing, so nobody needs to agree with anyone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::shared::Shared;
use crate::limits::SHARDS;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::record::{NodeName, Now, SharedRecord};

/// How often it is looked, and at the most said, how far a node's records are stored.
const LOOK_US: u64 = 1_000_000;
/// How often the mark is said although nothing has changed, and how long it is held, in milliseconds.
const REPEAT_US: u64 = 12 * 3_600_000_000;
const MARK_TTL_MS: u64 = 48 * 3_600_000;
/// After a node is gone: when the first survivor looks, when it looks again for what came late, and
/// how much later the next survivor does.
const FIRST_US: u64 = 2_000_000;
const AGAIN_US: u64 = 30_000_000;
const NEXT_US: u64 = 30_000_000;

/// A node's life.
type Life = (NodeName, u64);

/// What is to be done about a life that ended.
#[derive(Debug)]
struct Gone {
    due_us: u64,
    /// Its mark when it was first looked at; what others wrote since does not hide what came late.
    mark: Option<u64>,
    has_looked: bool,
    /// Where the look goes on, and what it found so far.
    shard: usize,
    greatest: u64,
    /// What was found is stored when this is durable.
    ticket: Option<u64>,
}

/// This node's part.
#[derive(Debug, Default)]
pub struct Custody {
    looked_us: u64,
    /// A number of this node's, and the ticket that is durable when all up to it is stored.
    awaited: Option<(u64, u64)>,
    said: u64,
    said_us: u64,
    alive: BTreeSet<Life>,
    gone: BTreeMap<Life, Gone>,
}

impl Custody {
    /// Looks, if it is time. Nothing is done for a store that is this node's alone.
    pub fn look(&mut self, now: Now, shared: &Shared) {
        if !shared.store().is_shared() || now.mono_us < self.looked_us + LOOK_US {
            return;
        }
        self.looked_us = now.mono_us;
        self.say(now, shared);
        self.watch(now, shared);
        let due: Vec<Life> = self
            .gone
            .iter()
            .filter(|(_, gone)| gone.due_us <= now.mono_us)
            .map(|(life, _)| life.clone())
            .collect();
        for life in due {
            let Some(mut gone) = self.gone.remove(&life) else { continue };
            if !gone.rescue(now, shared, &life) {
                self.gone.insert(life, gone);
            }
        }
    }

    /// Says how far this node's own records are stored.
    fn say(&mut self, now: Now, shared: &Shared) {
        let durable = shared.store().durable().0;
        if let Some((seq, _)) = self.awaited.filter(|&(_, ticket)| ticket <= durable) {
            self.awaited = None;
            let is_new = seq > self.said || now.mono_us >= self.said_us + REPEAT_US;
            if is_new && let Some(own) = tell(now, shared, (&shared.name, shared.boot), seq) {
                // The mark has a number too: without this it would be new for ever.
                self.said = if own == seq + 1 { own } else { seq };
                self.said_us = now.mono_us;
            }
        }
        if self.awaited.is_none() {
            let seq = shared.ingest.outbox().lock().last_seq();
            // What was numbered under a shard's lock is, behind it, pushed.
            shared.ingest.latest().barrier();
            self.awaited = Some((seq, shared.store().barrier().0));
        }
    }

    /// Notices lives that ended, and those that came back.
    fn watch(&mut self, now: Now, shared: &Shared) {
        let members = shared.members();
        let live = members.iter().filter(|member| member.state.is_live());
        let alive: BTreeSet<Life> =
            live.map(|member| (member.identity.name.clone(), member.identity.boot)).collect();
        for life in self.alive.difference(&alive) {
            let rank = rank(&shared.name, life, alive.iter().map(|(name, _)| name));
            tracing::info!(node = life.0.as_str(), rank, "a node is gone: its records are looked after");
            let due_us = now.mono_us + FIRST_US + rank * NEXT_US;
            let gone = Gone { due_us, mark: None, has_looked: rank > 0, shard: 0, greatest: 0, ticket: None };
            self.gone.insert(life.clone(), gone);
        }
        self.gone.retain(|life, _| !alive.contains(life));
        self.alive = alive;
    }
}

impl Gone {
    /// Goes on with the look; `true` once nothing is left to do.
    fn rescue(&mut self, now: Now, shared: &Shared, life: &Life) -> bool {
        let mark = *self.mark.get_or_insert_with(|| mark_of(shared, life));
        while self.shard < SHARDS && !shared.store().is_lagging() {
            let mut found: Vec<SharedRecord> = Vec::new();
            shared.ingest.latest().scan_shard(self.shard, &mut |record| {
                let birth = &record.birth;
                let is_of_life = birth.boot == life.1 && birth.origin == life.0;
                if is_of_life && birth.seq > mark && !crate::record::Source::is_system(record.source.as_str())
                {
                    found.push(record.clone());
                }
            });
            self.shard += 1;
            for record in found {
                self.greatest = self.greatest.max(record.birth.seq);
                // Not under the shard's lock: a newer record may overtake it, and wins in the store.
                self.ticket = Some(shared.store().push(&record).0);
            }
        }
        if self.shard < SHARDS || self.ticket.is_some_and(|ticket| ticket > shared.store().durable().0) {
            return false;
        }
        if self.ticket.take().is_some() {
            tracing::info!(
                node = life.0.as_str(),
                upto = self.greatest,
                "records of a node that is gone are stored"
            );
            tell(now, shared, (&life.0, life.1), self.greatest);
        }
        self.shard = 0;
        self.due_us = now.mono_us + AGAIN_US;
        std::mem::replace(&mut self.has_looked, true)
    }
}

/// Publishes a mark; the number it was given itself.
fn tell(now: Now, shared: &Shared, (name, boot): (&NodeName, u64), seq: u64) -> Option<u64> {
    let text = seq.to_string();
    let draft = Draft {
        source: Cow::Owned(mark_name(name, boot)),
        ts: None,
        payload: DraftPayload::Json(text.as_bytes()),
        ttl_ms: MARK_TTL_MS,
        ack: None,
    };
    match shared.ingest.tell(now, &draft) {
        Ok(_) => {
            shared.wake_gossip();
            Some(shared.ingest.outbox().lock().last_seq())
        }
        Err(refusal) => {
            tracing::warn!(reason = refusal.message, "how far records are stored cannot be said");
            None
        }
    }
}

fn mark_name(name: &NodeName, boot: u64) -> String {
    format!("$anode/stored/{name}/{boot}")
}

/// Up to where a life's records are stored, as far as is known here.
fn mark_of(shared: &Shared, life: &Life) -> u64 {
    let record = shared.ingest.latest().get(&mark_name(&life.0, life.1));
    let text = record.and_then(|record| String::from_utf8(record.payload.bytes().to_vec()).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// This node's place in the line of those who look after a life: everyone who sees the same members
/// computes the same line.
fn rank<'a>(own: &NodeName, life: &Life, alive: impl Iterator<Item = &'a NodeName>) -> u64 {
    let place = |name: &NodeName| {
        let seed = xxh3_64_with_seed(life.0.as_str().as_bytes(), life.1);
        (xxh3_64_with_seed(name.as_bytes(), seed), name.clone())
    };
    let mine = place(own);
    alive.filter(|name| place(name) < mine).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_survivor_is_first_and_the_line_is_the_same_for_all() {
        let name = |n: usize| NodeName::parse(&format!("n{n}")).expect("name");
        let names: Vec<NodeName> = (0..9).map(name).collect();
        for boot in 0..20 {
            let life = (name(99), boot);
            let mut ranks: Vec<u64> = names.iter().map(|own| rank(own, &life, names.iter())).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, (0..9).collect::<Vec<u64>>());
        }
    }
}
