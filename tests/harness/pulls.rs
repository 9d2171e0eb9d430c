//! Pull sources at a node, as an operator puts and watches them.

use std::time::Duration;

use serde_json::Value;

use super::http::Http;
use super::node::Node;
use super::wait::eventually;

/// Longest wait for what a pull source does. A node runs one a second after it knows of it.
pub const SOON: Duration = Duration::from_secs(20);
/// Longest time until another member goes on after the death of the one that runs a pull source.
pub const MOVED: Duration = Duration::from_secs(5);

impl Node {
    /// Puts a definition in TOML.
    pub fn put_pull(&self, name: &str, toml: &str) {
        let answer = self.try_put_pull(name, toml);
        assert_eq!(answer.status, 200, "{toml}\n{}", answer.body);
    }

    /// Puts a definition in TOML that may be refused.
    pub fn try_put_pull(&self, name: &str, toml: &str) -> Http {
        let headers = [("Content-Type", "application/toml")];
        Http::request(&self.http, "PUT", &format!("/v1/pull/{name}"), &headers, toml.as_bytes())
    }

    /// Takes a definition away.
    pub fn remove_pull(&self, name: &str) {
        let answer = Http::request(&self.http, "DELETE", &format!("/v1/pull/{name}"), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Returns what is known of a pull source.
    pub fn pull(&self, name: &str) -> Value {
        self.get(&format!("/v1/pull/{name}")).json()
    }

    /// Waits until the state of a pull source has an error with this text. Returns the error.
    pub fn wait_pull_error(&self, name: &str, text: &str) -> String {
        eventually(&format!("{name} has the error {text:?}: {}", self.pull(name)), SOON, || {
            let error = self.pull(name)["state"]["last_error"].as_str()?.to_owned();
            error.contains(text).then_some(error)
        })
    }

    /// Waits until the latest record of a source has this data.
    pub fn wait_data(&self, source: &str, data: &Value) -> Value {
        eventually(&format!("{source} is {data}"), SOON, || {
            self.latest(source).filter(|record| record["data"] == *data)
        })
    }

    /// Returns the data of all records of a source, the oldest first.
    pub fn history_of(&self, source: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/sources/{source}/history?limit=1000"));
        let records = answer.json()["records"].as_array().cloned().unwrap_or_default();
        records.into_iter().rev().map(|record| record["data"].clone()).collect()
    }
}
