//! A connection to a broker: packets over TCP or TLS, in bounded memory.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::MqttPull;
use super::packet::{self, BrokerPacket, PacketRead};
use crate::extend::pull::socket::{self, ByteStream};

/// Bytes that are read at a time.
const BROKER_READ_BYTES: usize = 16 * 1024;
/// Time within which the broker must take what is written.
const BROKER_WRITE: Duration = Duration::from_secs(10);

/// An open connection.
pub(super) struct BrokerConnection {
    stream: Box<dyn ByteStream>,
    bytes: Vec<u8>,
    /// Bytes of the packet at the beginning of `bytes` that was handed out.
    taken: usize,
    /// Bytes of a message that was too large and are still to be left out.
    skipped: u64,
    bytes_max: usize,
}

/// What comes from a broker.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// A packet that was read.
    Packet(BrokerPacket<'a>),
    /// A message that was too large, and is left out, with the id that is to be acknowledged.
    TooLarge(Option<u16>),
}

impl BrokerConnection {
    /// Connects to the broker.
    pub async fn open(settings: &MqttPull, bytes_max: usize) -> Result<BrokerConnection, String> {
        let address = (settings.host.as_str(), settings.port);
        let stream = socket::connect(address, settings.is_tls, settings.ca.as_deref()).await?;
        Ok(BrokerConnection { stream, bytes: Vec::new(), taken: 0, skipped: 0, bytes_max })
    }

    /// Writes a packet.
    pub async fn write(&mut self, packet: &[u8]) -> Result<(), String> {
        let written = timeout(BROKER_WRITE, async {
            self.stream.write_all(packet).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(written) => written.map_err(|error| format!("the connection to the broker broke: {error}")),
            Err(_) => Err("the broker takes nothing".into()),
        }
    }

    /// Waits for the next packet. Nothing is lost if this is dropped while it waits.
    pub async fn next(&mut self) -> Result<Heard<'_>, String> {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        loop {
            let left_out = usize::try_from(self.skipped).unwrap_or(usize::MAX).min(self.bytes.len());
            self.bytes.drain(..left_out);
            self.skipped -= left_out as u64;
            // The borrow of a packet that is returned would last for the loop, so its length is found first.
            let found = match packet::read(&self.bytes, self.bytes_max) {
                _ if self.skipped > 0 => None,
                PacketRead::Partial => None,
                PacketRead::Whole(_, length) => Some(length),
                PacketRead::TooLarge(length, id) => {
                    self.skipped = length;
                    return Ok(Heard::TooLarge(id));
                }
                PacketRead::Broken(why) => return Err(format!("the broker sends no MQTT: {why}")),
            };
            if let Some(length) = found {
                self.taken = length;
                break;
            }
            let start = self.bytes.len();
            self.bytes.reserve(BROKER_READ_BYTES);
            let mut chunk = [0; BROKER_READ_BYTES];
            let count = self
                .stream
                .read(&mut chunk)
                .await
                .map_err(|error| format!("the connection broke: {error}"))?;
            self.bytes.extend_from_slice(&chunk[..count]);
            if self.bytes.len() == start {
                return Err("the broker closed the connection".into());
            }
        }
        match packet::read(&self.bytes, self.bytes_max) {
            PacketRead::Whole(packet, _) => Ok(Heard::Packet(packet)),
            _ => Err("the broker sends no MQTT".into()),
        }
    }
}
