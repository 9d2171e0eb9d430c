//! The part of S3 that archives use, in memory, with faults: a test says which request fails, and how.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::receiver::{Reaction, Received, Receiver};

/// Decides what happens to a request by its number (from 0) and the request; `None` lets it be done.
type Fault = dyn Fn(usize, &Received) -> Option<Reaction> + Send + Sync;

struct State {
    objects: BTreeMap<String, Vec<u8>>,
    count: usize,
    fault: Box<Fault>,
}

/// A bucket named `archives`.
pub struct Bucket {
    state: Arc<Mutex<State>>,
    server: Receiver,
}

impl Bucket {
    /// Starts an empty bucket without faults.
    pub fn start() -> Bucket {
        let fault: Box<Fault> = Box::new(|_, _| None);
        let state = Arc::new(Mutex::new(State { objects: BTreeMap::new(), count: 0, fault }));
        let shared = state.clone();
        let server = Receiver::start(move |request| match shared.lock() {
            Ok(mut state) => state.handle(request),
            Err(_) => Reaction::Cut,
        });
        Bucket { state, server }
    }

    /// The address, as a definition has it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    /// Sets what fails from now on, and counts requests from 0 again.
    pub fn fail(&self, fault: impl Fn(usize, &Received) -> Option<Reaction> + Send + Sync + 'static) {
        self.with(|state| (state.fault, state.count) = (Box::new(fault), 0));
    }

    /// Names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// The content of an object.
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.with(|state| state.objects.get(name).cloned())
    }

    /// Changes the content of an object.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.with(|state| match state.objects.get_mut(name) {
            Some(content) => change(content),
            None => panic!("there is no object {name}"),
        });
    }

    /// Number of requests since the faults were set.
    pub fn count(&self) -> usize {
        self.with(|state| state.count)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.server.requests()
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        match self.state.lock() {
            Ok(mut state) => work(&mut state),
            Err(_) => panic!("the bucket has failed"),
        }
    }
}

impl State {
    fn handle(&mut self, request: &Received) -> Reaction {
        let number = self.count;
        self.count += 1;
        if let Some(reaction) = (self.fault)(number, request) {
            return reaction;
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(key) = path.strip_prefix("/archives") else { return error(404, "NoSuchBucket") };
        let key = decoded(key.trim_start_matches('/'));
        if !request
            .header("authorization")
            .is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 Credential="))
        {
            return error(403, "AccessDenied");
        }
        match request.method.as_str() {
            "PUT" => {
                let hash = super::rights::sha256_of(&request.body);
                if request.header("x-amz-content-sha256") != Some(hash.as_str()) {
                    return error(400, "XAmzContentSHA256Mismatch");
                }
                self.objects.insert(key, request.body.clone());
                Reaction::status(200)
            }
            "DELETE" => {
                self.objects.remove(&key);
                Reaction::status(204)
            }
            "GET" if key.is_empty() => self.list(query),
            "GET" => match self.objects.get(&key) {
                Some(content) => Reaction::Answer(200, Vec::new(), content.clone()),
                None => error(404, "NoSuchKey"),
            },
            _ => error(405, "MethodNotAllowed"),
        }
    }

    /// A page of two names, so that lists have several.
    fn list(&self, query: &str) -> Reaction {
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(decoded)
        };
        let prefix = value("prefix").unwrap_or_default();
        let after = value("continuation-token").unwrap_or_default();
        let mut found =
            self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && key.as_str() > after.as_str());
        let page: Vec<_> = found.by_ref().take(2).collect();
        let mut text = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
        for (key, content) in &page {
            let key = super::encode(key);
            text.push_str(&format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", content.len()));
        }
        match (found.next().is_some(), page.last()) {
            (true, Some((last, _))) => text.push_str(&format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            )),
            _ => text.push_str("<IsTruncated>false</IsTruncated>"),
        }
        text.push_str("</ListBucketResult>");
        Reaction::Answer(200, Vec::new(), text.into_bytes())
    }
}

fn error(status: u16, code: &str) -> Reaction {
    let text = format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
    Reaction::Answer(status, Vec::new(), text.into_bytes())
}

/// Returns a text of a URL with what is encoded in it.
pub fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
