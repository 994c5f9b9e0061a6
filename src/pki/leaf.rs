//! The certificates of the server and the clients: looked at, made, made again.
//!
//! An old pair is copied to the archive before a new one takes its place.

use std::path::Path;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::authority::Authority;
use super::disk::{self, Disk, Over};
use super::inspect::{self, Facts, Why};
use super::issue::{Issued, Role, Validity, sha256};
use super::layout::{DIR_SECRET, Layout, PUBLIC, Pair, SECRET};
use crate::identity::SpiffeId;
use crate::tls::pem;

/// Most generations with one serial number in the archive; only interrupted runs make a second.
const ARCHIVED_MAX: u32 = 100;

/// A certificate that should exist.
pub(super) struct Wish {
    /// As it is shown: `server`, or the client's name.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) identity: SpiffeId,
    pub(super) pair: Pair,
    /// Asked for in this run, rather than found.
    pub(super) is_asked: bool,
}

/// What became of a wish so far.
pub(super) enum Survey {
    Keep {
        der: CertificateDer<'static>,
        facts: Facts,
        has_key: bool,
    },
    Make,
    Again {
        why: Why,
        /// What the old one says, if the CA signed it.
        old: Option<Facts>,
    },
}

/// Compares a wish with what is there. Nothing is changed.
pub(super) fn survey(
    wish: &Wish,
    authority: &Authority,
    now: Timestamp,
    new: Validity,
) -> Result<Survey, PkiError> {
    let Pair { certificate, key } = &wish.pair;
    let has_key = disk::is_file(key)?;
    if !disk::is_file(certificate)? {
        return Ok(if has_key {
            Survey::Again {
                why: Why::CertificateMissing,
                old: None,
            }
        } else {
            Survey::Make
        });
    }
    let mut chain = pem::read_certificates(certificate)?;
    let der = chain.swap_remove(0);
    let facts = inspect::facts(certificate, &der)?;
    if let Some(why) = inspect::check_signature(&der, &authority.anchors, &wish.role, &facts) {
        return Ok(Survey::Again { why, old: None });
    }
    let why = if has_key {
        check_key(&wish.pair, &facts)?
    } else {
        wish.is_asked.then_some(Why::KeyMissing)
    };
    let why = why.or_else(|| {
        // One of the other CA is good, but not for long.
        let own = &authority.anchors[..1];
        let is_moved = authority.is_rotating && authority.signer.is_some();
        is_moved.then(|| inspect::check_signature(&der, own, &wish.role, &facts))?
    });
    let why = why.or_else(|| facts.check_profile(&wish.role, &wish.identity));
    let why = why.or_else(|| facts.check_time(now, new));
    Ok(match why {
        // Its key was carried away: a new one would only come between that key and its owner.
        Some(why) if has_key || wish.is_asked => Survey::Again {
            why,
            old: Some(facts),
        },
        _ => Survey::Keep {
            der,
            facts,
            has_key,
        },
    })
}

/// The public part of the key in a file.
pub(super) fn public_key(path: &Path) -> Result<Vec<u8>, PkiError> {
    disk::check_owner(path, true)?;
    let der = pem::read_private_key(path)?;
    let key = KeyPair::try_from(&der).map_err(|error| PkiError::Certificate {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(key.subject_public_key_info())
}

fn check_key(pair: &Pair, facts: &Facts) -> Result<Option<Why>, PkiError> {
    let fits = public_key(&pair.key)? == facts.public_key;
    Ok((!fits).then_some(Why::KeyMismatch))
}

/// Names a new pair, the key first: a certificate whose key is missing looks like one whose key was
/// carried away.
pub(super) fn write(disk: &Disk, pair: &Pair, issued: &Issued, over: Over) -> Result<(), PkiError> {
    if over == Over::Old {
        return disk.write_pair(
            (&pair.key, issued.key_pem.as_bytes(), SECRET),
            (&pair.certificate, issued.certificate_pem.as_bytes(), PUBLIC),
        );
    }
    disk.write(&pair.key, issued.key_pem.as_bytes(), SECRET, over)?;
    disk.write(
        &pair.certificate,
        issued.certificate_pem.as_bytes(),
        PUBLIC,
        over,
    )
}

/// Completes the pairs that an interrupted run named in part, and removes what else it left half
/// written.
pub(super) fn mend_all(disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
    for dir in layout.of_pairs() {
        for name in disk::list(&dir)? {
            if name
                .strip_suffix(".pem")
                .is_some_and(|stem| !stem.starts_with('.'))
            {
                mend(disk, &dir.join(name))?;
            }
        }
        disk.sweep(&dir)?;
    }
    disk.sweep(&layout.private())
}

/// Names the certificate that belongs to a key which was named already.
fn mend(disk: &Disk, certificate: &Path) -> Result<(), PkiError> {
    let staged = disk::staged_name(certificate);
    if !disk::is_file(&staged)? {
        return Ok(());
    }
    let stem = certificate.file_stem().unwrap_or_default();
    let mut name = stem.to_owned();
    name.push("-key.pem");
    let pair = Pair {
        certificate: staged,
        key: certificate.with_file_name(name),
    };
    // What is half written cannot be read, and is swept.
    let Ok(chain) = pem::read_certificates(&pair.certificate) else {
        return Ok(());
    };
    let Ok(facts) = inspect::facts(&pair.certificate, &chain[0]) else {
        return Ok(());
    };
    if disk::is_file(&pair.key)? && check_key(&pair, &facts)?.is_none() {
        disk.adopt(certificate)?;
    }
    Ok(())
}

/// Copies an old pair to `ca-private/archive/SERIAL/`.
pub(super) fn archive(disk: &Disk, layout: &Layout, pair: &Pair) -> Result<(), PkiError> {
    let certificate = disk::read(&pair.certificate)?;
    let key = disk::read(&pair.key)?;
    let name = archive_name(pair, key.as_deref().unwrap_or_default())?;
    disk.make_dir(&layout.archive(), DIR_SECRET)?;
    for generation in 1..=ARCHIVED_MAX {
        let dir = match generation {
            1 => layout.archive().join(&name),
            n => layout.archive().join(format!("{name}.{n}")),
        };
        let files = [
            (&pair.certificate, certificate.as_deref(), PUBLIC),
            (&pair.key, key.as_deref(), SECRET),
        ];
        let targets: Vec<_> = files
            .into_iter()
            .filter_map(|(from, bytes, mode)| Some((dir.join(from.file_name()?), bytes?, mode)))
            .collect();
        let mut is_free = true;
        for (path, bytes, _) in &targets {
            is_free &= disk::read(path)?.is_none_or(|found| found == *bytes);
        }
        if !is_free {
            continue;
        }
        disk.make_dir(&dir, DIR_SECRET)?;
        for (path, bytes, mode) in targets {
            if !disk::is_file(&path)? {
                disk.write(&path, bytes, mode, Over::Nothing)?;
            }
        }
        return Ok(());
    }
    Err(PkiError::TooMany {
        what: "archived pairs with one serial number",
        count: ARCHIVED_MAX as usize + 1,
        max: ARCHIVED_MAX as usize,
    })
}

fn archive_name(pair: &Pair, key: &[u8]) -> Result<String, PkiError> {
    if !disk::is_file(&pair.certificate)? {
        return Ok(format!("key-{}", &sha256(key)[..16]));
    }
    let chain = pem::read_certificates(&pair.certificate)?;
    let first = chain.first().expect("the reader refuses an empty file");
    Ok(inspect::facts(&pair.certificate, first)?.serial)
}
