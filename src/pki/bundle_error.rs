//! Why the trusted CAs are left as they are.
//!
//! Texts of certificates come from elsewhere and are escaped before they get here.

use std::path::PathBuf;

use jiff::Timestamp;
use thiserror::Error;

use super::key::KeyFault;
use crate::tls::failure::FailureCode;

/// Why the trusted CAs are left as they are.
#[derive(Debug, Error)]
pub enum BundleError {
    #[error("{}: the certificate {name} is no CA (it has no basicConstraints with CA:TRUE)", path.display())]
    NotACa { path: PathBuf, name: String },
    #[error("{}: the certificate {name} is X.509 v{version}, and only v3 can say that it is a CA", path.display())]
    Version {
        path: PathBuf,
        name: String,
        version: u32,
    },
    #[error("{}: the CA {name} may not sign certificates (its key usage lacks keyCertSign)", path.display())]
    CannotSign { path: PathBuf, name: String },
    #[error("{}: the CA {name} expired {at}, and it is {now}", path.display())]
    Expired {
        path: PathBuf,
        name: String,
        at: Timestamp,
        now: Timestamp,
    },
    #[error("{}: the CA {name} is not valid until {from}, and this clock says {now}", path.display())]
    Early {
        path: PathBuf,
        name: String,
        from: Timestamp,
        now: Timestamp,
    },
    #[error("{}: the key of the CA {name} {fault}", path.display())]
    Key {
        path: PathBuf,
        name: String,
        fault: KeyFault,
    },
    #[error("{}: the CA {name} names itself as its issuer, but its key did not sign it", path.display())]
    Signature { path: PathBuf, name: String },
    #[error("{} holds the CA {name} twice", path.display())]
    Twice { path: PathBuf, name: String },
    #[error("{} holds the CA {name} already", path.display())]
    There { path: PathBuf, name: String },
    #[error("{} holds another CA with the name {name} (sha256 {sha256})", path.display())]
    SameName {
        path: PathBuf,
        name: String,
        sha256: String,
    },
    #[error("{} has no list of the CA {name}: every client of it would be refused", path.display())]
    NoList { path: PathBuf, name: String },
    #[error("{}: the list of {issuer} is of none of the CAs that are added", path.display())]
    ListForeign { path: PathBuf, issuer: String },
    #[error("{}: the list of {issuer} {reason}", path.display())]
    ListUnfit {
        path: PathBuf,
        issuer: String,
        reason: String,
        hint: &'static str,
    },
    #[error("{} holds no CA {wanted} (it has: {has})", path.display())]
    NotThere {
        path: PathBuf,
        wanted: String,
        has: String,
    },
    #[error("{} holds {count} CAs with the name {name}", path.display())]
    Ambiguous {
        path: PathBuf,
        name: String,
        count: usize,
    },
    #[error("the CA {name} is the one that signs here")]
    Signs { name: String },
    #[error("the CA {name} signed {}, which is in use", path.display())]
    InUse { name: String, path: PathBuf },
    #[error("the CA {name} is the last one in {}", path.display())]
    Last { path: PathBuf, name: String },
}

impl BundleError {
    /// What `fsvc explain` has more about.
    pub(super) const fn failure(&self) -> Option<FailureCode> {
        Some(match self {
            Self::NotACa { .. } | Self::CannotSign { .. } => FailureCode::WrongPlace,
            Self::Version { .. } | Self::Key { .. } => FailureCode::UnusableForm,
            Self::Expired { .. } => FailureCode::ServerExpired,
            Self::Early { .. } => FailureCode::NotYetValid,
            Self::NoList { .. } | Self::ListForeign { .. } | Self::ListUnfit { .. } => {
                FailureCode::NoRevocationList
            }
            _ => return None,
        })
    }

    pub(super) fn hint(&self) -> String {
        match self {
            Self::NotACa { .. } => {
                "whoever holds the key of a certificate that is trusted as a CA \
                                    can be anybody: give the certificate of the CA that signed it"
                    .to_owned()
            }
            Self::Version { .. } | Self::CannotSign { .. } | Self::Key { .. } => {
                "ask whoever runs that CA for a certificate that TLS takes".to_owned()
            }
            Self::Expired { .. } => "get its successor".to_owned(),
            Self::Early { .. } => "one of the two clocks is wrong".to_owned(),
            Self::Signature { .. } => "the file was changed on its way: get it again".to_owned(),
            Self::Twice { .. } => "keep one of the two".to_owned(),
            Self::There { .. } => "nothing to do; --crl FILE puts a newer list of it in".to_owned(),
            Self::SameName { .. } => {
                "revocation lists are found by the name of the CA, so each CA \
                                      needs its own: remove the other one first, or have this one \
                                      made with another name"
                    .to_owned()
            }
            Self::NoList { .. } => "get its list and give it with --crl FILE; if it has none: \
                                    --no-crl, and start servers with --no-revocation"
                .to_owned(),
            Self::ListForeign { .. } => "give the lists of the CAs in the file".to_owned(),
            Self::ListUnfit { hint, .. } => (*hint).to_owned(),
            Self::NotThere { .. } => "fsvc certs show lists what a file holds".to_owned(),
            Self::Ambiguous { .. } => "name it by its file instead of --subject".to_owned(),
            Self::Signs { .. } => {
                "put another in its place first: fsvc certs rotate-ca start".to_owned()
            }
            Self::InUse { .. } => "replace that certificate first".to_owned(),
            Self::Last { .. } => "add the one that takes its place first".to_owned(),
        }
    }
}
