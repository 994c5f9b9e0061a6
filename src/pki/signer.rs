//! The directory of the one who signs, opened to change what was issued.
//!
//! One process at a time; whoever opens it first completes what an interrupted one began: pairs
//! that were half named, certificates that are revoked in the index and not in the list yet.

use std::path::Path;

use jiff::Timestamp;

use super::PkiError;
use super::asked::whole_second;
use super::authority::{self, Authority, Found};
use super::bearer::Bearer;
use super::crl::{self, Published};
use super::disk::{self, Disk};
use super::inspect;
use super::layout::Layout;
use super::leaf;
use super::ledger::{Kind, Ledger, Record, Revocation, Status};
use super::life_error::LifeError;
use super::lock::{self, Lock};
use super::name::TrustDomain;
use super::policy_plan::PolicyPlan;
use super::reason::Reason;
use super::report::PolicyItem;
use super::rotation::{CaFiles, Rotation, RotationError};
use super::run::found_clients;
use crate::tls::pem::{self, PemError};

/// An open directory.
pub(super) struct Signer<'a> {
    pub(super) disk: &'a Disk,
    pub(super) layout: Layout,
    pub(super) ledger: Ledger,
    pub(super) domain: TrustDomain,
    pub(super) now: Timestamp,
    _lock: Lock,
}

impl<'a> Signer<'a> {
    /// Opens the directory `dir`, whatever the state of its CA is.
    pub(super) fn open(disk: &'a Disk, dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let layout = Layout::new(dir)?;
        refuse_not_signer(&layout)?;
        disk::check_owner(layout.dir(), false)?;
        disk::check_owner(&layout.private(), true)?;
        let lock = lock::take(&layout.lock(), lock::WAIT)?;
        leaf::mend_all(disk, &layout)?;
        let (ledger, domain) = read_index(&layout)?;
        Ok(Self {
            disk,
            ledger,
            domain,
            now: whole_second(now),
            layout,
            _lock: lock,
        })
    }

    /// The CA that signs now; its key is here.
    pub(super) fn authority(&self, needed: impl FnOnce() -> String) -> Result<Authority, PkiError> {
        let found = authority::find(&self.layout, Some(&self.ledger), self.now)?;
        let Found::Authority(authority) = found else {
            return Err(no_ca(&self.layout));
        };
        if authority.signer.is_none() {
            return Err(PkiError::NoCaKey {
                key: self.layout.ca_key(),
                needed: needed(),
            });
        }
        Ok(*authority)
    }

    /// Brings the list of the CA with this serial number up to date.
    pub(super) fn publish(&self, ca: &str) -> Result<Published, PkiError> {
        let authority = authority::of(&self.layout, ca)?.ok_or_else(|| RotationError::Absent {
            serial: ca.to_owned(),
        })?;
        crl::publish(self.disk, &self.layout, &authority, &self.ledger, self.now)
    }

    /// Revokes what is to be revoked by now, and publishes what an interrupted run only wrote down.
    pub(super) fn complete_lists(&mut self) -> Result<(), PkiError> {
        self.put_down_due()?;
        let mut cas: Vec<&str> = Vec::new();
        for revocation in self.ledger.revocations() {
            if !cas.contains(&revocation.ca.as_str()) {
                cas.push(&revocation.ca);
            }
        }
        for ca in cas {
            // One that was dropped, with its certificates, has no list any more.
            if let Some(authority) = authority::of(&self.layout, ca)? {
                crl::publish(self.disk, &self.layout, &authority, &self.ledger, self.now)?;
            }
        }
        Ok(())
    }

    /// Writes into the index what is to be revoked by now; the lists do not follow yet.
    pub(super) fn put_down_due(&mut self) -> Result<(), PkiError> {
        for revocation in self.due()? {
            self.ledger.revoke(self.disk, revocation)?;
        }
        Ok(())
    }

    /// Revocations of certificates whose time beside their successor is over.
    fn due(&self) -> Result<Vec<Revocation>, PkiError> {
        let records = self.ledger.records();
        let cas = trusted_cas(&self.layout)?;
        let mut due = Vec::new();
        for new in records {
            let is_due = new.replaced_until.is_some_and(|until| until <= self.now);
            let is_old = |old: &&Record| {
                new.replaces.as_ref() == Some(&old.serial) && old.identity == new.identity
            };
            let Some(old) = records.iter().find(is_old).filter(|_| is_due) else {
                continue;
            };
            // What a CA signed that is trusted no more is out already, and in no list.
            let counts = old.is_in_force(self.now) && cas.contains(&old.ca);
            if counts && !self.is_in_place(old)? {
                due.push(Revocation {
                    serial: old.serial.clone(),
                    ca: old.ca.clone(),
                    status: Status::Revoked,
                    at: self.now,
                    reason: Reason::Superseded,
                });
            }
        }
        Ok(due)
    }

    /// Whether the files of its bearer hold this one: a renewal may have ended before it came to
    /// them.
    fn is_in_place(&self, record: &Record) -> Result<bool, PkiError> {
        let Some(bearer) = record.identity.as_deref().and_then(Bearer::of) else {
            return Ok(false);
        };
        let path = bearer.pair(&self.layout).certificate;
        if !disk::is_file(&path)? {
            return Ok(false);
        }
        let chain = match pem::read_certificates(&path) {
            Ok(chain) => chain,
            Err(error @ PemError::Read { .. }) => return Err(error.into()),
            // No renewal leaves a file broken: it holds nobody's, and is in nobody's way.
            Err(_) => return Ok(false),
        };
        let found = inspect::facts(&path, &chain[0]);
        Ok(found.is_ok_and(|found| found.serial == record.serial))
    }

    /// Everybody who ever had a certificate, in the order of their names.
    pub(super) fn bearers(&self) -> Vec<Bearer> {
        bearers(&self.ledger)
    }

    /// The one whom a user calls `text`.
    pub(super) fn bearer(&self, text: &str) -> Result<Bearer, PkiError> {
        let mut found = self.bearers();
        found.retain(|bearer| bearer.is_called(text, &self.domain));
        match found.len() {
            0 => Err(LifeError::Nobody {
                text: crate::escape::Escaped::new(text),
            }
            .into()),
            1 => Ok(found.swap_remove(0)),
            _ => Err(LifeError::Ambiguous {
                text: crate::escape::Escaped::new(text),
                names: found.iter().map(Bearer::to_string).collect(),
            }
            .into()),
        }
    }

    /// Gives a new client what the starter policy gives to each.
    pub(super) fn grant(&self, bearer: &Bearer) -> Result<Option<PolicyItem>, PkiError> {
        let Bearer::Client(name) = bearer else {
            return Ok(None);
        };
        let before = found_clients(&self.layout)?;
        let mut wanted = before.clone();
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
        let plan = PolicyPlan::new(&self.layout, &self.domain, true, &before, &wanted)?;
        plan.settle(self.disk, &self.layout).map(Some)
    }

    /// The certificate that was revoked because this key is known to others, and when.
    pub(super) fn compromised(&self, key_sha256: &str) -> Option<(String, Timestamp)> {
        let mut records = self.ledger.records().iter();
        records.find_map(|record| {
            let revocation = record.revocation.as_ref()?;
            let is_it = record.public_key_sha256 == key_sha256
                && revocation.reason == Reason::KeyCompromise;
            is_it.then(|| (record.serial.clone(), revocation.at))
        })
    }

    /// All certificates of one, oldest first.
    pub(super) fn records_of(&self, bearer: &Bearer) -> Vec<&Record> {
        let identity = bearer.identity(&self.domain);
        let records = self.ledger.records().iter();
        records
            .filter(|record| record.identity.as_deref() == Some(identity.as_str()))
            .collect()
    }
}

/// Everybody in an index, in the order of their names.
pub(super) fn bearers(ledger: &Ledger) -> Vec<Bearer> {
    let records = ledger
        .records()
        .iter()
        .filter(|record| record.kind != Kind::Ca);
    let mut bearers: Vec<Bearer> = records
        .filter_map(|record| Bearer::of(record.identity.as_deref()?))
        .collect();
    bearers.sort();
    bearers.dedup();
    bearers
}

/// Serial numbers of the CAs whose certificates count: the one that signs, and the other during a
/// change.
pub(super) fn trusted_cas(layout: &Layout) -> Result<Vec<String>, PkiError> {
    let rotation = Rotation::read(layout)?;
    let files = CaFiles::of(layout, rotation.as_ref());
    let mut serials = Vec::new();
    for pair in [Some(files.signing), files.other].into_iter().flatten() {
        if disk::is_file(&pair.certificate)? {
            let chain = pem::read_certificates(&pair.certificate)?;
            serials.push(inspect::facts(&pair.certificate, &chain[0])?.serial);
        }
    }
    Ok(serials)
}

/// Refuses a directory where nothing is signed.
pub(super) fn refuse_not_signer(layout: &Layout) -> Result<(), PkiError> {
    if disk::is_dir(layout.dir())? && disk::is_dir(&layout.private())? {
        return Ok(());
    }
    if disk::is_file(&layout.ca())? {
        return Err(LifeError::NotHere {
            index: layout.ledger(),
        }
        .into());
    }
    Err(no_ca(layout))
}

fn no_ca(layout: &Layout) -> PkiError {
    RotationError::NoCa {
        dir: layout.dir().to_owned(),
    }
    .into()
}

/// The index of a directory, and the trust domain that it says.
pub(super) fn read_index(layout: &Layout) -> Result<(Ledger, TrustDomain), PkiError> {
    let ledger = Ledger::read(&layout.ledger())?.ok_or_else(|| PkiError::LedgerLost {
        path: layout.ledger(),
    })?;
    let domain = ledger.ca().and_then(|ca| ca.trust_domain.as_deref());
    let domain = domain.ok_or_else(|| no_ca(layout))?.parse()?;
    Ok((ledger, domain))
}
