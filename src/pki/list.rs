//! What was issued, from the index alone.
//!
//! Reads, and takes no lock: lines are only ever added, and one that is half written does not count
//! yet.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::PkiError;
use super::asked::whole_second;
use super::bearer::Bearer;
use super::issue::Validity;
use super::layout::Layout;
use super::ledger::{Kind, Record};
use super::reason::Reason;
use super::report::path;
use super::signer::{read_index, refuse_not_signer, trusted_cas};
use super::window::Window;

/// How much of a CA's serial number is shown in the table.
const CA_SHOWN: usize = 8;

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Valid,
    /// It begins later, by this clock.
    NotYetValid,
    /// Valid still; another one has its files.
    Archived,
    Expired,
    Revoked,
    /// Of a CA that is trusted no more.
    Untrusted,
}

/// What was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListReport {
    #[serde(serialize_with = "path")]
    pub dir: PathBuf,
    pub trust_domain: String,
    pub now: Timestamp,
    /// The oldest first.
    pub certificates: Vec<ListItem>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListItem {
    /// As commands take it; of a CA, `ca`.
    pub name: String,
    pub kind: Kind,
    pub serial: String,
    /// Serial number of the CA that signed it.
    pub ca: String,
    pub identity: Option<String>,
    pub hosts: Vec<String>,
    pub not_before: Timestamp,
    pub expires_at: Timestamp,
    /// Whole days; negative after the end.
    pub days_left: i64,
    pub status: Standing,
    /// The serial number of the one whose files it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// When it is to be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_after: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub sha256: String,
}

impl Standing {
    /// How a certificate stands; `is_replaced` if another one has its files.
    pub(super) fn of(record: &Record, is_replaced: bool, now: Timestamp) -> Self {
        if record.revocation.is_some() {
            Self::Revoked
        } else if record.not_after <= now {
            Self::Expired
        } else if record.not_before > now {
            Self::NotYetValid
        } else if is_replaced {
            Self::Archived
        } else {
            Self::Valid
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotYetValid => "not valid",
            Self::Archived => "archived, valid still",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Untrusted => "of a CA that is trusted no more",
        }
    }
}

/// See [`super::list`].
pub(super) fn list(
    dir: &Path,
    expiring: Option<Window>,
    now: Timestamp,
) -> Result<ListReport, PkiError> {
    let now = whole_second(now);
    let layout = Layout::new(dir)?;
    refuse_not_signer(&layout)?;
    let (ledger, domain) = read_index(&layout)?;
    let cas = trusted_cas(&layout)?;
    let records = ledger.records();
    let is_replaced = |old: &Record| {
        let mut others = records.iter().filter(|new| new.identity == old.identity);
        others.any(|new| new.replaces.as_ref() == Some(&old.serial))
    };
    let is_wanted = |record: &&Record| {
        expiring.is_none_or(|window| {
            let life = Validity {
                not_before: record.not_before,
                not_after: record.not_after,
            };
            let is_over = record.revocation.is_some() || !cas.contains(&record.ca);
            let is_in_use = !is_over && !is_replaced(record);
            is_in_use && window.holds(life, now)
        })
    };
    let wanted = records.iter().filter(is_wanted);
    let certificates = wanted.map(|record| {
        let standing = Standing::of(record, is_replaced(record), now);
        let is_untrusted = !cas.contains(&record.ca);
        let is_over = matches!(standing, Standing::Expired | Standing::Revoked);
        let standing = if !is_over && is_untrusted {
            Standing::Untrusted
        } else {
            standing
        };
        let counts = !is_over && !is_untrusted;
        let revoked_after = counts.then(|| replaced_until(records, record)).flatten();
        item(record, (standing, revoked_after), now)
    });
    Ok(ListReport {
        dir: dir.to_owned(),
        trust_domain: domain.to_string(),
        now,
        certificates: certificates.collect(),
    })
}

/// When its successor ends the time of a certificate.
fn replaced_until(records: &[Record], old: &Record) -> Option<Timestamp> {
    let new = records.iter().filter(|new| new.identity == old.identity);
    let new = new.filter(|new| new.replaces.as_ref() == Some(&old.serial));
    new.filter_map(|new| new.replaced_until).min()
}

fn item(
    record: &Record,
    (status, revoked_after): (Standing, Option<Timestamp>),
    now: Timestamp,
) -> ListItem {
    let identity = record.identity.clone();
    let bearer = identity.as_deref().and_then(Bearer::of);
    let name = match (record.kind, bearer) {
        (Kind::Ca, _) => "ca".to_owned(),
        (_, Some(bearer)) => bearer.name().to_owned(),
        (_, None) => identity.clone().unwrap_or_default(),
    };
    let revocation = record.revocation.as_ref();
    ListItem {
        name,
        kind: record.kind,
        serial: record.serial.clone(),
        ca: record.ca.clone(),
        identity,
        hosts: record.hosts.clone(),
        not_before: record.not_before,
        expires_at: record.not_after,
        days_left: days_left(record.not_after, now),
        status,
        replaces: record.replaces.clone(),
        revoked_after,
        revoked_at: revocation.map(|revocation| revocation.at),
        reason: revocation.map(|revocation| revocation.reason),
        sha256: record.certificate_sha256.clone(),
    }
}

/// Whole days until then, rounded down.
pub(super) fn days_left(until: Timestamp, now: Timestamp) -> i64 {
    until.duration_since(now).as_hours().div_euclid(24)
}

impl ListReport {
    /// The table for people.
    pub fn render(&self) -> String {
        let serial = |item: &ListItem| item.serial.len();
        let name = |item: &ListItem| item.name.len();
        let widest = |size: fn(&ListItem) -> usize, least: usize| {
            let sizes = self.certificates.iter().map(size);
            sizes.max().unwrap_or(0).max(least)
        };
        let (name, serial) = (widest(name, 4), widest(serial, 6));
        let mut text = format!(
            "{:<name$}  {:<6}  {:<serial$}  {:<CA_SHOWN$}  {:>6}  STATUS\n",
            "NAME", "KIND", "SERIAL", "CA", "DAYS"
        );
        for item in &self.certificates {
            let ca = item.ca.get(..CA_SHOWN).unwrap_or(&item.ca);
            let why = match (item.revoked_at, item.reason, item.revoked_after) {
                (Some(at), Some(reason), _) => format!(" {at} ({reason})"),
                _ if item.status == Standing::NotYetValid => {
                    format!(" until {}; this clock says {}", item.not_before, self.now)
                }
                (.., Some(after)) => format!(", to be revoked after {after}"),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "{:<name$}  {:<6}  {:<serial$}  {ca:<CA_SHOWN$}  {:>6}  {}{why}",
                item.name,
                item.kind.text(),
                item.serial,
                item.days_left,
                item.status.text(),
            );
        }
        text
    }
}
