//! A certificate with a key of its own, for somebody who has none.
//!
//! A name that has one is refused: two people who share a name by mistake would be one. The
//! certificate is in the index before it has a file name.

use std::path::Path;

use jiff::Timestamp;

use super::asked::{check_count, check_days};
use super::bearer::{Bearer, Holder, Named};
use super::disk::{self, Disk, Over};
use super::inspect;
use super::issue::{self, Validity, fingerprint};
use super::layout::{DIR_PUBLIC, Pair};
use super::leaf;
use super::ledger::Record;
use super::life_error::LifeError;
use super::life_report::AddReport;
use super::list::Standing;
use super::signer::{Signer, trusted_cas};
use super::{NAMES_MAX, PkiError};
use crate::tls::pem;

/// A certificate that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct AddOptions<'a> {
    pub dir: &'a Path,
    pub holder: Holder<'a>,
    /// Days that it is valid, cut short by the end of the CA.
    pub days: u32,
    /// Whether the name may have one already.
    pub again: bool,
}

/// See [`super::add`].
pub(super) fn add(
    disk: &Disk,
    options: &AddOptions<'_>,
    now: Timestamp,
) -> Result<AddReport, PkiError> {
    check_days("--days", options.days)?;
    let named = Named::parse(options.holder)?;
    let bearer = &named.bearer;
    let mut signer = Signer::open(disk, options.dir, now)?;
    signer.complete_lists()?;
    let authority = signer.authority(|| format!("a certificate for {bearer} must be made"))?;
    check_count("names", signer.bearers().len() + 1, NAMES_MAX)?;
    let pair = bearer.pair(&signer.layout);
    let replaces = look_at_old(&signer, bearer, &pair, options.again)?;
    let policy = signer.grant(bearer)?;

    let role = named.role();
    let identity = bearer.identity(&signer.domain);
    let validity = Validity::of_leaf(signer.now, options.days, authority.facts.validity)?;
    let issuer = authority.signer.as_ref().expect("the key is here");
    let new = issue::make_leaf(issuer, &role, &identity, validity)?;
    let facts = inspect::facts(&pair.certificate, &new.der)?;
    let mut record = Record::issued(bearer.kind(), &new.der, &facts, &authority.facts.serial);
    record.replaces = replaces;
    let cas = trusted_cas(&signer.layout)?;
    let others: Vec<String> = signer
        .records_of(bearer)
        .into_iter()
        .filter(|record| record.is_in_force(signer.now) && cas.contains(&record.ca))
        .map(|record| record.serial.clone())
        .collect();
    signer.ledger.add(disk, record)?;
    if let Some(dir) = bearer.directory(&signer.layout) {
        disk.make_dir(&dir, DIR_PUBLIC)?;
    }
    let is_there = disk::is_file(&pair.certificate)? || disk::is_file(&pair.key)?;
    let over = if is_there {
        leaf::archive(disk, &signer.layout, &pair)?;
        Over::Old
    } else {
        Over::Nothing
    };
    leaf::write(disk, &pair, &new, over)?;
    let mut report = AddReport {
        name: bearer.name().to_owned(),
        kind: bearer.kind(),
        certificate: pair.certificate,
        key: pair.key,
        hosts: facts.hosts,
        serial: facts.serial,
        ca: authority.facts.serial,
        expires_at: facts.validity.not_after,
        sha256: fingerprint(&new.der),
        still_valid: others,
        identity,
        policy,
        notes: Vec::new(),
    };
    report.add_notes(options.days, authority.facts.validity.not_after, signer.now);
    Ok(report)
}

/// The serial number of the certificate whose files are taken over; refused if there is any and
/// there should be none.
fn look_at_old(
    signer: &Signer<'_>,
    bearer: &Bearer,
    pair: &Pair,
    again: bool,
) -> Result<Option<String>, PkiError> {
    let records = signer.records_of(bearer);
    if !again {
        if let Some(last) = records.last() {
            return Err(LifeError::There {
                is_revoked: last.revocation.is_some(),
                name: bearer.to_string(),
                flags: bearer.flags(),
                certificates: records
                    .iter()
                    .map(|record| shown(record, signer.now))
                    .collect(),
            }
            .into());
        }
        for path in [&pair.certificate, &pair.key] {
            if disk::is_file(path)? {
                return Err(LifeError::InTheWay {
                    name: bearer.to_string(),
                    path: path.clone(),
                }
                .into());
            }
        }
    }
    if !disk::is_file(&pair.certificate)? {
        return Ok(None);
    }
    let chain = pem::read_certificates(&pair.certificate)?;
    let serial = inspect::facts(&pair.certificate, &chain[0])?.serial;
    let is_ours = records.iter().any(|record| record.serial == serial);
    Ok(is_ours.then_some(serial))
}

/// A certificate as an error names it.
pub(super) fn shown(record: &Record, now: Timestamp) -> String {
    let until = record.not_after;
    match Standing::of(record, false, now) {
        Standing::Revoked => format!("serial {}, revoked", record.serial),
        Standing::Expired => format!("serial {}, expired {until}", record.serial),
        Standing::Valid | Standing::NotYetValid | Standing::Archived | Standing::Untrusted => {
            format!("serial {}, valid until {until}", record.serial)
        }
    }
}
