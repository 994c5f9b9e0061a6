//! What an existing certificate says, and whether it can stay.
//!
//! Only ever narrows: webpki says whether the CA signed it, the profile of `issue` is then held
//! against it field by field.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, KeyUsage as KeyUsageBits, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use super::issue::{Role, Validity, hex};
use super::name::Host;
use crate::escape::Escaped;
use crate::identity::{SpiffeId, renew_after};

/// What one certificate says.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) serial: String,
    pub(super) validity: Validity,
    /// The public key, DER.
    pub(super) public_key: Vec<u8>,
    pub(super) hosts: Vec<Host>,
    pub(super) uris: Vec<String>,
    /// Names that are neither a host nor a URI.
    other_names: usize,
    shape: Shape,
    usages: Usages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Ca,
    /// A CA that may not sign certificates and lists.
    CaWithoutUsage,
    /// Signs handshakes and nothing else, and names its key and its CA's.
    Leaf,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usages {
    ServerOnly,
    ClientOnly,
    Both,
    Other,
}

/// Why a certificate was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    Revoked,
    Expired { at: Timestamp },
    ExpiresSoon { at: Timestamp },
    NewHosts { added: Vec<Host> },
    SignedByOther,
    WrongIdentity { found: String },
    Unfit { reason: String },
    KeyMissing,
    KeyMismatch,
    CertificateMissing,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Revoked => f.write_str("the old one was revoked"),
            Self::Expired { at } => write!(f, "the old one expired {at}"),
            Self::ExpiresSoon { at } => write!(f, "the old one expires {at}"),
            Self::NewHosts { added } => {
                let names: Vec<String> = added.iter().map(Host::to_string).collect();
                write!(f, "the old one lacks {}", names.join(", "))
            }
            Self::SignedByOther => f.write_str("the old one is not signed by this CA"),
            Self::WrongIdentity { found } => {
                write!(f, "the old one is for {}", Escaped::new(found))
            }
            Self::Unfit { reason } => write!(f, "the old one {}", Escaped::new(reason)),
            Self::KeyMissing => f.write_str("the key of the old one is missing"),
            Self::KeyMismatch => f.write_str("the old key does not belong to it"),
            Self::CertificateMissing => f.write_str("there was only a key"),
        }
    }
}

/// Reads one certificate.
pub(super) fn facts(path: &Path, der: &CertificateDer<'_>) -> Result<Facts, PkiError> {
    let unusable = |reason: String| PkiError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let (rest, x509) =
        X509Certificate::from_der(der).map_err(|error| unusable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unusable("bytes follow it".to_owned()));
    }
    read(&x509).map_err(unusable)
}

fn read(x509: &X509Certificate<'_>) -> Result<Facts, String> {
    let text = |error: X509Error| error.to_string();
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    let mut facts = Facts {
        serial: hex(x509.raw_serial()),
        validity: Validity {
            not_before: time(x509.validity().not_before.timestamp())?,
            not_after: time(x509.validity().not_after.timestamp())?,
        },
        public_key: x509.public_key().raw.to_vec(),
        hosts: Vec::new(),
        uris: Vec::new(),
        other_names: 0,
        shape: shape(x509).map_err(text)?,
        usages: Usages::Other,
    };
    if let Some(names) = x509.subject_alternative_name().map_err(text)? {
        names
            .value
            .general_names
            .iter()
            .for_each(|name| facts.add_name(name));
    }
    if let Some(usage) = x509.extended_key_usage().map_err(text)? {
        let usage = usage.value;
        let more = usage.any
            || usage.code_signing
            || usage.email_protection
            || usage.time_stamping
            || usage.ocsp_signing
            || !usage.other.is_empty();
        facts.usages = match (usage.server_auth, usage.client_auth, more) {
            (true, false, false) => Usages::ServerOnly,
            (false, true, false) => Usages::ClientOnly,
            (true, true, false) => Usages::Both,
            _ => Usages::Other,
        };
    }
    Ok(facts)
}

fn shape(x509: &X509Certificate<'_>) -> Result<Shape, X509Error> {
    let is_ca = x509.basic_constraints()?.is_some_and(|c| c.value.ca);
    let usage = x509.key_usage()?;
    let may = |usage_fits: fn(&KeyUsageBits) -> bool| {
        usage.as_ref().is_some_and(|usage| usage_fits(usage.value))
    };
    let may_sign = may(|usage| usage.key_cert_sign() && usage.crl_sign());
    let may_shake_hands = may(|usage| usage.digital_signature() && !usage.key_cert_sign());
    Ok(match (is_ca, may_sign) {
        (true, true) => Shape::Ca,
        (true, false) => Shape::CaWithoutUsage,
        (false, _) if may_shake_hands && has_key_ids(x509) => Shape::Leaf,
        (false, _) => Shape::Other,
    })
}

fn has_key_ids(x509: &X509Certificate<'_>) -> bool {
    let holds = |fits: fn(&ParsedExtension<'_>) -> bool| {
        x509.extensions()
            .iter()
            .any(|extension| fits(extension.parsed_extension()))
    };
    holds(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_)))
        && holds(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_)))
}

impl Facts {
    fn add_name(&mut self, name: &GeneralName<'_>) {
        let host = match name {
            GeneralName::URI(uri) => return self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => name.parse::<Host>().ok(),
            GeneralName::IPAddress(bytes) => address(bytes).map(Host::Ip),
            _ => None,
        };
        match host {
            Some(host) => self.hosts.push(host),
            None => self.other_names += 1,
        }
    }

    /// Whether this is a certificate that may sign others.
    pub(super) fn check_ca(&self) -> Result<(), &'static str> {
        match self.shape {
            Shape::Ca => Ok(()),
            Shape::CaWithoutUsage => Err("its key usage lacks keyCertSign or cRLSign"),
            Shape::Leaf | Shape::Other => Err("it is not a CA certificate"),
        }
    }

    /// What keeps the certificate from being as fsvc would make it for `identity`.
    pub(super) fn check_profile(&self, role: &Role, identity: &SpiffeId) -> Option<Why> {
        let unfit = |reason: &str| {
            Some(Why::Unfit {
                reason: reason.to_owned(),
            })
        };
        let wanted_usages = match role {
            Role::Server { .. } => Usages::ServerOnly,
            Role::Client => Usages::ClientOnly,
            Role::Peer { .. } => Usages::Both,
        };
        if self.uris != [identity.as_str()] {
            let found = self.uris.join(" and ");
            return Some(Why::WrongIdentity { found });
        }
        if self.other_names != 0 || (*role == Role::Client && !self.hosts.is_empty()) {
            return unfit("has other names beside its identity");
        }
        if self.usages != wanted_usages {
            return unfit("is for another purpose");
        }
        if self.shape != Shape::Leaf {
            return unfit("lacks what peers check");
        }
        let (Role::Server { hosts } | Role::Peer { hosts }) = role else {
            return None;
        };
        let added: Vec<Host> = hosts
            .iter()
            .filter(|host| !self.hosts.contains(host))
            .cloned()
            .collect();
        (!added.is_empty()).then_some(Why::NewHosts { added })
    }

    /// Whether its time has come, given the validity that a new one would have.
    pub(super) fn check_time(&self, now: Timestamp, new: Validity) -> Option<Why> {
        let Validity {
            not_before,
            not_after: at,
        } = self.validity;
        if at <= now {
            return Some(Why::Expired { at });
        }
        let last_third = now > renew_after(not_before, at);
        // One that is cut short by the end of its CA would be renewed on every run.
        (last_third && new.not_after > at).then_some(Why::ExpiresSoon { at })
    }
}

/// The identifier that a certificate gives its key.
pub(super) fn key_id(der: &[u8]) -> Option<Vec<u8>> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    let mut extensions = x509.extensions().iter();
    extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Whether a revocation list bears the name of `ca`, which no other CA has.
pub(super) fn is_list_of(list: &[u8], ca: &[u8]) -> bool {
    let list = CertificateRevocationList::from_der(list);
    let ca = X509Certificate::from_der(ca);
    matches!((list, ca), (Ok((_, list)), Ok((_, ca)))
        if list.issuer().as_raw() == ca.subject().as_raw())
}

/// The distinguished name of a certificate, escaped.
pub(super) fn subject(der: &[u8]) -> String {
    X509Certificate::from_der(der).map_or_else(
        |_| String::new(),
        |(_, x509)| Escaped::new(&x509.subject().to_string()).to_string(),
    )
}

/// Whether two certificates have one subject.
pub(super) fn have_one_name(one: &[u8], other: &[u8]) -> bool {
    let read = X509Certificate::from_der;
    matches!((read(one), read(other)), (Ok((_, one)), Ok((_, other)))
        if one.subject().as_raw() == other.subject().as_raw())
}

/// Whether `der` bears the name of `ca` as its issuer and its key's signature.
pub(super) fn is_issued_by(der: &[u8], ca: &[u8]) -> bool {
    let read = X509Certificate::from_der;
    matches!((read(der), read(ca)), (Ok((_, der)), Ok((_, ca)))
        if der.issuer().as_raw() == ca.subject().as_raw()
            && der.verify_signature(Some(ca.public_key())).is_ok())
}

/// Whether one of `anchors` signed the certificate, whatever the time is.
pub(super) fn check_signature(
    der: &CertificateDer<'_>,
    anchors: &[CertificateDer<'static>],
    role: &Role,
    facts: &Facts,
) -> Option<Why> {
    let anchors: Vec<_> = anchors
        .iter()
        .filter_map(|anchor| anchor_from_trusted_cert(anchor).ok())
        .collect();
    let usage = match role {
        Role::Server { .. } | Role::Peer { .. } => KeyUsage::server_auth(),
        Role::Client => KeyUsage::client_auth(),
    };
    let begin = u64::try_from(facts.validity.not_before.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(begin));
    let algorithms = default_provider().signature_verification_algorithms.all;
    let verified = EndEntityCert::try_from(der).and_then(|end| {
        end.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None)
            .map(|_| ())
    });
    match verified {
        Ok(()) => None,
        Err(webpki::Error::UnknownIssuer) => Some(Why::SignedByOther),
        Err(error) => Some(Why::Unfit {
            reason: format!("is refused by TLS: {error}"),
        }),
    }
}
