//! What a certificate says about itself.
//!
//! The only file that reads X.509. It never decides that a chain is good: rustls does; what is read
//! here can only narrow that.

use std::fmt::Write as _;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use thiserror::Error;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::escape::Escaped;
use crate::identity::renew_after;

/// Bytes that are no certificate, or one that says a thing twice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum X509Error {
    #[error("malformed certificate")]
    Malformed,
    #[error("the extension {0} is malformed or stands twice")]
    Extension(&'static str),
}

/// The facts that fsvc looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The subject's distinguished name, escaped.
    pub subject: String,
    /// The issuer's distinguished name, escaped.
    pub issuer: String,
    /// The serial number, hexadecimal.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_ca: bool,
    /// Whether a CA may sign certificates; true where the extension is absent.
    pub may_sign: bool,
    /// Whether the key may sign a handshake; false where the extension is absent.
    pub digital_signature: bool,
    /// Absent: the certificate is for every purpose.
    pub purposes: Option<Purposes>,
    pub names: Names,
    /// The common names of the subject, as they stand; one that is no text is empty.
    pub common_names: Vec<String>,
    /// The public key, as the certificate holds it.
    pub key: Vec<u8>,
}

/// Extended key usages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purposes {
    pub client: bool,
    pub server: bool,
    /// Whether anything besides the two is there.
    pub other: bool,
}

/// Subject alternative names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Escaped.
    pub dns: Vec<String>,
    pub ip: Vec<String>,
    /// As they stand: to be judged, not shown.
    pub uri: Vec<String>,
    /// How many names of other kinds there are.
    pub n_other: usize,
}

impl Facts {
    /// From when on the certificate should be replaced.
    pub fn renew_after(&self) -> Timestamp {
        renew_after(self.not_before, self.not_after)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// The bytes are not one certificate, whole.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, X509Error> {
        let (rest, x509) =
            X509Certificate::from_der(certificate).map_err(|_| X509Error::Malformed)?;
        if !rest.is_empty() {
            return Err(X509Error::Malformed);
        }
        let extension = |name| move |_| X509Error::Extension(name);
        let constraints = x509
            .basic_constraints()
            .map_err(extension("basicConstraints"))?;
        let usage = x509.key_usage().map_err(extension("keyUsage"))?;
        let purposes = x509
            .extended_key_usage()
            .map_err(extension("extendedKeyUsage"))?;
        let alternative = x509
            .subject_alternative_name()
            .map_err(extension("subjectAltName"))?;
        Ok(Self {
            subject: Escaped::new(&x509.subject().to_string()).to_string(),
            issuer: Escaped::new(&x509.issuer().to_string()).to_string(),
            serial: hex(x509.raw_serial()),
            not_before: timestamp(x509.validity().not_before.timestamp())?,
            not_after: timestamp(x509.validity().not_after.timestamp())?,
            is_ca: constraints.is_some_and(|constraints| constraints.value.ca),
            may_sign: usage
                .as_ref()
                .is_none_or(|usage| usage.value.key_cert_sign()),
            digital_signature: usage
                .as_ref()
                .is_some_and(|usage| usage.value.digital_signature()),
            purposes: purposes.map(|purposes| Purposes {
                client: purposes.value.client_auth,
                server: purposes.value.server_auth,
                other: purposes.value.any
                    || purposes.value.code_signing
                    || purposes.value.email_protection
                    || purposes.value.time_stamping
                    || purposes.value.ocsp_signing
                    || !purposes.value.other.is_empty(),
            }),
            names: alternative
                .map(|names| read_names(&names.value.general_names))
                .unwrap_or_default(),
            common_names: x509
                .subject()
                .iter_common_name()
                .map(|name| name.as_str().unwrap_or_default().to_owned())
                .collect(),
            key: x509.public_key().raw.to_vec(),
        })
    }
}

fn read_names(general_names: &[GeneralName<'_>]) -> Names {
    let mut names = Names::default();
    for name in general_names {
        match name {
            GeneralName::DNSName(name) => names.dns.push(Escaped::new(name).to_string()),
            GeneralName::URI(name) => names.uri.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => names.ip.push(address(bytes)),
            _ => names.n_other += 1,
        }
    }
    names
}

fn address(bytes: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(octets).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => std::net::Ipv6Addr::from(octets).to_string(),
        Err(_) => "a malformed address".to_owned(),
    }
}

fn timestamp(seconds: i64) -> Result<Timestamp, X509Error> {
    Timestamp::from_second(seconds).map_err(|_| X509Error::Malformed)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a revocation list says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFacts {
    /// Spelled as [`Facts::subject`] spells a CA.
    pub issuer: String,
    pub this_update: Timestamp,
    /// When the next one should have come; after that this one counts for nothing.
    pub next_update: Option<Timestamp>,
    /// Its number, which grows; empty where it has none.
    pub number: Vec<u8>,
    /// Whether it revokes the certificate that was asked about.
    pub is_revoked: bool,
}

impl ListFacts {
    /// Reads a revocation list, and looks whether this is in it.
    ///
    /// # Errors
    /// The bytes are not one revocation list.
    pub fn read(
        list: &CertificateRevocationListDer<'_>,
        certificate: Option<&Facts>,
    ) -> Result<Self, X509Error> {
        let (_, list) =
            CertificateRevocationList::from_der(list).map_err(|_| X509Error::Malformed)?;
        let next_update = list.next_update().map(|time| timestamp(time.timestamp()));
        let issuer = Escaped::new(&list.issuer().to_string()).to_string();
        let mut revoked = list.iter_revoked_certificates();
        let is_its = |facts: &&Facts| facts.issuer == issuer;
        let is_revoked = certificate
            .filter(is_its)
            .is_some_and(|facts| revoked.any(|entry| hex(entry.raw_serial()) == facts.serial));
        Ok(Self {
            is_revoked,
            issuer,
            this_update: timestamp(list.last_update().timestamp())?,
            next_update: next_update.transpose()?,
            number: list
                .crl_number()
                .map(BigUint::to_bytes_be)
                .unwrap_or_default(),
        })
    }
}
