//! The CA: found, checked, or made when there is none.
//!
//! No path through this file replaces the key or certificate of a CA that signs.

use std::path::Path;

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::disk::{self, Disk, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Validity, sha256};
use super::layout::{Layout, PUBLIC, Pair, SECRET};
use super::ledger::Ledger;
use super::rotation::{CaFiles, Rotation};
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
    /// What certificates are verified against; its own certificate first.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    pub(super) facts: Facts,
    pub(super) signer: Option<Issuer<'static, KeyPair>>,
    /// Whether this run made it.
    pub(super) is_new: bool,
    /// Whether another CA gives way to it, or it to another: the anchors are both.
    pub(super) is_rotating: bool,
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
    let rotation = Rotation::read(layout)?;
    let files = CaFiles::of(layout, rotation.as_ref());
    let Pair { certificate, key } = files.signing.clone();
    let has_bundle = disk::is_file(&layout.ca())?;
    let half = |present, missing| Err(PkiError::CaHalf { present, missing });
    let found = |mut authority: Authority| {
        check_dates(&authority.facts, &certificate, now)?;
        check_bundle(layout, &authority.anchors[0], &certificate)?;
        if let Some(other) = &files.other {
            authority
                .anchors
                .extend(pem::read_certificates(&other.certificate)?);
            authority.is_rotating = true;
        }
        Ok(Found::Authority(Box::new(authority)))
    };
    match (disk::is_file(&key)?, disk::is_file(&certificate)?) {
        (true, true) => found(open(&files.signing)?),
        (false, true) => found(verifier(&certificate)?),
        (false, false) if has_bundle => found(verifier(&layout.ca())?),
        (true, false) if has_bundle => half(key, certificate),
        (has_key, false) => {
            if ledger.is_some_and(|ledger| ledger.ca().is_some()) {
                let missing = if has_key { certificate } else { key };
                return half(layout.ledger(), missing);
            }
            refuse_foreign(layout)?;
            if has_key {
                Ok(Found::KeyAlone(read_key(&key)?))
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

fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    disk::check_owner(path, true)?;
    let key = pem::read_private_key(path)?;
    KeyPair::try_from(&key).map_err(|error| PkiError::CaUnfit {
        certificate: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The CA with these files, whatever the time is.
pub(super) fn open(files: &Pair) -> Result<Authority, PkiError> {
    let path = &files.certificate;
    let mut authority = verifier(path)?;
    let unfit = |reason: String| PkiError::CaUnfit {
        certificate: path.clone(),
        reason,
    };
    if authority.anchors.len() != 1 {
        let count = authority.anchors.len();
        return Err(unfit(format!("it holds {count} certificates, not one")));
    }
    let key = read_key(&files.key)?;
    let key_info = key.subject_public_key_info();
    if key_info != authority.facts.public_key {
        return Err(PkiError::CaMismatch {
            key: files.key.clone(),
            certificate: path.clone(),
            key_sha256: sha256(&key_info),
            wanted_sha256: sha256(&authority.facts.public_key),
        });
    }
    let issuer = Issuer::from_ca_cert_der(&authority.anchors[0], key);
    authority.signer = Some(issuer.map_err(|error| unfit(error.to_string()))?);
    Ok(authority)
}

/// The CA that has this serial number, while it signs or is trusted beside the one that does;
/// `None` if its key is not here. Whatever the time is: a CA that expired can still revoke.
pub(super) fn of(layout: &Layout, serial: &str) -> Result<Option<Authority>, PkiError> {
    let rotation = Rotation::read(layout)?;
    let files = CaFiles::of(layout, rotation.as_ref());
    for pair in [Some(files.signing), files.other].into_iter().flatten() {
        if disk::is_file(&pair.certificate)? && disk::is_file(&pair.key)? {
            let authority = open(&pair)?;
            if authority.facts.serial == serial {
                return Ok(Some(authority));
            }
        }
    }
    Ok(None)
}

/// A CA without its key, from the file at `path`.
fn verifier(path: &Path) -> Result<Authority, PkiError> {
    let anchors = pem::read_certificates(path)?;
    let own = anchors.first().expect("the reader refuses an empty file");
    let facts = inspect::facts(path, own)?;
    facts.check_ca().map_err(|reason| PkiError::CaUnfit {
        certificate: path.to_owned(),
        reason: reason.to_owned(),
    })?;
    Ok(Authority {
        anchors,
        facts,
        signer: None,
        is_new: false,
        is_rotating: false,
    })
}

fn check_dates(facts: &Facts, path: &Path, now: Timestamp) -> Result<(), PkiError> {
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
    Ok(())
}

fn check_bundle(
    layout: &Layout,
    own: &CertificateDer<'_>,
    certificate: &Path,
) -> Result<(), PkiError> {
    let path = layout.ca();
    if disk::is_file(&path)? && !pem::read_certificates(&path)?.contains(own) {
        return Err(PkiError::OtherCa {
            path,
            what: "the certificate",
            certificate: certificate.to_owned(),
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
    let files = layout.ca_pair();
    let key = if let Some(key) = lone_key {
        key
    } else {
        make_key(disk, &files, Over::Nothing)?
    };
    certify(disk, &files, Over::Nothing, key, (author, validity))
}

/// Makes the CA that is to take the place of the one that signs. What an earlier run left of one
/// is overwritten: nothing was ever signed with it.
pub(super) fn make_next(
    disk: &Disk,
    layout: &Layout,
    author: &str,
    validity: Validity,
) -> Result<Authority, PkiError> {
    let files = layout.next_ca_pair();
    let key = make_key(disk, &files, Over::Old)?;
    certify(disk, &files, Over::Old, key, (author, validity))
}

fn make_key(disk: &Disk, files: &Pair, over: Over) -> Result<KeyPair, PkiError> {
    let key = issue::make_key()?;
    disk.write(&files.key, key.serialize_pem().as_bytes(), SECRET, over)?;
    Ok(key)
}

fn certify(
    disk: &Disk,
    files: &Pair,
    over: Over,
    key: KeyPair,
    (author, validity): (&str, Validity),
) -> Result<Authority, PkiError> {
    let path = &files.certificate;
    let certificate = issue::make_ca(&key, author, validity)?;
    disk.write(path, certificate.pem().as_bytes(), PUBLIC, over)?;
    let der: CertificateDer<'static> = certificate.into();
    let facts = inspect::facts(path, &der)?;
    let issuer = Issuer::from_ca_cert_der(&der, key)
        .map_err(|error| issue::sign_error("a CA certificate", &error))?;
    Ok(Authority {
        anchors: vec![der],
        facts,
        signer: Some(issuer),
        is_new: true,
        is_rotating: false,
    })
}
