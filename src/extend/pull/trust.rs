//! TLS to servers: which authorities may vouch for them.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

/// Makes the configuration of TLS with the authorities of a file, or with those of the system.
pub(super) fn client_config(ca: Option<&str>) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(path) => Arc::new(roots_in(path)?),
        None => roots_of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots_in(path: &str) -> Result<RootCertStore, String> {
    let unusable = |reason: String| format!("ca {path:?}: {reason}");
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

/// The authorities of the system, which are read once: a thousand pull sources share them.
fn roots_of_system() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    match roots.is_empty() {
        true => Err("this system has no certificates of authorities: name a file with ca".into()),
        false => Ok(roots.clone()),
    }
}
