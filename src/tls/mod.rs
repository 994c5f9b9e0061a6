//! TLS: what is loaded from files, how both ends are configured, who the peer is.
//!
//! TLS 1.3 only, one crypto provider, no resumption: a resumed session would pass by the
//! certificate check.

pub mod anchors;
mod bundle;
pub mod client;
mod dated;
pub mod dates;
mod diagnosis;
pub mod failure;
mod forward;
mod hints;
pub mod identity;
pub mod judge;
mod lists;
mod marks;
mod named;
pub mod pem;
pub mod pinned;
pub mod refusal;
pub mod rejection;
pub mod renewal;
pub mod server;
mod trusted;
pub mod witness;
pub mod x509;
mod x509_kind;
pub mod x509_list;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use thiserror::Error;

use crate::escape::Escaped;
use dates::minute;
use failure::FailureCode;
use pem::PemError;
use x509::X509Error;
use x509_list::ListFault;

/// The one crypto provider, named wherever TLS is configured.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Why TLS cannot be configured from the files at hand.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{}: not a certificate that can be used", path.display())]
    X509 {
        path: PathBuf,
        #[source]
        source: X509Error,
    },
    #[error("{} is readable by everyone (mode {mode:04o})", path.display())]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("{} does not belong to {}", key.display(), certificate.display())]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("{}: the certificate {subject} is not a CA, so it cannot be trusted as one", path.display())]
    NotACa { path: PathBuf, subject: String },
    #[error("{}: the CA {subject} may not sign certificates (no keyCertSign)", path.display())]
    CannotSign { path: PathBuf, subject: String },
    #[error("{}: the certificate {subject} expired {expired}", path.display())]
    Expired {
        path: PathBuf,
        subject: String,
        /// When, and what this clock says.
        expired: String,
    },
    #[error("{}: the certificate {subject} is not valid until {from}; this clock says {now}", path.display())]
    NotYetValid {
        path: PathBuf,
        subject: String,
        from: String,
        now: String,
    },
    #[error("{}: the certificate {subject} is not for {role} use", path.display())]
    WrongRole {
        path: PathBuf,
        subject: String,
        role: &'static str,
    },
    #[error("{}: the certificate {subject} is a CA's, not a server's", path.display())]
    CaAsServer { path: PathBuf, subject: String },
    #[error("{}: the certificate is of {found}, the one before was of {before}", path.display())]
    OtherIdentity {
        path: PathBuf,
        before: String,
        found: String,
    },
    #[error("{} trusts {subject}, but {} has no revocation list from it", bundle.display(), crl.display())]
    NoRevocationList {
        bundle: PathBuf,
        crl: PathBuf,
        subject: String,
    },
    #[error("{}: the certificate cannot be used: {}", path.display(), Escaped::new(reason))]
    Unusable { path: PathBuf, reason: String },
    #[error("{}: not a revocation list that can be used", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: X509Error,
    },
    #[error("{}: the list of {issuer} expired {expired}, so every client of it would be refused", path.display())]
    ListExpired {
        path: PathBuf,
        issuer: String,
        expired: String,
    },
    #[error("{}: the list of {issuer} {fault}", path.display())]
    ListUnfit {
        path: PathBuf,
        issuer: String,
        fault: ListFault,
    },
    #[error("{} holds two lists of {issuer}, and only one of them would be looked at", path.display())]
    ListTwice { path: PathBuf, issuer: String },
    #[error("{} trusts two CAs with the name {subject}, and a list is found by its CA's name", bundle.display())]
    Namesakes { bundle: PathBuf, subject: String },
    #[error("{}: a revocation list names the CA {subject}, which {} trusts", crl.display(), bundle.display())]
    CaRevoked {
        crl: PathBuf,
        bundle: PathBuf,
        /// And its serial number.
        subject: String,
    },
    #[error("{}: the CA {subject} is not in {}, so its clients are not let in", path.display(), bundle.display())]
    BoundUntrusted {
        path: PathBuf,
        subject: String,
        bundle: PathBuf,
    },
    #[error("the CA {subject} is in {} for the trust domain {}, and in {} for {}: its key is in both",
        files[0].display(), domains[0], files[1].display(), domains[1])]
    BoundTwice {
        subject: String,
        files: Box<[PathBuf; 2]>,
        domains: Box<[String; 2]>,
    },
    #[error("{}: the revocation list names the server's own certificate {subject} (serial {serial})", crl.display())]
    OwnRevoked {
        crl: PathBuf,
        subject: String,
        serial: String,
    },
    #[error(
        "the revocation list of {issuer} has number {found}, and {before} held before: a list never goes back"
    )]
    ListRolledBack {
        issuer: String,
        found: String,
        before: String,
    },
    #[error("TLS cannot be configured from {}", path.display())]
    Rustls {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsError {
    /// What `fsvc explain` has more about.
    pub const fn failure(&self) -> Option<FailureCode> {
        Some(match self {
            Self::Pem(error) => return error.failure(),
            Self::OpenKey { .. } => FailureCode::FileAccess,
            Self::KeyMismatch { .. } => FailureCode::KeyMismatch,
            Self::NotACa { .. } | Self::CannotSign { .. } | Self::CaAsServer { .. } => {
                FailureCode::WrongPlace
            }
            Self::Expired { .. } => FailureCode::ServerExpired,
            Self::NotYetValid { .. } => FailureCode::NotYetValid,
            Self::WrongRole { .. } => FailureCode::WrongPurpose,
            Self::OtherIdentity { .. } => FailureCode::NoIdentity,
            Self::NoRevocationList { .. }
            | Self::ListExpired { .. }
            | Self::ListUnfit { .. }
            | Self::ListTwice { .. }
            | Self::Namesakes { .. }
            | Self::ListRolledBack { .. } => FailureCode::NoRevocationList,
            Self::OwnRevoked { .. } | Self::CaRevoked { .. } => FailureCode::Revoked,
            Self::X509 { .. } | Self::List { .. } | Self::Unusable { .. } => {
                FailureCode::UnusableForm
            }
            Self::BoundUntrusted { .. } | Self::BoundTwice { .. } | Self::Rustls { .. } => {
                return None;
            }
        })
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pem(PemError::Read { path, source })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(closed(path))
            }
            Self::Pem(error) => error.hint().map(str::to_owned),
            Self::OpenKey { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::KeyMismatch { key, certificate } => Some(format!(
                "which of the two was replaced last? put the matching pair back (the key is of {}, the \
                 certificate of {})",
                changed(key),
                changed(certificate)
            )),
            Self::NotACa { .. } => {
                Some("take it out: whoever holds its key could name anybody".to_owned())
            }
            Self::Expired { .. } => Some(
                "fsvc gen-certs renews what it made; another CA's file comes from there".to_owned(),
            ),
            Self::NotYetValid { .. } => Some("one of the two clocks is wrong".to_owned()),
            Self::CaAsServer { .. } => {
                Some("a server needs one that the CA signed: fsvc gen-certs".to_owned())
            }
            Self::WrongRole { .. } => {
                Some("were the server's and a client's files swapped?".to_owned())
            }
            Self::OtherIdentity { .. } => Some(
                "who runs as somebody else is to be started anew; was a file copied to the wrong place?"
                    .to_owned(),
            ),
            Self::Unusable { .. } => Some(
                "no TLS library takes it: it is malformed, or has an extension that is marked \
                 critical and not known"
                    .to_owned(),
            ),
            Self::BoundUntrusted { path, bundle, .. } => Some(format!(
                "is it the right file? a [[trust]] entry binds a CA that is in {}, and adds none: \
                 put what is in {} there too, or name the bundle that has it (serve --ca, certs check --client-ca)",
                bundle.display(),
                path.display()
            )),
            Self::BoundTwice { .. } => Some(
                "a CA has one trust domain: take it out of one of the [[trust]] entries".to_owned(),
            ),
            Self::X509 { .. } | Self::CannotSign { .. } | Self::Rustls { .. } => None,
            other => other.list_hint(),
        }
    }

    /// The same where it is about a revocation list.
    fn list_hint(&self) -> Option<String> {
        match self {
            Self::NoRevocationList { .. } => Some(
                "add that CA's list (an empty one will do), or start with --no-revocation"
                    .to_owned(),
            ),
            Self::ListExpired { .. } => Some(
                "get that CA's present list; or start with --no-revocation, which lets revoked \
                 certificates in"
                    .to_owned(),
            ),
            Self::OwnRevoked { .. } => {
                Some("give the server a new certificate: fsvc certs renew server".to_owned())
            }
            Self::ListUnfit { fault, .. } => Some(fault.hint().to_owned()),
            Self::ListTwice { .. } => Some("keep the newer one of the two".to_owned()),
            Self::Namesakes { .. } => Some(
                "keep one of the two, or have one made with another name; or start with \
                 --no-revocation, which lets revoked certificates in"
                    .to_owned(),
            ),
            Self::CaRevoked { bundle, .. } => Some(format!(
                "take it out of {}: whoever has its key could name anybody",
                bundle.display()
            )),
            Self::ListRolledBack { .. } => Some("was an old copy put in place of it?".to_owned()),
            _ => None,
        }
    }
}

/// Who may read a file that this program may not.
fn closed(path: &Path) -> String {
    let who = rustix::process::geteuid().as_raw();
    let whose = fs::metadata(path).map_or_else(
        |_| "it is in a directory that this user may not enter".to_owned(),
        |of| {
            format!(
                "it has mode {:04o} and user {}, group {}",
                of.mode() & 0o777,
                of.uid(),
                of.gid()
            )
        },
    );
    format!("{whose}, and fsvc runs as user {who}: chown it, or chgrp it and chmod 640")
}

/// When a file was last written.
fn changed(path: &Path) -> String {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let time = modified
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok());
    time.map_or_else(|| "an unknown time".to_owned(), minute)
}
