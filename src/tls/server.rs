//! The server's side of TLS.
//!
//! A client certificate is required and verified in the handshake, against the bundle and its
//! revocation lists; every listener shares the one configuration made here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{InconsistentKeys, ServerConfig};

use super::bundle::{self, Bundle};
use super::pem::PemError;
use super::x509::{Facts, ListFacts};
use super::{TlsError, pem, provider};
use crate::protocol::ALPN;

/// Where the server's TLS material is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's chain, its own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The CAs whose clients are let in.
    pub ca: PathBuf,
    /// Their revocation lists, one for each; `None` takes every certificate that is in date.
    pub crl: Option<PathBuf>,
}

/// Loads the files as one set and configures TLS from them.
///
/// # Errors
/// A file is missing, too open, out of date, or does not fit the others; the text names both.
pub fn configure(files: &Files, now: Timestamp) -> Result<Arc<ServerConfig>, TlsError> {
    check_key_mode(&files.key)?;
    let chain = pem::read_certificates(&files.certificate)?;
    check_own_certificate(&files.certificate, &chain[0], now)?;
    let key = pem::read_private_key(&files.key)?;
    let bundle = bundle::read(&files.ca, now)?;

    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(bundle.roots.clone()), provider());
    if let Some(crl) = &files.crl {
        check_lists(crl, files, &bundle, now)?;
        verifier = verifier
            .with_crls(pem::read_revocation_lists(crl)?)
            .enforce_revocation_expiration();
    }
    let verifier = verifier
        .build()
        .map_err(|source| rustls_failed(&files.ca, source))?;

    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| rustls_failed(&files.certificate, source))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|source| mismatch_or(&files.key, &files.certificate, source))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Group-readable is how containers hand a key to another user; readable by all is a mistake.
fn check_key_mode(path: &Path) -> Result<(), TlsError> {
    const OTHERS_OR_GROUP_WRITE: u32 = 0o027;
    let metadata = fs::metadata(path).map_err(|source| PemError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS_OR_GROUP_WRITE != 0 {
        return Err(TlsError::OpenKey {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn check_own_certificate(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<(), TlsError> {
    let facts = Facts::read(certificate).map_err(|source| TlsError::X509 {
        path: path.to_owned(),
        source,
    })?;
    bundle::check_dates(path, &facts, now)?;
    if facts.is_ca || facts.purposes.is_some_and(|purposes| !purposes.server) {
        return Err(TlsError::WrongRole {
            path: path.to_owned(),
            subject: facts.subject,
            role: "server",
        });
    }
    Ok(())
}

/// With any list configured, rustls refuses every client of a CA that has none, or an old one.
fn check_lists(crl: &Path, files: &Files, bundle: &Bundle, now: Timestamp) -> Result<(), TlsError> {
    let mut lists = Vec::new();
    for list in pem::read_revocation_lists(crl)? {
        let list = ListFacts::read(&list).map_err(|source| TlsError::List {
            path: crl.to_owned(),
            source,
        })?;
        if let Some(next_update) = list.next_update.filter(|next_update| *next_update < now) {
            return Err(TlsError::ListExpired {
                path: crl.to_owned(),
                issuer: list.issuer,
                expired: next_update.to_string(),
            });
        }
        lists.push(list);
    }
    for facts in &bundle.facts {
        if !lists.iter().any(|list| list.issuer == facts.subject) {
            return Err(TlsError::NoRevocationList {
                bundle: files.ca.clone(),
                crl: crl.to_owned(),
                subject: facts.subject.clone(),
            });
        }
    }
    Ok(())
}

/// Names both files where the key is another certificate's, and the one that is at fault where it
/// is the certificate.
pub(super) fn mismatch_or(key: &Path, certificate: &Path, source: rustls::Error) -> TlsError {
    match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
        },
        rustls::Error::InvalidCertificate(reason) => TlsError::Unusable {
            path: certificate.to_owned(),
            reason: reason.to_string(),
        },
        source => rustls_failed(certificate, source),
    }
}

pub(super) fn rustls_failed(
    path: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> TlsError {
    TlsError::Rustls {
        path: path.to_owned(),
        source: Box::new(source),
    }
}
