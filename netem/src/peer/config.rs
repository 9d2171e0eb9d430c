//! The configuration of a nats-server, as text.

use std::net::Ipv4Addr;
use std::path::Path;

/// Port of clients.
pub const CLIENT_PORT: u16 = 4222;
/// Port of other servers.
pub const ROUTE_PORT: u16 = 6222;
/// Port at which the server tells how it is.
pub const MONITOR_PORT: u16 = 8222;

/// Everything in which the configurations of the servers of a cluster differ.
#[derive(Clone, Debug)]
pub struct ServerConfig<'a> {
    /// Name of the server.
    pub name: &'a str,
    /// Directory in which JetStream keeps its files.
    pub store_dir: &'a Path,
    /// Address that the server binds for other servers.
    pub binds: Ipv4Addr,
    /// Address at which other servers reach it.
    pub reached_at: Ipv4Addr,
    /// Addresses of the other servers.
    pub others: Vec<Ipv4Addr>,
}

impl ServerConfig<'_> {
    /// Returns the text of the file. What it does not say is as nats-server has it by default.
    pub fn text(&self) -> String {
        let routes: Vec<String> =
            self.others.iter().map(|other| format!("\"nats://{other}:{ROUTE_PORT}\"")).collect();
        // The disk of the machine bounds the store, and no number of this file.
        format!(
            "server_name: \"{}\"\n\
             listen: \"0.0.0.0:{CLIENT_PORT}\"\n\
             http: \"0.0.0.0:{MONITOR_PORT}\"\n\
             jetstream {{ store_dir: \"{}\", max_memory_store: 256MB, max_file_store: 16GB }}\n\
             cluster {{\n  name: \"netem\"\n  listen: \"{}:{ROUTE_PORT}\"\n  advertise: \"{}:{ROUTE_PORT}\"\n  \
             no_advertise: true\n  routes: [{}]\n}}\n",
            self.name,
            self.store_dir.display(),
            self.binds,
            self.reached_at,
            routes.join(", "),
        )
    }
}
