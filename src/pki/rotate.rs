//! One CA takes the place of another while both are trusted: begun, turned over, ended, taken back.
//!
//! Each step first writes how far things have come, then makes the other files follow; whatever
//! moment it ends at, the same step run again goes on. The old CA is dropped last.

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::asked::{check_days, whole_second};
use super::authority::{self, Authority};
use super::disk::{self, Disk, Over};
use super::inspect;
use super::issue::Validity;
use super::layout::{Layout, PUBLIC, Pair, SECRET};
use super::leaf;
use super::ledger::{Kind, Ledger, Record};
use super::lock::{self, Lock};
use super::rotate_report::{Action, RotationReport};
use super::rotation::{self, Phase, Rotation, RotationError, SPREAD};
use super::trusted::{self, Trusted};
use super::{CA_DAYS_DEFAULT, PkiError};
use crate::tls::pem;

/// Most certificates that an error lists.
const SHOWN_MAX: usize = 5;

/// A directory whose CA is changed.
pub(super) struct Change<'a> {
    disk: &'a Disk,
    pub(super) layout: Layout,
    pub(super) now: Timestamp,
    pub(super) ledger: Ledger,
    pub(super) rotation: Option<Rotation>,
    _lock: Lock,
}

/// What a new CA gets.
#[derive(Debug, Clone, Copy)]
pub struct NewCa<'a> {
    /// `user@host`, shown in its name.
    pub author: &'a str,
    /// Days that it is valid; ten years if absent.
    pub days: Option<u32>,
}

impl<'a> Change<'a> {
    pub(super) fn open(disk: &'a Disk, dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let layout = Layout::new(dir)?;
        let is_signer = disk::is_dir(layout.dir())? && disk::is_dir(&layout.private())?;
        if !is_signer || !disk::is_file(&layout.ca())? {
            let dir = dir.to_owned();
            return Err(RotationError::NoCa { dir }.into());
        }
        disk::check_owner(layout.dir(), false)?;
        disk::check_owner(&layout.private(), true)?;
        let lock = lock::take(&layout.lock(), lock::WAIT)?;
        leaf::mend_all(disk, &layout)?;
        rotation::tidy(disk, &layout)?;
        let ledger = Ledger::read(&layout.ledger())?.ok_or_else(|| PkiError::LedgerLost {
            path: layout.ledger(),
        })?;
        Ok(Self {
            disk,
            now: whole_second(now),
            ledger,
            rotation: Rotation::read(&layout)?,
            layout,
            _lock: lock,
        })
    }

    /// How things stand.
    pub(super) fn status(self) -> Result<RotationReport, PkiError> {
        RotationReport::new(&self, Action::Status, false)
    }

    /// A new CA is trusted from now on.
    pub(super) fn start(mut self, new: NewCa<'_>) -> Result<RotationReport, PkiError> {
        new.days
            .map_or(Ok(()), |days| check_days("--ca-days", days))?;
        if self.phase() == Some(Phase::RollingBack) {
            self.take_back()?;
        }
        let is_new = match self.phase() {
            None => {
                self.begin(new)?;
                true
            }
            Some(Phase::Finishing) => return Err(RotationError::Over.into()),
            Some(_) => false,
        };
        self.follow()?;
        RotationReport::new(&self, Action::Start, is_new)
    }

    /// The new CA signs from now on.
    pub(super) fn promote(mut self, at_once: bool) -> Result<RotationReport, PkiError> {
        let mut rotation = self.going_on()?;
        if rotation.phase == Phase::Promoted {
            return RotationReport::new(&self, Action::Promote, false);
        }
        let since = rotation.started_at;
        let old = self.ca(&rotation.old)?;
        let is_expired = old.facts.validity.not_after <= self.now;
        if !at_once && !is_expired && self.now.duration_since(since) < SPREAD {
            let now = self.now;
            return Err(RotationError::Early { since, now }.into());
        }
        self.follow()?;
        rotation.phase = Phase::Promoted;
        rotation.promoted_at = Some(self.now);
        self.enter(rotation)?;
        RotationReport::new(&self, Action::Promote, true)
    }

    /// The old CA is trusted no more.
    pub(super) fn finish(mut self) -> Result<RotationReport, PkiError> {
        let mut rotation = match self.phase() {
            Some(Phase::Finishing) => self.rotation.clone().expect("it has a phase"),
            _ => self.going_on()?,
        };
        match rotation.phase {
            Phase::Started => return Err(RotationError::NotPromoted.into()),
            Phase::Promoted => {
                self.refuse_left("old", &rotation.old, &rotation.new)?;
                rotation.phase = Phase::Finishing;
                self.enter(rotation.clone())?;
            }
            Phase::Finishing | Phase::RollingBack => {}
        }
        self.drop_old(&rotation)?;
        self.rotation = None;
        RotationReport::new(&self, Action::Finish, true)
    }

    /// One step back: the old CA signs again; then the new one is trusted no more.
    pub(super) fn rollback(mut self) -> Result<RotationReport, PkiError> {
        if self.phase() != Some(Phase::RollingBack) {
            let mut rotation = self.going_on()?;
            let left = self
                .ledger
                .left(&rotation.new, Some(&rotation.old), self.now);
            if rotation.phase == Phase::Promoted && !left.is_empty() {
                rotation.phase = Phase::Started;
                rotation.promoted_at = None;
                self.enter(rotation)?;
                return RotationReport::new(&self, Action::Rollback, true);
            }
            self.refuse_left("new", &rotation.new, &rotation.old)?;
            rotation.phase = Phase::RollingBack;
            self.enter(rotation)?;
        }
        self.take_back()?;
        RotationReport::new(&self, Action::Rollback, true)
    }

    fn phase(&self) -> Option<Phase> {
        self.rotation.as_ref().map(|rotation| rotation.phase)
    }

    /// The rotation, if it can go either way.
    fn going_on(&self) -> Result<Rotation, PkiError> {
        let dir = self.layout.dir().to_owned();
        match &self.rotation {
            None => Err(RotationError::NotStarted { dir }.into()),
            Some(rotation) => match rotation.phase {
                Phase::Started | Phase::Promoted => Ok(rotation.clone()),
                Phase::Finishing => Err(RotationError::Over.into()),
                Phase::RollingBack => Err(RotationError::Undone.into()),
            },
        }
    }

    fn enter(&mut self, rotation: Rotation) -> Result<(), PkiError> {
        rotation.write(self.disk, &self.layout)?;
        self.rotation = Some(rotation);
        Ok(())
    }

    fn begin(&mut self, new: NewCa<'_>) -> Result<(), PkiError> {
        let old = authority::open(&self.layout.ca_pair())?;
        let validity = Validity::of_ca(self.now, new.days.unwrap_or(CA_DAYS_DEFAULT))?;
        let new = authority::make_next(self.disk, &self.layout, new.author, validity)?;
        self.enter(Rotation {
            phase: Phase::Started,
            started_at: self.now,
            promoted_at: None,
            old: old.facts.serial,
            new: new.facts.serial,
        })
    }

    /// Makes the index, `ca.crl` and `ca.pem` know both CAs.
    fn follow(&mut self) -> Result<(), PkiError> {
        let rotation = self.going_on()?;
        let (old, new) = (self.ca(&rotation.old)?, self.ca(&rotation.new)?);
        if !self.ledger.knows_ca(&new.facts.serial) {
            let record = self.record_of_ca(&new);
            self.ledger.add(self.disk, record)?;
        }
        let mut trusted = Trusted::read(&self.layout)?;
        for ca in [&old, &new] {
            if !trusted.has_list(&ca.anchors[0]) {
                let list = trusted::make_list(self.disk, &self.layout, ca, &self.ledger, self.now)?;
                trusted.put_list(&ca.anchors[0], list);
            }
            if !trusted.cas.contains(&ca.anchors[0]) {
                trusted.cas.push(ca.anchors[0].clone());
            }
        }
        trusted.write_more(self.disk, &self.layout)
    }

    /// One of the two CAs.
    fn ca(&self, serial: &str) -> Result<Authority, PkiError> {
        authority::of(&self.layout, serial)?.ok_or_else(|| {
            RotationError::Absent {
                serial: serial.to_owned(),
            }
            .into()
        })
    }

    fn record_of_ca(&self, ca: &Authority) -> Record {
        let facts = &ca.facts;
        let mut record = Record::issued(Kind::Ca, &ca.anchors[0], facts, &facts.serial);
        record.trust_domain = self.ledger.ca().and_then(|old| old.trust_domain.clone());
        record
    }

    fn refuse_left(&self, which: &'static str, serial: &str, other: &str) -> Result<(), PkiError> {
        let left = self.ledger.left(serial, Some(other), self.now);
        if left.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = left
            .iter()
            .take(SHOWN_MAX)
            .map(|record| shown(record))
            .collect();
        let rest = if left.len() > SHOWN_MAX { ", …" } else { "" };
        Err(RotationError::Left {
            which,
            count: left.len(),
            shown: format!("{}{rest}", shown.join(", ")),
        }
        .into())
    }

    /// Drops the old CA and gives its files' names to the new one. While the files are neither
    /// one's, the rotation says where the new CA's are.
    fn drop_old(&self, rotation: &Rotation) -> Result<(), PkiError> {
        let (main, next) = (self.layout.ca_pair(), self.layout.next_ca_pair());
        let old = certificate_of(&main)?;
        if inspect::facts(&main.certificate, &old)?.serial == rotation.old {
            self.untrust(&old)?;
            // The key goes first: a pair that does not fit together is in the archive already.
            if authority::open(&main).is_ok() {
                leaf::archive(self.disk, &self.layout, &main)?;
            }
            self.copy(&next.key, &main.key, SECRET)?;
            self.copy(&next.certificate, &main.certificate, PUBLIC)?;
        }
        self.end()
    }

    /// Drops the new CA.
    fn take_back(&mut self) -> Result<(), PkiError> {
        let next = self.layout.next_ca_pair();
        self.untrust(&certificate_of(&next)?)?;
        leaf::archive(self.disk, &self.layout, &next)?;
        self.end()?;
        self.rotation = None;
        Ok(())
    }

    fn untrust(&self, ca: &CertificateDer<'_>) -> Result<(), PkiError> {
        let mut trusted = Trusted::read(&self.layout)?;
        trusted.cas.retain(|trusted| trusted != ca);
        trusted.lists.retain(|list| !inspect::is_list_of(list, ca));
        trusted.write_fewer(self.disk, &self.layout)
    }

    fn copy(&self, from: &Path, to: &Path, mode: u32) -> Result<(), PkiError> {
        let bytes = disk::read(from)?.ok_or_else(|| PkiError::CaHalf {
            present: self.layout.rotation(),
            missing: from.to_owned(),
        })?;
        self.disk.write(to, &bytes, mode, Over::Old)
    }

    fn end(&self) -> Result<(), PkiError> {
        self.disk.remove(&self.layout.rotation())?;
        rotation::tidy(self.disk, &self.layout)
    }
}

fn certificate_of(pair: &Pair) -> Result<CertificateDer<'static>, PkiError> {
    let mut chain = pem::read_certificates(&pair.certificate)?;
    Ok(chain.swap_remove(0))
}

/// A certificate as an error names it.
fn shown(record: &Record) -> String {
    let who = record.identity.as_deref().unwrap_or("no identity");
    format!(
        "{who} (serial {}, until {})",
        record.serial, record.not_after
    )
}
