//! The client's side of TLS.
//!
//! The server is the one that the user named: a name in its certificate, or its identity, under the
//! user's own CA file. Nothing that the server says about itself changes that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, OtherError, RootCertStore};

use super::bundle::{self, Bundle};
use super::dated::{Dated, Make};
use super::pinned::{ServerId, pinned};
use super::server::{mismatch_or, rustls_failed};
use super::witness::{self, Trust};
use super::x509::Facts;
use super::{TlsError, pem, provider};
use crate::protocol::ALPN;

/// Where the client's TLS material is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CAs whose servers are trusted.
    pub ca: PathBuf,
    /// The client's chain and key; without them a server refuses, and says so.
    pub own: Option<OwnFiles>,
    /// Who the server must be; if absent, the name that was connected to says it alone.
    pub server_id: Option<ServerId>,
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
    configure_with_facts(files, now).map(|(config, _)| config)
}

/// The same, with what the client's own certificate says, if it has one that can be read. Each file is
/// read once: it may be a pipe.
pub(super) fn configure_with_facts(
    files: &Files,
    now: Timestamp,
) -> Result<(Arc<ClientConfig>, Option<Facts>), TlsError> {
    let bundle = bundle::read(&files.ca, now)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| rustls_failed(&files.ca, source))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(files, &bundle)?);
    let mut facts = None;
    let mut config = match &files.own {
        Some(own) => {
            let chain = pem::read_certificates(&own.certificate)?;
            facts = Facts::read(&chain[0]).ok();
            let key = pem::read_private_key(&own.key)?;
            let with_pair = builder.with_client_auth_cert(chain, key);
            with_pair.map_err(|source| mismatch_or(&own.key, &own.certificate, source))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((Arc::new(config), facts))
}

/// What rustls itself would take for these CAs, each until its end, and a witness beside it.
fn verifier(files: &Files, bundle: &Bundle) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let trust = Trust {
        ca: files.ca.clone(),
        subjects: bundle.facts.iter().map(|ca| ca.subject.clone()).collect(),
        ..Trust::default()
    };
    let server_id = files.server_id.clone();
    let make = move |roots: RootCertStore| {
        let roots = Arc::new(roots);
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider());
        let built = builder.build();
        let verifier = built.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))?;
        Ok(match &server_id {
            Some(server) => pinned(verifier, roots, server.clone()),
            None => verifier,
        })
    };
    let make: Make<dyn ServerCertVerifier> = Box::new(make);
    let verifier = Dated::new(bundle, make);
    let verifier = verifier.map_err(|source| rustls_failed(&files.ca, source))?;
    Ok(witness::of_servers(Arc::new(verifier), trust))
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
