//! A node that is made up: a few records in a map, and answers that a test can foretell.

use super::*;

/// Memory enough for as many connections as there may be, of which one request may have 64 KiB.
pub(super) struct Memory(pub(super) Arc<Budget>);

impl Default for Memory {
    fn default() -> Memory {
        Memory(Arc::new(Budget::new(512 << 20, 64 << 10)))
    }
}

/// A door without a file of rights.
pub(super) struct TestDoor(pub(super) Door);

impl Default for TestDoor {
    fn default() -> TestDoor {
        let machine = Hardware { cores: 1, memory_bytes: 1 << 30 };
        let raw = Raw { allow_host: Some("x".into()), ..Raw::default() };
        TestDoor(Door::new(check(&raw, machine).expect("a configuration").access, None))
    }
}

/// A node of a few records.
#[derive(Default)]
pub(in crate::http) struct Few {
    pub(super) records: Mutex<BTreeMap<String, SharedRecord>>,
    pub(super) metrics: Metrics,
    pub(super) memory: Memory,
    pub(super) door: TestDoor,
    pub(super) not_ready: Mutex<Option<String>>,
    /// The requests that have waited for changes.
    pub(super) watched: Mutex<Vec<(String, Nudge)>>,
    /// Bytes that were leased whenever a part of a history was read.
    pub(super) leased_at_reads: Mutex<Vec<usize>>,
    /// The monotonic clock, in microseconds.
    pub(super) mono_us: Arc<AtomicU64>,
}

fn record(source: &str, ts: u64, payload: Payload, ttl_ms: u64) -> Record {
    let stamp = match &payload {
        Payload::Deleted => Stamp::of_deletion(ts),
        data => Stamp::of_data(ts, data.bytes()),
    };
    let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: 1 };
    Record::new(Source::parse(source).expect("source"), stamp, payload, birth, ts, ttl_ms)
}

impl Few {
    /// Publishes one item. `None` means that there will be no answer.
    fn publish_item(&self, item: &Item<'_>, level: AckLevel) -> Option<Result<Published, Refusal>> {
        let draft = match &item.draft {
            Ok(draft) => draft,
            Err(refusal) => return Some(Err(refusal.clone())),
        };
        let ts = draft.ts.unwrap_or(WALL_US);
        if &*draft.source == "lost" {
            return None;
        }
        if &*draft.source == "late" {
            let refusal = Refusal::new(Code::Timeout, "2 of 3 nodes").after_applying(ts);
            return Some(Err(Refusal { nodes: Some(2), ..refusal }));
        }
        if let DraftPayload::Json(bytes) = &draft.payload {
            self.put(&draft.source, ts, Payload::Json(Bytes::copy_from_slice(bytes)), draft.ttl_ms);
        }
        Some(Ok(Published { ts, outcome: Outcome::Applied, level, nodes: None }))
    }

    pub(super) fn put(&self, source: &str, ts: u64, payload: Payload, ttl_ms: u64) {
        self.records.lock().insert(source.into(), Arc::new(record(source, ts, payload, ttl_ms)));
        self.watched.lock().iter().filter(|(name, _)| name == source).for_each(|(_, nudge)| nudge.wake());
    }
}

/// A page that was found at once, and takes some turns all the same.
struct Found {
    records: Vec<SharedRecord>,
    parts: usize,
    /// The clock, and how much later it is after each turn, in microseconds.
    clock: (Arc<AtomicU64>, u64),
}

impl PageSearch for Found {
    fn advance(&mut self) -> bool {
        self.clock.0.fetch_add(self.clock.1, Ordering::Relaxed);
        self.parts -= 1;
        self.parts == 0
    }

    fn into_records(self: Box<Self>) -> Vec<SharedRecord> {
        self.records
    }
}

/// A walk that has found everything, and returns one record at a time.
struct Walked(Vec<SharedRecord>);

impl RecordWalk for Walked {
    fn next_part(&mut self, _: usize) -> Vec<SharedRecord> {
        self.0.drain(..1).collect()
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// A watch that nobody counts.
struct Unwatched;

impl SourceWatch for Unwatched {}

impl NodeService for Few {
    fn now(&self) -> Now {
        Now { mono_us: self.mono_us.load(Ordering::Relaxed), wall_us: WALL_US }
    }

    fn readiness(&self) -> Result<(), String> {
        self.not_ready.lock().clone().map_or(Ok(()), Err)
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn is_turning(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "n1"
    }

    fn subscribe(&self, _: &str, _: Option<Access>, _: IpAddr) -> Result<UnixStream, Refusal> {
        Err(Refusal::new(Code::Overloaded, "no subscriptions here"))
    }

    fn members(&self) -> Vec<MemberInfo> {
        let (name, gossip) =
            (NodeName::parse("n1").expect("name"), "10.0.0.1:7946".parse().expect("address"));
        let identity = Identity::new(name, 7, gossip, "10.0.0.1:7070", "z\"1", "0.1.0");
        let mut other = identity.clone();
        other.name = NodeName::parse("n2").expect("name");
        let member = |identity, state, rtt_us| MemberInfo {
            identity: Arc::new(identity),
            state,
            cannot_reach_us: false,
            keys: None,
            incarnation: 3,
            joined: Some(2),
            rtt_us,
        };
        vec![member(identity, State::Alive, None), member(other, State::Suspect, Some(310))]
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.records.lock().get(source).cloned()
    }

    fn search(&self, wanted: PageRequest<'_>) -> Box<dyn PageSearch> {
        let PageRequest { pattern, after, limit, updated_since, reader } = wanted;
        let records = self.records.lock();
        let is_after = |name: &str| {
            after.is_none_or(|after| name > after)
                && reader.as_ref().is_none_or(|reader| reader.rights().may_read(name))
        };
        let found = records
            .iter()
            .filter(|(name, record)| is_after(name) && pattern.matches(name) && record.is_visible(WALL_US))
            .filter(|(_, record)| updated_since.is_none_or(|since| record.stamp.ts > since))
            .map(|(_, record)| record.clone())
            .take(limit)
            .collect();
        // A search that takes long, as far as the clock tells.
        let (parts, step_us) = if pattern.as_str() == "a/*" && limit == 8 { (50, 100_000) } else { (3, 0) };
        Box::new(Found { records: found, parts, clock: (self.mono_us.clone(), step_us) })
    }

    fn walk(&self, pattern: Pattern, _: Option<Access>) -> Box<dyn RecordWalk> {
        let records = self.records.lock();
        let found = records.iter().filter(|(name, _)| pattern.matches(name));
        Box::new(Walked(found.map(|(_, record)| record.clone()).collect()))
    }

    fn watch(&self, source: &str, nudge: Nudge) -> Option<Box<dyn SourceWatch>> {
        self.watched.lock().push((source.into(), nudge));
        Some(Box::new(Unwatched))
    }

    /// The history of a source is one record for each number up to its latest `ts`.
    fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, Refusal> {
        self.leased_at_reads.lock().push(self.memory.0.taken());
        let latest = self.get(&query.source).map_or(0, |record| record.stamp.ts);
        let payload = Payload::Json(Bytes::from_static(b"0"));
        let counted = (1..=latest).rev().map(|ts| record(&query.source, ts, payload.clone(), 0));
        let mut shown: Vec<Record> = counted.filter(|record| query.selects(record.stamp)).collect();
        let has_more = shown.len() > query.limit;
        shown.truncate(query.limit);
        let last = shown.last().filter(|_| has_more);
        Ok(HistoryPage { after: last.map(|record| HistoryCursor(record.stamp)), records: shown })
    }

    fn door(&self) -> &Door {
        &self.door.0
    }

    fn publish(&self, frame: &PublishFrame<'_>, level: AckLevel, reply: Reply, _: Option<&PublishRights>) {
        let mut items = Vec::new();
        for (index, item) in frame.items.iter().enumerate() {
            let Some(answer) = self.publish_item(item, level) else { return };
            if item.id.is_some() || answer.is_err() || !frame.is_batch {
                items.push(ItemReply { id: item.id.as_ref().map(RequestId::to_owned), index, answer });
            }
        }
        let told = if items.is_empty() && frame.items.is_empty() {
            FrameReply::One(Err(Refusal::new(Code::BadRequest, "an empty batch")))
        } else if frame.is_batch {
            FrameReply::Batch(items)
        } else {
            FrameReply::One(items.remove(0).answer)
        };
        // From another thread, as the store does it.
        std::thread::spawn(move || reply.send(told));
    }

    fn publish_if(
        &self,
        condition: &Precondition,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    ) {
        let Some(Ok(draft)) = frame.items.first().map(|item| &item.draft) else { return };
        match condition.check(self.get(&draft.source).as_deref(), WALL_US) {
            Ok(()) => self.publish(frame, level, reply, rights),
            Err(refusal) => reply.send(FrameReply::One(Err(refusal))),
        }
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn drain(&self) {
        *self.not_ready.lock() = Some("draining".into());
    }

    fn forget(&self, member: &str) -> Result<u64, ForgetError> {
        if member == "n2" { Err(ForgetError::Alive) } else { Err(ForgetError::Unknown) }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn fresh_metrics(&self) -> &Metrics {
        self.metrics()
    }

    fn memory(&self) -> &Arc<Budget> {
        &self.memory.0
    }

    fn refused(&self, status: u16, _: &Refusal, _: IpAddr) {
        self.metrics.clients.refused(status);
    }

    fn memory_refused(&self, wanted: MemoryUse) {
        self.metrics.memory_refused(wanted);
    }
}
