//! Drives the Rust client: takes a JSON object a line on stdin, and answers each by one on stdout
//! (`clients/conformance/README.md`).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anode_client::{Ack, AnodeError, Client, Data, Level, Mode, Pages, Record, connect};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All that a subscription has delivered.
#[derive(Default)]
struct Delivered {
    log: Vec<Value>,
    state: BTreeMap<String, Value>,
    last: HashMap<String, u64>,
    disorder: u64,
    resets: u64,
    eos: u64,
    error: Value,
    over: bool,
}

/// What a subscription has delivered, and the task that reads from it.
type Feed = (Arc<Mutex<Delivered>>, JoinHandle<()>);

#[derive(Default)]
struct Driver {
    clients: Mutex<HashMap<String, Client>>,
    errors: Mutex<HashMap<String, Arc<AtomicU64>>>,
    feeds: Mutex<HashMap<String, Feed>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn value(data: &Data) -> Value {
    match data {
        Data::Bytes(bytes) => json!({"b64": STANDARD.encode(bytes)}),
        Data::Json(_) => data.parse().unwrap_or_default(),
        Data::Deleted => Value::Null,
    }
}

fn shown(record: &Record) -> Value {
    json!({"source": record.source, "ts": record.ts, "origin": record.origin, "data": value(&record.data),
        "deleted": record.deleted, "gone": record.gone, "snapshot": record.snapshot})
}

fn told(error: &AnodeError) -> Value {
    json!({"code": error.code, "temporary": error.temporary, "applied": error.applied, "ts": error.ts})
}

fn told_ack(ack: &Ack) -> Value {
    json!({"ts": ack.ts, "outcome": ack.outcome, "level": ack.level, "current_ts": ack.current_ts, "nodes": ack.nodes})
}

fn text<'a>(step: &'a Value, name: &str) -> Result<&'a str, Failure> {
    step[name].as_str().ok_or_else(|| format!("{name} is missing").into())
}

fn level(step: &Value) -> Option<Level> {
    match step["ack"].as_str()? {
        "stored" => Some(Level::Stored),
        "replicated" => Some(Level::Replicated),
        _ => Some(Level::Accepted),
    }
}

fn millis(step: &Value, name: &str) -> Option<Duration> {
    step[name].as_u64().map(Duration::from_millis)
}

fn data(step: &Value) -> Result<Data, Failure> {
    if let Some(bytes) = step["bytes"].as_str() {
        return Ok(Data::from(STANDARD.decode(bytes)?));
    }
    let times = step["times"].as_u64().unwrap_or(1) as usize;
    match &step["data"] {
        Value::String(text) => Ok(Data::from(text.repeat(times))),
        other => Ok(Data::from(other.clone())),
    }
}

fn patterns(step: &Value) -> Vec<String> {
    match &step["sources"] {
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}

async fn all(mut pages: Pages) -> Result<Value, Failure> {
    let mut records = Vec::new();
    while let Some(record) = pages.next().await {
        records.push(shown(&record?));
    }
    Ok(records.into())
}

impl Driver {
    async fn open(&self, name: &str, step: &Value) -> Result<Value, Failure> {
        let urls: Vec<String> = step["urls"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let mut client = connect(urls);
        if let Some(token) = step["token"].as_str() {
            client = client.token(token);
        }
        if let Some(path) = step["token_file"].as_str() {
            client = client.token_file(path);
        }
        if let Some(path) = step["token_from"].as_str() {
            let path = path.to_owned();
            client = client.token_with(move || {
                let path = path.clone();
                async move { tokio::fs::read_to_string(path).await.map(|token| token.trim().to_owned()) }
            });
        }
        if let Some(path) = step["ca"].as_str() {
            client = client.ca(path);
        }
        if let Some(records) = step["max_outstanding"].as_u64() {
            client = client.max_outstanding(records as u32);
        }
        if let Some(timeout) = millis(step, "timeout_ms") {
            client = client.timeout(timeout);
        }
        if let Some(timeout) = millis(step, "publish_timeout_ms") {
            client = client.publish_timeout(timeout);
        }
        if let Some(timeout) = millis(step, "read_timeout_ms") {
            client = client.read_timeout(timeout);
        }
        let count = Arc::new(AtomicU64::new(0));
        lock(&self.errors).insert(name.to_owned(), count.clone());
        let client = client.on_error(move |_| _ = count.fetch_add(1, Relaxed)).await?;
        lock(&self.clients).insert(name.to_owned(), client);
        Ok(Value::Null)
    }

    fn client(&self, name: &str) -> Result<Client, Failure> {
        lock(&self.clients).get(name).cloned().ok_or_else(|| "no such client".into())
    }

    fn subscribe(&self, client: &Client, step: &Value) -> Result<Value, Failure> {
        let delivered = Arc::new(Mutex::new(Delivered::default()));
        let mut patterns = patterns(step).into_iter();
        let mut wanted = client.subscribe(patterns.next().unwrap_or_default());
        for pattern in patterns {
            wanted = wanted.and(pattern);
        }
        if step["mode"] == "all" {
            wanted = wanted.mode(Mode::All);
        }
        if let Some(snapshot) = step["snapshot"].as_bool() {
            wanted = wanted.snapshot(snapshot);
        }
        if let Some(filter) = step["filter"].as_str() {
            wanted = wanted.filter(filter);
        }
        let (at_reset, at_eos, at_record) = (delivered.clone(), delivered.clone(), delivered.clone());
        let mut records = wanted
            .on_reset(move || lock(&at_reset).reset())
            .on_eos(move || {
                let mut delivered = lock(&at_eos);
                delivered.eos += 1;
                delivered.log.push("eos".into());
            })
            .start();
        let wait = millis(step, "wait_ms").unwrap_or_default();
        let reading = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            while let Some(record) = records.next().await {
                lock(&at_record).take(record);
            }
            lock(&at_record).over = true;
        });
        lock(&self.feeds).insert(text(step, "name")?.to_owned(), (delivered, reading));
        Ok(Value::Null)
    }

    fn feed(&self, what: &str, step: &Value) -> Result<Value, Failure> {
        let feeds = lock(&self.feeds);
        let (delivered, reading) = feeds.get(text(step, "name")?).ok_or("no such subscription")?;
        let mut delivered = lock(delivered);
        if what == "unsubscribe" {
            reading.abort();
            delivered.over = true;
        }
        Ok(if what == "log" { delivered.log.clone().into() } else { delivered.told() })
    }

    async fn publish(&self, client: &Client, step: &Value) -> Result<Value, Failure> {
        let source = text(step, "source")?;
        let mut publish = match text(step, "do")? {
            "delete" => client.delete(source),
            _ => client.publish(source, data(step)?),
        };
        if let Some(level) = level(step) {
            publish = publish.ack(level);
        }
        if let Some(ts) = step["ts"].as_u64() {
            publish = publish.ts(ts);
        }
        if let Some(ttl_ms) = step["ttl_ms"].as_u64() {
            publish = publish.ttl_ms(ttl_ms);
        }
        if let Some(timeout) = millis(step, "timeout_ms") {
            publish = publish.timeout(timeout);
        }
        Ok(told_ack(&publish.await?))
    }

    async fn perform(&self, step: &Value) -> Result<Value, Failure> {
        let (what, name) = (text(step, "do")?, step["client"].as_str().unwrap_or("main"));
        match what {
            "connect" => return self.open(name, step).await,
            "feed" | "log" | "unsubscribe" => return self.feed(what, step),
            "errors" => {
                return Ok(lock(&self.errors).get(name).map_or(0, |count| count.load(Relaxed)).into());
            }
            _ => {}
        }
        let client = self.client(name)?;
        match what {
            "publish" | "delete" => self.publish(&client, step).await,
            "burst" => burst(&client, step).await,
            "get" => {
                Ok(client.get(text(step, "source")?).await?.map_or(Value::Null, |record| shown(&record)))
            }
            "list" => all(client.list(text(step, "pattern")?)).await,
            "history" => {
                let (from, to) = (step["from"].as_u64(), step["to"].as_u64());
                all(client.history(text(step, "source")?, from, to)).await
            }
            "subscribe" => self.subscribe(&client, step),
            "close" => {
                client.close().await;
                Ok(Value::Null)
            }
            other => Err(format!("unknown step {other}").into()),
        }
    }

    async fn answer(&self, line: &str) -> Value {
        let step: Value = serde_json::from_str(line).unwrap_or_default();
        match self.perform(&step).await {
            Ok(ok) => json!({"id": step["id"], "ok": ok}),
            Err(error) => match error.downcast_ref::<AnodeError>() {
                Some(error) => json!({"id": step["id"], "error": told(error)}),
                None => json!({"id": step["id"], "bug": error.to_string()}),
            },
        }
    }
}

impl Delivered {
    fn reset(&mut self) {
        self.resets += 1;
        self.log.push("reset".into());
        self.state.clear();
        self.last.clear();
    }

    fn take(&mut self, record: Result<Record, AnodeError>) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                self.error = told(&error);
                return;
            }
        };
        self.log.push(shown(&record));
        let before = self.last.insert(record.source.clone(), record.ts);
        self.disorder += u64::from(before.is_some_and(|before| record.ts < before));
        if record.deleted || record.gone {
            self.state.remove(&record.source);
        } else {
            self.state.insert(record.source.clone(), value(&record.data));
        }
    }

    fn told(&self) -> Value {
        json!({"state": self.state, "disorder": self.disorder, "resets": self.resets, "eos": self.eos,
            "error": self.error, "over": self.over})
    }
}

async fn burst(client: &Client, step: &Value) -> Result<Value, Failure> {
    let (count, sources) = (step["count"].as_u64().unwrap_or(0), step["sources"].as_u64().unwrap_or(1));
    let prefix = text(step, "prefix")?;
    let gate = Arc::new(Semaphore::new(step["concurrency"].as_u64().unwrap_or(64) as usize));
    let failed = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let mut tasks = Vec::new();
    for number in 0..count {
        let permit = gate.clone().acquire_owned().await?;
        let mut publish = client.publish(format!("{prefix}/{}", number % sources), number);
        if let Some(level) = level(step) {
            publish = publish.ack(level);
        }
        let failed = failed.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = publish.await {
                *lock(&failed).entry(error.code).or_default() += 1;
            }
            drop(permit);
        }));
        if number % 10 == 9 {
            tokio::time::sleep(millis(step, "pause_ms").unwrap_or_default()).await;
        }
    }
    for task in tasks {
        task.await?;
    }
    let failed = lock(&failed).clone();
    Ok(json!({"failed": failed}))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let driver = Arc::new(Driver::default());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let driver = driver.clone();
        tokio::spawn(async move {
            let reply = driver.answer(&line).await;
            let mut out = std::io::stdout().lock();
            // If nobody reads, the runner is gone, and stdin ends.
            let _ = writeln!(out, "{reply}");
        });
    }
    Ok(())
}
