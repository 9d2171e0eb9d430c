//! Reads the answers of Kubo's RPC, which are JSON, and where many answers come, one a line.

use serde::Deserialize;
use serde_json::Value;

/// The answer of `add`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Added {
    hash: String,
    size: String,
}

/// A line of the answer of `pin/ls`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PinLine {
    cid: String,
    #[serde(default)]
    name: String,
}

/// Reads the content id of the file that was added, and the size of its blocks in bytes. The last line tells them.
pub fn read_added(answer: &[u8]) -> Option<(String, u64)> {
    let text = String::from_utf8_lossy(answer);
    let added = text.lines().rev().find_map(|line| serde_json::from_str::<Added>(line).ok())?;
    Some((added.hash, added.size.parse().ok()?))
}

/// Reads the content id of a folder that was made with `dag/put`.
pub fn read_folder(answer: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    Some(value.get("Cid")?.get("/")?.as_str()?.to_owned())
}

/// Reads the content ids and names of pins. `None` if a line is none.
pub fn read_pins(answer: &[u8]) -> Option<Vec<(String, String)>> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).ok().map(|pin: PinLine| (pin.cid, pin.name))).collect()
}

/// Reads what an error says.
pub fn read_refusal(answer: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    Some(value.get("Message")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        let added =
            b"{\"Name\":\"file\",\"Bytes\":1}\n{\"Name\":\"file\",\"Hash\":\"bafy\",\"Size\":\"12\"}\n";
        assert_eq!(read_added(added), Some(("bafy".into(), 12)));
        assert_eq!(read_added(b"{\"Hash\":\"bafy\",\"Size\":\"-1\"}"), None);
        assert_eq!(read_folder(b"{\"Cid\":{\"/\":\"bafy\"}}"), Some("bafy".into()));
        assert_eq!(read_folder(b"{\"Cid\":\"bafy\"}"), None);
        let pins = b"{\"Cid\":\"a\",\"Name\":\"n\"}\n\n{\"Cid\":\"b\"}";
        assert_eq!(read_pins(pins), Some(vec![("a".into(), "n".into()), ("b".into(), String::new())]));
        assert_eq!(read_pins(b"{\"Cid\":\"a\"}\nx"), None);
        assert_eq!(read_refusal(b"{\"Message\":\"not pinned\",\"Code\":0}"), Some("not pinned".into()));
        assert_eq!(read_refusal(b"<html>"), None);
    }
}
