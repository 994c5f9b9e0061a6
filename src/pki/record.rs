//! Records of the index: made of a certificate, and asked which of them a CA still answers for.
//!
//! A certificate is done with when it is out of date, revoked, or followed by one that can stand in
//! for it.

use jiff::Timestamp;

use super::inspect::Facts;
use super::issue::sha256;
use super::ledger::{Kind, Ledger, Record, Status};

impl Record {
    /// The record of a certificate that the CA with this serial number has just signed.
    pub(super) fn issued(kind: Kind, der: &[u8], facts: &Facts, ca: &str) -> Self {
        Self {
            serial: facts.serial.clone(),
            kind,
            identity: facts.uris.first().cloned(),
            hosts: facts.hosts.iter().map(ToString::to_string).collect(),
            not_before: facts.validity.not_before,
            not_after: facts.validity.not_after,
            public_key_sha256: sha256(&facts.public_key),
            certificate_sha256: sha256(der),
            status: Status::Issued,
            ca: ca.to_owned(),
            trust_domain: None,
            replaces: None,
            replaced_until: None,
            revocation: None,
        }
    }

    /// Whether it is in date and not revoked.
    pub(super) fn is_in_force(&self, now: Timestamp) -> bool {
        self.not_after > now && self.revocation.is_none()
    }

    /// Whether this certificate, of the same CA or another, stands in for `old`.
    fn follows(&self, old: &Self) -> bool {
        let has = |host: &String| self.hosts.contains(host);
        self.kind == old.kind && self.identity == old.identity && old.hosts.iter().all(has)
    }
}

impl Ledger {
    /// Whether a CA with this serial number is known.
    pub(super) fn knows_ca(&self, serial: &str) -> bool {
        let mut records = self.records().iter();
        records.any(|record| record.kind == Kind::Ca && record.serial == serial)
    }

    /// The certificates of a CA that are in force.
    pub(super) fn in_force(&self, ca: &str, now: Timestamp) -> Vec<&Record> {
        let records = self.records().iter();
        let of_ca = records.filter(|record| record.ca == ca && record.kind != Kind::Ca);
        of_ca.filter(|record| record.is_in_force(now)).collect()
    }

    /// The certificates of the CA `ca` that are in force and that no later one of the CA `other`
    /// follows.
    pub(super) fn left(&self, ca: &str, other: Option<&str>, now: Timestamp) -> Vec<&Record> {
        let records = self.records();
        let is_followed = |old: &&Record| {
            let place = records.iter().position(|record| record == *old);
            let mut later = records.iter().skip(place.unwrap_or(0));
            later.any(|new| {
                Some(new.ca.as_str()) == other && new.is_in_force(now) && new.follows(old)
            })
        };
        let mut left = self.in_force(ca, now);
        left.retain(|old| !is_followed(old));
        left
    }
}
