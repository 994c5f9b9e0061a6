//! From a verified chain to an [`Identity`].
//!
//! The one place that makes an identity. What rustls lets through and fsvc does not: a certificate
//! for another purpose, of another kind, or without exactly one name. Which name that is follows
//! from its CA alone, never from what else the certificate has.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::anchors::{Anchors, Signer};
use super::x509::{Facts, X509Error};
use crate::escape::Escaped;
use crate::identity::{Identity, NameSource, SpiffeId, SpiffeIdError};

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
    #[error(
        "the certificate has no {0}, by which its CA's certificates are known here; no other name is used"
    )]
    NotNamedSo(&'static str),
    #[error("the certificate has {count} {kind}s ({}); exactly one is needed", shown.join(", "))]
    SeveralOfKind {
        kind: &'static str,
        count: usize,
        shown: Vec<String>,
    },
    #[error("the certificate has other names besides its {0}; exactly one name is needed")]
    OthersBeside(&'static str),
    #[error("the certificate's {kind} {name} cannot be used: it has to be one part of an identity")]
    NotOnePart { kind: &'static str, name: Escaped },
    #[error("the certificate names {id}, and its CA {ca} may name only {bound}, not {domain}",
        domain = id.trust_domain())]
    OtherDomain {
        id: SpiffeId,
        ca: String,
        bound: String,
    },
    #[error("the certificate names {id}, and its CA {ca} may not name {domain}, which is bound to another CA",
        domain = id.trust_domain())]
    BoundDomain { id: SpiffeId, ca: String },
    #[error("the certificate leads to no CA that is trusted now: {0}")]
    Chain(webpki::Error),
    #[error("the certificate is a CA's, not a client's")]
    Ca,
    #[error("the certificate's serial number ({}) is not a positive number of at most 20 bytes", Escaped::new(.0))]
    Serial(String),
    #[error("the CA {0} in the chain may not sign certificates (no keyCertSign)")]
    CannotSign(String),
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
/// The certificate does not fit the profile (PROTOCOL.md has it), or its CA may not name this one.
pub fn identify(
    chain: &[CertificateDer<'_>],
    anchors: &Anchors,
    now: Timestamp,
) -> Result<Identity, IdentityError> {
    let certificate = chain.first().ok_or(IdentityError::NoCertificate)?;
    let size = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > CHAIN_COUNT_MAX || size > CHAIN_SIZE_MAX {
        return Err(IdentityError::ChainTooLong {
            count: chain.len(),
            size,
        });
    }
    let facts = Facts::read(certificate)?;
    let signer = anchors.signer(chain, now).map_err(IdentityError::Chain)?;
    let binding = signer.as_ref().and_then(|signer| signer.binding);
    check_purpose(&facts, binding.is_some_and(|binding| binding.also_servers))?;
    super::marks::check(&facts.serial, &chain[1..])?;
    let id = match binding {
        None => the_uri(&facts, false)?,
        Some(binding) => match binding.source {
            NameSource::Uri => the_uri(&facts, binding.also_servers)?,
            NameSource::Dns => the_dns_name(&facts, &binding.trust_domain)?,
            NameSource::CommonName => the_common_name(&facts, &binding.trust_domain)?,
        },
    };
    check_domain(&id, signer.as_ref())?;
    Ok(Identity {
        id,
        serial: facts.serial,
        ca: facts.issuer,
        valid_from: facts.not_before,
        expires_at: facts.not_after,
    })
}

fn check_purpose(facts: &Facts, also_servers: bool) -> Result<(), IdentityError> {
    if facts.is_ca {
        return Err(IdentityError::Ca);
    }
    if !facts.digital_signature {
        return Err(IdentityError::NoDigitalSignature);
    }
    match facts.purposes {
        Some(purposes) if !purposes.client => Err(IdentityError::NotForClients),
        Some(purposes) if purposes.other || (purposes.server && !also_servers) => {
            Err(IdentityError::OtherPurposes)
        }
        Some(_) => Ok(()),
        None => Err(IdentityError::NotForClients),
    }
}

/// A CA that is bound names its domain alone, and nobody else names that.
fn check_domain(id: &SpiffeId, signer: Option<&Signer<'_>>) -> Result<(), IdentityError> {
    let Some(signer) = signer.filter(|signer| !signer.may_name(id.trust_domain())) else {
        return Ok(());
    };
    let (id, ca) = (id.clone(), signer.subject.to_owned());
    Err(match signer.binding {
        Some(binding) => IdentityError::OtherDomain {
            id,
            ca,
            bound: binding.trust_domain.clone(),
        },
        None => IdentityError::BoundDomain { id, ca },
    })
}

/// Names of DNS have no case.
fn the_dns_name(facts: &Facts, domain: &str) -> Result<SpiffeId, IdentityError> {
    const KIND: &str = "DNS name";
    let names = &facts.names;
    let name = the_one(KIND, &names.dns)?.to_ascii_lowercase();
    if !names.uri.is_empty() || !names.ip.is_empty() || names.n_other > 0 {
        return Err(IdentityError::OthersBeside(KIND));
    }
    if name.split('.').any(str::is_empty) {
        return Err(not_one_part(KIND, &name));
    }
    composed(KIND, domain, "dns", &name)
}

/// A URI beside it is another identity; names of hosts and people are no rival of a common name.
fn the_common_name(facts: &Facts, domain: &str) -> Result<SpiffeId, IdentityError> {
    const KIND: &str = "common name";
    let name = the_one(KIND, &facts.common_names)?;
    if !facts.names.uri.is_empty() {
        return Err(IdentityError::OthersBeside(KIND));
    }
    composed(KIND, domain, "cn", name)
}

fn the_one<'a>(kind: &'static str, names: &'a [String]) -> Result<&'a str, IdentityError> {
    match names {
        [] => Err(IdentityError::NotNamedSo(kind)),
        [name] => Ok(name),
        several => Err(IdentityError::SeveralOfKind {
            kind,
            count: several.len(),
            shown: shown(several),
        }),
    }
}

/// What stands behind `dns/` or `cn/` is one segment, so that no name reaches into another's place.
fn composed(
    kind: &'static str,
    domain: &str,
    parent: &str,
    name: &str,
) -> Result<SpiffeId, IdentityError> {
    if name.contains('/') {
        return Err(not_one_part(kind, name));
    }
    Ok(format!("spiffe://{domain}/{parent}/{name}").parse()?)
}

fn not_one_part(kind: &'static str, name: &str) -> IdentityError {
    IdentityError::NotOnePart {
        kind,
        name: Escaped::new(name),
    }
}

/// The first of several names, escaped.
fn shown(names: &[String]) -> Vec<String> {
    const SHOWN_MAX: usize = 4;
    let first = names.iter().take(SHOWN_MAX);
    let mut shown: Vec<_> = first.map(|name| Escaped::new(name).to_string()).collect();
    if names.len() > SHOWN_MAX {
        shown.push("…".to_owned());
    }
    shown
}

/// The names of hosts are no rival of the URI where certificates are for servers too.
fn the_uri(facts: &Facts, also_servers: bool) -> Result<SpiffeId, IdentityError> {
    let names = &facts.names;
    let has_hosts = !names.dns.is_empty() || !names.ip.is_empty();
    match names.uri.as_slice() {
        [] => Err(IdentityError::NoName),
        [_] if names.n_other > 0 || (has_hosts && !also_servers) => Err(IdentityError::OtherNames),
        [name] => Ok(name.parse()?),
        several => Err(IdentityError::SeveralNames {
            count: several.len(),
            shown: shown(several),
        }),
    }
}
