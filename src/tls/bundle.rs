//! The certificates that are trusted to sign others.
//!
//! rustls takes any certificate as an anchor, a leaf or an expired one among them (RFC 5280 leaves
//! it to the application); here each is looked at first.

use std::path::Path;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::dates::{minute, with_distance};
use super::x509::Facts;
use super::{TlsError, pem};

/// Trust anchors, each one vetted, and what they say.
pub(super) struct Bundle {
    pub(super) roots: RootCertStore,
    pub(super) facts: Vec<Facts>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Reads a file of CA certificates.
///
/// # Errors
/// The file cannot be read, or one of its certificates may not be trusted as a CA.
pub(super) fn read(path: &Path, now: Timestamp) -> Result<Bundle, TlsError> {
    let mut bundle = Bundle::empty();
    for certificate in pem::read_certificates(path)? {
        let facts = Facts::read(&certificate).map_err(|source| TlsError::X509 {
            path: path.to_owned(),
            source,
        })?;
        if !facts.is_ca {
            return Err(TlsError::NotACa {
                path: path.to_owned(),
                subject: facts.subject,
            });
        }
        if !facts.may_sign {
            return Err(TlsError::CannotSign {
                path: path.to_owned(),
                subject: facts.subject,
            });
        }
        check_dates(path, &facts, now)?;
        bundle.add(path, certificate, facts)?;
    }
    Ok(bundle)
}

impl Bundle {
    fn empty() -> Self {
        Self {
            roots: RootCertStore::empty(),
            facts: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// Certificates of `path` that were looked at before.
    pub(super) fn of(path: &Path, vetted: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let mut bundle = Self::empty();
        for certificate in vetted {
            let facts = Facts::read(certificate).map_err(|source| TlsError::X509 {
                path: path.to_owned(),
                source,
            })?;
            bundle.add(path, certificate.clone(), facts)?;
        }
        Ok(bundle)
    }

    fn add(
        &mut self,
        path: &Path,
        certificate: CertificateDer<'static>,
        facts: Facts,
    ) -> Result<(), TlsError> {
        let added = self.roots.add(certificate.clone());
        added.map_err(|source| TlsError::Rustls {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        self.facts.push(facts);
        self.certificates.push(certificate);
        Ok(())
    }
}

/// The subjects of the CAs in a file, as far as it can be read: for texts alone.
pub(super) fn subjects(path: &Path) -> Vec<String> {
    let certificates = pem::read_certificates(path).unwrap_or_default();
    let facts = certificates.iter().filter_map(|one| Facts::read(one).ok());
    facts.map(|facts| facts.subject).collect()
}

/// Refuses a certificate that is not valid now.
pub(super) fn check_dates(path: &Path, facts: &Facts, now: Timestamp) -> Result<(), TlsError> {
    if facts.not_after < now {
        return Err(TlsError::Expired {
            path: path.to_owned(),
            subject: facts.subject.clone(),
            expired: format!(
                "{}; this clock says {}",
                with_distance(facts.not_after, now),
                minute(now)
            ),
        });
    }
    if facts.not_before > now {
        return Err(TlsError::NotYetValid {
            path: path.to_owned(),
            subject: facts.subject.clone(),
            from: with_distance(facts.not_before, now),
            now: minute(now),
        });
    }
    Ok(())
}
