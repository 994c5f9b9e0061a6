//! From a verified chain to an [`Identity`].
//!
//! The one place that makes an identity. What rustls lets through and fsvc does not: a certificate
//! without exactly one name that is a URI, for another purpose, or of another kind.

use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::x509::{Facts, X509Error};
use crate::escape::Escaped;
use crate::identity::{Identity, SpiffeId, SpiffeIdError};

/// Largest chain that a client may send, in bytes.
pub const CHAIN_SIZE_MAX: usize = 16 << 10;
/// Most certificates in a client's chain.
pub const CHAIN_COUNT_MAX: usize = 4;

/// Why a verified certificate names nobody here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    #[error("the client sent no certificate")]
    NoCertificate,
    #[error(
        "the chain has {count} certificates and {size} bytes, at most {CHAIN_COUNT_MAX} and {CHAIN_SIZE_MAX} are taken"
    )]
    ChainTooLong { count: usize, size: usize },
    #[error("the certificate cannot be read")]
    X509(#[from] X509Error),
    #[error("the certificate has no URI name; its common name is not used")]
    NoName,
    #[error("the certificate has {count} URI names ({}); exactly one is needed", shown.join(", "))]
    SeveralNames { count: usize, shown: Vec<String> },
    #[error("the certificate has other names besides its URI; exactly one name is needed")]
    OtherNames,
    #[error("the certificate's name cannot be used: {0}")]
    Name(#[from] SpiffeIdError),
    #[error("the certificate is a CA's, not a client's")]
    Ca,
    #[error("the certificate is not made for signing a handshake (no digitalSignature)")]
    NoDigitalSignature,
    #[error("the certificate does not say that it is for clients (no clientAuth)")]
    NotForClients,
    #[error(
        "the certificate is for other purposes besides being a client's; one for clients only is needed"
    )]
    OtherPurposes,
}

/// Who the end-entity certificate of a verified chain names.
///
/// # Errors
/// The certificate does not fit the profile (PROTOCOL.md has it).
pub fn identify(chain: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    let certificate = chain.first().ok_or(IdentityError::NoCertificate)?;
    let size = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > CHAIN_COUNT_MAX || size > CHAIN_SIZE_MAX {
        return Err(IdentityError::ChainTooLong {
            count: chain.len(),
            size,
        });
    }
    let facts = Facts::read(certificate)?;
    check_purpose(&facts)?;
    let id = the_name(&facts)?;
    Ok(Identity {
        id,
        serial: facts.serial,
        ca: facts.issuer,
        valid_from: facts.not_before,
        expires_at: facts.not_after,
    })
}

fn check_purpose(facts: &Facts) -> Result<(), IdentityError> {
    if facts.is_ca {
        return Err(IdentityError::Ca);
    }
    if !facts.digital_signature {
        return Err(IdentityError::NoDigitalSignature);
    }
    match facts.purposes {
        Some(purposes) if !purposes.client => Err(IdentityError::NotForClients),
        Some(purposes) if purposes.server || purposes.other => Err(IdentityError::OtherPurposes),
        Some(_) => Ok(()),
        None => Err(IdentityError::NotForClients),
    }
}

fn the_name(facts: &Facts) -> Result<SpiffeId, IdentityError> {
    let names = &facts.names;
    match names.uri.as_slice() {
        [] => Err(IdentityError::NoName),
        [_] if !names.dns.is_empty() || !names.ip.is_empty() || names.n_other > 0 => {
            Err(IdentityError::OtherNames)
        }
        [name] => Ok(name.parse()?),
        several => {
            const SHOWN_MAX: usize = 4;
            let mut shown: Vec<_> = several
                .iter()
                .take(SHOWN_MAX)
                .map(|name| Escaped::new(name).to_string())
                .collect();
            if several.len() > SHOWN_MAX {
                shown.push("…".to_owned());
            }
            Err(IdentityError::SeveralNames {
                count: several.len(),
                shown,
            })
        }
    }
}
