//! The few requests of S3 that archives need: to put, get, list and delete objects, each within bounds of bytes and
//! time, and again some times if the server or the network fails.
//!
//! Rejected: a crate for object stores. It brings twenty others for what are four requests here.

mod listing;
mod sign;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

pub use listing::{read_s3_error, read_s3_page};
pub use sign::sha256_hex;

use super::definition::S3Place;
use super::error::PlaceError;
use crate::extend::host::ExtendHost;
use crate::extend::outgoing::told;
use sign::{S3Signer, SignedRequest, amz_date};

/// Longest time of one request, in microseconds: eight megabytes come over a slow line in it.
const REQUEST_US_MAX: u64 = 120_000_000;
/// Number of times that a request is sent at most.
const ATTEMPTS_MAX: u32 = 4;
/// Waiting time after the first failure, in microseconds. It doubles with each further one.
const REQUEST_AGAIN_US: u64 = 500_000;
/// Largest page of names, and largest error, in bytes. A page has at most a thousand names.
const XML_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Characters that stand for themselves in the signed forms of paths and queries.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// A bucket that is reached over HTTP.
pub struct S3Bucket {
    client: Client,
    host: Arc<dyn ExtendHost>,
    signer: S3Signer,
    session_token: Option<String>,
    endpoint: String,
    /// The authority of the endpoint, as the header `Host` has it.
    authority: String,
    bucket: String,
}

/// A request before it is signed.
struct S3Request<'a> {
    method: Method,
    /// Name of the object; empty for the bucket itself.
    key: &'a str,
    query: Vec<(&'a str, &'a str)>,
    body: Bytes,
}

impl S3Bucket {
    /// The bucket of a place. Reads the secrets from the environment.
    pub fn new(client: Client, host: Arc<dyn ExtendHost>, place: &S3Place) -> Result<S3Bucket, PlaceError> {
        let read = |name: &crate::extend::secret::SecretName| {
            name.read().ok_or_else(|| PlaceError::Refused(name.lack().unwrap_or_default()))
        };
        let signer = S3Signer {
            access_key_id: read(&place.access_key_id)?,
            secret_access_key: read(&place.secret_access_key)?,
            region: place.region.clone(),
        };
        let url = Url::parse(&place.endpoint).map_err(|error| PlaceError::Refused(error.to_string()))?;
        let name = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        Ok(S3Bucket {
            client,
            host,
            signer,
            session_token: place.session_token.as_ref().map(read).transpose()?,
            endpoint: place.endpoint.clone(),
            authority,
            bucket: place.bucket.clone(),
        })
    }

    /// Puts an object. It is there as a whole or not at all: the server checks its hash.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), PlaceError> {
        self.send(S3Request { method: Method::PUT, key, query: Vec::new(), body }, 0).await.map(|_| ())
    }

    /// Gets an object of at most `bytes_max` bytes.
    pub async fn get(&self, key: &str, bytes_max: usize) -> Result<Bytes, PlaceError> {
        let request = S3Request { method: Method::GET, key, query: Vec::new(), body: Bytes::new() };
        self.send(request, bytes_max).await
    }

    /// Deletes an object, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), PlaceError> {
        let request = S3Request { method: Method::DELETE, key, query: Vec::new(), body: Bytes::new() };
        match self.send(request, XML_BYTES_MAX).await {
            Ok(_) | Err(PlaceError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Names and sizes of all objects whose names begin like this.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, PlaceError> {
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query: Vec<(&str, &str)> = Vec::new();
            query.extend(next.as_deref().map(|token| ("continuation-token", token)));
            query.extend([("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]);
            let request = S3Request { method: Method::GET, key: "", query, body: Bytes::new() };
            let body = self.send(request, XML_BYTES_MAX).await?;
            let page = std::str::from_utf8(&body).ok().and_then(read_s3_page);
            let unreadable = || PlaceError::Refused("the list of objects cannot be read".into());
            let page = page.ok_or_else(unreadable)?;
            objects.extend(page.objects);
            match page.next {
                None => return Ok(objects),
                same if same == next => return Err(unreadable()),
                following => next = following,
            }
        }
    }

    /// Sends a request until it succeeds or fails for good. Returns the body of the answer, of at most `bytes_max` bytes.
    async fn send(&self, request: S3Request<'_>, bytes_max: usize) -> Result<Bytes, PlaceError> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&request, bytes_max).await {
                Err(error @ PlaceError::Unreachable(_)) if attempt < ATTEMPTS_MAX => error,
                done => return done,
            };
            tracing::debug!(key = request.key, attempt, %error, "a request to S3 is sent again");
            let most_us = REQUEST_AGAIN_US << attempt;
            let chance = xxh3_64(&self.host.now().mono_us.to_le_bytes());
            sleep(Duration::from_micros(most_us / 2 + chance % (most_us / 2))).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, request: &S3Request<'_>, bytes_max: usize) -> Result<Bytes, PlaceError> {
        let path = match request.key {
            "" => format!("/{}", self.bucket),
            key => format!("/{}/{}", self.bucket, utf8_percent_encode(key, PATH)),
        };
        let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let query: Vec<String> =
            request.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let query = query.join("&");
        let (hash, date) = (sha256_hex(&request.body), amz_date(self.host.now().wall_us / 1_000_000));
        let mut headers: Vec<(&str, &str)> =
            vec![("host", &self.authority), ("x-amz-content-sha256", &hash), ("x-amz-date", &date)];
        headers.extend(self.session_token.as_deref().map(|token| ("x-amz-security-token", token)));
        let signed = SignedRequest {
            method: request.method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            body_sha256: &hash,
            date: &date,
        };
        let authorization = self.signer.authorization(&signed);
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{query}", self.endpoint);
        let mut sent = self.client.request(request.method.clone(), url);
        sent = sent.timeout(Duration::from_micros(REQUEST_US_MAX)).header("authorization", authorization);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            sent = sent.header(*name, *value);
        }
        let answer = sent.body(request.body.clone()).send().await;
        let answer = answer.map_err(|error| PlaceError::Unreachable(told(&error)))?;
        self.judge(request, answer, bytes_max).await
    }

    async fn judge(
        &self,
        request: &S3Request<'_>,
        answer: Response,
        bytes_max: usize,
    ) -> Result<Bytes, PlaceError> {
        let status = answer.status();
        if status.is_success() {
            return read_body(answer, bytes_max).await;
        }
        let body = read_body(answer, XML_BYTES_MAX).await.unwrap_or_default();
        let why = std::str::from_utf8(&body).ok().and_then(read_s3_error).unwrap_or_default();
        let what = if request.key.is_empty() { &self.bucket } else { request.key };
        let why = format!("{} {what}: {status} {why}", request.method).trim_end().to_owned();
        Err(match status {
            StatusCode::NOT_FOUND => PlaceError::NotFound(why),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => PlaceError::Unreachable(why),
            status if status.is_server_error() => PlaceError::Unreachable(why),
            _ => PlaceError::Refused(why),
        })
    }
}

/// Reads the body of an answer, of at most `bytes_max` bytes.
pub async fn read_body(mut answer: Response, bytes_max: usize) -> Result<Bytes, PlaceError> {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > bytes_max => {
                let why = format!("an answer has more than the {bytes_max} bytes that it may have");
                return Err(PlaceError::Refused(why));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes.into()),
            Err(error) => return Err(PlaceError::Unreachable(told(&error))),
        }
    }
}
