//! A definition of a pull source, checked: what it fetches, and what becomes of it.

use std::sync::Arc;

use serde_json::Value;

use super::document::{DOCUMENT_FORMATS, DocumentFormat};
use super::exec::ExecPull;
use super::fields::PullFields;
use super::file::FilePull;
use super::http::HttpPull;
use super::kafka::KafkaPull;
use super::mapping::Mapping;
use super::mqtt::MqttPull;
use crate::extend::definition::BadField;
use crate::extend::host::ExtendHost;

/// Records a second of one pull source: the default, and the most that may be asked for.
const RECORDS_PER_S: (u64, u64) = (10_000, 100_000);
/// Bytes of one document (a line, a message, an event): the default, and the most.
const DOCUMENT_BYTES: (u64, u64) = (1 << 20, 16 << 20);
/// Bytes of one whole answer over HTTP: the default, and the most.
const ANSWER_BYTES: (u64, u64) = (8 << 20, 64 << 20);
/// The timeout of whatever is waited for: default, least and most, in microseconds.
const PULL_TIMEOUT_US: (u64, u64, u64) = (10_000_000, 100_000, 300_000_000);

/// A checked definition.
#[derive(Clone, Debug)]
pub(crate) struct PullDefinition {
    /// What becomes of a document.
    pub(super) mapping: Arc<Mapping>,
    /// How a document is read. It is decided for each answer where HTTP is used.
    pub(super) format: DocumentFormat,
    /// Records are published even if they have not changed.
    pub(super) is_always: bool,
    /// Most records a second.
    pub(super) records_per_s_max: u64,
    /// Most bytes of a document.
    pub(super) bytes_max: usize,
    /// Longest time for one attempt, in microseconds.
    pub(super) timeout_us: u64,
    /// What is fetched.
    pub(super) kind: PullKind,
}

/// What a pull source fetches, by its kind.
#[derive(Clone, Debug)]
pub(super) enum PullKind {
    /// Answers of a server over HTTP.
    Http(HttpPull),
    /// Messages of a broker of MQTT.
    Mqtt(MqttPull),
    /// Messages of topics of Kafka.
    Kafka(KafkaPull),
    /// Lines of a file.
    File(FilePull),
    /// Lines that a program prints.
    Exec(ExecPull),
}

/// The words for the kinds.
#[derive(Clone, Copy)]
enum KindWord {
    Http,
    Mqtt,
    Kafka,
    File,
    Exec,
}

const KIND_WORDS: [(&str, KindWord); 5] = [
    ("http", KindWord::Http),
    ("mqtt", KindWord::Mqtt),
    ("kafka", KindWord::Kafka),
    ("file", KindWord::File),
    ("exec", KindWord::Exec),
];

impl PullDefinition {
    /// Returns the reason why a node cannot run it, if there is one.
    pub fn cannot(&self, host: &dyn ExtendHost) -> Option<String> {
        match &self.kind {
            PullKind::Http(settings) => settings.cannot(),
            PullKind::Mqtt(settings) => settings.cannot(),
            PullKind::Kafka(settings) => settings.cannot(),
            PullKind::File(settings) => settings.cannot(host.name()),
            PullKind::Exec(settings) => settings.cannot(host.exec_folder()),
        }
    }

    /// Checks a definition.
    pub fn read(body: &Value) -> Result<PullDefinition, BadField> {
        let fields = PullFields::new("", body)?;
        if fields.value("kind").is_none() {
            return Err(fields.bad("kind", KIND_WORDS.map(|(word, _)| word).join(", ")));
        }
        let kind = match fields.choice("kind", &KIND_WORDS)? {
            KindWord::Http => PullKind::Http(HttpPull::read(&fields)?),
            KindWord::Mqtt => PullKind::Mqtt(MqttPull::read(&fields)?),
            KindWord::Kafka => PullKind::Kafka(KafkaPull::read(&fields)?),
            KindWord::File => PullKind::File(FilePull::read(&fields)?),
            KindWord::Exec => PullKind::Exec(ExecPull::read(&fields)?),
        };
        let is_http = matches!(kind, PullKind::Http(_));
        let (bytes, bytes_most) = if is_http { ANSWER_BYTES } else { DOCUMENT_BYTES };
        let (timeout, least, most) = PULL_TIMEOUT_US;
        let default_source = match kind {
            PullKind::Mqtt(_) | PullKind::Kafka(_) => Some("{topic}"),
            _ => None,
        };
        Ok(PullDefinition {
            mapping: Arc::new(Mapping::read(&fields, default_source)?),
            format: match is_http {
                true => DocumentFormat::Auto,
                false => fields.choice("format", &DOCUMENT_FORMATS)?,
            },
            // What is polled is asked for again and again; all else comes because something has happened.
            is_always: fields.flag("always", !is_http)?,
            records_per_s_max: fields.number("max_records_per_s", 1..=RECORDS_PER_S.1, RECORDS_PER_S.0)?,
            bytes_max: usize::try_from(fields.number("max_bytes", 1..=bytes_most, bytes)?)
                .unwrap_or(usize::MAX),
            timeout_us: fields.duration_us("timeout", least..=most, timeout)?,
            kind,
        })
    }
}
