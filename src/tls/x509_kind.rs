//! What kind of certificate it is: version, algorithms, constraints.
//!
//! Read only to say why a certificate was refused, never to accept one.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::asn1_rs::{Oid, oid};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;

use jiff::Timestamp;

use crate::escape::Escaped;

/// Constraints that are shown; a CA may carry any number.
const SHOWN_MAX: usize = 4;
/// The RSA keys that are taken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What TLS looks at besides names, dates and purposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// One, two or three.
    pub(super) version: u32,
    /// How it is signed, for people.
    pub(super) signature: String,
    /// What its key is, for people.
    pub(super) key: String,
    /// Why it is too weak, if it is.
    pub(super) weakness: Option<String>,
    /// The names that a CA may sign for, for people; absent where it may for all.
    pub(super) permitted: Option<String>,
    /// Whether it constrains names that are URIs, which the verifier cannot check.
    pub(super) constrains_uris: bool,
    /// Extensions that are marked critical and that no verifier here knows.
    pub(super) unknown_critical: Vec<String>,
}

impl Kind {
    /// Reads what can be read; `None` for bytes that are no certificate.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, x509) = X509Certificate::from_der(certificate).ok()?;
        let (signature, is_old) = signature(&x509.signature_algorithm.algorithm);
        let (key, refused_size) = match x509.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => {
                let bits = key.key_size();
                (format!("RSA with {bits} bits"), !RSA_BITS.contains(&bits))
            }
            Ok(PublicKey::EC(key)) => (format!("EC with {} bits", key.key_size()), false),
            _ => ("of another kind".to_owned(), false),
        };
        let weakness = if is_old {
            Some(format!("it is signed with {signature}"))
        } else {
            let (min, max) = (RSA_BITS.start(), RSA_BITS.end());
            refused_size.then(|| format!("its key is {key}, {min} to {max} are taken"))
        };
        let constraints = x509.name_constraints().ok().flatten();
        let trees = |excluded: bool| {
            let value = constraints.as_ref().map(|constraints| constraints.value);
            value
                .and_then(|value| {
                    if excluded {
                        value.excluded_subtrees.as_ref()
                    } else {
                        value.permitted_subtrees.as_ref()
                    }
                })
                .into_iter()
                .flatten()
                .map(|tree| &tree.base)
        };
        let permitted: Vec<String> = trees(false).take(SHOWN_MAX).map(shown).collect();
        Some(Self {
            version: x509.version().0 + 1,
            signature,
            key,
            weakness,
            permitted: (!permitted.is_empty()).then(|| permitted.join(", ")),
            constrains_uris: trees(false)
                .chain(trees(true))
                .any(|name| matches!(name, GeneralName::URI(_))),
            unknown_critical: x509
                .extensions()
                .iter()
                .filter(|extension| extension.critical)
                .filter(|extension| {
                    matches!(
                        extension.parsed_extension(),
                        ParsedExtension::UnsupportedExtension { .. }
                    )
                })
                .take(SHOWN_MAX)
                .map(|extension| extension.oid.to_id_string())
                .collect(),
        })
    }
}

/// What about the form of a certificate is not taken, if that can be told.
pub(super) fn weakness(certificate: &CertificateDer<'_>) -> Option<String> {
    let kind = Kind::read(certificate)?;
    if kind.version < 3 {
        return Some(format!(
            "it is of X.509 version {}, 3 is needed",
            kind.version
        ));
    }
    if !kind.unknown_critical.is_empty() {
        let which = kind.unknown_critical.join(", ");
        return Some(format!(
            "its extension {which} is marked critical and not known here"
        ));
    }
    kind.weakness
}

fn shown(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Escaped::new(name).to_string()
        }
        other => Escaped::new(&other.to_string()).to_string(),
    }
}

/// The name of a signature's algorithm, and whether it counts no more.
fn signature(algorithm: &Oid<'_>) -> (String, bool) {
    let known: [(Oid<'_>, &str, bool); 9] = [
        (oid!(1.2.840.113549.1.1.4), "MD5 and RSA", true),
        (oid!(1.2.840.113549.1.1.5), "SHA-1 and RSA", true),
        (oid!(1.2.840.10045.4.1), "SHA-1 and ECDSA", true),
        (oid!(1.2.840.113549.1.1.11), "SHA-256 and RSA", false),
        (oid!(1.2.840.113549.1.1.12), "SHA-384 and RSA", false),
        (oid!(1.2.840.113549.1.1.13), "SHA-512 and RSA", false),
        (oid!(1.2.840.10045.4.3.2), "SHA-256 and ECDSA", false),
        (oid!(1.2.840.10045.4.3.3), "SHA-384 and ECDSA", false),
        (oid!(1.3.101.112), "Ed25519", false),
    ];
    let found = known.into_iter().find(|(oid, _, _)| oid == algorithm);
    found.map_or_else(
        || (format!("the algorithm {}", algorithm.to_id_string()), false),
        |(_, name, is_old)| (name.to_owned(), is_old),
    )
}

/// What a list says of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revocation {
    pub(super) at: Timestamp,
    /// Absent where the list gives none.
    pub(super) reason: Option<&'static str>,
    /// The list's number, where it has one.
    pub(super) list: Option<String>,
}

/// What a list says of the certificate with this serial number of its issuer, as
/// [`super::x509::Facts`] spells them. Reads the whole list.
pub(super) fn revocation(
    list: &CertificateRevocationListDer<'_>,
    issuer: &str,
    serial: &str,
) -> Option<Revocation> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    if Escaped::new(&list.issuer().to_string()).to_string() != issuer {
        return None;
    }
    let entry = list
        .iter_revoked_certificates()
        .find(|entry| super::x509::hex(entry.raw_serial()) == serial)?;
    Some(Revocation {
        at: Timestamp::from_second(entry.revocation_date.timestamp()).ok()?,
        reason: entry.reason_code().and_then(|(_, code)| reason(code.0)),
        list: list.crl_number().map(ToString::to_string),
    })
}

/// RFC 5280, 5.3.1; zero says that there is none.
const fn reason(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "keyCompromise",
        2 => "cACompromise",
        3 => "affiliationChanged",
        4 => "superseded",
        5 => "cessationOfOperation",
        6 => "certificateHold",
        9 => "privilegeWithdrawn",
        10 => "aACompromise",
        _ => return None,
    })
}
