//! Checks of what is read from stores and definitions: manifests, frames, what S3, Kubo, Tableland and the
//! receivers of webhooks answer, and definitions of archives and webhooks.

use serde_json::Value;

use super::definition::ArchiveDefinition;
use super::frame::ReadFrame;
use super::kubo_answer::{read_added, read_folder, read_pins, read_refusal};
use super::manifest::{Manifest, frame_name};
use super::s3::{read_s3_error, read_s3_page, sha256_hex};
use super::tableland::{
    read_objects, read_parts, read_receipt, read_result, read_status, read_tableland_refusal,
};
use crate::extend::hooks::{HookDefinition, delay_us, retry_after_us};
use crate::fuzzing::{Pieces, join};

/// Has bytes read as a manifest, and as a frame that the manifest names.
pub fn archive(input: &[u8]) {
    let mut pieces = Pieces(input);
    let text = pieces.next().unwrap_or_default();
    if let Ok(manifest) = Manifest::decode("x", text) {
        let (again, _) = manifest.encode().expect("what was read can be written");
        assert_eq!(Manifest::decode("x", &again), Ok(manifest.clone()), "it comes back as it was");
        let stored = pieces.next().unwrap_or_default();
        for entry in manifest.frames.iter().take(2) {
            // The hash is right, so that the rest is looked at.
            let mut entry = entry.clone();
            (entry.sha256, entry.stored_bytes) = (sha256_hex(stored), stored.len() as u64);
            // More than a little would be allocated for a promise alone.
            entry.bytes = entry.bytes.min(64 * 1024);
            if let Ok(frame) = ReadFrame::open("x", &entry, stored) {
                let _ = frame.each("x", |record| assert!(record.draft.ts == Some(record.ts)));
            }
        }
    }
}

/// Manifests with their frames, as they occur.
pub fn archive_seeds() -> Vec<Vec<u8>> {
    let mut manifest = Manifest::new("nightly", "n", 1_763_800_000_000_000, "a/**");
    let lines = b"{\"source\":\"a\",\"ts\":1,\"data\":1}\n{\"source\":\"b\",\"ts\":2,\"deleted\":true}\n";
    let stored = zstd::bulk::compress(lines, 3).expect("compressed");
    manifest.push(super::manifest::FrameOf {
        name: frame_name(0),
        sha256: sha256_hex(&stored),
        stored_bytes: stored.len() as u64,
        bytes: lines.len() as u64,
        records: 2,
        deletions: 1,
        sources: ("a".into(), "b".into()),
        ts: (1, 2),
    });
    let (text, _) = manifest.encode().expect("a manifest");
    vec![join([text.as_slice(), stored.as_slice()])]
}

/// Has bytes read as answers of S3 and of Kubo, and as the header by which a receiver asks to be left alone.
pub fn place_answer(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        if let Some(page) = read_s3_page(text) {
            let bytes: usize = page.objects.iter().map(|(name, _)| name.len()).sum();
            assert!(bytes <= text.len(), "names are not longer than the page that holds them");
        }
        let _ = read_s3_error(text);
        let wall_us = 1_763_800_000_000_000;
        if let Some(asked_us) = retry_after_us(text, wall_us) {
            assert!(
                delay_us(1, 7, Some(asked_us)) <= 3_600_000_000,
                "nobody is left alone for more than an hour"
            );
        }
    }
    let _ = (read_added(input), read_folder(input), read_refusal(input));
    if let Some(pins) = read_pins(input) {
        assert!(pins.len() <= input.len());
    }
    let _ = (read_receipt(input), read_tableland_refusal(input), read_objects(input));
    if let Some(Ok(result)) = read_result(input) {
        let _ = read_status(&result);
    }
    if let Some(object) = read_parts(input) {
        assert!(object.len() < input.len(), "an object is smaller than the rows that hold it");
    }
}

/// Answers as they occur.
pub fn place_answer_seeds() -> Vec<Vec<u8>> {
    [
        "<ListBucketResult xmlns=\"u\"><IsTruncated>false</IsTruncated><Contents><Key>a%2Fb</Key><Size>1</Size>\
         </Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>\
         <Contents><Size>0</Size><Key>y</Key></Contents></ListBucketResult>",
        "<Error><Code>NoSuchBucket</Code><Message>The &quot;b&quot; is not there</Message></Error>",
        "{\"Name\":\"file\",\"Hash\":\"bafy\",\"Size\":\"12\"}\n",
        "{\"Cid\":{\"/\":\"bafy\"}}",
        "{\"Cid\":\"a\",\"Type\":\"recursive\",\"Name\":\"n\"}\n{\"Cid\":\"b\"}\n",
        "{\"Message\":\"not pinned\",\"Code\":0,\"Type\":\"error\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"status\":\"0x1\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"insufficient funds\"}}",
        "{\"table_id\":\"2\",\"transaction_hash\":\"0x1\",\"error\":\"no such column\",\"error_event_idx\":0}",
        "[{\"part\":0,\"data\":\"aGVs\"},{\"part\":1,\"data\":\"bG8\"}]",
        "[{\"folder\":\"a/b\",\"object\":\"c\",\"characters\":7}]",
        "120",
        "Sat, 22 Nov 2025 08:30:00 GMT",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Has bytes read as the definitions of an archive and of a webhook.
pub fn delivery_definition(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
    if let Err(bad) = ArchiveDefinition::read(&value) {
        assert!(!bad.field.is_empty() && !bad.allowed.is_empty(), "{bad}");
    }
    match HookDefinition::read(&value) {
        Ok(hook) => assert!(hook.batch_records > 0 && !hook.on.is_empty()),
        Err(bad) => assert!(!bad.field.is_empty() && !bad.allowed.is_empty(), "{bad}"),
    }
}

/// Definitions as they occur.
pub fn delivery_definition_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"kind":"s3","bucket":"b-1","endpoint":"http://h:9","prefix":"p/q","every":"24h","keep":7,"pattern":"a/**"}"#,
        r#"{"kind":"ipfs","api":"http://127.0.0.1:5001","authorization":"env:A","full_every":3}"#,
        r#"{"kind":"tableland","api":"http://h:1","rpc":"http://h:2","table":"t_1_2","registry":"0x0000000000000000000000000000000000000001","from":"0x0000000000000000000000000000000000000002"}"#,
        r#"{"on":["a/*"],"url":"https://h/x?y=1","secret":"env:S","headers":{"x-a":"b"},"batch_records":5,"linger":"1s"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
