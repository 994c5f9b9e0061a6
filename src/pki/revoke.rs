//! Certificates that are not good any more: in the index first, then in the list that servers read.
//!
//! Works from the index, so that what is on no disk any more can be revoked too, whatever the time
//! is. Nothing is ever taken back.

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::add::shown;
use super::authority;
use super::bearer::Bearer;
use super::disk::Disk;
use super::inspect;
use super::ledger::{Kind, Record, Revocation, Status};
use super::life_error::LifeError;
use super::life_report::{RevokeReport, Revoked};
use super::reason::Reason;
use super::rotation::{CaFiles, Rotation};
use super::signer::{Signer, trusted_cas};
use crate::escape::Escaped;
use crate::tls::pem;

/// What is revoked.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The one certificate of this name.
    Name(&'a str),
    /// Every certificate of this name.
    AllOf(&'a str),
    /// The one with this serial number, in hexadecimal.
    Serial(&'a str),
    /// The one in this file.
    Certificate(&'a Path),
}

/// A certificate as it is revoked: what is known of it.
struct Mark {
    serial: String,
    /// Serial number of its CA.
    ca: String,
    record: Option<Record>,
}

/// See [`super::revoke`].
pub(super) fn revoke(
    disk: &Disk,
    dir: &Path,
    target: Target<'_>,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokeReport, PkiError> {
    let mut signer = Signer::open(disk, dir, now)?;
    // What a renewal left good until now is out by the same list.
    signer.put_down_due()?;
    let marks = match target {
        Target::Name(name) => by_name(&signer, name, false)?,
        Target::AllOf(name) => by_name(&signer, name, true)?,
        Target::Serial(text) => by_serial(&signer, text)?,
        Target::Certificate(path) => by_file(&signer, path)?,
    };
    let mut revoked = Vec::new();
    for mark in &marks {
        // Without its key no list could follow what the index says.
        require_key(&signer, &mark.ca)?;
        revoked.push(put_down(&mut signer, mark, reason)?);
    }
    let mut cas: Vec<&str> = marks.iter().map(|mark| mark.ca.as_str()).collect();
    cas.sort_unstable();
    cas.dedup();
    let lists = cas.into_iter().map(|ca| signer.publish(ca));
    let lists = lists.collect::<Result<Vec<_>, PkiError>>()?;
    // The lists of other CAs come after what is asked for.
    signer.complete_lists()?;
    Ok(RevokeReport {
        now: signer.now,
        revoked,
        list: signer.layout.crl(),
        numbers: lists.iter().map(|list| list.number).collect(),
        n_entries: lists.iter().map(|list| list.n_entries).sum(),
        is_new_list: lists.iter().any(|list| list.is_new),
    })
}

fn require_key(signer: &Signer<'_>, ca: &str) -> Result<(), PkiError> {
    match authority::of(&signer.layout, ca)? {
        Some(_) => Ok(()),
        None => Err(PkiError::NoCaKey {
            key: signer.layout.ca_key(),
            needed: format!("the CA with the serial number {ca} must sign its list"),
        }),
    }
}

/// Writes into the index that a certificate is revoked, if it is not there.
fn put_down(signer: &mut Signer<'_>, mark: &Mark, reason: Reason) -> Result<Revoked, PkiError> {
    let mut old = signer.ledger.revocations().iter();
    let old = old.find(|old| old.serial == mark.serial && old.ca == mark.ca);
    let old = old.cloned();
    let is_new = old.is_none();
    let revocation = old.unwrap_or_else(|| Revocation {
        serial: mark.serial.clone(),
        ca: mark.ca.clone(),
        status: Status::Revoked,
        at: signer.now,
        reason,
    });
    if is_new {
        let disk = signer.disk;
        signer.ledger.revoke(disk, revocation.clone())?;
    }
    let record = mark.record.as_ref();
    let identity = record.and_then(|record| record.identity.clone());
    Ok(Revoked {
        name: identity
            .as_deref()
            .and_then(Bearer::of)
            .map(|bearer| bearer.to_string()),
        identity,
        serial: revocation.serial,
        ca: revocation.ca,
        at: revocation.at,
        reason: revocation.reason,
        expires_at: record.map(|record| record.not_after),
        was_revoked: !is_new,
    })
}

fn mark(record: &Record) -> Mark {
    Mark {
        serial: record.serial.clone(),
        ca: record.ca.clone(),
        record: Some(record.clone()),
    }
}

/// The certificates of a name that are in force: one, or all if that is wanted.
fn by_name(signer: &Signer<'_>, text: &str, all: bool) -> Result<Vec<Mark>, PkiError> {
    let bearer = signer.bearer(text)?;
    let records = signer.records_of(&bearer);
    // What a CA signed that is trusted no more is out already.
    let cas = trusted_cas(&signer.layout)?;
    let mut live = records.clone();
    live.retain(|record| record.is_in_force(signer.now) && cas.contains(&record.ca));
    let name = bearer.to_string();
    if live.len() > 1 && !all {
        return Err(LifeError::Several {
            name,
            certificates: live
                .iter()
                .map(|record| shown(record, signer.now))
                .collect(),
        }
        .into());
    }
    if live.is_empty() {
        let last = records.last().expect("a bearer is one of a record");
        // Again: the list may not have followed yet.
        if last.revocation.is_some() && cas.contains(&last.ca) {
            return Ok(vec![mark(last)]);
        }
        let mut state = shown(last, signer.now);
        if !cas.contains(&last.ca) {
            state += ", of a CA that is trusted no more";
        }
        return Err(LifeError::NoneLeft { name, state }.into());
    }
    Ok(live.into_iter().map(mark).collect())
}

fn by_serial(signer: &Signer<'_>, text: &str) -> Result<Vec<Mark>, PkiError> {
    let serial = spelled(text).ok_or_else(|| LifeError::Serial {
        text: Escaped::new(text).to_string(),
    })?;
    let same = |record: &&Record| record.serial.trim_start_matches('0') == serial;
    let records: Vec<&Record> = signer.ledger.records().iter().filter(same).collect();
    if records.is_empty() {
        return Err(LifeError::NotIssued {
            text: Escaped::new(text),
        }
        .into());
    }
    if records.iter().any(|record| record.kind == Kind::Ca) {
        return Err(LifeError::Ca { serial }.into());
    }
    Ok(records.into_iter().map(mark).collect())
}

/// A serial number as the index spells it: openssl and others write colons and upper case.
fn spelled(text: &str) -> Option<String> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let plain = text.replace(':', "").to_ascii_lowercase();
    let plain = plain.trim_start_matches('0');
    let is_hex = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| plain.to_owned())
}

/// The certificate in a file, also one that the index forgot, as long as a CA of this directory
/// signed it.
fn by_file(signer: &Signer<'_>, path: &Path) -> Result<Vec<Mark>, PkiError> {
    let der = read_one(path)?;
    let serial = inspect::facts(path, &der)?.serial;
    let rotation = Rotation::read(&signer.layout)?;
    let files = CaFiles::of(&signer.layout, rotation.as_ref());
    for pair in [Some(files.signing), files.other].into_iter().flatten() {
        let ca = authority::open(&pair)?;
        if ca.facts.serial == serial && ca.anchors[0] == der {
            return Err(LifeError::Ca { serial }.into());
        }
        if inspect::is_issued_by(&der, &ca.anchors[0]) {
            let ca = ca.facts.serial;
            let mut records = signer.ledger.records().iter();
            let record = records.find(|record| record.serial == serial && record.ca == ca);
            let record = record.cloned();
            return Ok(vec![Mark { serial, ca, record }]);
        }
    }
    Err(LifeError::OtherCa {
        path: path.to_owned(),
    }
    .into())
}

fn read_one(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    let mut chain = pem::read_certificates(path)?;
    Ok(chain.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_many_spellings() {
        for text in ["4a0b", "4A0B", "4a:0b", "0x4a0b", "004A:0B"] {
            assert_eq!(spelled(text).as_deref(), Some("4a0b"), "{text}");
        }
        for text in ["", "0", "xyz", "4a 0b", "4a0b\n", "::"] {
            assert_eq!(spelled(text), None, "{text}");
        }
    }
}
