//! Why certificates could not be made, for people.
//!
//! Every failure names the file or the two values that disagree; `hint` is the way out.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;

use super::DAYS_MAX;
use super::bundle_error::BundleError;
use super::csr::CsrError;
use super::life_error::LifeError;
use super::name::NameError;
use super::render::in_place;
use super::request::RequestError;
use super::rotation::RotationError;
use super::sign::SignError;
use crate::escape::Escaped;
use crate::tls::failure::FailureCode;
use crate::tls::pem::PemError;

/// What kind of failure it was: what a caller may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for makes no sense.
    Usage,
    /// What is already there stands in the way; nothing of it was changed.
    Refused,
    /// Another process is at work in the directory.
    Busy,
    /// The file system or the cryptography failed.
    Failed,
}

/// Why certificates could not be made.
#[derive(Debug, Error)]
pub enum PkiError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Signing(#[from] SignError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Life(#[from] LifeError),
    #[error("{flag} must be 1 to {DAYS_MAX}, not {days}")]
    Days { flag: &'static str, days: u32 },
    #[error("{count} {what} are too many, at most {max} are taken")]
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
    #[error("{} cannot be the directory of certificates", path.display())]
    Directory { path: PathBuf },
    #[error("no host to make a server certificate for")]
    NoHosts,

    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is {found}, not {expected}", path.display())]
    WrongKind {
        path: PathBuf,
        found: &'static str,
        expected: &'static str,
    },
    #[error("{} belongs to user {owner}, this is user {user}", path.display())]
    Owner {
        path: PathBuf,
        owner: u32,
        user: u32,
    },
    #[error("{} is open to other users (mode {mode:04o})", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("the file system of {} does not keep file modes", path.display())]
    ModesIgnored { path: PathBuf },
    #[error("another process has held {} for {waited_s} s", path.display())]
    Locked { path: PathBuf, waited_s: u64 },

    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{} is not a usable certificate: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("{} has no place here: there is no CA that could have made it", path.display())]
    Foreign { path: PathBuf },
    #[error("{} holds {what} of another CA than {}", path.display(), certificate.display())]
    OtherCa {
        path: PathBuf,
        what: &'static str,
        certificate: PathBuf,
    },
    #[error("the CA key {} is not here, and {needed}", key.display())]
    NoCaKey { key: PathBuf, needed: String },
    #[error("{} is here but {} is missing", present.display(), missing.display())]
    CaHalf { present: PathBuf, missing: PathBuf },
    #[error(
        "{} does not belong to {} (key sha256 {key_sha256}, certificate wants {wanted_sha256})",
        key.display(),
        certificate.display()
    )]
    CaMismatch {
        key: PathBuf,
        certificate: PathBuf,
        key_sha256: String,
        wanted_sha256: String,
    },
    #[error("{} cannot sign certificates: {reason}", certificate.display())]
    CaUnfit {
        certificate: PathBuf,
        reason: String,
    },
    #[error("the CA {} expired {at}, and it is {now}", certificate.display())]
    CaExpired {
        certificate: PathBuf,
        at: Timestamp,
        now: Timestamp,
    },
    #[error("the CA {} is not valid until {at}, and this clock says {now}", certificate.display())]
    CaEarly {
        certificate: PathBuf,
        at: Timestamp,
        now: Timestamp,
    },
    #[error("the CA has the {property} {has}; it cannot become {asked}")]
    CaChange {
        property: &'static str,
        has: String,
        asked: String,
    },
    #[error("the list of issued certificates {} is missing", path.display())]
    LedgerLost { path: PathBuf },
    #[error("line {line} of {} is not an issued certificate: {reason}", path.display())]
    LedgerLine {
        path: PathBuf,
        line: usize,
        reason: Escaped,
    },
    #[error("cannot make {what}: {reason}")]
    Sign { what: &'static str, reason: String },
}

impl PkiError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.into(),
            source,
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::Days { .. }
            | Self::TooMany { .. }
            | Self::Directory { .. }
            | Self::NoHosts => ErrorKind::Usage,
            Self::Locked { .. } => ErrorKind::Busy,
            Self::Signing(error) => error.kind(),
            Self::Life(error) => error.kind(),
            Self::Io { .. }
            | Self::ModesIgnored { .. }
            | Self::Sign { .. }
            | Self::Pem(PemError::Read { .. }) => ErrorKind::Failed,
            Self::Csr(_)
            | Self::Request(_)
            | Self::Bundle(_)
            | Self::Rotation(_)
            | Self::WrongKind { .. }
            | Self::Owner { .. }
            | Self::TooOpen { .. }
            | Self::Pem(_)
            | Self::Certificate { .. }
            | Self::Foreign { .. }
            | Self::OtherCa { .. }
            | Self::NoCaKey { .. }
            | Self::CaHalf { .. }
            | Self::CaMismatch { .. }
            | Self::CaUnfit { .. }
            | Self::CaExpired { .. }
            | Self::CaEarly { .. }
            | Self::CaChange { .. }
            | Self::LedgerLost { .. }
            | Self::LedgerLine { .. } => ErrorKind::Refused,
        }
    }

    /// What `fsvc explain` has more about, where a file is no good for TLS.
    pub(super) const fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::Pem(error) => error.failure(),
            Self::Bundle(error) => error.failure(),
            Self::Io { .. } => Some(FailureCode::FileAccess),
            Self::Certificate { .. } => Some(FailureCode::UnusableForm),
            _ => None,
        }
    }

    /// The same for the certificates in `dir`, which its commands name.
    pub fn hint_for(&self, dir: &Path) -> Option<String> {
        self.hint().map(|hint| in_place(&hint, dir))
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        const ELSEWHERE: &str = "a CA is never overwritten: make a new one in another --dir, \
                                 then hand out its ca.pem";
        let hint = match self {
            Self::Name(error) => error.hint()?.to_owned(),
            Self::Csr(error) => error.hint().to_owned(),
            Self::Request(error) => error.hint(),
            Self::Signing(error) => error.hint(),
            Self::Bundle(error) => error.hint(),
            Self::Rotation(error) => error.hint(),
            Self::Life(error) => error.hint(),
            Self::Pem(error) => error.hint()?.to_owned(),
            Self::NoHosts => "give one with --host".to_owned(),
            Self::WrongKind { .. } | Self::Foreign { .. } | Self::Certificate { .. } => {
                "move it away and run again, or choose another --dir".to_owned()
            }
            Self::Owner { path, owner, .. } => format!(
                "run as user {owner}, or take it over: chown -R $(id -u) {}",
                path.display()
            ),
            Self::TooOpen { path, mode } => {
                let wanted = if mode & 0o100 == 0 { "600" } else { "700" };
                format!("chmod {wanted} {}", path.display())
            }
            Self::ModesIgnored { .. } => {
                "private keys need a file system with modes: choose another --dir".to_owned()
            }
            Self::Locked { .. } => "wait for the other fsvc to end".to_owned(),
            Self::OtherCa { .. }
            | Self::CaMismatch { .. }
            | Self::CaHalf { .. }
            | Self::CaUnfit { .. } => {
                format!("restore the files that belong together from a backup; {ELSEWHERE}")
            }
            Self::NoCaKey { .. } => "run this where ca-private/ lives (the machine that made the \
                                     CA), then copy the new files here"
                .to_owned(),
            Self::CaExpired { .. } => {
                "put a new CA in its place: fsvc certs rotate-ca start, then \
                                       promote, finish and fsvc gen-certs; or make a new one in \
                                       another --dir"
                    .to_owned()
            }
            Self::CaChange { .. } => ELSEWHERE.to_owned(),
            Self::CaEarly { .. } => "set this machine's clock".to_owned(),
            Self::LedgerLost { path } => format!(
                "restore it from a backup; if there is none, `touch {}` starts an empty list, \
                 which forgets what was issued before",
                path.display()
            ),
            Self::LedgerLine { .. } => "restore it from a backup".to_owned(),
            Self::Days { .. }
            | Self::TooMany { .. }
            | Self::Directory { .. }
            | Self::Io { .. }
            | Self::Sign { .. } => return None,
        };
        Some(hint)
    }
}
