//! PEM files: certificates, one private key, revocation lists.
//!
//! The only file that knows PEM. `rustls-pemfile` is archived upstream; its code lives on as
//! `rustls_pki_types::pem`, and would be replaced by it here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, PrivateKeyDer,
};
use rustls_pemfile::Item;
use thiserror::Error;

/// Largest PEM file that is read.
pub const FILE_SIZE_MAX: u64 = 16 << 20;
const CERTIFICATES: &str = "certificates";
/// How every DER file of interest here begins, and no PEM text.
const DER_SEQUENCE: u8 = 0x30;

/// Why a PEM file cannot be used. Never holds a byte of a key.
#[derive(Debug, Error)]
pub enum PemError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("{} has {size} bytes, at most {FILE_SIZE_MAX} are read", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{}: expected {expected}, found {found}", path.display())]
    Unexpected {
        path: PathBuf,
        expected: &'static str,
        found: String,
    },
    #[error("{} is not valid PEM: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
}

impl PemError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Unexpected {
            expected, found, ..
        } = self
        else {
            return None;
        };
        if found.contains("ENCRYPTED") {
            Some("fsvc cannot ask for a passphrase; decrypt it: openssl pkey -in OLD -out NEW")
        } else if found.contains("REQUEST") {
            Some("this is a request: have it signed by the CA first")
        } else if found.contains("OPENSSH") {
            Some("this is an SSH key, not a TLS key")
        } else if found.contains("DER") {
            Some("convert it: openssl x509 -inform der -in OLD -out NEW")
        } else if found.contains("PRIVATE KEY, PRIVATE KEY") {
            Some("keep the one that belongs to the certificate")
        } else if found.contains(", PRIVATE KEY") && *expected == CERTIFICATES {
            Some(
                "a key has no place in a file that is handed out: take it out, and make a new one \
                 if anybody has this file",
            )
        } else {
            Some("were two of the files swapped?")
        }
    }
}

/// Every certificate in a file, in order; at least one. A private key among them is refused.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let items = read_items(path, CERTIFICATES)?;
    let first = items.first().map(name);
    let each = items.into_iter().map(|item| match (item, first) {
        (Item::X509Certificate(certificate), _) => Ok(certificate),
        (other, Some(first @ "CERTIFICATE")) => {
            let found = format!("{first}, {}", name(&other));
            Err(unexpected(path, CERTIFICATES, &found))
        }
        (other, _) => Err(unexpected(path, CERTIFICATES, name(&other))),
    });
    each.collect()
}

/// The one private key in a file.
///
/// # Errors
/// The file cannot be read, or holds something else, or more than one key.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    const EXPECTED: &str = "one private key";
    let mut keys = Vec::new();
    let items = read_items(path, EXPECTED)?;
    let found: Vec<&'static str> = items.iter().map(name).collect();
    for item in items {
        match item {
            Item::Pkcs8Key(key) => keys.push(key.into()),
            Item::Pkcs1Key(key) => keys.push(key.into()),
            Item::Sec1Key(key) => keys.push(key.into()),
            _ => {}
        }
    }
    match (keys.pop(), found.len()) {
        (Some(key), 1) => Ok(key),
        _ => Err(unexpected(path, EXPECTED, &found.join(", "))),
    }
}

/// Every revocation list in a file, in order; at least one.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_revocation_lists(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    const EXPECTED: &str = "revocation lists";
    let items = read_items(path, EXPECTED)?;
    let each = items.into_iter().map(|item| match item {
        Item::Crl(list) => Ok(list),
        other => Err(unexpected(path, EXPECTED, name(&other))),
    });
    each.collect()
}

/// The one certificate request in a file, PEM with either label or DER.
///
/// # Errors
/// The file cannot be read, or holds something else, or more than one request.
pub fn read_request(path: &Path) -> Result<CertificateSigningRequestDer<'static>, PemError> {
    const EXPECTED: &str = "one certificate request";
    let text = read_file(path)?;
    if text.starts_with(&[DER_SEQUENCE]) {
        return Ok(text.into());
    }
    // The label of an older convention, which some tools still write.
    let text = String::from_utf8_lossy(&text)
        .replace(" NEW CERTIFICATE REQUEST-", " CERTIFICATE REQUEST-");
    let mut items = parse(path, text.as_bytes(), EXPECTED)?;
    let found: Vec<&'static str> = items.iter().map(name).collect();
    match (items.pop(), found.len()) {
        (Some(Item::Csr(request)), 1) => Ok(request),
        _ => Err(unexpected(path, EXPECTED, &found.join(", "))),
    }
}

/// One item as PEM text.
pub fn encode(label: &str, der: &[u8]) -> String {
    const LINE_SIZE: usize = 64;
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, c) in BASE64_STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % LINE_SIZE == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text + &format!("\n-----END {label}-----\n")
}

fn read_items(path: &Path, expected: &'static str) -> Result<Vec<Item>, PemError> {
    parse(path, &read_file(path)?, expected)
}

fn parse(path: &Path, mut text: &[u8], expected: &'static str) -> Result<Vec<Item>, PemError> {
    let whole = text;
    let items: Vec<Item> = rustls_pemfile::read_all(&mut text)
        .collect::<Result<_, _>>()
        .map_err(|error| PemError::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if items.is_empty() {
        return Err(unexpected(path, expected, &describe(whole)));
    }
    Ok(items)
}

fn read_file(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_SIZE_MAX {
        return Err(PemError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    let text = fs::read(path).map_err(failed)?;
    if text.is_empty() {
        return Err(PemError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// What a file without a known item holds instead.
fn describe(bytes: &[u8]) -> String {
    if bytes.starts_with(&[DER_SEQUENCE]) {
        return "DER (binary), not PEM".to_owned();
    }
    let text = String::from_utf8_lossy(bytes);
    let label = text
        .split("-----BEGIN ")
        .nth(1)
        .and_then(|rest| rest.split("-----").next());
    let known = [
        "ENCRYPTED PRIVATE KEY",
        "CERTIFICATE REQUEST",
        "NEW CERTIFICATE REQUEST",
        "OPENSSH PRIVATE KEY",
    ];
    match label {
        Some(label) => known
            .into_iter()
            .find(|known| *known == label)
            .unwrap_or("an unknown PEM item")
            .to_owned(),
        None => "no PEM".to_owned(),
    }
}

fn unexpected(path: &Path, expected: &'static str, found: &str) -> PemError {
    PemError::Unexpected {
        path: path.to_owned(),
        expected,
        found: found.to_owned(),
    }
}

const fn name(item: &Item) -> &'static str {
    match item {
        Item::X509Certificate(_) => "CERTIFICATE",
        Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "PRIVATE KEY",
        Item::Crl(_) => "X509 CRL",
        Item::Csr(_) => "CERTIFICATE REQUEST",
        Item::SubjectPublicKeyInfo(_) => "PUBLIC KEY",
        _ => "an unknown PEM item",
    }
}
