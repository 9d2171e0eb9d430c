//! Which authorities a command trusts to tell that a node is the one in its URL.
//!
//! Without `--ca`, these are the authorities of the system, as for other programs on the machine: an operator who
//! has added a company's authority there need not name it again. Rejected: a list of authorities in the program,
//! which would be as old as the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::cli::CliError;

/// The option of all clients that names the authorities.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TrustArguments {
    /// PEM file of the authorities that sign the certificates of nodes, for wss:// and https:// [default: the
    /// authorities of this system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The settings of TLS with a node.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

/// A command trusts the same authorities all the time, so this only tells TLS from no TLS.
impl PartialEq for Trust {
    fn eq(&self, _: &Trust) -> bool {
        true
    }
}

impl Eq for Trust {}

impl TrustArguments {
    /// Returns the settings for a URL with TLS; `None` for one without. Then there must be no `--ca`, since nothing would
    /// be checked.
    pub fn trust(&self, is_tls: bool) -> Result<Option<Trust>, CliError> {
        match (&self.ca, is_tls) {
            (None, false) => Ok(None),
            (Some(path), false) => {
                let path = path.display();
                let allowed = "nothing, unless the URL begins with wss:// or https://";
                Err(CliError::Usage(format!("--ca: \"{path}\" cannot be used; allowed: {allowed}")))
            }
            (Some(path), true) => Trust::of(roots_in(path)?).map(Some),
            (None, true) => Trust::of(roots_of_system()?).map(Some),
        }
    }
}

impl Trust {
    fn of(roots: RootCertStore) -> Result<Trust, CliError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust(Arc::new(config)))
    }

    /// Begins TLS with the node at `host`, which is a name or an IP address.
    pub fn begin(&self, host: &str) -> Result<ClientConnection, std::io::Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|InvalidDnsNameError| {
            std::io::Error::other("the host is no name that a certificate can have")
        })?;
        ClientConnection::new(self.0.clone(), name).map_err(std::io::Error::other)
    }
}

fn roots_in(path: &Path) -> Result<RootCertStore, CliError> {
    let unusable = |reason: String| {
        let allowed = format!("a file of PEM with certificates of authorities ({reason})");
        CliError::Usage(format!("--ca: \"{}\" cannot be used; allowed: {allowed}", path.display()))
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        let root = root.map_err(|error| unusable(error.to_string()))?;
        roots.add(root).map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("there is no certificate in it".into())),
        false => Ok(roots),
    }
}

fn roots_of_system() -> Result<RootCertStore, CliError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(CliError::Failed(
            "this system has no certificates of authorities: give one with --ca FILE".into(),
        )),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_named_for_tls_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("ca.pem");
        let arguments = TrustArguments { ca: Some(path.clone()) };
        let error = |arguments: &TrustArguments, is_tls| match arguments.trust(is_tls) {
            Err(CliError::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(error(&arguments, false).contains("wss://"));
        assert!(error(&arguments, true).contains("No such file"));
        std::fs::write(&path, "no PEM").expect("written");
        assert!(error(&arguments, true).contains("no certificate in it"));
        let certificate = rcgen::generate_simple_self_signed(vec!["a".into()]).expect("certificate");
        std::fs::write(&path, certificate.cert.pem()).expect("written");
        let trust = arguments.trust(true).expect("usable").expect("TLS");
        assert!(trust.begin("127.0.0.1").is_ok() && trust.begin("::1").is_ok() && trust.begin("a").is_ok());
        assert!(trust.begin("no name").is_err());
        assert_eq!(TrustArguments::default().trust(false).expect("plain"), None);
    }
}
