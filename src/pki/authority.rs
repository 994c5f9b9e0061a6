//! The CA: found, checked, or made when there is none.
//!
//! No path through this file replaces a CA key or certificate.

use std::path::Path;

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::disk::{self, Disk, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Validity, sha256};
use super::layout::{Layout, PUBLIC, SECRET};
use super::ledger::Ledger;
use crate::tls::pem;

/// What a directory without a CA may hold already.
const WELCOME: [&str; 6] = [
    ".gitignore",
    ".gitkeep",
    "README.md",
    "ca-private",
    "lost+found",
    "policy.toml",
];

/// A CA that can verify, and sign if its key is here.
pub(super) struct Authority {
    /// What its certificates are verified against; its own certificate first.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    pub(super) facts: Facts,
    pub(super) signer: Option<Issuer<'static, KeyPair>>,
    /// Whether this run made it.
    pub(super) is_new: bool,
}

/// What there is of a CA.
pub(super) enum Found {
    Nothing,
    /// A run ended between writing the key and the certificate: nothing was ever signed with it.
    KeyAlone(KeyPair),
    Authority(Box<Authority>),
}

/// Looks for a CA and checks that its parts belong together.
pub(super) fn find(
    layout: &Layout,
    ledger: Option<&Ledger>,
    now: Timestamp,
) -> Result<Found, PkiError> {
    let (key, certificate) = (layout.ca_key(), layout.ca_certificate());
    let has_bundle = disk::is_file(&layout.ca())?;
    let half = |present, missing| Err(PkiError::CaHalf { present, missing });
    let found = |authority| Found::Authority(Box::new(authority));
    match (disk::is_file(&key)?, disk::is_file(&certificate)?) {
        (true, true) => open(layout, now).map(found),
        (false, true) => verifier(layout, now, &certificate).map(found),
        (false, false) if has_bundle => verifier(layout, now, &layout.ca()).map(found),
        (true, false) if has_bundle => half(key, certificate),
        (has_key, false) => {
            if ledger.is_some_and(|ledger| ledger.ca().is_some()) {
                let missing = if has_key { certificate } else { key };
                return half(layout.ledger(), missing);
            }
            refuse_foreign(layout)?;
            if has_key {
                Ok(Found::KeyAlone(read_key(layout)?))
            } else {
                Ok(Found::Nothing)
            }
        }
    }
}

/// Refuses a directory that holds files of someone else while there is no CA.
pub(super) fn refuse_foreign(layout: &Layout) -> Result<(), PkiError> {
    let names = disk::list(layout.dir())?;
    match names
        .into_iter()
        .find(|name| !WELCOME.contains(&name.as_str()))
    {
        Some(name) => Err(PkiError::Foreign {
            path: layout.dir().join(name),
        }),
        None => Ok(()),
    }
}

fn read_key(layout: &Layout) -> Result<KeyPair, PkiError> {
    let path = layout.ca_key();
    disk::check_owner(&path, true)?;
    let key = pem::read_private_key(&path)?;
    KeyPair::try_from(&key).map_err(|error| PkiError::CaUnfit {
        certificate: path,
        reason: error.to_string(),
    })
}

fn open(layout: &Layout, now: Timestamp) -> Result<Authority, PkiError> {
    let path = layout.ca_certificate();
    let mut authority = verifier(layout, now, &path)?;
    let unfit = |reason: String| PkiError::CaUnfit {
        certificate: path.clone(),
        reason,
    };
    if authority.anchors.len() != 1 {
        let count = authority.anchors.len();
        return Err(unfit(format!("it holds {count} certificates, not one")));
    }
    let key = read_key(layout)?;
    let key_info = key.subject_public_key_info();
    if key_info != authority.facts.public_key {
        return Err(PkiError::CaMismatch {
            key: layout.ca_key(),
            certificate: path.clone(),
            key_sha256: sha256(&key_info),
            wanted_sha256: sha256(&authority.facts.public_key),
        });
    }
    let issuer = Issuer::from_ca_cert_der(&authority.anchors[0], key);
    authority.signer = Some(issuer.map_err(|error| unfit(error.to_string()))?);
    Ok(authority)
}

/// A CA without its key, from the file at `path`.
fn verifier(layout: &Layout, now: Timestamp, path: &Path) -> Result<Authority, PkiError> {
    let anchors = pem::read_certificates(path)?;
    let own = anchors.first().expect("the reader refuses an empty file");
    let facts = inspect::facts(path, own)?;
    facts.check_ca().map_err(|reason| PkiError::CaUnfit {
        certificate: path.to_owned(),
        reason: reason.to_owned(),
    })?;
    let certificate = path.to_owned();
    let Validity {
        not_before,
        not_after: at,
    } = facts.validity;
    if at <= now {
        return Err(PkiError::CaExpired {
            certificate,
            at,
            now,
        });
    }
    if not_before > now {
        return Err(PkiError::CaEarly {
            certificate,
            at: not_before,
            now,
        });
    }
    check_bundle(layout, own)?;
    Ok(Authority {
        anchors,
        facts,
        signer: None,
        is_new: false,
    })
}

fn check_bundle(layout: &Layout, own: &CertificateDer<'_>) -> Result<(), PkiError> {
    let path = layout.ca();
    if disk::is_file(&path)? && !pem::read_certificates(&path)?.contains(own) {
        return Err(PkiError::OtherCa {
            path,
            what: "the certificate",
            certificate: layout.ca_certificate(),
        });
    }
    Ok(())
}

/// Makes a CA: the key first, so that no certificate ever stands without its key.
pub(super) fn make(
    disk: &Disk,
    layout: &Layout,
    lone_key: Option<KeyPair>,
    author: &str,
    validity: Validity,
) -> Result<Authority, PkiError> {
    let key = if let Some(key) = lone_key {
        key
    } else {
        let key = issue::make_key()?;
        let text = key.serialize_pem();
        disk.write(&layout.ca_key(), text.as_bytes(), SECRET, Over::Nothing)?;
        key
    };
    let path = layout.ca_certificate();
    let certificate = issue::make_ca(&key, author, validity)?;
    disk.write(&path, certificate.pem().as_bytes(), PUBLIC, Over::Nothing)?;
    let der: CertificateDer<'static> = certificate.into();
    let facts = inspect::facts(&path, &der)?;
    let issuer = Issuer::from_ca_cert_der(&der, key)
        .map_err(|error| issue::sign_error("a CA certificate", &error))?;
    Ok(Authority {
        anchors: vec![der],
        facts,
        signer: Some(issuer),
        is_new: true,
    })
}
