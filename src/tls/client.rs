//! The client's side of TLS.
//!
//! The server is the one that the user named: a name in its certificate, under the user's own CA
//! file. Nothing that the server says about itself changes that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::version::TLS13;

use super::server::{mismatch_or, rustls_failed};
use super::x509::Facts;
use super::{TlsError, bundle, pem, provider};
use crate::protocol::ALPN;

/// Where the client's TLS material is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CAs whose servers are trusted.
    pub ca: PathBuf,
    /// The client's chain and key; without them a server refuses, and says so.
    pub own: Option<OwnFiles>,
}

/// The client's own certificate and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Loads the files as one set and configures TLS from them. The client's own certificate is not
/// judged here: whether it will do is the server's to say, and [`super::refusal`]'s to explain.
///
/// # Errors
/// A file is missing, too open, or does not fit the others; the text names both.
pub fn configure(files: &Files, now: Timestamp) -> Result<Arc<ClientConfig>, TlsError> {
    let bundle = bundle::read(&files.ca, now)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| rustls_failed(&files.ca, source))?
        .with_root_certificates(bundle.roots);
    let mut config = match &files.own {
        Some(own) => {
            let chain = pem::read_certificates(&own.certificate)?;
            let key = pem::read_private_key(&own.key)?;
            let with_pair = builder.with_client_auth_cert(chain, key);
            with_pair.map_err(|source| mismatch_or(&own.key, &own.certificate, source))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// What the certificates in a file say, in order.
///
/// # Errors
/// The file cannot be read, or holds something that is no certificate.
pub fn chain_facts(path: &Path) -> Result<Vec<Facts>, TlsError> {
    let each = pem::read_certificates(path)?
        .into_iter()
        .map(|certificate| {
            Facts::read(&certificate).map_err(|source| TlsError::X509 {
                path: path.to_owned(),
                source,
            })
        });
    each.collect()
}
