//! CAs and revocation lists of others, looked at before they are trusted.
//!
//! Refuses what a server would refuse at its start, and what TLS would take without a look: a
//! certificate that is no CA, or one that is out of date.

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use super::bundle_error::BundleError;
use super::key::{self, KeyFault};
use crate::escape::Escaped;
use crate::tls::x509::Facts;
use crate::tls::x509_list;

/// What can be done about a list that is not good for its age or its form.
const FRESH: &str = "get a fresh, complete list from that CA";

/// What was found out about a CA.
pub(super) struct Vetted {
    pub(super) facts: Facts,
    /// What the operator should know before relying on it.
    pub(super) notes: Vec<String>,
}

/// Reads a certificate of a bundle, good or not.
pub(super) fn read(path: &Path, der: &CertificateDer<'_>) -> Result<Facts, PkiError> {
    Facts::read(der).map_err(|error| PkiError::Certificate {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Refuses a certificate that may not be trusted as a CA.
pub(super) fn ca(
    path: &Path,
    der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Vetted, PkiError> {
    let facts = read(path, der)?;
    let (path, name) = (path.to_owned(), facts.subject.clone());
    let (_, x509) = X509Certificate::from_der(der).map_err(|error| PkiError::Certificate {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let version = x509.version().0.saturating_add(1);
    let refusal = if version != 3 {
        BundleError::Version {
            path,
            name,
            version,
        }
    } else if !facts.is_ca {
        BundleError::NotACa { path, name }
    } else if !facts.may_sign {
        BundleError::CannotSign { path, name }
    } else if facts.not_after <= now {
        let at = facts.not_after;
        BundleError::Expired {
            path,
            name,
            at,
            now,
        }
    } else if facts.not_before > now {
        let from = facts.not_before;
        BundleError::Early {
            path,
            name,
            from,
            now,
        }
    } else if let Err(fault @ (KeyFault::RsaSize { .. } | KeyFault::Malformed)) =
        key::check(x509.public_key())
    {
        BundleError::Key { path, name, fault }
    } else if is_self_signed(&x509) == Some(false) {
        BundleError::Signature { path, name }
    } else {
        let notes = notes(&x509, &facts);
        return Ok(Vetted { facts, notes });
    };
    Err(refusal.into())
}

/// Whether a certificate that names itself as its issuer is signed by its own key; `None` if it
/// does not, or if its algorithm is not known here.
fn is_self_signed(x509: &X509Certificate<'_>) -> Option<bool> {
    if x509.issuer().as_raw() != x509.subject().as_raw() {
        return None;
    }
    match x509.verify_signature(None) {
        Ok(()) => Some(true),
        Err(X509Error::SignatureUnsupportedAlgorithm) => None,
        Err(_) => Some(false),
    }
}

fn notes(x509: &X509Certificate<'_>, facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    for extension in x509.extensions() {
        let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() else {
            continue;
        };
        let trees = [
            &constraints.permitted_subtrees,
            &constraints.excluded_subtrees,
        ];
        let mut bases = trees.into_iter().flatten().flatten().map(|tree| &tree.base);
        if bases.any(|base| matches!(base, GeneralName::URI(_) | GeneralName::DirectoryName(_))) {
            notes.push(format!(
                "the CA {} limits the URIs or subjects of its certificates, which TLS here cannot \
                 check: it refuses certificates with a URI in them",
                facts.subject
            ));
        }
    }
    if facts.issuer != facts.subject {
        notes.push(format!(
            "the CA {} is an intermediate one, signed by {}: it is trusted by itself, and its \
             issuer is not",
            facts.subject, facts.issuer
        ));
    }
    notes
}

/// Refuses a revocation list that is not a good one of `ca`, or older than `old`.
pub(super) fn list(
    path: &Path,
    der: &CertificateRevocationListDer<'_>,
    ca: &CertificateDer<'_>,
    old: Option<&CertificateRevocationListDer<'_>>,
    now: Timestamp,
) -> Result<(), PkiError> {
    let unfit = |issuer: String, reason: &str, hint| -> PkiError {
        BundleError::ListUnfit {
            path: path.to_owned(),
            issuer,
            reason: reason.to_owned(),
            hint,
        }
        .into()
    };
    let nobody = || "an unknown issuer".to_owned();
    let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
        return Err(unfit(nobody(), "is malformed", FRESH));
    };
    let Ok((_, x509)) = X509Certificate::from_der(ca) else {
        return Err(unfit(nobody(), "is of a malformed CA", FRESH));
    };
    let issuer = Escaped::new(&list.issuer().to_string()).to_string();
    if list.issuer().as_raw() != x509.subject().as_raw() {
        return Err(BundleError::ListForeign {
            path: path.to_owned(),
            issuer,
        }
        .into());
    }
    let fault = if let Some(fault) = x509_list::fault(der, ca, now) {
        return Err(unfit(issuer, &fault.to_string(), fault.hint()));
    } else if let Some(end) = list.next_update()
        && end.timestamp() <= now.as_second()
    {
        format!("should have been followed by a newer one on {end}")
    } else if let Some((has, found)) = is_older(&list, old) {
        format!("has the number {found}, and the one in place has {has}")
    } else {
        return Ok(());
    };
    Err(unfit(issuer, &fault, FRESH))
}

fn is_older(
    list: &CertificateRevocationList<'_>,
    old: Option<&CertificateRevocationListDer<'_>>,
) -> Option<(BigUint, BigUint)> {
    let (_, old) = CertificateRevocationList::from_der(old?).ok()?;
    let (has, found) = (old.crl_number()?.clone(), list.crl_number()?.clone());
    (found < has).then_some((has, found))
}
