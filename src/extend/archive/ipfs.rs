//! The few requests of Kubo's RPC that archives need: to add and read files, to make a folder, and to pin it.
//!
//! The files of an archive are added first, without pins. The folder is made of their content ids, and pinned with all
//! beneath it at last, under a name. So whatever is interrupted before the pin leaves blocks that nobody holds, which
//! Kubo removes when it collects garbage; and the pins are the list of archives.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::definition::IpfsPlace;
use super::error::PlaceError;
use super::kubo_answer::{read_added, read_folder, read_pins, read_refusal};
use super::s3::{read_body, sha256_hex};
use crate::extend::outgoing::told;
use crate::extend::secret::SecretName;

/// Longest time of one request, in microseconds. To pin an archive of gigabytes, Kubo looks for every block of it.
const RPC_US_MAX: u64 = 300_000_000;
/// Largest answer other than the content of a file, in bytes: the list of some ten thousand pins.
const RPC_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Size of the blocks that files are cut into, in bytes.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The bytes that say that a node of a graph is a folder, in base64.
const FOLDER: &str = "CAE";

/// A node of IPFS.
pub struct IpfsNode {
    client: Client,
    api: String,
    authorization: Option<String>,
}

/// A file that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    /// Name in the folder.
    pub name: String,
    /// Content id of the file.
    pub cid: String,
    /// Size of all its blocks, in bytes.
    pub size: u64,
}

impl IpfsNode {
    /// The node of a place. Reads the secret from the environment.
    pub fn new(client: Client, place: &IpfsPlace) -> Result<IpfsNode, PlaceError> {
        let read = |name: &SecretName| {
            name.read().ok_or_else(|| PlaceError::Refused(name.lack().unwrap_or_default()))
        };
        let authorization = place.authorization.as_ref().map(read).transpose()?;
        Ok(IpfsNode { client, api: place.api.clone(), authorization })
    }

    /// Adds a file without a pin.
    pub async fn add(&self, name: &str, content: &[u8]) -> Result<AddedFile, PlaceError> {
        let chunker = format!("size-{BLOCK_BYTES}");
        let query = [
            ("cid-version", "1"),
            ("raw-leaves", "true"),
            ("pin", "false"),
            ("progress", "false"),
            ("chunker", chunker.as_str()),
        ];
        let answer = self.call("add", &query, Some(content), RPC_BYTES_MAX).await?;
        let (cid, size) = read_added(&answer).ok_or_else(|| unreadable("add"))?;
        Ok(AddedFile { name: name.into(), cid, size })
    }

    /// Makes a folder of files, without a pin. Returns its content id.
    pub async fn folder(&self, files: &[AddedFile]) -> Result<String, PlaceError> {
        let mut files: Vec<&AddedFile> = files.iter().collect();
        // The content id depends on the order, and the order is part of the format.
        files.sort_by(|one, next| one.name.as_bytes().cmp(next.name.as_bytes()));
        let links: Vec<Value> = files
            .iter()
            .map(|file| json!({"Hash": {"/": file.cid}, "Name": file.name, "Tsize": file.size}))
            .collect();
        let node = json!({"Data": {"/": {"bytes": FOLDER}}, "Links": links}).to_string();
        let query = [("store-codec", "dag-pb"), ("input-codec", "dag-json"), ("pin", "false")];
        let answer = self.call("dag/put", &query, Some(node.as_bytes()), RPC_BYTES_MAX).await?;
        read_folder(&answer).ok_or_else(|| unreadable("dag/put"))
    }

    /// Pins a folder and everything beneath it under a name.
    pub async fn pin(&self, cid: &str, name: &str) -> Result<(), PlaceError> {
        let query = [("arg", cid), ("recursive", "true"), ("name", name), ("offline", "true")];
        self.call("pin/add", &query, None, RPC_BYTES_MAX).await.map(|_| ())
    }

    /// Takes a pin away, if there is one.
    pub async fn unpin(&self, cid: &str) -> Result<(), PlaceError> {
        match self.call("pin/rm", &[("arg", cid), ("recursive", "true")], None, RPC_BYTES_MAX).await {
            Err(PlaceError::Refused(why)) if why.contains("not pinned") => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Content ids and names of all pins whose names begin like this.
    pub async fn pins(&self, prefix: &str) -> Result<Vec<(String, String)>, PlaceError> {
        let query = [("type", "recursive"), ("names", "true"), ("name", prefix), ("stream", "true")];
        let answer = self.call("pin/ls", &query, None, RPC_BYTES_MAX).await?;
        let mut pins = read_pins(&answer).ok_or_else(|| unreadable("pin/ls"))?;
        pins.retain(|(_, name)| name.starts_with(prefix));
        Ok(pins)
    }

    /// Reads a file of a folder, of at most `bytes_max` bytes.
    pub async fn read(&self, folder: &str, name: &str, bytes_max: usize) -> Result<Bytes, PlaceError> {
        let path = format!("/ipfs/{folder}/{name}");
        match self.call("cat", &[("arg", path.as_str())], None, bytes_max).await {
            Err(PlaceError::Refused(why)) if why.contains("no link named") => Err(PlaceError::NotFound(why)),
            done => done,
        }
    }

    /// Calls a command, with a file if it takes one. Returns the answer, of at most `bytes_max` bytes.
    async fn call(
        &self,
        command: &str,
        query: &[(&str, &str)],
        file: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Bytes, PlaceError> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let url = format!("{}/api/v0/{command}?{}", self.api, query.join("&"));
        let mut request = self.client.post(url).timeout(Duration::from_micros(RPC_US_MAX));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(file) = file {
            let (media_type, body) = form(file);
            request = request.header(CONTENT_TYPE, media_type).body(body);
        }
        let answer = request.send().await.map_err(|error| PlaceError::Unreachable(told(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return read_body(answer, bytes_max).await;
        }
        let body = read_body(answer, RPC_BYTES_MAX).await.unwrap_or_default();
        let why = format!("{command}: {status} {}", read_refusal(&body).unwrap_or_default());
        Err(match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                PlaceError::Unreachable(why)
            }
            _ => PlaceError::Refused(why),
        })
    }
}

/// A form with one file, and its media type.
fn form(file: &[u8]) -> (String, Vec<u8>) {
    // The hash of the file is not in the file, so no line of it looks like the boundary.
    let boundary = format!("anode-{}", sha256_hex(file));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let body = [head.as_bytes(), file, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn unreadable(command: &str) -> PlaceError {
    PlaceError::Refused(format!("the answer of {command} cannot be read"))
}
