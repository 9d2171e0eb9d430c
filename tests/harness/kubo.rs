//! The part of Kubo's RPC that archives use, in memory. Content ids are hashes of what they stand for, in a form of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::bucket::decoded;
use super::receiver::{Reaction, Received, Receiver};
use super::rights::sha256_of;

#[derive(Default)]
struct State {
    /// Contents of files by their content ids.
    files: BTreeMap<String, Vec<u8>>,
    /// Folders by their content ids, each with the content ids of its files by their names.
    folders: BTreeMap<String, BTreeMap<String, String>>,
    /// Names of pins by the content ids of what they hold.
    pins: BTreeMap<String, String>,
}

/// A node of IPFS.
pub struct Kubo {
    state: Arc<Mutex<State>>,
    server: Receiver,
}

impl Kubo {
    /// Starts a node that has nothing.
    pub fn start() -> Kubo {
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let server = Receiver::start(move |request| match shared.lock() {
            Ok(mut state) => state.handle(request),
            Err(_) => Reaction::Cut,
        });
        Kubo { state, server }
    }

    /// The address of the RPC, as a definition has it.
    pub fn api(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    /// Removes what no pin holds. Returns the number of files and folders that are left.
    pub fn collect_garbage(&self) -> usize {
        self.with(|state| {
            let State { files, folders, pins } = state;
            folders.retain(|cid, _| pins.contains_key(cid));
            let held: BTreeSet<&String> = folders.values().flat_map(BTreeMap::values).collect();
            files.retain(|cid, _| held.contains(cid));
            files.len() + folders.len()
        })
    }

    /// The content ids that are pinned.
    pub fn pinned(&self) -> BTreeSet<String> {
        self.with(|state| state.pins.keys().cloned().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        match self.state.lock() {
            Ok(mut state) => work(&mut state),
            Err(_) => panic!("the node of IPFS has failed"),
        }
    }
}

impl State {
    fn handle(&mut self, request: &Received) -> Reaction {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(decoded).unwrap_or_default()
        };
        let arg = value("arg");
        match path.strip_prefix("/api/v0/").filter(|_| request.method == "POST").unwrap_or_default() {
            "add" => {
                let content = file_of(request);
                let cid = format!("file-{}", sha256_of(content));
                let told = json!({"Name": "file", "Hash": cid, "Size": content.len().to_string()});
                self.files.insert(cid, content.to_vec());
                answer(&told)
            }
            "dag/put" => self.put_folder(file_of(request)),
            "pin/add" => match self.folders.get(&arg) {
                Some(links) if links.values().all(|cid| self.files.contains_key(cid)) => {
                    self.pins.insert(arg.clone(), value("name"));
                    answer(&json!({"Pins": [arg]}))
                }
                _ => refusal("ipld: could not find a block"),
            },
            "pin/rm" => match self.pins.remove(&arg) {
                Some(_) => answer(&json!({"Pins": [arg]})),
                None => refusal("not pinned or pinned indirectly"),
            },
            "pin/ls" => self.list(&value("name"), value("stream") == "true"),
            "cat" => self.read(&arg),
            _ => Reaction::status(404),
        }
    }

    fn put_folder(&mut self, node: &[u8]) -> Reaction {
        let node: Value = serde_json::from_slice(node).unwrap_or_default();
        let links = node["Links"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let links: BTreeMap<String, String> =
            links.map(|link| (text(&link["Name"]), text(&link["Hash"]["/"]))).collect();
        let cid = format!("folder-{}", sha256_of(node.to_string().as_bytes()));
        let told = json!({"Cid": {"/": cid}});
        self.folders.insert(cid, links);
        answer(&told)
    }

    /// The pins whose names begin like this: one a line, or all in one object.
    fn list(&self, prefix: &str, is_stream: bool) -> Reaction {
        let pins = self.pins.iter().filter(|(_, name)| name.starts_with(prefix));
        if is_stream {
            let line = |(cid, name): (&String, &String)| {
                format!("{}\n", json!({"Type": "recursive", "Cid": cid, "Name": name}))
            };
            return Reaction::Answer(200, Vec::new(), pins.map(line).collect::<String>().into_bytes());
        }
        let keys: Value =
            pins.map(|(cid, name)| (cid.clone(), json!({"Type": "recursive", "Name": name}))).collect();
        answer(&json!({"Keys": keys}))
    }

    /// The content of a file, by the path `/ipfs/FOLDER/NAME`.
    fn read(&self, path: &str) -> Reaction {
        let (folder, name) = path.trim_start_matches("/ipfs/").split_once('/').unwrap_or_default();
        let Some(links) = self.folders.get(folder) else { return refusal("ipld: could not find a block") };
        let Some(cid) = links.get(name) else {
            return refusal(&format!("no link named {name:?} under {folder}"));
        };
        match self.files.get(cid) {
            Some(content) => Reaction::Answer(200, Vec::new(), content.clone()),
            None => refusal("ipld: could not find a block"),
        }
    }
}

/// The one file of a form.
fn file_of(request: &Received) -> &[u8] {
    let kind = request.header("content-type").unwrap_or_default();
    let boundary = kind.split_once("boundary=").map_or("", |(_, boundary)| boundary);
    let end = request.body.len().saturating_sub(format!("\r\n--{boundary}--\r\n").len());
    let begin = request.body.windows(4).position(|four| four == b"\r\n\r\n").map_or(end, |at| at + 4);
    request.body.get(begin..end).unwrap_or_default()
}

fn answer(told: &Value) -> Reaction {
    Reaction::Answer(200, Vec::new(), told.to_string().into_bytes())
}

fn refusal(message: &str) -> Reaction {
    let told = json!({"Message": message, "Code": 0, "Type": "error"});
    Reaction::Answer(500, Vec::new(), told.to_string().into_bytes())
}
