//! Reads the answers of signers, which are JSON-RPC, and of validators, which are JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// Longest part of a foreign error that is told on, in characters.
const TOLD_CHARS_MAX: usize = 300;

/// A row with a part of an object.
#[derive(Deserialize)]
struct PartRow {
    part: usize,
    data: String,
}

/// A row with an object and the characters of all its parts.
#[derive(Deserialize)]
struct ObjectRow {
    folder: String,
    object: String,
    characters: u64,
}

/// Reads the result of a call, or the message of its error. `None` if the answer is neither.
pub fn read_result(answer: &[u8]) -> Option<Result<Value, String>> {
    let mut answer: Value = serde_json::from_slice(answer).ok()?;
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
        return Some(Err(shortened(message)));
    }
    answer.get_mut("result").map(|result| Ok(result.take()))
}

/// Reads the chain's receipt of a transaction: whether the contract has taken it. `None` while there is no receipt.
pub fn read_status(receipt: &Value) -> Option<bool> {
    match receipt.get("status")?.as_str()? {
        "0x0" => Some(false),
        _ => Some(true),
    }
}

/// Reads the validator's receipt of a transaction, or what was wrong with the statement. `None` if it is no receipt.
pub fn read_receipt(answer: &[u8]) -> Option<Result<(), String>> {
    let receipt: Value = serde_json::from_slice(answer).ok()?;
    receipt.get("transaction_hash")?;
    match receipt.get("error").and_then(Value::as_str).filter(|error| !error.is_empty()) {
        Some(error) => Some(Err(shortened(error))),
        None => Some(Ok(())),
    }
}

/// Reads the parts of an object, and puts it together. `None` if one is missing, there twice, or damaged.
pub fn read_parts(rows: &[u8]) -> Option<Vec<u8>> {
    let rows: Vec<PartRow> = serde_json::from_slice(rows).ok().filter(|rows: &Vec<_>| !rows.is_empty())?;
    let mut object = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        if row.part != at {
            return None;
        }
        BASE64_STANDARD_NO_PAD.decode_vec(&row.data, &mut object).ok()?;
    }
    Some(object)
}

/// Reads the names of objects and their sizes in bytes.
pub fn read_objects(rows: &[u8]) -> Option<Vec<(String, u64)>> {
    let rows: Vec<ObjectRow> = serde_json::from_slice(rows).ok()?;
    // All parts but the last one are a multiple of three bytes, so four characters are three bytes in all of them.
    let size = |row: &ObjectRow| row.characters / 4 * 3 + (row.characters % 4).saturating_sub(1);
    Some(rows.into_iter().map(|row| (format!("{}/{}", row.folder, row.object), size(&row))).collect())
}

/// Reads what a refusal of the validator says.
pub fn read_refusal(answer: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    Some(shortened(value.get("message")?.as_str()?))
}

fn shortened(text: &str) -> String {
    text.chars().take(TOLD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_have_a_result_or_an_error() {
        let read = |answer: &str| read_result(answer.as_bytes());
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#), Some(Ok(json!("0x1"))));
        assert_eq!(read(r#"{"id":1,"result":null,"error":null}"#), Some(Ok(Value::Null)));
        assert_eq!(read(r#"{"error":{"code":-32000,"message":"no funds"}}"#), Some(Err("no funds".into())));
        assert_eq!((read("{}"), read("<html>")), (None, None));
        assert_eq!(read_status(&Value::Null), None);
        assert_eq!(read_status(&json!({"status": "0x0"})), Some(false));
        assert_eq!(read_status(&json!({"status": "0x1"})), Some(true));
    }

    #[test]
    fn receipts_say_whether_the_statement_was_executed() {
        let read = |answer: &str| read_receipt(answer.as_bytes());
        assert_eq!(read(r#"{"table_id":"2","transaction_hash":"0x1","block_number":7}"#), Some(Ok(())));
        let failed = r#"{"transaction_hash":"0x1","error":"no such column","error_event_idx":0}"#;
        assert_eq!(read(failed), Some(Err("no such column".into())));
        assert_eq!(read(r#"{"message":"Not found"}"#), None);
        assert_eq!(read_refusal(br#"{"message":"Not found"}"#), Some("Not found".into()));
    }

    #[test]
    fn objects_are_put_together_from_their_parts() {
        let rows = br#"[{"part":0,"data":"aGVs"},{"part":1,"data":"bG8"}]"#;
        assert_eq!(read_parts(rows), Some(b"hello".to_vec()));
        for bad in [
            r#"[{"part":1,"data":"aGVs"}]"#,
            r#"[{"part":0,"data":"aGVs"},{"part":0,"data":"aGVs"}]"#,
            r#"[{"part":0,"data":"*"}]"#,
            r#"{"part":0}"#,
            "[]",
        ] {
            assert_eq!(read_parts(bad.as_bytes()), None, "{bad}");
        }
        let rows =
            br#"[{"folder":"a/b","object":"c","characters":7},{"folder":"a","object":"d","characters":0}]"#;
        assert_eq!(read_objects(rows), Some(vec![("a/b/c".into(), 5), ("a/d".into(), 0)]));
    }
}
