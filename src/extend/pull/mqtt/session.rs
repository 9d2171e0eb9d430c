//! Subscribes at a broker, publishes what comes, and connects again when the connection breaks.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::MqttPull;
use super::connection::{BrokerConnection, Heard};
use super::packet::{self, BrokerPacket, Connect, DISCONNECT, PING};
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::document::take_document;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::mapped::Mapped;
use crate::extend::pull::pace::PullBackoff;
use crate::extend::pull::template::Facts;

/// Longest time without a packet to the broker that is promised to it, in seconds.
const KEEP_ALIVE_S: u16 = 30;
/// Silence of the broker after which it is asked whether it is there.
const ASK_BROKER: Duration = Duration::from_secs(15);
/// Bounds of the waits before the next attempt to connect, in microseconds.
const RECONNECT_US: (u64, u64) = (1_000_000, 60_000_000);
/// Bytes of a message that are not its payload: the topic, its length, and the id.
const MESSAGE_HEAD_BYTES: usize = 65_535 + 4;
/// Code by which a broker refuses a filter.
const FILTER_REFUSED: u8 = 128;

/// Subscribes for ever. With `is_once`, it listens for as long as the definition's timeout.
pub(in crate::extend::pull) async fn run(
    definition: &PullDefinition,
    settings: &MqttPull,
    name: &str,
    feed: &Feed,
    is_once: bool,
) {
    let now = feed.target().now();
    let mut backoff = PullBackoff::new(RECONNECT_US.0, RECONNECT_US.1, now.mono_us ^ now.wall_us);
    loop {
        let connected =
            timeout(Duration::from_micros(definition.timeout_us), connect(definition, settings, name, feed));
        let ended = match connected.await {
            Err(_) => Err(format!("timed out after {} ms (timeout)", definition.timeout_us / 1_000)),
            Ok(Err(why)) => Err(why),
            Ok(Ok(mut connection)) => {
                backoff.reset();
                feed.succeed();
                let listening = listen(definition, &mut connection, feed);
                match is_once {
                    false => listening.await,
                    true => timeout(Duration::from_micros(definition.timeout_us), listening)
                        .await
                        .unwrap_or(Ok(())),
                }
            }
        };
        if let Err(why) = ended {
            feed.fail(why);
        }
        if is_once {
            return;
        }
        sleep(Duration::from_micros(backoff.next_us())).await;
    }
}

/// Connects and subscribes.
async fn connect(
    definition: &PullDefinition,
    settings: &MqttPull,
    name: &str,
    feed: &Feed,
) -> Result<BrokerConnection, String> {
    let mut connection = BrokerConnection::open(settings, definition.bytes_max + MESSAGE_HEAD_BYTES).await?;
    // Both sides of a partition may run this, and a broker lets go a client whose id another one has.
    let node = feed.target().node().map_or_else(|| format!("test-{}", std::process::id()), str::to_owned);
    let [username, password] = [&settings.username, &settings.password]
        .map(|secret| secret.as_ref().map(|secret| secret.value()).transpose());
    let (username, password) = (username?, password?);
    let hello = Connect {
        client_id: &format!("{}-{name}-{node}", settings.client_id),
        username: username.as_deref(),
        password: password.as_deref(),
        keep_alive_s: KEEP_ALIVE_S,
    };
    connection.write(&hello.write()).await?;
    match connection.next().await? {
        Heard::Packet(BrokerPacket::ConnectAnswer(0)) => {}
        Heard::Packet(BrokerPacket::ConnectAnswer(code)) => return Err(refusal(code)),
        other => return Err(format!("the broker answers a connect with {other:?}")),
    }
    connection.write(&packet::subscribe(&settings.topics, settings.qos)).await?;
    loop {
        // Messages of filters that are taken already may come before the answer.
        match connection.next().await? {
            Heard::Packet(BrokerPacket::SubscribeAnswer(codes)) => {
                let refused = codes
                    .iter()
                    .position(|code| *code == FILTER_REFUSED)
                    .and_then(|at| settings.topics.get(at));
                match refused {
                    None => return Ok(connection),
                    Some(topic) => return Err(format!("the broker refuses the topic {topic:?}")),
                }
            }
            Heard::Packet(packet) => {
                let acknowledged = take(definition, packet, feed).await;
                if let Some(id) = acknowledged {
                    connection.write(&packet::acknowledge(id)).await?;
                }
            }
            Heard::TooLarge(id) => leave_out(definition, &mut connection, id, feed).await?,
        }
    }
}

/// Tells of a message that is too large, and acknowledges it, so that the broker sends others.
async fn leave_out(
    definition: &PullDefinition,
    connection: &mut BrokerConnection,
    id: Option<u16>,
    feed: &Feed,
) -> Result<(), String> {
    feed.fail(too_large(definition));
    match id {
        Some(id) => connection.write(&packet::acknowledge(id)).await,
        None => Ok(()),
    }
}

fn refusal(code: u8) -> String {
    let why = match code {
        1 => "it does not speak MQTT 3.1.1",
        2 => "it does not take the client id",
        3 => "it is not available",
        4 => "name or password are wrong",
        5 => "the client has no right to connect",
        _ => "for a reason that has no name",
    };
    format!("the broker refuses the connection: {why}")
}

fn too_large(definition: &PullDefinition) -> String {
    format!("a message of more than {} bytes (max_bytes)", definition.bytes_max)
}

/// Publishes what comes, until the connection ends.
async fn listen(
    definition: &PullDefinition,
    connection: &mut BrokerConnection,
    feed: &Feed,
) -> Result<(), String> {
    let mut is_asked = false;
    let mut turns = 0;
    loop {
        let heard = match timeout(ASK_BROKER, connection.next()).await {
            Ok(heard) => heard?,
            Err(_) if is_asked => {
                let _ = connection.write(&DISCONNECT).await;
                return Err("the broker does not answer".into());
            }
            Err(_) => {
                connection.write(&PING).await?;
                is_asked = true;
                continue;
            }
        };
        is_asked = false;
        match heard {
            Heard::TooLarge(id) => leave_out(definition, connection, id, feed).await?,
            Heard::Packet(packet) => {
                if let Some(id) = take(definition, packet, feed).await {
                    connection.write(&packet::acknowledge(id)).await?;
                }
            }
        }
        turns += 1;
        feed.take_turns(turns).await;
    }
}

/// Publishes a message. Returns the id that is to be acknowledged.
async fn take(definition: &PullDefinition, packet: BrokerPacket<'_>, feed: &Feed) -> Option<u16> {
    let BrokerPacket::Message { topic, is_retained, id, payload } = packet else { return None };
    if payload.len() > definition.bytes_max {
        feed.fail(too_large(definition));
        return id;
    }
    let facts = Facts { topic: Some(topic), ..Facts::at(feed.target().now().wall_us) };
    let mut mapped = Mapped::default();
    take_document(&definition.mapping, definition.format, payload, facts, &mut mapped);
    if is_retained {
        // The broker sends what it keeps at every connect. What is known is no news.
        mapped.drafts.retain(|draft| !feed.target().is_latest(draft));
    }
    feed.publish(mapped).await;
    id
}
