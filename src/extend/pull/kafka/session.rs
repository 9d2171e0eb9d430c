//! Reads the partitions of topics from the brokers that lead them, for as long as these lead them, and begins anew when that
//! changes or a connection breaks.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::sleep;

use super::connection::KafkaConnection;
use super::leaders::Leaders;
use super::place::{KafkaPlace, KafkaPlaces};
use super::request::{
    ClusterMap, FIRST_OFFSETS, LAST_OFFSETS, NO_ERROR, OFFSET_OUT_OF_RANGE, Partition, error_text, fetch,
    metadata, offsets, read_fetch, read_metadata, read_offsets,
};
use super::{KafkaFrom, KafkaPull};
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::pace::PullBackoff;

/// Time for which a broker waits for messages before it answers that there are none, in milliseconds.
const FETCH_WAIT_MS: i32 = 5_000;
/// Bytes that are asked for at a time: of all partitions, and of one. A batch that is larger comes all the same.
const FETCH_BYTES: (i32, i32) = (4 << 20, 1 << 20);
/// Interval at which the brokers are asked who leads which partition, and which partitions there are.
const LEADERS_INTERVAL: Duration = Duration::from_secs(30);
/// Bounds of the waits before the next attempt to connect, in microseconds.
const KAFKA_RECONNECT_US: (u64, u64) = (1_000_000, 60_000_000);

/// What all connections of one pull source have in common.
pub(super) struct KafkaSession<'a> {
    pub definition: &'a PullDefinition,
    settings: &'a KafkaPull,
    pub feed: &'a Feed,
    places: RefCell<KafkaPlaces>,
    backoff: RefCell<PullBackoff>,
    /// The last timestamp that was given, in microseconds.
    last_ts: Cell<u64>,
    is_once: bool,
}

/// Reads for ever. `before` is the state that a former runner told. With `is_once` and messages from the start, it ends with
/// the messages that are there.
pub(in crate::extend::pull) async fn run(
    definition: &PullDefinition,
    settings: &KafkaPull,
    feed: &Feed,
    before: Option<&Value>,
    is_once: bool,
) {
    let now = feed.target().now();
    let (least_us, most_us) = KAFKA_RECONNECT_US;
    let session = KafkaSession {
        definition,
        settings,
        feed,
        places: RefCell::new(KafkaPlaces::in_state(before)),
        backoff: RefCell::new(PullBackoff::new(least_us, most_us, now.mono_us ^ now.wall_us)),
        last_ts: Cell::new(0),
        is_once,
    };
    // The places must not be missing from the first state that is told.
    session.keep_places();
    loop {
        let ended = session.read_all().await;
        let is_broken = ended.is_err();
        if let Err(why) = ended {
            feed.fail(why);
        }
        if is_once {
            return;
        }
        if is_broken {
            let wait_us = session.backoff.borrow_mut().next_us();
            sleep(Duration::from_micros(wait_us)).await;
        }
    }
}

impl KafkaSession<'_> {
    /// The place in a partition. Every partition that is read has one.
    pub fn place(&self, partition: &Partition) -> KafkaPlace {
        self.places.borrow().of(partition).unwrap_or(KafkaPlace { next: 0, group: None })
    }

    /// Goes to a place in a partition.
    pub fn go_to(&self, partition: &Partition, place: KafkaPlace) {
        self.places.borrow_mut().set(partition, place);
        self.keep_places();
    }

    fn keep_places(&self) {
        if let Some(state) = self.feed.state() {
            self.places.borrow().put_into(state);
        }
    }

    /// A timestamp that is greater than all that were given.
    pub fn fresh_ts(&self) -> u64 {
        self.feed.target().now().wall_us.max(self.last_ts.get() + 1)
    }

    /// Notes that timestamps below this one were given.
    pub fn note_ts(&self, ts: u64) {
        self.last_ts.set(self.last_ts.get().max(ts));
    }

    fn timeout(&self) -> Duration {
        Duration::from_micros(self.definition.timeout_us)
    }

    /// Reads all partitions until leaders change, or something breaks.
    async fn read_all(&self) -> Result<(), String> {
        let (mut connection, map) = self.map_of_any_broker().await?;
        let leaders = Leaders::of(&map)?;
        self.places.borrow_mut().keep_only(map.cluster.as_deref(), &self.settings.topics);
        let readers =
            leaders.by_broker.iter().map(|(address, partitions)| self.read_broker(address, partitions));
        tokio::select! {
            ended = try_join_all(readers) => ended.map(drop),
            changed = self.until_leaders_change(&mut connection, &leaders) => changed,
        }
    }

    /// Asks the brokers of the definition one after another, until one answers.
    async fn map_of_any_broker(&self) -> Result<(KafkaConnection, ClusterMap), String> {
        let mut why = String::new();
        for (host, port) in &self.settings.brokers {
            match KafkaConnection::open(self.settings, (host, *port), self.timeout()).await {
                Ok(mut connection) => match self.map_of(&mut connection).await {
                    Ok(map) => return Ok((connection, map)),
                    Err(error) => why = error,
                },
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn map_of(&self, connection: &mut KafkaConnection) -> Result<ClusterMap, String> {
        let answer = connection.ask(&metadata(&self.settings.topics), self.timeout()).await?;
        Ok(read_metadata(&answer)?)
    }

    /// Ends when another broker leads a partition, or there are other partitions.
    async fn until_leaders_change(
        &self,
        connection: &mut KafkaConnection,
        leaders: &Leaders,
    ) -> Result<(), String> {
        loop {
            if let Some(why) = &leaders.missing {
                // Once what can be read is read, so that the error stays.
                sleep(Duration::from_secs(1)).await;
                self.feed.fail(why.clone());
            }
            sleep(LEADERS_INTERVAL).await;
            let map = self.map_of(connection).await?;
            if Leaders::of(&map)? != *leaders {
                return Ok(());
            }
        }
    }

    /// Reads the partitions that one broker leads.
    async fn read_broker(&self, address: &(String, u16), partitions: &[Partition]) -> Result<(), String> {
        let (host, port) = address;
        let mut connection = KafkaConnection::open(self.settings, (host, *port), self.timeout()).await?;
        let unknown: Vec<Partition> =
            partitions.iter().filter(|one| self.places.borrow().of(one).is_none()).cloned().collect();
        let from = if self.settings.from == KafkaFrom::Start { FIRST_OFFSETS } else { LAST_OFFSETS };
        self.begin(&mut connection, &unknown, from).await?;
        let mut wanted = partitions.to_vec();
        let mut wait_ms = 0;
        loop {
            let places: Vec<(Partition, i64)> =
                wanted.iter().map(|one| (one.clone(), self.place(one).next)).collect();
            let request = fetch(&places, wait_ms, FETCH_BYTES.0, FETCH_BYTES.1);
            let wait = self.timeout() + Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default());
            let answer = connection.ask(&request, wait).await?;
            let has_any = self.take_answer(&mut connection, &answer).await?;
            if wait_ms == 0 {
                self.backoff.borrow_mut().reset();
                self.feed.succeed();
            }
            if self.is_once && !has_any && self.settings.from == KafkaFrom::Start {
                return Ok(());
            }
            wait_ms = FETCH_WAIT_MS;
            // A broker fills its answer in the order of the request, so each partition comes first once.
            wanted.rotate_left(1);
        }
    }

    /// Publishes what an answer to a fetch brings. Returns whether it brought anything.
    async fn take_answer(&self, connection: &mut KafkaConnection, answer: &[u8]) -> Result<bool, String> {
        let mut has_any = false;
        for fetched in read_fetch(answer)? {
            match fetched.error {
                NO_ERROR => has_any |= self.take(&fetched).await?,
                OFFSET_OUT_OF_RANGE => {
                    let next = self.place(&fetched.partition).next;
                    self.begin(connection, std::slice::from_ref(&fetched.partition), FIRST_OFFSETS).await?;
                    self.feed.fail(format!(
                        "{}: the broker no longer has the message {next}; it goes on with the oldest, {}",
                        fetched.partition,
                        self.place(&fetched.partition).next
                    ));
                }
                error => return Err(format!("{}: {}", fetched.partition, error_text(error))),
            }
        }
        Ok(has_any)
    }

    /// Goes to the first or the last offsets of partitions.
    async fn begin(
        &self,
        connection: &mut KafkaConnection,
        partitions: &[Partition],
        time: i64,
    ) -> Result<(), String> {
        if partitions.is_empty() {
            return Ok(());
        }
        let answer = connection.ask(&offsets(partitions, time), self.timeout()).await?;
        for (partition, offset) in read_offsets(&answer)? {
            let next = offset.map_err(|error| format!("{partition}: {}", error_text(error)))?;
            self.go_to(&partition, KafkaPlace { next, group: None });
        }
        Ok(())
    }
}
