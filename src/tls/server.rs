//! The server's side of TLS.
//!
//! A client certificate is required and verified in the handshake, against the bundle and its
//! revocation lists; every listener shares the one configuration made here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, InconsistentKeys, OtherError, RootCertStore, ServerConfig};

use super::anchors::Anchors;
use super::bundle::{self, Bundle};
use super::dated::{Dated, Make};
use super::diagnosis::BROKEN;
use super::lists::{self, rank};
use super::pem::PemError;
use super::witness::{self, Trust};
use super::x509::{Facts, ListFacts, hex};
use super::x509_kind::weakness;
use super::{TlsError, pem, provider};
use crate::identity::Binding;
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

/// What was loaded as one set.
#[derive(Debug)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Which CA may name whom.
    pub anchors: Anchors,
    /// The revocation lists of the CAs.
    pub lists: Vec<ListFacts>,
    /// The server's own certificate, then the CAs.
    pub certificates: Vec<Facts>,
}

/// Why a chain that was let in once would not be now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    Expired,
    Revoked,
    /// By no CA that is trusted now, or for another reason.
    Untrusted(String),
}

impl Loaded {
    /// The CAs that have a revocation list, each with the number of its list.
    pub fn list_numbers(&self) -> Vec<String> {
        let number = |bytes: &[u8]| {
            let small: Option<u64> = bytes.iter().try_fold(0_u64, |n, byte| {
                n.checked_mul(256)?.checked_add(u64::from(*byte))
            });
            small.map_or_else(|| "of many digits".to_owned(), |n| n.to_string())
        };
        let lists = self.lists.iter();
        lists
            .map(|list| format!("{} #{}", list.issuer, number(&list.number)))
            .collect()
    }

    /// Whether a trusted CA or a revocation list ended between the two times: who was let in before
    /// may not be now.
    pub fn has_ended_between(&self, before: Timestamp, now: Timestamp) -> bool {
        let cas = self.certificates.iter().skip(1).map(|ca| ca.not_after);
        let lists = self.lists.iter().filter_map(|list| list.next_update);
        // In whole seconds, as the verifier compares them.
        let seconds = before.as_second()..now.as_second();
        cas.chain(lists)
            .any(|end| seconds.contains(&end.as_second()))
    }

    /// Whether a client's chain would be let in now. It checks signatures: some tenths of a
    /// millisecond.
    ///
    /// # Errors
    /// It would not.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), Unfit> {
        let Some((certificate, intermediates)) = chain.split_first() else {
            return Err(Unfit::Untrusted("there is none".to_owned()));
        };
        let since_1970 = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(since_1970));
        let verified = self
            .verifier
            .verify_client_cert(certificate, intermediates, now);
        match verified {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => {
                Err(Unfit::Revoked)
            }
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Err(Unfit::Expired),
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Err(
                Unfit::Untrusted("its CA is not among those that are trusted now".to_owned()),
            ),
            Err(error) => Err(Unfit::Untrusted(error.to_string())),
        }
    }

    /// Whether this set may come after `old`: no revocation list goes back in time.
    ///
    /// # Errors
    /// One does.
    pub fn check_succeeds(&self, old: &Self) -> Result<(), TlsError> {
        for list in &self.lists {
            let before = old.lists.iter().find(|old| old.issuer == list.issuer);
            if let Some(before) = before
                && rank(&list.number) < rank(&before.number)
            {
                return Err(TlsError::ListRolledBack {
                    issuer: list.issuer.clone(),
                    found: hex(&list.number),
                    before: hex(&before.number),
                });
            }
        }
        Ok(())
    }
}

/// Loads the files as one set and configures TLS from them. Blocks.
///
/// # Errors
/// A file is missing, too open, out of date, or does not fit the others; the text names both.
pub fn configure(files: &Files, bindings: &[Binding], now: Timestamp) -> Result<Loaded, TlsError> {
    check_key_mode(&files.key)?;
    let chain = pem::read_certificates(&files.certificate)?;
    let own = check_own_certificate(&files.certificate, &chain[0], now)?;
    let key = pem::read_private_key(&files.key)?;
    let bundle = bundle::read(&files.ca, now)?;

    let mut trust = Trust {
        ca: files.ca.clone(),
        subjects: bundle.facts.iter().map(|ca| ca.subject.clone()).collect(),
        crl: files.crl.clone(),
        lists: Vec::new(),
    };
    let mut lists = Vec::new();
    if let Some(crl) = &files.crl {
        // Read once: what is checked is what is used.
        trust.lists = pem::read_revocation_lists(crl)?;
        lists = lists::check(&trust.lists, (crl, &files.ca), &bundle, (&own, now))?;
    }
    let anchors = Anchors::new(
        (&files.ca, files.crl.as_deref()),
        &bundle,
        &trust.lists,
        bindings,
    )?;
    let of_lists = files.crl.is_some().then(|| trust.lists.clone());
    let verifier = client_verifier(&bundle, of_lists);
    let verifier = verifier.map_err(|source| rustls_failed(&files.ca, source))?;

    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| rustls_failed(&files.certificate, source))?
        .with_client_cert_verifier(witness::of_clients(Arc::clone(&verifier), trust))
        .with_single_cert(chain, key)
        .map_err(|source| mismatch_or(&files.key, &files.certificate, source))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let mut certificates = vec![own];
    certificates.extend(bundle.facts);
    Ok(Loaded {
        config: Arc::new(config),
        verifier,
        anchors,
        lists,
        certificates,
    })
}

/// Who judges clients: by these CAs, each until its end, and by their lists, if any are asked.
pub(super) fn client_verifier(
    bundle: &Bundle,
    lists: Option<Vec<CertificateRevocationListDer<'static>>>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let make = move |roots: RootCertStore| {
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
        if let Some(lists) = &lists {
            builder = builder
                .with_crls(lists.clone())
                .enforce_revocation_expiration();
        }
        let built = builder.build();
        built.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    };
    let make: Make<dyn ClientCertVerifier> = Box::new(make);
    Ok(Arc::new(Dated::new(bundle, make)?))
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
) -> Result<Facts, TlsError> {
    let facts = Facts::read(certificate).map_err(|source| TlsError::X509 {
        path: path.to_owned(),
        source,
    })?;
    bundle::check_dates(path, &facts, now)?;
    if facts.is_ca {
        return Err(TlsError::CaAsServer {
            path: path.to_owned(),
            subject: facts.subject,
        });
    }
    if facts.purposes.is_some_and(|purposes| !purposes.server) {
        return Err(TlsError::WrongRole {
            path: path.to_owned(),
            subject: facts.subject,
            role: "server",
        });
    }
    Ok(facts)
}

/// Names both files where the key is another certificate's, and the one that is at fault where it
/// is the certificate.
pub(super) fn mismatch_or(key: &Path, certificate: &Path, source: rustls::Error) -> TlsError {
    match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
        },
        rustls::Error::InvalidCertificate(_) => TlsError::Unusable {
            path: certificate.to_owned(),
            reason: unusable(certificate).unwrap_or_else(|| BROKEN.to_owned()),
        },
        source => rustls_failed(certificate, source),
    }
}

/// What about the certificates in a file is not taken.
fn unusable(path: &Path) -> Option<String> {
    pem::read_certificates(path).ok()?.iter().find_map(weakness)
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
