//! The JSON that docker and compose print, as far as a run needs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anode_loadgen::Outcome;
use serde::Deserialize;

use crate::node::HTTP_PORT;

/// What `docker compose config --format json` says of a file.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    services: BTreeMap<String, Service>,
    #[serde(default)]
    secrets: BTreeMap<String, SecretFile>,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(default)]
    environment: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    ports: Vec<PortOf>,
    deploy: Option<Deploy>,
    scale: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct PortOf {
    target: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Deploy {
    replicas: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct SecretFile {
    file: Option<String>,
}

/// A service whose containers are nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeService {
    /// Name of the service.
    pub name: String,
    /// Number of its containers.
    pub count: usize,
    /// Variables of the environment of its containers.
    pub environment: BTreeMap<String, String>,
}

impl NodeService {
    /// Returns a setting of `anode serve`, as the file gives it by its variable.
    pub fn setting(&self, variable: &str) -> Option<&str> {
        self.environment.get(variable).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the port at which a node of this service serves clients.
    pub fn http_port(&self) -> u16 {
        let port = self.setting("ANODE_HTTP").and_then(|address| address.rsplit(':').next()?.parse().ok());
        port.unwrap_or(HTTP_PORT)
    }
}

/// Reads what compose says of a file.
pub fn config(json: &str) -> Outcome<Config> {
    serde_json::from_str(json).map_err(|error| format!("docker compose config: {error}").into())
}

impl Config {
    /// Returns the services whose containers are nodes: those that have a setting of `anode serve` or the port of its clients.
    pub fn node_services(&self) -> Vec<NodeService> {
        let nodes = self.services.iter().filter_map(|(name, service)| {
            let environment: BTreeMap<String, String> = service
                .environment
                .iter()
                .flatten()
                .filter_map(|(variable, value)| Some((variable.clone(), value.clone()?)))
                .collect();
            let is_set = environment.keys().any(|variable| variable.starts_with("ANODE_"));
            let has_port = service.ports.iter().any(|port| port.target == Some(HTTP_PORT));
            let replicas = service.deploy.as_ref().and_then(|deploy| deploy.replicas);
            let count = service.scale.or(replicas).unwrap_or(1);
            (is_set || has_port).then(|| NodeService { name: name.clone(), count, environment })
        });
        nodes.collect()
    }

    /// Returns whether a secret of the file is the file `name` in the directory `dir`.
    pub fn has_secret(&self, dir: &str, name: &str) -> bool {
        let path = format!("{}/{name}", dir.trim_end_matches('/'));
        self.secrets.values().any(|secret| secret.file.as_deref() == Some(path.as_str()))
    }
}

/// What `docker inspect` says of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// Long identifier of the container.
    pub id: String,
    state: StateOf,
    config: ConfigOf,
    host_config: HostConfigOf,
    network_settings: NetworkSettingsOf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateOf {
    running: bool,
    pid: u32,
    exit_code: i64,
    #[serde(rename = "OOMKilled", default)]
    is_out_of_memory: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigOf {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfigOf {
    #[serde(default)]
    nano_cpus: u64,
    #[serde(default)]
    memory: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettingsOf {
    #[serde(default)]
    ports: Option<BTreeMap<String, Option<Vec<PublishedOf>>>>,
    #[serde(default)]
    networks: Option<BTreeMap<String, NetworkOf>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublishedOf {
    host_ip: String,
    host_port: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NetworkOf {
    #[serde(rename = "IPAddress", default)]
    address: String,
}

/// The bounds of a container; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Processor time, in billionths of a processor.
    pub nano_cpus: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Reads what `docker inspect` says of containers.
pub fn inspected(json: &str) -> Outcome<Vec<Inspected>> {
    serde_json::from_str(json).map_err(|error| format!("docker inspect: {error}").into())
}

impl Inspected {
    fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Returns the name of the service that the container belongs to.
    pub fn service(&self) -> &str {
        self.label("com.docker.compose.service").unwrap_or_default()
    }

    /// Returns the number of the container within its service.
    pub fn number(&self) -> u32 {
        self.label("com.docker.compose.container-number").and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Returns the process of the container, as this machine counts processes, if it runs.
    pub fn pid(&self) -> Option<u32> {
        Some(self.state.pid).filter(|pid| self.state.running && *pid > 0)
    }

    /// Says why a container that was asked to end has not ended in good order, if so.
    pub fn has_ended_well(&self) -> Outcome<()> {
        match (self.state.running, self.state.exit_code) {
            (false, 0) => Ok(()),
            (false, code) => Err(format!("it ended with exit code {code} when it was stopped").into()),
            (true, _) => Err("it runs although it was stopped".into()),
        }
    }

    /// Says how the last process of the container ended.
    pub fn how_ended(&self) -> String {
        match (self.state.is_out_of_memory, self.state.exit_code) {
            (true, _) => "for lack of memory".to_owned(),
            (false, code) => format!("with exit code {code}"),
        }
    }

    /// Returns the bounds on processor time and memory.
    pub fn bounds(&self) -> Bounds {
        Bounds { nano_cpus: self.host_config.nano_cpus, memory_bytes: self.host_config.memory }
    }

    /// Returns the networks of the container with its address in each; `None` while it does not run.
    pub fn networks(&self) -> Vec<(String, Option<Ipv4Addr>)> {
        let networks = self.network_settings.networks.iter().flatten();
        networks.map(|(name, network)| (name.clone(), network.address.parse().ok())).collect()
    }

    /// Returns the address of the container in its first network in which it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.networks().into_iter().find_map(|(_, address)| address)
    }

    /// Returns the address at which this machine publishes a port of the container. One that is published on all addresses
    /// is reached by the loopback.
    pub fn published(&self, port: u16) -> Option<SocketAddr> {
        let all = self.network_settings.ports.as_ref()?.get(&format!("{port}/tcp"))?.as_ref()?;
        all.iter().find_map(|published| {
            let address: IpAddr = published.host_ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let address = if address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address };
            Some(SocketAddr::new(address, published.host_port.parse().ok()?))
        })
    }
}

/// What `docker info` says of the machine of the engine.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Engine {
    /// Number of processors.
    #[serde(rename = "NCPU")]
    pub processors: u32,
    /// Bytes of memory.
    #[serde(rename = "MemTotal")]
    pub memory_bytes: u64,
}

/// Reads what `docker info` says.
pub fn engine(json: &str) -> Outcome<Engine> {
    serde_json::from_str(json).map_err(|error| format!("docker info: {error}").into())
}
