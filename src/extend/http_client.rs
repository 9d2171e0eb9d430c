//! The client by which extensions send requests over HTTP.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Longest time to connect to another host, the handshake of TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The settings of TLS, which all clients share: the certificates of this machine are read once.
static TLS: OnceLock<Result<ClientConfig, String>> = OnceLock::new();

/// Makes a client for HTTP and HTTPS that follows no redirects, unless `configure` says otherwise. It trusts the
/// authorities that this machine trusts.
pub fn http_client(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    let tls = TLS.get_or_init(tls).clone()?;
    let agent = concat!("anode/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder().tls_backend_preconfigured(tls).redirect(Policy::none());
    let builder = configure(builder.user_agent(agent).connect_timeout(CONNECT_MAX));
    builder.build().map_err(|error| error.to_string())
}

fn tls() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
