//! PEM files: certificates, one private key, revocation lists.
//!
//! The only file that knows PEM. `rustls-pemfile` is archived upstream; its code lives on as
//! `rustls_pki_types::pem`, and would be replaced by it here.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, PrivateKeyDer,
};
use rustls_pemfile::Item;
use thiserror::Error;

use super::failure::FailureCode;

/// Largest PEM file that is read.
pub const FILE_SIZE_MAX: u64 = 16 << 20;
const CERTIFICATES: &str = "certificates";
/// How every DER file of interest here begins, and no PEM text.
const DER_SEQUENCE: u8 = 0x30;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const EXPECTED_KEY: &str = "one private key";
const EXPECTED_LISTS: &str = "revocation lists";
/// What stands in a key of the older form that is encrypted.
const ENCRYPTED: &str = "Proc-Type: 4,ENCRYPTED";

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
    /// What `fsvc explain` has more about.
    pub const fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::Read { .. } => Some(FailureCode::FileAccess),
            Self::Empty { .. }
            | Self::TooLarge { .. }
            | Self::Unexpected { .. }
            | Self::Malformed { .. } => Some(FailureCode::WrongContent),
        }
    }

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
        } else if found.contains("PKCS#12") {
            Some(
                "take it apart: openssl pkcs12 -in OLD -nokeys -out CERTIFICATE, and -nocerts -noenc -out KEY",
            )
        } else if found.contains("DER") && *expected == EXPECTED_KEY {
            Some("convert it: openssl pkey -inform der -in OLD -out NEW")
        } else if found.contains("DER") && *expected == EXPECTED_LISTS {
            Some("convert it: openssl crl -inform der -in OLD -out NEW")
        } else if found.contains("DER") {
            Some("convert it: openssl x509 -inform der -in OLD -out NEW")
        } else if found.contains("PRIVATE KEY, PRIVATE KEY") {
            Some("keep the one that belongs to the certificate")
        } else if found.contains("can be read") {
            Some(
                "each begins a line with -----BEGIN, and is a CERTIFICATE or an X509 CRL: mend or take \
                 out the others",
            )
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
    let items = read_all_items(path, CERTIFICATES)?;
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
    let mut keys = Vec::new();
    let items = parse(path, &read_file(path)?, EXPECTED_KEY)?;
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
        _ => Err(unexpected(path, EXPECTED_KEY, &found.join(", "))),
    }
}

/// Every revocation list in a file, in order; at least one.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_revocation_lists(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let items = read_all_items(path, EXPECTED_LISTS)?;
    let each = items.into_iter().map(|item| match item {
        Item::Crl(list) => Ok(list),
        other => Err(unexpected(path, EXPECTED_LISTS, name(&other))),
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

/// What may be in a file that somebody looks into.
#[derive(Debug)]
pub enum Piece {
    Certificate(CertificateDer<'static>),
    List(CertificateRevocationListDer<'static>),
    Request(CertificateSigningRequestDer<'static>),
    PrivateKey,
    /// Bytes that are no PEM and may be DER.
    Unknown(Vec<u8>),
    /// PEM of another kind.
    Other(&'static str),
}

/// Everything in a file, in order; at least one piece. Of private keys nothing but their presence.
///
/// # Errors
/// The file cannot be read, or holds nothing of the kind.
pub fn read_pieces(path: &Path) -> Result<Vec<Piece>, PemError> {
    let text = read_file(path)?;
    if text.starts_with(&[DER_SEQUENCE]) {
        return Ok(vec![Piece::Unknown(text)]);
    }
    // The label of an older convention, which some tools still write.
    let text = String::from_utf8_lossy(&text)
        .replace(" NEW CERTIFICATE REQUEST-", " CERTIFICATE REQUEST-");
    if text.contains("PRIVATE KEY-----") && !text.contains("-----BEGIN CERTIFICATE") {
        return Ok(vec![Piece::PrivateKey]);
    }
    let items = parse(path, text.as_bytes(), "a certificate, a request or a list")?;
    let piece = |item| match item {
        Item::X509Certificate(der) => Piece::Certificate(der),
        Item::Crl(der) => Piece::List(der),
        Item::Csr(der) => Piece::Request(der),
        Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => Piece::PrivateKey,
        other => Piece::Other(name(&other)),
    };
    Ok(items.into_iter().map(piece).collect())
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

/// All items of a file that is of one kind: none may be passed over in silence, since a CA or a list
/// that is left out changes who is let in.
fn read_all_items(path: &Path, expected: &'static str) -> Result<Vec<Item>, PemError> {
    let text = read_file(path)?;
    let items = parse(path, &text, expected)?;
    let text = String::from_utf8_lossy(&text);
    let n_begun = text.matches("-----BEGIN ").count();
    if n_begun > items.len() {
        let found = format!("{n_begun} PEM items, of which {} can be read", items.len());
        return Err(unexpected(path, expected, &found));
    }
    Ok(items)
}

fn parse(path: &Path, mut text: &[u8], expected: &'static str) -> Result<Vec<Item>, PemError> {
    let whole = text;
    let items: Vec<Item> = rustls_pemfile::read_all(&mut text)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(path, expected, whole, &error))?;
    if items.is_empty() {
        return Err(unexpected(path, expected, &describe(whole)));
    }
    Ok(items)
}

/// A line about its encryption is what is not PEM in a key of the older form.
fn malformed(path: &Path, expected: &'static str, text: &[u8], error: &io::Error) -> PemError {
    if String::from_utf8_lossy(text).contains(ENCRYPTED) {
        return unexpected(path, expected, "ENCRYPTED PRIVATE KEY");
    }
    PemError::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::Read {
        path: path.to_owned(),
        source,
    };
    let too_large = |size| PemError::TooLarge {
        path: path.to_owned(),
        size,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > FILE_SIZE_MAX {
        return Err(too_large(size));
    }
    // What is no file has no size, and may have no end.
    let mut text = Vec::new();
    let mut start = file.take(FILE_SIZE_MAX + 1);
    let size = start.read_to_end(&mut text).map_err(failed)? as u64;
    if size > FILE_SIZE_MAX {
        return Err(too_large(size));
    }
    // Some editors put it there, and the first item would be passed over for it.
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    if text.is_empty() {
        return Err(PemError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// What a file without a known item holds instead.
fn describe(bytes: &[u8]) -> String {
    if is_pkcs12(bytes) {
        return "PKCS#12 (binary), not PEM".to_owned();
    }
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

/// Whether DER begins with a version 3, as a PKCS#12 file does, and no certificate or key.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else {
        return false;
    };
    let n_more = length.checked_sub(0x80).map_or(0, usize::from);
    rest.get(n_more..)
        .is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_file_holds_instead_is_named_with_the_way_out() {
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,16D95A7D\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        let cases: [(&[u8], &str, &str); 7] = [
            (old.as_bytes(), "ENCRYPTED", "openssl pkey -in OLD"),
            (csr.as_bytes(), "CERTIFICATE REQUEST", "signed by the CA"),
            (b"\x30\x82\x01\x00\x02\x01\x03", "PKCS#12", "openssl pkcs12"),
            (b"\x30\x07\x02\x01\x03", "PKCS#12", "openssl pkcs12"),
            (b"\x30\x2e\x02\x01\x00", "DER", "openssl pkey -inform der"),
            (b"\x30", "DER", "openssl pkey -inform der"),
            (b"\x30\xff", "DER", "openssl pkey -inform der"),
        ];
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        for (content, found, way_out) in cases {
            fs::write(&path, content).unwrap();
            let error = read_private_key(&path).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&format!("found {found}")), "{said}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(way_out), "{hint}");
        }
        fs::write(&path, b"\x30\x82\x01\x00\x30").unwrap();
        let hint = read_certificates(&path).unwrap_err().hint();
        assert!(hint.is_some_and(|hint| hint.contains("openssl x509 -inform der")));
        let hint = read_revocation_lists(&path).unwrap_err().hint();
        assert!(hint.is_some_and(|hint| hint.contains("openssl crl -inform der")));
    }
}
