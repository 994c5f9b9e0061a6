//! Certificate requests: what one asks for, and which of that it does not get.
//!
//! A request is only believed about its public key, and that only after its signature: the
//! operator's flags decide everything else.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateSigningRequestDer;
use serde::Serialize;
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::inspect;
use super::key::{self, KeyFault};
use super::name::Host;
use crate::escape::Escaped;

/// Longest request in bytes.
pub(super) const SIZE_MAX: usize = 64 << 10;
/// Most things of a request that are shown.
const SHOWN_MAX: usize = 100;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsrFault {
    #[error("is longer than {SIZE_MAX} bytes")]
    TooLong,
    #[error("is not a certificate request")]
    Malformed,
    #[error("has the version {0}, not 1")]
    Version(u32),
    #[error("is not signed by the key that it names")]
    Signature,
    #[error("is signed with SHA-1")]
    Sha1,
    #[error("names a key that {0}")]
    Key(KeyFault),
}

/// A request whose signature is good.
#[derive(Debug, Clone)]
pub(super) struct Csr {
    /// The public key, DER.
    pub(super) public_key: Vec<u8>,
    pub(super) key_kind: &'static str,
    pub(super) asked: Asked,
}

/// What a request asks for. All texts are escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    pub subject: String,
    /// Such as `DNS:files.example.com`.
    pub names: Vec<String>,
    /// Such as `clientAuth`, `keyEncipherment` or `CA:TRUE`.
    pub usages: Vec<String>,
    /// Object identifiers of extensions that fsvc does not know.
    pub unknown: Vec<String>,
}

/// What a certificate says, in the words of [`Asked`].
pub(super) struct Granted {
    pub(super) subject: String,
    pub(super) names: Vec<String>,
    pub(super) usages: Vec<String>,
}

/// Reads a request and checks its signature and key.
pub(super) fn read(der: &CertificateSigningRequestDer<'_>) -> Result<Csr, CsrFault> {
    if der.len() > SIZE_MAX {
        return Err(CsrFault::TooLong);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrFault::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrFault::Malformed);
    }
    let info = &request.certification_request_info;
    if info.version != X509Version::V1 {
        return Err(CsrFault::Version(info.version.0.saturating_add(1)));
    }
    let key_kind = key::check(&info.subject_pki).map_err(CsrFault::Key)?;
    let algorithm = &request.signature_algorithm.algorithm;
    if *algorithm == OID_SHA1_WITH_RSA || *algorithm == OID_PKCS1_SHA1WITHRSA {
        return Err(CsrFault::Sha1);
    }
    request
        .verify_signature()
        .map_err(|_| CsrFault::Signature)?;
    let mut asked = Asked {
        subject: Escaped::new(&info.subject.to_string()).to_string(),
        ..Asked::default()
    };
    for attribute in info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(extensions) = attribute.parsed_attribute() {
            for extension in &extensions.extensions {
                asked.add(&extension.oid.to_id_string(), extension.parsed_extension());
            }
        }
    }
    Ok(Csr {
        public_key: info.subject_pki.raw.to_vec(),
        key_kind,
        asked,
    })
}

impl Asked {
    fn add(&mut self, oid: &str, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                let names = names.general_names.iter().map(spell);
                self.names.extend(names);
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                self.usages.push("CA:TRUE".to_owned());
            }
            ParsedExtension::BasicConstraints(_) | ParsedExtension::SubjectKeyIdentifier(_) => {}
            ParsedExtension::KeyUsage(usage) => self.usages.extend(key_usages(*usage)),
            ParsedExtension::ExtendedKeyUsage(usage) => self.usages.extend(purposes(usage)),
            _ => self.unknown.push(Escaped::new(oid).to_string()),
        }
        for list in [&mut self.names, &mut self.usages, &mut self.unknown] {
            list.truncate(SHOWN_MAX);
        }
    }

    /// What was asked for and is not in the certificate.
    pub(super) fn dropped(&self, granted: &Granted) -> Vec<String> {
        let mut dropped = Vec::new();
        if !self.subject.is_empty() && self.subject != granted.subject {
            dropped.push(format!("subject {}", self.subject));
        }
        let missing = |asked: &[String], granted: &[String]| -> Vec<String> {
            let is_missing = |text: &&String| !granted.contains(text);
            asked.iter().filter(is_missing).cloned().collect()
        };
        dropped.extend(missing(&self.names, &granted.names));
        dropped.extend(missing(&self.usages, &granted.usages));
        let unknown = self.unknown.iter();
        dropped.extend(unknown.map(|oid| format!("extension {oid}")));
        dropped
    }
}

/// A host as a request spells it.
pub(super) fn spell_host(host: &Host) -> String {
    match host {
        Host::Dns(name) => format!("DNS:{name}"),
        Host::Ip(address) => format!("IP:{address}"),
    }
}

fn spell(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{}", Escaped::new(&name.to_ascii_lowercase())),
        GeneralName::URI(uri) => format!("URI:{}", Escaped::new(uri)),
        GeneralName::RFC822Name(name) => format!("email:{}", Escaped::new(name)),
        GeneralName::IPAddress(bytes) => match inspect::address(bytes) {
            Some(address) => format!("IP:{address}"),
            None => "a malformed IP address".to_owned(),
        },
        _ => "a name of another kind".to_owned(),
    }
}

fn key_usages(usage: KeyUsage) -> Vec<String> {
    let named = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ];
    chosen(&named)
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let named = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let other = usage
        .other
        .iter()
        .map(|oid| format!("purpose {}", oid.to_id_string()));
    chosen(&named).into_iter().chain(other).collect()
}

fn chosen(named: &[(bool, &str)]) -> Vec<String> {
    let named = named.iter().filter(|(is_chosen, _)| *is_chosen);
    named.map(|(_, name)| (*name).to_owned()).collect()
}

/// A request that is not signed: its file and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} {fault}", path.display())]
pub struct CsrError {
    pub path: PathBuf,
    pub fault: CsrFault,
}

impl CsrError {
    pub(super) fn new(path: &Path, fault: CsrFault) -> Self {
        Self {
            path: path.to_owned(),
            fault,
        }
    }

    pub(super) const fn hint(&self) -> &'static str {
        match self.fault {
            CsrFault::Key(_) | CsrFault::Sha1 => {
                "make the key anew where it is used: fsvc certs request"
            }
            CsrFault::TooLong | CsrFault::Malformed | CsrFault::Version(_) => {
                "get the request again; fsvc certs request makes one"
            }
            CsrFault::Signature => {
                "whoever made it does not hold that key, or the file was changed on its way: \
                 have it made again"
            }
        }
    }
}
