//! Why nothing was added, renewed, revoked or shown.

use std::path::PathBuf;

use jiff::Timestamp;
use thiserror::Error;

use super::ErrorKind;
use super::reason::Reason;
use crate::escape::Escaped;

/// Most certificates that an error lists.
const SHOWN_MAX: usize = 10;

/// Why nothing was done with a certificate.
#[derive(Debug, Error)]
pub enum LifeError {
    #[error("{name} has a certificate: {}", list(certificates))]
    There {
        name: String,
        /// Name and flags for another one.
        flags: String,
        certificates: Vec<String>,
        /// Whether the last one was revoked: no renewal gives it back.
        is_revoked: bool,
    },
    #[error("the file {} is there, and the index knows no certificate of {name}", path.display())]
    InTheWay { name: String, path: PathBuf },
    #[error("nobody called {text} ever had a certificate of this CA")]
    Nobody { text: Escaped },
    #[error("{text} can be {}", names.join(" or "))]
    Ambiguous { text: Escaped, names: Vec<String> },
    #[error("the certificate of {name} was revoked {at} ({reason}); a renewal would give it back")]
    Revoked {
        name: String,
        flags: String,
        at: Timestamp,
        reason: Reason,
    },
    #[error("the key of {name} is not here ({})", key.display())]
    KeyElsewhere {
        name: String,
        flags: String,
        key: PathBuf,
    },
    #[error("{name} has {} certificates that are in force: {}", certificates.len(), list(certificates))]
    Several {
        name: String,
        certificates: Vec<String>,
    },
    #[error("{name} has no certificate that could be revoked: {state}")]
    NoneLeft { name: String, state: String },
    #[error("no certificate with the serial number {text} is in the index")]
    NotIssued { text: Escaped },
    #[error("{text} is no serial number: hexadecimal digits are")]
    Serial { text: String },
    #[error("{} is not signed by a CA of this directory", path.display())]
    OtherCa { path: PathBuf },
    #[error("{serial} is the CA itself")]
    Ca { serial: String },
    #[error("a revocation list cannot be used, and nothing was published: {reason}")]
    List { reason: String },
    #[error("the certificates are not issued from here: {} is missing", index.display())]
    NotHere { index: PathBuf },
    #[error("{} holds a private key, which is never shown", path.display())]
    PrivateKey { path: PathBuf },
    #[error("{} holds nothing that can be shown: {found}", path.display())]
    Unknown { path: PathBuf, found: String },
}

fn list(certificates: &[String]) -> String {
    let shown = certificates.iter().take(SHOWN_MAX).cloned();
    let mut shown: Vec<String> = shown.collect();
    if certificates.len() > SHOWN_MAX {
        shown.push("…".to_owned());
    }
    shown.join("; ")
}

impl LifeError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Serial { .. } => ErrorKind::Usage,
            Self::List { .. } => ErrorKind::Failed,
            _ => ErrorKind::Refused,
        }
    }

    pub(super) fn hint(&self) -> String {
        match self {
            Self::There {
                flags,
                is_revoked: true,
                ..
            } => format!("if it should have another: fsvc certs add {flags} --again"),
            Self::There { name, flags, .. } => format!(
                "a new one in its place: fsvc certs renew {name}; a second one that is good beside \
                 it: fsvc certs add {flags} --again"
            ),
            Self::InTheWay { .. } => "move it away, or use another name".to_owned(),
            Self::Nobody { .. } | Self::NotIssued { .. } => {
                "fsvc certs list shows who has one; a certificate that the index forgot is revoked \
                 by its file: fsvc certs revoke --cert FILE"
                    .to_owned()
            }
            Self::Ambiguous { .. } => "give the name with its kind".to_owned(),
            Self::Revoked { flags, .. } => {
                format!("if that is what you want: fsvc certs add {flags} --again")
            }
            Self::KeyElsewhere { flags, .. } => format!(
                "--reuse-key makes a new certificate of the key that is elsewhere, if the old one \
                 is here; for a new key, make it there (fsvc certs request) and sign it here (fsvc \
                 certs sign); if it is lost: fsvc certs add {flags} --again"
            ),
            Self::Several { name, .. } => format!(
                "choose one: fsvc certs revoke --serial SERIAL; or all: fsvc certs revoke \
                 --all-of {name}"
            ),
            Self::NoneLeft { .. } => "fsvc certs list shows them".to_owned(),
            Self::Serial { .. } => "fsvc certs list and fsvc certs show FILE show it".to_owned(),
            Self::OtherCa { .. } => {
                "whoever has the CA that signed it revokes it; its list goes into ca.crl".to_owned()
            }
            Self::Ca { .. } => {
                "a CA is taken out by putting another in its place: fsvc certs rotate-ca start"
                    .to_owned()
            }
            Self::List { .. } => {
                "fsvc certs show ca.crl shows the one that is there; restore it from a backup if \
                 it is broken"
                    .to_owned()
            }
            Self::NotHere { .. } => {
                "run this where ca-private/ lives (the machine that made the CA)".to_owned()
            }
            Self::PrivateKey { .. } => {
                "show its certificate; openssl pkey -in FILE -noout -text shows a key".to_owned()
            }
            Self::Unknown { .. } => {
                "certificates, requests and revocation lists are shown, PEM or DER; of a PKCS#12 \
                 file: openssl pkcs12 -in FILE -nokeys -out certificates.pem"
                    .to_owned()
            }
        }
    }
}
