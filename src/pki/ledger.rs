//! The list of what the CA issued, one JSON object a line.
//!
//! A certificate is written here before it gets its file name, so there is none that could not be
//! revoked.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PkiError;
use super::disk::{self, Disk};
use super::layout::SECRET;
use super::revoke::Reason;
use crate::escape::Escaped;

/// One issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Hexadecimal.
    pub(super) serial: String,
    pub(super) kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) hosts: Vec<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) public_key_sha256: String,
    pub(super) certificate_sha256: String,
    pub(super) status: Status,
    /// The serial number of the CA that signed it.
    pub(super) ca: String,
    /// When and why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<Revocation>,
    /// Only on a CA: the trust domain of what it issues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Ca,
    Server,
    Client,
}

/// That a certificate counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revocation {
    pub(super) at: Timestamp,
    pub(super) reason: Reason,
}

/// What became of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Issued,
    Revoked,
}

/// The list as it was read, and where its next line goes.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    records: Vec<Record>,
    /// Bytes up to the end of the last whole line.
    size: u64,
}

impl Ledger {
    /// Reads the list; `None` if there is none. An unfinished last line is what an interrupted run
    /// left: its certificate never got a name.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, PkiError> {
        let Some(bytes) = disk::read(path)? else {
            return Ok(None);
        };
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut records = Vec::new();
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let record = serde_json::from_slice(line).map_err(|error| PkiError::LedgerLine {
                path: path.to_owned(),
                line: index + 1,
                reason: Escaped::new(&error.to_string()),
            })?;
            fold(&mut records, record);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            records,
            size: whole as u64,
        }))
    }

    /// A list of nothing, not written yet.
    pub(super) fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            records: Vec::new(),
            size: 0,
        }
    }

    /// What was issued, in order.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record of a CA, if one was made.
    pub(super) fn ca(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.kind == Kind::Ca)
    }

    /// Adds one record, durably; of a certificate that is known it says what became of that.
    pub(super) fn add(&mut self, disk: &Disk, record: Record) -> Result<(), PkiError> {
        let mut line = serde_json::to_vec(&record).expect("a record is plain JSON");
        line.push(b'\n');
        disk.append(&self.path, self.size, &line, SECRET)?;
        self.size += line.len() as u64;
        fold(&mut self.records, record);
        Ok(())
    }
}

/// A later line about a certificate stands for the one before.
fn fold(records: &mut Vec<Record>, record: Record) {
    let known = records
        .iter()
        .position(|known| known.serial == record.serial);
    match known {
        Some(place) => records[place] = record,
        None => records.push(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(serial: &str) -> Record {
        Record {
            serial: serial.to_owned(),
            kind: Kind::Client,
            identity: Some("spiffe://td/client/dev".to_owned()),
            hosts: Vec::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            public_key_sha256: String::new(),
            certificate_sha256: String::new(),
            status: Status::Issued,
            ca: String::new(),
            revoked: None,
            trust_domain: None,
        }
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_torn_middle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        assert!(Ledger::read(&path).unwrap().is_none());
        let disk = Disk::new();
        Ledger::empty(&path).add(&disk, record("01")).unwrap();
        let whole = std::fs::read(&path).unwrap();

        for cut in 0..whole.len() {
            let torn = [&whole[..], &whole[..cut]].concat();
            std::fs::write(&path, torn).unwrap();
            let mut ledger = Ledger::read(&path).unwrap().unwrap();
            assert_eq!(ledger.records, [record("01")]);
            ledger.add(&disk, record("02")).unwrap();
            let again = Ledger::read(&path).unwrap().unwrap();
            assert_eq!(again.records, [record("01"), record("02")]);
        }

        std::fs::write(&path, [&whole[..9], b"\n", &whole[..]].concat()).unwrap();
        let error = Ledger::read(&path).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
