//! The list of what the CA issued, one JSON object a line.
//!
//! A certificate is written here before it gets its file name, so there is none that could not be
//! revoked. Lines are only ever added: that a certificate was revoked is a later line, and one that
//! takes the place of another names it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PkiError;
use super::disk::{self, Disk};
use super::layout::SECRET;
use super::reason::Reason;
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
    /// Only on a CA: the trust domain of what it issues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    /// The serial number of the one whose files it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<String>,
    /// When that one is to be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaced_until: Option<Timestamp>,
    /// That it is not good any more, by a later line.
    #[serde(skip)]
    pub(super) revocation: Option<Revocation>,
}

/// A certificate that is not good any more, for all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revocation {
    /// Hexadecimal.
    pub(super) serial: String,
    /// The serial number of the CA that signed it.
    pub(super) ca: String,
    pub(super) status: Status,
    pub(super) at: Timestamp,
    pub(super) reason: Reason,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Ca,
    Server,
    Client,
    /// For both ends of a connection.
    Peer,
}

/// What a line says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Issued,
    Revoked,
}

/// What every line has: it says how the rest is read.
#[derive(Deserialize)]
struct Line {
    status: Status,
}

/// The list as it was read, and where its next line goes.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    records: Vec<Record>,
    revocations: Vec<Revocation>,
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
        let mut ledger = Self::empty(path);
        ledger.size = whole as u64;
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            ledger.take(line).map_err(|error| PkiError::LedgerLine {
                path: path.to_owned(),
                line: index + 1,
                reason: Escaped::new(&error.to_string()),
            })?;
        }
        Ok(Some(ledger))
    }

    fn take(&mut self, line: &[u8]) -> serde_json::Result<()> {
        match serde_json::from_slice::<Line>(line)?.status {
            Status::Issued => self.records.push(serde_json::from_slice(line)?),
            Status::Revoked => self.mark(revocation(line)?),
        }
        Ok(())
    }

    /// The first word counts: what was revoked once has its time and reason from then.
    fn mark(&mut self, revocation: Revocation) {
        let mut records = self.records.iter_mut();
        let is_it =
            |record: &&mut Record| record.serial == revocation.serial && record.ca == revocation.ca;
        if let Some(record) = records.find(is_it) {
            record.revocation.get_or_insert_with(|| revocation.clone());
        }
        self.revocations.push(revocation);
    }

    /// A list of nothing, not written yet.
    pub(super) fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            records: Vec::new(),
            revocations: Vec::new(),
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

    /// What was revoked, in order; also certificates that no line speaks of.
    pub(super) fn revocations(&self) -> &[Revocation] {
        &self.revocations
    }

    /// Adds one record, durably.
    pub(super) fn add(&mut self, disk: &Disk, record: Record) -> Result<(), PkiError> {
        self.append(disk, &record)?;
        self.records.push(record);
        Ok(())
    }

    /// Adds that a certificate is not good any more, durably.
    pub(super) fn revoke(&mut self, disk: &Disk, revocation: Revocation) -> Result<(), PkiError> {
        self.append(disk, &revocation)?;
        self.mark(revocation);
        Ok(())
    }

    fn append(&mut self, disk: &Disk, line: &impl Serialize) -> Result<(), PkiError> {
        let mut line = serde_json::to_vec(line).expect("a line is plain JSON");
        line.push(b'\n');
        disk.append(&self.path, self.size, &line, SECRET)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

/// An earlier form of the line repeats the record, with time and reason in an object of its own.
fn revocation(line: &[u8]) -> serde_json::Result<Revocation> {
    let mut value: serde_json::Value = serde_json::from_slice(line)?;
    if let Some(inner) = value.get("revoked").cloned() {
        for name in ["at", "reason"] {
            value[name] = inner[name].clone();
        }
    }
    serde_json::from_value(value)
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
            trust_domain: None,
            replaces: None,
            replaced_until: None,
            revocation: None,
        }
    }

    #[test]
    fn an_index_from_before_revocations_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        let old = r#"{"serial":"01","kind":"server","identity":"spiffe://td/server/main",
            "hosts":["localhost"],"not_before":"2026-11-23T06:24:00Z",
            "not_after":"2027-11-23T06:34:00Z","public_key_sha256":"aa",
            "certificate_sha256":"bb","status":"issued","ca":"07"}"#;
        std::fs::write(&path, old.replace('\n', "") + "\n").unwrap();
        let ledger = Ledger::read(&path).unwrap().unwrap();
        assert_eq!(ledger.records()[0].kind, Kind::Server);
        assert!(ledger.records()[0].revocation.is_none());

        // The first form of revocations.
        let again = old.replace("\"issued\"", "\"revoked\"").replace(
            "\"ca\":\"07\"",
            "\"ca\":\"07\",\"revoked\":{\"at\":\"2026-11-25T00:00:00Z\",\"reason\":\"superseded\"}",
        );
        std::fs::write(&path, format!("{old}\n{again}\n").replace("\n   ", " ")).unwrap();
        let ledger = Ledger::read(&path).unwrap().unwrap();
        let [record] = ledger.records() else {
            panic!("{:?}", ledger.records());
        };
        let revocation = record.revocation.as_ref().unwrap();
        assert_eq!(revocation.reason, Reason::Superseded);
        assert_eq!(revocation.at.to_string(), "2026-11-25T00:00:00Z");
    }

    #[test]
    fn what_is_revoked_stays_so_and_keeps_its_first_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        let disk = Disk::new();
        let mut ledger = Ledger::empty(&path);
        ledger.add(&disk, record("01")).unwrap();
        let revocation = |serial: &str, reason| Revocation {
            serial: serial.to_owned(),
            ca: String::new(),
            status: Status::Revoked,
            at: Timestamp::UNIX_EPOCH,
            reason,
        };
        let first = revocation("01", Reason::KeyCompromise);
        for line in [
            first.clone(),
            revocation("01", Reason::Superseded),
            revocation("99", Reason::Unspecified),
        ] {
            ledger.revoke(&disk, line).unwrap();
        }
        let again = Ledger::read(&path).unwrap().unwrap();
        for ledger in [ledger, again] {
            assert_eq!(ledger.records()[0].revocation.as_ref(), Some(&first));
            assert_eq!(ledger.revocations().len(), 3);
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
