//! A connection to one broker: one request after another, each with its answer, in bounded memory.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::KafkaPull;
use super::request::{
    KafkaRequest, NO_ERROR, read_sasl_answer, read_sasl_handshake, sasl_handshake, sasl_plain,
};
use super::wire::{ValueReader, ValueWriter};
use crate::extend::pull::socket::{self, ByteStream};

/// Most bytes of an answer. A batch that is larger than what is asked for is handed out all the same, so this is greater than
/// the largest message that brokers are usually set to take.
const KAFKA_ANSWER_BYTES_MAX: usize = 32 << 20;
/// The only mechanism of SASL that is spoken.
const PLAIN_LOGIN: &str = "PLAIN";

/// An open connection, on which the client has shown who it is.
pub(super) struct KafkaConnection {
    stream: Box<dyn ByteStream>,
    /// Host and port, for errors.
    address: String,
    client_id: String,
    /// Number of the last request.
    last: i32,
}

impl KafkaConnection {
    /// Connects to a broker, within this time.
    pub async fn open(
        settings: &KafkaPull,
        (host, port): (&str, u16),
        wait: Duration,
    ) -> Result<KafkaConnection, String> {
        let opening = async {
            let stream = socket::connect((host, port), settings.is_tls, settings.ca.as_deref()).await?;
            let (address, client_id) = (format!("{host}:{port}"), settings.client_id.clone());
            let mut connection = KafkaConnection { stream, address, client_id, last: 0 };
            connection.log_in(settings, wait).await?;
            Ok(connection)
        };
        let late = |_| Err(format!("{host}:{port}: timed out after {} ms (timeout)", wait.as_millis()));
        timeout(wait, opening).await.unwrap_or_else(late)
    }

    async fn log_in(&mut self, settings: &KafkaPull, wait: Duration) -> Result<(), String> {
        let Some((username, password)) = &settings.login else { return Ok(()) };
        let (username, password) = (username.value()?, password.value()?);
        let answer = self.ask(&sasl_handshake(PLAIN_LOGIN), wait).await?;
        let (error, mechanisms) = read_sasl_handshake(&answer)?;
        if error != NO_ERROR {
            let why = match mechanisms.is_empty() {
                true => "the broker expects no login at this port (username)".to_owned(),
                false => format!("the broker takes no SASL/PLAIN, but {}", mechanisms.join(", ")),
            };
            return Err(format!("{}: {why}", self.address));
        }
        let answer = self.ask(&sasl_plain(&username, &password), wait).await?;
        match read_sasl_answer(&answer)? {
            (NO_ERROR, _) => Ok(()),
            (_, why) => {
                let why = why.unwrap_or("name or password are wrong");
                Err(format!("{}: the broker refuses the login: {why}", self.address))
            }
        }
    }

    /// Sends a request and waits for its answer. After an error, the connection is of no further use.
    pub async fn ask(&mut self, request: &KafkaRequest, wait: Duration) -> Result<Vec<u8>, String> {
        self.last = self.last.wrapping_add(1);
        let head = ValueWriter::default().i16(request.key).i16(request.version).i32(self.last);
        let head = head.text(&self.client_id).0;
        let length = i32::try_from(head.len() + request.body.len()).map_err(|error| error.to_string())?;
        let bytes = [ValueWriter::default().i32(length).0, head, request.body.clone()].concat();
        match timeout(wait, self.exchange(&bytes)).await {
            Ok(answer) => answer.map_err(|why| format!("{}: {why}", self.address)),
            Err(_) => Err(format!("{}: the broker does not answer", self.address)),
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let broke = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                "the broker closed the connection, as it does if it expects TLS (tls) or a login (username)"
                    .to_owned()
            }
            _ => format!("the connection broke: {error}"),
        };
        self.stream.write_all(request).await.map_err(broke)?;
        self.stream.flush().await.map_err(broke)?;
        let mut head = [0; 8];
        self.stream.read_exact(&mut head).await.map_err(broke)?;
        let mut head = ValueReader(&head);
        let (length, number) = (head.i32()?, head.i32()?);
        let length = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
        let length = length.ok_or("the broker sends no Kafka")?;
        if length > KAFKA_ANSWER_BYTES_MAX {
            let mib = KAFKA_ANSWER_BYTES_MAX >> 20;
            return Err(format!("the broker answers with {length} bytes; at most {mib} MiB are taken"));
        }
        if number != self.last {
            return Err("the broker answers another request than the last".into());
        }
        // The room grows with what comes, whatever length was announced.
        let mut answer = Vec::new();
        let count = (&mut self.stream).take(length as u64).read_to_end(&mut answer).await.map_err(broke)?;
        match count < length {
            true => Err("the connection broke within an answer".into()),
            false => Ok(answer),
        }
    }
}
