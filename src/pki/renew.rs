//! New certificates in the place of old ones, whose time may be over.
//!
//! Always a new serial number; a new key unless the old one is to stay. The new certificate is in
//! the index, and the old pair in the archive, before a file changes.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::SubjectPublicKeyInfo;

use super::asked::check_days;
use super::authority::Authority;
use super::bearer::Bearer;
use super::disk::{self, Disk, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Validity, fingerprint, sha256};
use super::layout::{DIR_PUBLIC, PUBLIC, Pair};
use super::leaf;
use super::ledger::Record;
use super::life_error::LifeError;
use super::life_report::{Failed, RenewReport, Renewed, Skipped, life_notes};
use super::name::Host;
use super::sign::SignError;
use super::signer::Signer;
use super::trusted::certificate_pem;
use super::window::Window;
use super::{DAYS_MAX, PkiError};
use crate::escape::with_causes;
use crate::tls::pem;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Whose certificate is renewed.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// A name, with its kind where several have it, or an identity.
    Name(&'a str),
    /// Everybody's whose files are here.
    All,
}

/// What is renewed, and how.
#[derive(Debug, Clone, Copy)]
pub struct RenewOptions<'a> {
    pub dir: &'a Path,
    pub which: Which<'a>,
    /// Only those with no more life left than this, or of a CA that does not sign any more.
    pub window: Option<Window>,
    /// Whether the key stays.
    pub reuse_key: bool,
    /// Days that the new ones are valid; as long as the old ones if absent.
    pub days: Option<u32>,
    /// How long the old ones are good beside the new ones; until their end if absent.
    pub revoke_old_after: Option<Duration>,
}

/// See [`super::renew`].
pub(super) fn renew(
    disk: &Disk,
    options: &RenewOptions<'_>,
    now: Timestamp,
) -> Result<RenewReport, PkiError> {
    options
        .days
        .map_or(Ok(()), |days| check_days("--days", days))?;
    let mut signer = Signer::open(disk, options.dir, now)?;
    signer.complete_lists()?;
    let authority = signer.authority(|| "certificates must be made".to_owned())?;
    let (bearers, is_one) = match options.which {
        Which::Name(name) => (vec![signer.bearer(name)?], true),
        Which::All => (signer.bearers(), false),
    };
    let mut report = RenewReport {
        now: signer.now,
        renewed: Vec::new(),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    for bearer in bearers {
        let name = bearer.to_string();
        match renew_one(&mut signer, &authority, options, &bearer) {
            Ok(Step::Renewed(renewed)) => report.renewed.push(*renewed),
            Ok(Step::Left(reason)) => report.skipped.push(Skipped { name, reason }),
            Err(error) if is_one || matches!(error, PkiError::Io { .. }) => return Err(error),
            // One file that is broken is no reason to let the others run out; a disk that fails is.
            Err(error) => {
                let reason = with_causes(&error);
                let hint = error.hint_for(options.dir);
                report.failed.push(Failed { name, reason, hint });
            }
        }
    }
    // The time of some may be none.
    signer.complete_lists()?;
    Ok(report)
}

/// What became of one name.
enum Step {
    Renewed(Box<Renewed>),
    /// It stays as it is, and why.
    Left(String),
}

fn renew_one(
    signer: &mut Signer<'_>,
    authority: &Authority,
    options: &RenewOptions<'_>,
    bearer: &Bearer,
) -> Result<Step, PkiError> {
    let old = Old::find(signer, bearer)?;
    let life = Validity {
        not_before: old.record.not_before,
        not_after: old.record.not_after,
    };
    // One of the CA that gives way has not long to go, whatever it says.
    let is_moved = old.record.ca != authority.facts.serial;
    let is_due = options
        .window
        .is_none_or(|window| window.holds(life, signer.now) || is_moved);
    match old.check(bearer, options.reuse_key) {
        Ok(()) | Err(LifeError::KeyElsewhere { .. }) if !is_due => {
            return Ok(Step::Left(format!("it is valid until {}", life.not_after)));
        }
        Ok(()) => {}
        // Of all, those are left that nobody renews here.
        Err(error) if matches!(options.which, Which::All) => {
            return Ok(Step::Left(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    let renewed = put_new(signer, authority, options, (bearer, &old))?;
    Ok(Step::Renewed(Box::new(renewed)))
}

/// A certificate that a new one takes the place of.
struct Old {
    /// The last one of its bearer.
    record: Record,
    pair: Pair,
    /// What the file holds, if the index knows it as the bearer's.
    facts: Option<Facts>,
    has_key: bool,
}

impl Old {
    fn find(signer: &Signer<'_>, bearer: &Bearer) -> Result<Self, PkiError> {
        let records = signer.records_of(bearer);
        let pair = bearer.pair(&signer.layout);
        let mut facts = None;
        if disk::is_file(&pair.certificate)? {
            let chain = pem::read_certificates(&pair.certificate)?;
            let found = inspect::facts(&pair.certificate, &chain[0])?;
            if !records.iter().any(|record| record.serial == found.serial) {
                return Err(LifeError::InTheWay {
                    name: bearer.to_string(),
                    path: pair.certificate,
                }
                .into());
            }
            facts = Some(found);
        }
        let record = records.last().expect("a bearer is one of a record");
        Ok(Self {
            record: (*record).clone(),
            has_key: disk::is_file(&pair.key)?,
            pair,
            facts,
        })
    }

    /// Refuses what would give back what was taken, or take a key from its owner.
    fn check(&self, bearer: &Bearer, reuse_key: bool) -> Result<(), LifeError> {
        if let Some(revocation) = &self.record.revocation {
            return Err(LifeError::Revoked {
                name: bearer.to_string(),
                flags: bearer.flags(),
                at: revocation.at,
                reason: revocation.reason,
            });
        }
        let can_stay = reuse_key && self.facts.is_some();
        if !self.has_key && !can_stay {
            return Err(LifeError::KeyElsewhere {
                name: bearer.to_string(),
                flags: bearer.flags(),
                key: self.pair.key.clone(),
            });
        }
        Ok(())
    }

    /// The serial number of the certificate whose files are taken over.
    fn serial(&self) -> &str {
        let facts = self.facts.as_ref();
        facts.map_or(&self.record.serial, |facts| &facts.serial)
    }

    fn hosts(&self) -> Result<Vec<Host>, PkiError> {
        let hosts = self.record.hosts.iter();
        Ok(hosts.map(|host| host.parse()).collect::<Result<_, _>>()?)
    }

    /// Days that it was valid.
    fn days(&self) -> u32 {
        let life = self.record.not_after.duration_since(self.record.not_before);
        let days = u32::try_from(life.as_secs() / DAY_SECONDS).unwrap_or(DAYS_MAX);
        days.clamp(1, DAYS_MAX)
    }
}

fn put_new(
    signer: &mut Signer<'_>,
    authority: &Authority,
    options: &RenewOptions<'_>,
    (bearer, old): (&Bearer, &Old),
) -> Result<Renewed, PkiError> {
    let issuer = authority.signer.as_ref().expect("the key is here");
    let role = bearer.role(old.hosts()?);
    let identity = bearer.identity(&signer.domain);
    let days = options.days.unwrap_or_else(|| old.days());
    let validity = Validity::of_leaf(signer.now, days, authority.facts.validity)?;
    let (der, key_pair) = if options.reuse_key {
        let key = public_key(old)?;
        if let Some((serial, at)) = signer.compromised(&sha256(&key)) {
            return Err(SignError::Compromised { serial, at }.into());
        }
        let key = SubjectPublicKeyInfo::from_der(&key)
            .map_err(|error| issue::sign_error("a certificate", &error))?;
        let der = issue::certify(issuer, &key, &role, &identity, validity)?;
        (der, None)
    } else {
        let new = issue::make_leaf(issuer, &role, &identity, validity)?;
        (new.der.clone(), Some(new))
    };
    let facts = inspect::facts(&old.pair.certificate, &der)?;
    let mut record = Record::issued(bearer.kind(), &der, &facts, &authority.facts.serial);
    record.replaces = Some(old.serial().to_owned());
    record.replaced_until = old_until(options, signer.now)?;
    let old_revoked_after = record.replaced_until;
    let (disk, layout) = (signer.disk, &signer.layout);
    signer.ledger.add(disk, record)?;
    if let Some(dir) = bearer.directory(layout) {
        disk.make_dir(&dir, DIR_PUBLIC)?;
    }
    leaf::archive(disk, layout, &old.pair)?;
    if let Some(new) = &key_pair {
        leaf::write(disk, &old.pair, new, Over::Old)?;
    } else {
        let text = certificate_pem(&der);
        let path = &old.pair.certificate;
        disk.write(path, text.as_bytes(), PUBLIC, Over::Old)?;
    }
    Ok(Renewed {
        name: bearer.name().to_owned(),
        kind: bearer.kind(),
        certificate: old.pair.certificate.clone(),
        key: old.has_key.then(|| old.pair.key.clone()),
        old_serial: old.serial().to_owned(),
        old_expires_at: old
            .facts
            .as_ref()
            .map_or(old.record.not_after, |facts| facts.validity.not_after),
        old_revoked_after,
        serial: facts.serial,
        ca: authority.facts.serial.clone(),
        expires_at: facts.validity.not_after,
        sha256: fingerprint(&der),
        is_new_key: key_pair.is_some(),
        notes: life_notes(
            bearer.kind(),
            (days, authority.facts.validity.not_after),
            signer.now,
        ),
        identity,
    })
}

/// When the old one is to be revoked.
fn old_until(options: &RenewOptions<'_>, now: Timestamp) -> Result<Option<Timestamp>, PkiError> {
    let until = options.revoke_old_after.map(|after| now.checked_add(after));
    until
        .transpose()
        .map_err(|error| issue::sign_error("a certificate", &error))
}

/// The key that stays: the one that is here, else the one in the certificate.
fn public_key(old: &Old) -> Result<Vec<u8>, PkiError> {
    if old.has_key {
        return leaf::public_key(&old.pair.key);
    }
    let facts = old.facts.as_ref().expect("it was checked before");
    Ok(facts.public_key.clone())
}
