//! Where each file lies under the directory of certificates.
//!
//! Paths only. Everything secret but the keys of the leaves is under `ca-private/`.

use std::path::{Path, PathBuf};

use super::PkiError;
use super::name::ClientName;

/// Mode of what everybody may read.
pub(super) const PUBLIC: u32 = 0o644;
/// Mode of keys.
pub(super) const SECRET: u32 = 0o600;
/// Mode of directories that everybody may list.
pub(super) const DIR_PUBLIC: u32 = 0o755;
/// Mode of the signer's directories.
pub(super) const DIR_SECRET: u32 = 0o700;

/// The paths of one directory of certificates.
pub(super) struct Layout {
    dir: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Layout {
    /// The layout of `dir`, which must have a parent.
    pub(super) fn new(dir: &Path) -> Result<Self, PkiError> {
        if dir.parent().is_none() {
            return Err(PkiError::Directory {
                path: dir.to_owned(),
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub(super) fn crl(&self) -> PathBuf {
        self.dir.join("ca.crl")
    }

    pub(super) fn policy(&self) -> PathBuf {
        self.dir.join("policy.toml")
    }

    pub(super) fn gitignore(&self) -> PathBuf {
        self.dir.join(".gitignore")
    }

    pub(super) fn server(&self) -> Pair {
        Pair {
            certificate: self.dir.join("server.pem"),
            key: self.dir.join("server-key.pem"),
        }
    }

    pub(super) fn clients(&self) -> PathBuf {
        self.dir.join("clients")
    }

    pub(super) fn client(&self, name: &ClientName) -> Pair {
        Pair {
            certificate: self.clients().join(format!("{name}.pem")),
            key: self.clients().join(format!("{name}-key.pem")),
        }
    }

    /// Where servers besides the main one are.
    pub(super) fn servers(&self) -> PathBuf {
        self.dir.join("servers")
    }

    pub(super) fn peers(&self) -> PathBuf {
        self.dir.join("peers")
    }

    /// The directories that hold pairs.
    pub(super) fn of_pairs(&self) -> [PathBuf; 4] {
        [
            self.dir.clone(),
            self.clients(),
            self.servers(),
            self.peers(),
        ]
    }

    pub(super) fn private(&self) -> PathBuf {
        self.dir.join("ca-private")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    pub(super) fn ca_key(&self) -> PathBuf {
        self.private().join("ca-key.pem")
    }

    pub(super) fn ca_certificate(&self) -> PathBuf {
        self.private().join("ca-cert.pem")
    }

    /// The files of the CA.
    pub(super) fn ca_pair(&self) -> Pair {
        Pair {
            certificate: self.ca_certificate(),
            key: self.ca_key(),
        }
    }

    /// The files of the CA that is to take its place.
    pub(super) fn next_ca_pair(&self) -> Pair {
        Pair {
            certificate: self.private().join("next-ca-cert.pem"),
            key: self.private().join("next-ca-key.pem"),
        }
    }

    pub(super) fn rotation(&self) -> PathBuf {
        self.private().join("rotation.json")
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.private().join("index.jsonl")
    }

    pub(super) fn crl_number(&self) -> PathBuf {
        self.private().join("crl-number")
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.private().join("archive")
    }
}
