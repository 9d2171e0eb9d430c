//! Pull sources that subscribe at an MQTT broker (version 3.1.1, which every broker speaks).
//!
//! The client is written here, because a subscriber needs seven of the fourteen kinds of packets, and what a broker may
//! make it hold is bounded by the definition. A message of quality of service 1 is acknowledged to the broker after it
//! was published here.

mod connection;
mod packet;
mod session;

use reqwest::Url;

use super::fields::COMMON_FIELDS;
use super::fields::PullFields;
use super::secret::PullSecret;
use crate::extend::definition::BadField;

#[cfg(any(test, fuzzing))]
pub(super) use packet::check as check_packets;
pub(super) use session::run;

/// PullFields of this kind alone.
const MQTT_FIELDS: &[&str] = &["url", "topics", "qos", "username", "password", "ca", "client_id"];
/// Most topic filters of a definition.
const TOPICS_MAX: usize = 64;
/// Longest topic filter, in bytes.
const TOPIC_BYTES_MAX: usize = 1_024;
/// Longest client id, in bytes. Version 3.1.1 lets brokers refuse longer ones than 23, and none does.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// The broker and what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct MqttPull {
    host: String,
    port: u16,
    is_tls: bool,
    topics: Vec<String>,
    qos: u8,
    username: Option<PullSecret>,
    password: Option<PullSecret>,
    /// File with the authorities that may vouch for the broker; those of the system if it is not given.
    ca: Option<String>,
    /// Beginning of the client id, which the name of the node follows.
    client_id: String,
}

impl MqttPull {
    /// Reads the fields of this kind.
    pub fn read(fields: &PullFields<'_>) -> Result<MqttPull, BadField> {
        fields.only(&[COMMON_FIELDS, MQTT_FIELDS])?;
        let (host, port, is_tls) = broker(fields)?;
        let topics = fields.texts("topics", TOPICS_MAX)?;
        if topics.is_empty() || !topics.iter().all(|topic| is_filter(topic)) {
            let allowed = "a list of topic filters: segments split by \"/\", \"+\" for any one, a last \"#\" for all beneath";
            return Err(fields.bad("topics", allowed));
        }
        let client_id = fields.text("client_id")?.unwrap_or("anode");
        if client_id.len() > CLIENT_ID_BYTES_MAX || client_id.chars().any(char::is_control) {
            return Err(fields.bad("client_id", format!("a text of at most {CLIENT_ID_BYTES_MAX} bytes")));
        }
        let username = fields
            .text("username")?
            .map(|text| PullSecret::parse(&fields.name("username"), text))
            .transpose()?;
        let password = fields
            .text("password")?
            .map(|text| PullSecret::parse_hidden(&fields.name("password"), text))
            .transpose()?;
        if password.is_some() && username.is_none() {
            return Err(fields.bad("username", "a name, since there is a password"));
        }
        Ok(MqttPull {
            host,
            port,
            is_tls,
            topics,
            qos: fields.number("qos", 0..=1, 0)? as u8,
            username,
            password,
            ca: fields.text("ca")?.map(str::to_owned),
            client_id: client_id.to_owned(),
        })
    }

    /// Returns the reason why this node cannot connect, if there is one.
    pub fn cannot(&self) -> Option<String> {
        [&self.username, &self.password].into_iter().flatten().find_map(|secret| secret.value().err())
    }
}

fn broker(fields: &PullFields<'_>) -> Result<(String, u16, bool), BadField> {
    let allowed = "mqtt://HOST[:1883] or mqtts://HOST[:8883], without a path, name or password";
    let url = Url::parse(fields.required_text("url", allowed)?).map_err(|_| fields.bad("url", allowed))?;
    let port = match url.scheme() {
        "mqtt" => 1883,
        "mqtts" => 8883,
        _ => return Err(fields.bad("url", allowed)),
    };
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().filter(|host| is_bare && !host.is_empty()).ok_or_else(|| {
        // The URL may hold a password, which an answer should not repeat.
        BadField::new(fields.name("url"), "a URL with more than host and port", allowed)
    })?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, url.port().unwrap_or(port), port == 8883))
}

/// Returns whether a text is a topic filter.
fn is_filter(topic: &str) -> bool {
    let mut segments = topic.split('/').peekable();
    let mut is_filter =
        !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX && !topic.chars().any(char::is_control);
    while let Some(segment) = segments.next() {
        is_filter &= match segment {
            "#" => segments.peek().is_none(),
            "+" => true,
            _ => !segment.contains(['#', '+']),
        };
    }
    is_filter
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: Value) -> Result<MqttPull, String> {
        let mut definition = json!({"kind": "mqtt", "url": "mqtt://broker", "topics": ["a/#"]});
        let map = definition.as_object_mut().expect("a table");
        map.extend(change.as_object().expect("a table").clone());
        MqttPull::read(&PullFields::new("", &definition).expect("a table")).map_err(|bad| bad.to_string())
    }

    #[test]
    fn brokers_are_named_by_url() {
        let place = |url: &str| read(json!({ "url": url })).map(|pull| (pull.host, pull.port, pull.is_tls));
        assert_eq!(place("mqtt://b"), Ok(("b".into(), 1883, false)));
        assert_eq!(place("mqtts://b.example:9"), Ok(("b.example".into(), 9, true)));
        assert_eq!(place("mqtt://[::1]:7"), Ok(("::1".into(), 7, false)));
        for bad in ["b:1883", "http://b", "mqtt://b/x", "mqtt://u:p@b", "mqtt://", "mqtt://b?x"] {
            assert!(place(bad).is_err_and(|error| error.starts_with("url: ")), "{bad}");
        }
        assert!(!place("mqtt://u:hunter2@b").expect_err("a password").contains("hunter2"));
    }

    #[test]
    fn fields_are_checked() {
        for good in ["#", "a", "a/+/b", "+/+", "/a", "a//b", "$SYS/#"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a/#/b", "a#", "a/b+", "#/a", "a\0"] {
            assert!(!is_filter(bad), "{bad}");
        }
        assert!(read(json!({"topics": []})).expect_err("none").starts_with("topics: "));
        assert!(read(json!({"qos": 2})).expect_err("qos").contains("0 to 1"));
        assert!(
            read(json!({"username": "u", "password": "hunter2"})).expect_err("secret").contains("env:NAME")
        );
        assert!(read(json!({"password": "env:P"})).expect_err("no name").starts_with("username: missing"));
        let cannot =
            read(json!({"username": "u", "password": "env:NO_SUCH_VARIABLE"})).expect("usable").cannot();
        assert_eq!(cannot.as_deref(), Some("NO_SUCH_VARIABLE is not set in the environment"));
    }
}
