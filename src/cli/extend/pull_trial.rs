//! `anode pull test`: runs a definition once, without a node.

use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::read_file;
use crate::cli::CliError;
use crate::extend::pull::{PullData, PullDefinition, PullDraft, try_once};
use crate::extend::read_body;
use crate::protocol::extension::ExtensionKind;
use crate::server::clock;

/// Runs the definition in a file once, and prints what it would publish.
pub(super) fn run(file: &Path, allow_exec: Option<&Path>) -> Result<(), CliError> {
    let unusable = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let is_toml = file.extension().is_none_or(|ending| ending != "json");
    let body = read_body(ExtensionKind::Pull, &read_file(file)?, is_toml)
        .map_err(|refusal| unusable(refusal.message))?;
    let body = serde_json::from_slice(&body).map_err(|error| unusable(error.to_string()))?;
    let definition = PullDefinition::read(&body).map_err(|bad| unusable(bad.to_string()))?;
    let print = |draft: &PullDraft| writeln!(std::io::stdout(), "{}", publish_object(draft));
    let trial = try_once(&definition, allow_exec, clock::now, print)?;
    match trial.error {
        Some(error) => Err(CliError::Failed(error)),
        None if trial.records == 0 => Err(CliError::Failed("nothing came that could be published".into())),
        None => Ok(()),
    }
}

/// The publish object by which a client would publish the record.
fn publish_object(draft: &PullDraft) -> String {
    let mut text = format!("{{\"source\":{}", serde_json::Value::from(draft.source.as_str()));
    if let Some(ts) = draft.ts {
        text.push_str(&format!(",\"ts\":{ts}"));
    }
    match &draft.data {
        // Data may have line breaks, which would end the line of this object.
        PullData::Json(data) => text.push_str(&format!(",\"data\":{}", data.replace(['\n', '\r'], " "))),
        PullData::Binary(bytes) => text.push_str(&format!(",\"data_b64\":\"{}\"", STANDARD.encode(bytes))),
        PullData::Deleted => text.push_str(",\"deleted\":true"),
    }
    if draft.ttl_ms > 0 {
        text.push_str(&format!(",\"ttl_ms\":{}", draft.ttl_ms));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_printed_as_publish_objects() {
        let draft = |data, ts, ttl_ms| PullDraft { source: "a \"b\"".into(), ts, data, ttl_ms };
        let json = publish_object(&draft(PullData::Json("{\n \"x\": 1.0}".into()), Some(5), 7));
        assert_eq!(json, r#"{"source":"a \"b\"","ts":5,"data":{  "x": 1.0},"ttl_ms":7}"#);
        let binary = publish_object(&draft(PullData::Binary(vec![0]), None, 0));
        assert_eq!(binary, r#"{"source":"a \"b\"","data_b64":"AA=="}"#);
    }
}
