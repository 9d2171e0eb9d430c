//! A node process that is started for a measurement.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;

/// A node's process, and its addresses. It is killed when this is dropped.
pub struct Node {
    process: Child,
    /// Address of the HTTP port, `host:port`.
    pub http: String,
    /// Address of the gossip port, `host:port`.
    pub gossip: String,
    /// Address at which the node is watched, `host:port`: the HTTP port, or the one of `--metrics`.
    watch: String,
    /// Time from starting the process to its ready line.
    pub start: Duration,
}

impl Node {
    /// Starts `anode serve` on free ports of loopback and waits for its ready line.
    pub fn start(anode: &Path, data_dir: &Path, further: &[&str]) -> Outcome<Node> {
        let begun = Instant::now();
        let mut process = Command::new(anode)
            .args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(further)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting {}: {error}", anode.display()))?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let field = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.map(str::to_owned).ok_or_else(|| format!("no {name} in the ready line {line:?}"))
        };
        let (http, gossip) = (field("http=")?, field("gossip=")?);
        let watch = field("metrics=").unwrap_or_else(|_| http.clone());
        Ok(Node { http, gossip, watch, start: begun.elapsed(), process })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `GET /readyz` answers 200.
    pub fn wait_ready(&self, deadline: Duration) -> Outcome<()> {
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            if get(&self.watch, "/readyz", "1.1").is_ok_and(|head| head.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{} is not ready after {deadline:?}", self.http).into())
    }

    /// Waits until the node sees `count` members alive.
    pub fn wait_members(&self, count: usize, deadline: Duration) -> Outcome<()> {
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            let answer = self.get("/v1/members").unwrap_or_default();
            if answer.matches("\"state\":\"alive\"").count() >= count {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} sees fewer than {count} members after {deadline:?}", self.http).into())
    }

    /// Returns a metric that has no labels.
    pub fn metric(&self, name: &str) -> Outcome<f64> {
        let answer = self.get("/metrics")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// Sends `GET path`, and returns the whole answer, head and body.
    pub fn get(&self, path: &str) -> Outcome<String> {
        get(&self.http, path, "1.1")
    }

    /// Sends `GET path` to the port at which the node is watched, and returns the whole answer, head and body.
    pub fn get_watched(&self, path: &str) -> Outcome<String> {
        get(&self.watch, path, "1.1")
    }

    /// Kills the process as a power cut would end it.
    pub fn kill(mut self) -> Outcome<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

/// Sends `GET path` to an HTTP server at `host:port`, with this version of HTTP. Returns the whole answer,
/// head and body.
pub fn get(address: &str, path: &str, version: &str) -> Outcome<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/{version}\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Node {
    fn drop(&mut self) {
        // It does not matter if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
