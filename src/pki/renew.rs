//! One more certificate for who has one, or a first one for a new client.
//!
//! A new certificate always has a new serial number. The old pair goes to the archive; it counts until
//! it ends or is revoked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::KeyPair;
use serde::Serialize;
use thiserror::Error;

use super::PkiError;
use super::asked::check_days;
use super::disk::{self, Disk, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Issued, Validity};
use super::layout::{DIR_PUBLIC, PUBLIC, Pair};
use super::leaf;
use super::ledger::{Kind, Record};
use super::report::{PolicyItem, path};
use super::request::{Holder, Named};
use super::run::found_clients;
use super::sign::Desk;
use super::trusted::certificate_pem;
use crate::escape::Escaped;
use crate::identity::SpiffeId;
use crate::tls::pem;

/// Why no certificate is made.
#[derive(Debug, Error)]
pub enum RenewError {
    #[error("{name} has a certificate already (serial {serial}, until {until})")]
    There {
        name: String,
        serial: String,
        until: Timestamp,
    },
    #[error("there is no certificate of {name} at {}", path.display())]
    Missing { name: Escaped, path: PathBuf },
    #[error("the key of {name} is not at {}: it was carried away", path.display())]
    KeyAway { name: String, path: PathBuf },
}

impl RenewError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::There { name, .. } => format!(
                "fsvc certs renew {name} replaces it; --again makes one that counts beside it"
            ),
            Self::Missing { name, .. } => format!("make one: fsvc certs add --client {name}"),
            Self::KeyAway { .. } => {
                "have a request of that key signed: fsvc certs request, fsvc certs sign".to_owned()
            }
        }
    }
}

/// Which certificates are renewed.
#[derive(Debug, Clone, Copy)]
pub enum Renewing<'a> {
    /// That of a client, or of `server`, however long it is good.
    Name(&'a str),
    /// All that are here and have less of their life left than this, in hundredths; what has ended,
    /// or is of a CA that signs no more, too.
    All { left_percent: u8 },
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenewReport {
    pub made: Vec<MadeItem>,
    /// Those that are good for long enough, or whose key is elsewhere.
    pub kept: Vec<String>,
    /// Of a new client: what became of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyItem>,
}

/// One new certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeItem {
    /// `server`, or the client's name.
    pub name: String,
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    pub identity: String,
    pub serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_before: Option<String>,
    pub expires_at: Timestamp,
    pub has_new_key: bool,
}

/// See [`super::add`].
pub(super) fn add(
    disk: &Disk,
    dir: &Path,
    (holder, days): (&Holder, u32),
    again: bool,
    now: Timestamp,
) -> Result<RenewReport, PkiError> {
    check_days("--days", days)?;
    let named = Named::parse(holder)?;
    let mut place = Desk::open(disk, dir, now)?;
    if let Some(record) = place.in_force(&named).last().filter(|_| !again) {
        return Err(RenewError::There {
            name: named.name(),
            serial: record.serial.clone(),
            until: record.not_after,
        }
        .into());
    }
    place.signer(&named.name())?;
    let policy = place.grant(&named)?;
    let made = place.make(&named, days, false)?;
    Ok(RenewReport {
        made: vec![made],
        kept: Vec::new(),
        policy,
    })
}

/// See [`super::renew`].
pub(super) fn renew(
    disk: &Disk,
    dir: &Path,
    which: Renewing<'_>,
    (days, reuse_key): (u32, bool),
    now: Timestamp,
) -> Result<RenewReport, PkiError> {
    check_days("--days", days)?;
    let mut place = Desk::open(disk, dir, now)?;
    let mut report = RenewReport {
        made: Vec::new(),
        kept: Vec::new(),
        policy: None,
    };
    for name in place.names(which)? {
        let (named, facts) = place.found(&name)?;
        if let Renewing::All { left_percent } = which
            && !place.is_due(&facts, left_percent)
        {
            report.kept.push(name);
            continue;
        }
        let key = named.pair(&place.layout).key;
        if disk::is_file(&key)? {
            report.made.push(place.make(&named, days, reuse_key)?);
            continue;
        }
        let away = RenewError::KeyAway { name, path: key };
        if matches!(which, Renewing::Name(_)) {
            return Err(away.into());
        }
        report.kept.push(away.to_string());
    }
    Ok(report)
}

impl Desk<'_> {
    /// Whose certificates are looked at.
    fn names(&self, which: Renewing<'_>) -> Result<Vec<String>, PkiError> {
        if let Renewing::Name(name) = which {
            return Ok(vec![name.to_owned()]);
        }
        let server = disk::is_file(&self.layout.server().certificate)?;
        let server = server.then(|| "server".to_owned());
        let mut names: Vec<String> = server.into_iter().collect();
        for client in found_clients(&self.layout)? {
            if disk::is_file(&self.layout.client(&client).certificate)? {
                names.push(client.to_string());
            }
        }
        Ok(names)
    }

    fn identity(&self, named: &Named) -> (SpiffeId, Kind) {
        match named {
            Named::Client(name) => (self.domain.client(name), Kind::Client),
            Named::Server(_) => (self.domain.server(), Kind::Server),
        }
    }

    fn in_force(&self, named: &Named) -> Vec<&Record> {
        let (identity, _) = self.identity(named);
        let records = self.ledger.records().iter();
        let its = records.filter(|record| record.identity.as_deref() == Some(identity.as_str()));
        its.filter(|record| record.is_in_force(self.now)).collect()
    }

    /// Whose certificate it is, and what it says.
    fn found(&self, name: &str) -> Result<(Named, Facts), PkiError> {
        let mut named = if name == "server" {
            Named::Server(Vec::new())
        } else {
            Named::Client(name.parse()?)
        };
        let path = named.pair(&self.layout).certificate;
        if !disk::is_file(&path)? {
            let name = Escaped::new(name);
            return Err(RenewError::Missing { name, path }.into());
        }
        let chain = pem::read_certificates(&path)?;
        let facts = inspect::facts(&path, &chain[0])?;
        if let Named::Server(hosts) = &mut named {
            hosts.clone_from(&facts.hosts);
        }
        Ok((named, facts))
    }

    /// Whether less of its life is left than so many hundredths, or it is of a CA that signs no more.
    fn is_due(&self, facts: &Facts, left_percent: u8) -> bool {
        let Validity {
            not_before,
            not_after,
        } = facts.validity;
        let records = self.ledger.records().iter();
        let mut its = records.filter(|record| record.serial == facts.serial);
        let is_moved = its.any(|record| record.ca != self.authority.facts.serial);
        let part = not_after.duration_since(not_before) / 100 * i32::from(left_percent);
        is_moved || not_after.duration_since(self.now) <= part
    }

    fn make(&mut self, named: &Named, days: u32, reuse_key: bool) -> Result<MadeItem, PkiError> {
        let pair = named.pair(&self.layout);
        let (identity, kind) = self.identity(named);
        let issued = self.issue(named, &pair, days, reuse_key)?;
        let facts = inspect::facts(&pair.certificate, &issued.der)?;
        let record = Record::issued(kind, &issued.der, &facts, &self.authority.facts.serial);
        self.ledger.add(self.disk, record)?;
        let serial_before = self.archive(&pair)?;
        if kind == Kind::Client {
            self.disk.make_dir(&self.layout.clients(), DIR_PUBLIC)?;
        }
        if reuse_key {
            let text = issued.certificate_pem.as_bytes();
            self.disk
                .write(&pair.certificate, text, PUBLIC, Over::Old)?;
        } else {
            leaf::write(self.disk, &pair, &issued, Over::Old)?;
        }
        Ok(MadeItem {
            name: named.name(),
            certificate: pair.certificate,
            identity: identity.to_string(),
            serial: facts.serial,
            serial_before,
            expires_at: facts.validity.not_after,
            has_new_key: !reuse_key,
        })
    }

    fn issue(
        &self,
        named: &Named,
        pair: &Pair,
        days: u32,
        reuse_key: bool,
    ) -> Result<Issued, PkiError> {
        let (identity, _) = self.identity(named);
        let validity = Validity::of_leaf(self.now, days, self.authority.facts.validity)?;
        let signer = self.signer(&named.name())?;
        if !reuse_key {
            return issue::make_leaf(signer, &named.role(), &identity, validity);
        }
        let der = pem::read_private_key(&pair.key)?;
        let key = KeyPair::try_from(&der).map_err(|error| PkiError::Certificate {
            path: pair.key.clone(),
            reason: error.to_string(),
        })?;
        let der = issue::certify(signer, &key, &named.role(), &identity, validity)?;
        Ok(Issued {
            certificate_pem: certificate_pem(&der),
            der,
            key_pem: key.serialize_pem(),
        })
    }

    /// Copies what there is of an old pair; its serial number.
    fn archive(&self, pair: &Pair) -> Result<Option<String>, PkiError> {
        let has_certificate = disk::is_file(&pair.certificate)?;
        if !has_certificate && !disk::is_file(&pair.key)? {
            return Ok(None);
        }
        leaf::archive(self.disk, &self.layout, pair)?;
        if !has_certificate {
            return Ok(None);
        }
        let chain = pem::read_certificates(&pair.certificate)?;
        Ok(Some(inspect::facts(&pair.certificate, &chain[0])?.serial))
    }
}

impl RenewReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for item in &self.made {
            let before = item.serial_before.as_deref();
            let before = before.map_or(String::new(), |serial| format!(" (before: {serial})"));
            let _ = writeln!(
                text,
                "made  {}   {}\n      id {}   expires {}\n      serial {}{before}",
                item.name,
                item.certificate.display(),
                item.identity,
                item.expires_at,
                item.serial,
            );
        }
        for name in &self.kept {
            let _ = writeln!(text, "kept  {name}");
        }
        if self.made.iter().any(|item| item.serial_before.is_some()) {
            text +=
                "Old ones count until they end: fsvc certs revoke --serial SERIAL ends one now.\n";
        }
        text
    }
}
