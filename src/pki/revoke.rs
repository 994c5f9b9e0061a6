//! Revocation: the index first, then the list of the CA that signed.
//!
//! Nothing is ever taken back from a list, and a list is made of the index alone: it can be lost and
//! made again.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use rcgen::RevocationReason;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::PkiError;
use super::authority;
use super::disk::Disk;
use super::inspect;
use super::issue::Revoked;
use super::ledger::{Kind, Ledger, Record, Revocation, Status};
use super::rotation::RotationError;
use super::sign::Desk;
use super::trusted::{Trusted, make_list};
use crate::escape::Escaped;
use crate::tls::pem;

/// Why a certificate is revoked: those of RFC 5280, section 5.3.1, that are for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    #[default]
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
}

impl Reason {
    const fn code(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
        }
    }
}

/// Which certificates are meant.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// The one in force of this client, or of `server`.
    Name(&'a str),
    /// All of them.
    AllOf(&'a str),
    /// Hexadecimal, with or without colons.
    Serial(&'a str),
    /// The first certificate of a file.
    File(&'a Path),
}

/// Why nothing is revoked.
#[derive(Debug, Error)]
pub enum RevokeError {
    #[error("no certificate of {name} is in force")]
    Unknown { name: Escaped },
    #[error("no certificate with the serial number {serial} was issued here")]
    NoSerial { serial: Escaped },
    #[error("{name} has {} certificates in force: {}", serials.len(), serials.join(", "))]
    Several { name: Escaped, serials: Vec<String> },
    #[error("serial number {serial} is a CA's: a CA is not revoked, it is taken out of ca.pem")]
    Ca { serial: String },
}

impl RevokeError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Unknown { .. } | Self::NoSerial { .. } => {
                "what was issued is listed by: fsvc certs list".to_owned()
            }
            Self::Several { .. } => {
                "say which one with --serial, or revoke them all with --all-of NAME".to_owned()
            }
            Self::Ca { .. } => "fsvc certs rotate-ca start".to_owned(),
        }
    }
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokeReport {
    pub revoked: Vec<RevokedItem>,
    /// The file of lists.
    pub list: String,
}

/// One certificate that counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokedItem {
    pub serial: String,
    pub identity: Option<String>,
    pub reason: Reason,
    pub at: Timestamp,
    /// It was revoked before.
    pub was_revoked: bool,
}

/// See [`super::revoke`].
pub(super) fn revoke(
    disk: &Disk,
    dir: &Path,
    which: Which<'_>,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokeReport, PkiError> {
    let mut place = Desk::open(disk, dir, now)?;
    let records = find(&place, which)?;
    let mut report = RevokeReport {
        revoked: Vec::new(),
        list: place.layout.crl().display().to_string(),
    };
    let mut cas: Vec<String> = Vec::new();
    for mut record in records {
        let was_revoked = record.revoked.is_some();
        let at = place.now;
        let revocation = record.revoked.get_or_insert(Revocation { at, reason });
        report.revoked.push(RevokedItem {
            serial: record.serial.clone(),
            identity: record.identity.clone(),
            reason: revocation.reason,
            at: revocation.at,
            was_revoked,
        });
        if !cas.contains(&record.ca) {
            cas.push(record.ca.clone());
        }
        if !was_revoked {
            record.status = Status::Revoked;
            place.ledger.add(disk, record)?;
        }
    }
    // Also of what was revoked before: the run that did it may not have come to its list.
    let mut trusted = Trusted::read(&place.layout)?;
    for serial in cas {
        let authority = authority::of(&place.layout, &serial)?;
        let authority = authority.ok_or(RotationError::Absent { serial })?;
        let list = make_list(disk, &place.layout, &authority, place.now)?;
        trusted.put_list(&authority.anchors[0], list);
    }
    trusted.write_lists(disk, &place.layout)?;
    Ok(report)
}

fn find(place: &Desk<'_>, which: Which<'_>) -> Result<Vec<Record>, PkiError> {
    match which {
        Which::Name(name) => {
            let found = of_name(place, name);
            if found.len() > 1 {
                let serials = found.into_iter().map(|record| record.serial).collect();
                let name = Escaped::new(name);
                return Err(RevokeError::Several { name, serials }.into());
            }
            some(found, name)
        }
        Which::AllOf(name) => some(of_name(place, name), name),
        Which::Serial(text) => {
            let serial = text.replace(':', "").to_ascii_lowercase();
            of_serial(&place.ledger, &serial).map(|record| vec![record])
        }
        Which::File(path) => {
            let chain = pem::read_certificates(path)?;
            let facts = inspect::facts(path, &chain[0])?;
            of_serial(&place.ledger, &facts.serial).map(|record| vec![record])
        }
    }
}

fn some(found: Vec<Record>, name: &str) -> Result<Vec<Record>, PkiError> {
    if found.is_empty() {
        let name = Escaped::new(name);
        return Err(RevokeError::Unknown { name }.into());
    }
    Ok(found)
}

/// Those of a client, or of `server`, that are in force.
fn of_name(place: &Desk<'_>, name: &str) -> Vec<Record> {
    let records = place.ledger.records().iter();
    let is_its = |record: &&Record| match record.kind {
        Kind::Ca => false,
        Kind::Server => name == "server",
        Kind::Client => record.name() == Some(name),
    };
    let its = records.filter(is_its);
    its.filter(|record| record.is_in_force(place.now))
        .cloned()
        .collect()
}

fn of_serial(ledger: &Ledger, serial: &str) -> Result<Record, PkiError> {
    let mut records = ledger.records().iter();
    let Some(record) = records.find(|record| record.serial == serial) else {
        let serial = Escaped::new(serial);
        return Err(RevokeError::NoSerial { serial }.into());
    };
    if record.kind == Kind::Ca {
        let serial = serial.to_owned();
        return Err(RevokeError::Ca { serial }.into());
    }
    Ok(record.clone())
}

impl Record {
    /// A client's name: the last part of its identity.
    pub(super) fn name(&self) -> Option<&str> {
        self.identity.as_deref()?.rsplit('/').next()
    }
}

impl Ledger {
    /// What the list of this CA is to hold.
    pub(super) fn revoked(&self, ca: &str) -> Vec<Revoked> {
        let of_ca = self.records().iter().filter(|record| record.ca == ca);
        let revoked = of_ca.filter_map(|record| {
            let Revocation { at, reason } = record.revoked.as_ref()?;
            Some(Revoked {
                serial: record.serial.clone(),
                at: *at,
                reason: reason.code(),
            })
        });
        revoked.collect()
    }
}

impl RevokeReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for item in &self.revoked {
            let identity = item.identity.as_deref().unwrap_or("without a name");
            let before = if item.was_revoked { " before" } else { "" };
            let _ = writeln!(text, "revoked{before}  {identity}   serial {}", item.serial);
        }
        text + &format!(
            "Copy {} to every server: it holds there within seconds, for who is connected too.\n",
            self.list
        )
    }
}
