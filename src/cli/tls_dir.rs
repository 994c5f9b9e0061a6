//! Which file of a TLS directory is what: fsvc's own names, or those that cert-manager mounts.
//!
//! One directory has one layout. Where both are there it is not guessed which is meant.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Files that only fsvc's own layout has.
const OWN: [&str; 4] = ["ca.pem", "server.pem", "server-key.pem", "clients"];
/// The files of a Kubernetes secret, as cert-manager fills it.
const MOUNTED: [&str; 3] = [CERTIFICATE, KEY, CA];
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";

/// How the files of a directory are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Own,
    Mounted,
}

/// Two layouts in one directory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{} has {own}, of fsvc's own layout, and {mounted}, of cert-manager's: it is not clear which is meant",
    directory.display()
)]
pub(super) struct Ambiguous {
    directory: PathBuf,
    own: &'static str,
    mounted: &'static str,
}

impl Ambiguous {
    /// What the operator can do about it.
    pub(super) const HINT: &'static str =
        "keep one of the two in a directory of its own, or name each file: --cert, --key and --ca";
}

impl Layout {
    /// That of a directory; fsvc's own where nothing is there. Blocks.
    ///
    /// # Errors
    /// Files of both layouts are there.
    pub(super) fn of(directory: &Path) -> Result<Self, Ambiguous> {
        let find = |names: &[&'static str]| {
            let mut there = names
                .iter()
                .filter(|name| directory.join(name).symlink_metadata().is_ok());
            there.next().copied()
        };
        match (find(&OWN), find(&MOUNTED)) {
            (Some(own), Some(mounted)) => Err(Ambiguous {
                directory: directory.to_owned(),
                own,
                mounted,
            }),
            (None, Some(_)) => Ok(Self::Mounted),
            (_, None) => Ok(Self::Own),
        }
    }

    /// The CAs that are trusted.
    pub(super) const fn ca(self) -> &'static str {
        match self {
            Self::Own => "ca.pem",
            Self::Mounted => CA,
        }
    }

    /// The server's chain and key.
    pub(super) const fn server(self) -> (&'static str, &'static str) {
        match self {
            Self::Own => ("server.pem", "server-key.pem"),
            Self::Mounted => (CERTIFICATE, KEY),
        }
    }

    /// The chain and key of the only client that can be there; nothing where clients have names.
    pub(super) const fn client(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Own => None,
            Self::Mounted => Some((CERTIFICATE, KEY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_layout() {
        let check = |names: &[&str], expected: Option<Layout>| {
            let place = tempfile::tempdir().unwrap();
            for name in names {
                std::fs::write(place.path().join(name), "").unwrap();
            }
            assert_eq!(Layout::of(place.path()).ok(), expected, "{names:?}");
        };
        check(&[], Some(Layout::Own));
        check(&["ca.pem", "server.pem"], Some(Layout::Own));
        check(&["tls.crt", "tls.key", "ca.crt"], Some(Layout::Mounted));
        check(&["tls.crt", "policy.toml", "ca.crl"], Some(Layout::Mounted));
        check(&["tls.crt", "ca.pem"], None);
        check(&["ca.crt", "clients"], None);
    }

    #[test]
    fn two_layouts_are_named_both() {
        let place = tempfile::tempdir().unwrap();
        for name in ["clients", "tls.key"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let said = Layout::of(place.path()).unwrap_err().to_string();
        assert!(
            said.contains("has clients,") && said.contains("and tls.key,"),
            "{said}"
        );
    }
}
