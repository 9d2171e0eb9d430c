//! What a run with containers is made of: the compose file, its services, and what this machine allows. All of it is found
//! out before anything is started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anode_loadgen::Outcome;
use anode_loadgen::tls::TlsSettings;
use anode_loadgen::token;

use super::docker::{self, docker};
use super::firewall;
use super::mapping::{Abilities, LinkTool};
use super::parse::{self, Config, Engine, NodeService};
use crate::arguments::{Arguments, COMPOSE_FILE};
use crate::link::shape::Shape;
use crate::target::Access;

/// Profile of the project's own compose file that is used if none is given: three nodes that store by themselves.
const OWN_PROFILE: &str = "embedded";
/// Directory that stands for the secrets until they are made.
const NO_SECRETS: &str = "/anode-netem-secrets";
/// Number of the capability by which a process may change the limits of those of other users.
const CAP_SYS_RESOURCE: u32 = 24;
/// Ports of this machine at which containers are published, unless the environment says more: any that are free.
const ANY_PORT: &str = "0";

/// The compose file of a run, its services that are nodes, and what this machine allows.
#[derive(Clone, Debug)]
pub struct Setup {
    file: PathBuf,
    profile: Option<String>,
    services: Vec<NodeService>,
    is_scaled: bool,
    needs_secrets: bool,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    /// What the machine and the compose file allow.
    pub abilities: Abilities,
    /// The machine of the engine.
    pub engine: Engine,
}

impl Setup {
    /// Reads the compose file that the command line names, and finds out what the machine allows.
    pub fn read(arguments: &Arguments) -> Outcome<Setup> {
        let given = arguments.compose.as_deref().unwrap_or(Path::new(COMPOSE_FILE));
        let is_own = given == Path::new(COMPOSE_FILE);
        let file = given.canonicalize().map_err(|error| format!("--compose {}: {error}", given.display()))?;
        let profile = arguments.compose_profile.clone().or(is_own.then(|| OWN_PROFILE.to_owned()));
        let mut setup = Setup {
            file,
            profile,
            services: Vec::new(),
            is_scaled: false,
            needs_secrets: false,
            ca: arguments.ca.clone(),
            token_file: arguments.token_file.clone(),
            abilities: Abilities {
                links: link_tool(),
                no_bounds: no_bounds(),
                no_keys: None,
                is_sealed: false,
            },
            engine: parse::engine(&docker(&["info", "--format", "{{json .}}"])?)?,
        };
        let mut command = docker::command("docker");
        command.args(setup.words("anetem", &["config", "--format", "json"]));
        for (variable, value) in setup.variables(Path::new(NO_SECRETS)) {
            command.env(variable, value);
        }
        let json = docker::done(&mut command, None)?;
        setup.take_config(&json, &parse::config(&json)?, arguments.nodes.map(usize::from))?;
        Ok(setup)
    }

    fn take_config(&mut self, json: &str, config: &Config, nodes: Option<usize>) -> Outcome<()> {
        self.services = config.node_services();
        self.needs_secrets = json.contains(NO_SECRETS);
        self.abilities.is_sealed = self.has("ANODE_CLUSTER_KEY");
        if !self.abilities.is_sealed || !config.has_secret(NO_SECRETS, "cluster.key") {
            self.abilities.no_keys = Some("the compose file has no key that this run makes".to_owned());
        }
        let count = self.nodes();
        match (nodes, &mut self.services[..]) {
            (_, []) => Err("no service of the compose file is a node: none has a variable ANODE_…".into()),
            (Some(nodes), [service]) => {
                service.count = nodes;
                self.is_scaled = true;
                Ok(())
            }
            (Some(nodes), [..]) if nodes != count => {
                Err(format!("--nodes: {nodes} is not {count}, and several services are nodes").into())
            }
            _ if count < 2 => Err(format!("the compose file has {count} node, and a run needs two").into()),
            _ => Ok(()),
        }
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.services.iter().map(|service| service.count).sum()
    }

    /// Returns the service of this name, if its containers are nodes.
    pub fn service(&self, name: &str) -> Option<&NodeService> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Returns whether a service of nodes has this setting.
    pub fn has(&self, variable: &str) -> bool {
        self.services.iter().any(|service| service.setting(variable).is_some())
    }

    /// Returns the names of the services of nodes.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    /// Says why no node can run alone with its store, if none can. Where it does, the names of all services are its own.
    pub fn no_stores(&self) -> Option<String> {
        let settings = |variable| self.services.iter().filter_map(move |service| service.setting(variable));
        if let Some(store) = settings("ANODE_STORE").find(|store| *store != "embedded") {
            return Some(format!("they are in the store {store}"));
        }
        let host = |target: &str| target.trim().rsplit_once(':').map_or(target, |(host, _)| host).to_owned();
        let mut hosts = settings("ANODE_JOIN").flat_map(|targets| targets.split(',')).map(host);
        let strange = hosts.find(|host| !self.service_names().any(|name| name == host.trim()));
        strange.map(|host| format!("nodes join {host}, which is no service of nodes"))
    }

    /// Returns whether secrets must be made before the services are started.
    pub fn needs_secrets(&self) -> bool {
        self.needs_secrets
    }

    /// Returns the words of a command of compose for a project.
    pub fn words(&self, project: &str, words: &[&str]) -> Vec<String> {
        let mut all: Vec<String> =
            ["compose", "--project-name", project, "--file"].map(str::to_owned).to_vec();
        all.push(self.file.display().to_string());
        if let Some(profile) = &self.profile {
            all.extend(["--profile".to_owned(), profile.clone()]);
        }
        all.extend(words.iter().map(|word| (*word).to_owned()));
        all
    }

    /// Returns the words of the command that starts the services.
    pub fn words_of_up(&self, project: &str) -> Vec<String> {
        let mut words = self.words(project, &["up", "--detach"]);
        for service in self.services.iter().filter(|_| self.is_scaled) {
            words.extend(["--scale".to_owned(), format!("{}={}", service.name, service.count)]);
        }
        words
    }

    /// Returns the variables that compose files get, with the directory of the secrets.
    pub fn variables(&self, secrets: &Path) -> Vec<(&'static str, String)> {
        let ports = std::env::var("ANODE_PORTS").unwrap_or_else(|_| ANY_PORT.to_owned());
        vec![("ANODE_SECRETS", secrets.display().to_string()), ("ANODE_PORTS", ports)]
    }

    /// Returns what the nodes want of their clients, whose secrets are in a directory.
    pub fn access(&self, secrets: &Path) -> Outcome<Option<Arc<Access>>> {
        let made = |name: &str| self.needs_secrets.then(|| secrets.join(name));
        let tls = match self.has("ANODE_TLS_CERT") {
            true => Some(TlsSettings::new(self.ca.clone().or(made("ca.crt")).as_deref())?),
            false => None,
        };
        let token_file = self.token_file.clone().or(made("admin.token"));
        let token = match (self.has("ANODE_AUTH"), token_file) {
            (true, None) => {
                return Err(
                    "--token-file: the services want tokens, and take none that this run makes".into()
                );
            }
            (true, Some(file)) => token::read(None, Some(&file))?,
            (false, _) => None,
        };
        if tls.is_none() && token.is_none() {
            return Ok(None);
        }
        let advertised = self.services.iter().find_map(|service| service.setting("ANODE_ADVERTISE_HTTP"));
        let name =
            advertised.map_or("localhost", |host| host.rsplit_once(':').map_or(host, |(name, _)| name));
        Ok(Some(Arc::new(Access { tls, name: name.to_owned(), token })))
    }
}

/// Says why processes and namespaces of containers are out of reach, if they are.
fn out_of_reach() -> Option<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    if !host.is_empty() && !host.starts_with("unix://") {
        return Some(format!("the engine at {host} may be on another machine"));
    }
    (!rustix::process::geteuid().is_root()).then(|| "it needs root".to_owned())
}

/// Says why this process may not bound what processes of other users do, if it may not.
fn no_bounds() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let may = has_capability(&status, CAP_SYS_RESOURCE);
    out_of_reach().or_else(|| (!may).then(|| "the kernel does not permit it: CAP_SYS_RESOURCE".to_owned()))
}

/// Returns whether a process has a capability, which has this number, from what `/proc` says of the process.
fn has_capability(status: &str, number: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> number & 1 == 1)
}

/// Finds out which program can play links, in a network namespace that is gone afterwards.
fn link_tool() -> LinkTool {
    if let Some(why) = out_of_reach() {
        return LinkTool::Nothing(why);
    }
    let netem = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1us"];
    if docker::apart(&netem, None).is_ok() {
        return LinkTool::Netem;
    }
    let lossy = Shape { loss: 50.0, ..Shape::default() };
    let rules = firewall::rules(&[([127, 0, 0, 2].into(), lossy)]);
    match docker::apart(&["nft", "-f", "-"], Some(&rules)) {
        Ok(_) => LinkTool::Firewall,
        Err(error) => LinkTool::Nothing(format!("this kernel has no sch_netem, and {error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const CONFIG: &str = r#"{
        "name": "anetem", "services": {
            "anode-embedded": {
                "deploy": {"replicas": 3, "placement": {}}, "command": null,
                "environment": {
                    "ANODE_AUTH": "/run/secrets/auth.toml", "ANODE_CLUSTER_KEY": "/run/secrets/cluster.key",
                    "ANODE_ADVERTISE_HTTP": "anode-embedded:7070", "ANODE_STORE": "embedded", "NOTHING": null
                },
                "ports": [{"mode": "ingress", "target": 7070, "published": "0"}]
            },
            "prometheus": {"environment": null, "image": "prometheus", "ports": [{"target": 9090}]}
        },
        "secrets": {"cluster.key": {"name": "anetem_cluster.key", "file": "/anode-netem-secrets/cluster.key"}}
    }"#;

    fn of(nodes: Option<usize>, json: &str) -> Outcome<Setup> {
        let arguments = Arguments::try_parse_from(["netem/run", "kill-half", "--compose"])?;
        let mut setup = Setup {
            file: "/a/compose.yaml".into(),
            profile: Some("embedded".to_owned()),
            services: Vec::new(),
            is_scaled: false,
            needs_secrets: false,
            ca: arguments.ca,
            token_file: arguments.token_file,
            abilities: Abilities {
                links: LinkTool::Firewall,
                no_bounds: None,
                no_keys: None,
                is_sealed: false,
            },
            engine: parse::engine(r#"{"NCPU":2,"MemTotal":1024,"Name":"here"}"#)?,
        };
        setup.take_config(json, &parse::config(json)?, nodes)?;
        Ok(setup)
    }

    #[test]
    fn nodes_are_told_from_other_services() {
        let setup = of(None, CONFIG).expect("a setup");
        assert_eq!(setup.nodes(), 3);
        assert!(setup.service("prometheus").is_none() && setup.needs_secrets());
        assert!(setup.abilities.is_sealed);
        assert_eq!(setup.abilities.no_keys, None);
        assert_eq!(setup.service("anode-embedded").map(NodeService::http_port), Some(7070));
        let up = setup.words_of_up("p").join(" ");
        assert_eq!(up, "compose --project-name p --file /a/compose.yaml --profile embedded up --detach");
    }

    #[test]
    fn the_number_of_nodes_scales_the_service() {
        let setup = of(Some(5), CONFIG).expect("a setup");
        assert_eq!(setup.nodes(), 5);
        assert!(setup.words_of_up("p").ends_with(&["--scale".to_owned(), "anode-embedded=5".to_owned()]));
        let two = r#"{"services": {"a": {"environment": {"ANODE_GOSSIP": "x"}}, "b": {"ports": [{"target": 7070}]}}}"#;
        assert_eq!(of(Some(2), two).expect("two services").nodes(), 2);
        let error = of(Some(3), two).expect_err("three of two").to_string();
        assert!(error.contains("--nodes: 3 is not 2"), "{error}");
    }

    #[test]
    fn files_without_enough_nodes_are_refused() {
        let none = of(None, r#"{"services": {"web": {"image": "nginx"}}}"#).expect_err("no node");
        assert!(none.to_string().contains("no service"), "{none}");
        let one = of(None, r#"{"services": {"a": {"environment": {"ANODE_HTTP": "0.0.0.0:80"}}}}"#);
        assert!(one.expect_err("one node").to_string().contains("a run needs two"));
    }

    #[test]
    fn stores_that_cannot_be_read_alone_are_told() {
        let no_stores =
            |from: &str, to: &str| of(None, &CONFIG.replace(from, to)).expect("a setup").no_stores();
        let own = r#""ANODE_STORE": "embedded""#;
        assert_eq!(no_stores(own, own), None);
        assert_eq!(no_stores(own, r#""ANODE_JOIN": "anode-embedded:7946, anode-embedded:7947""#), None);
        let elsewhere = no_stores(own, r#""ANODE_STORE": "cassandra""#).expect("a reason");
        assert!(elsewhere.contains("cassandra"), "{elsewhere}");
        let strange =
            no_stores(own, r#""ANODE_JOIN": "anode-embedded:7946,10.0.0.7:7946""#).expect("a reason");
        assert!(strange.contains("10.0.0.7"), "{strange}");
    }

    #[test]
    fn a_capability_is_a_bit_of_what_the_kernel_tells() {
        let status = |bits: &str| format!("CapPrm:\t000001ffffffffff\nCapEff:\t{bits}\nSeccomp:\t0\n");
        assert!(has_capability(&status("000001ffffffffff"), CAP_SYS_RESOURCE));
        assert!(has_capability(&status("0000000001000000"), CAP_SYS_RESOURCE));
        assert!(!has_capability(&status("000001fffeffffff"), CAP_SYS_RESOURCE));
        assert!(!has_capability("", CAP_SYS_RESOURCE));
    }

    #[test]
    fn tokens_that_nobody_has_are_asked_for() {
        let json = CONFIG.replace("/anode-netem-secrets", "/etc/anode");
        let setup = of(None, &json).expect("a setup");
        assert!(setup.abilities.no_keys.is_some());
        let error = setup.access(Path::new("/nowhere")).err().expect("no token").to_string();
        assert!(error.starts_with("--token-file"), "{error}");
    }
}
