//! What was issued, as the index has it.

use std::fmt::Write as _;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::PkiError;
use super::layout::Layout;
use super::ledger::{Kind, Ledger, Record};
use super::revoke::Reason;

/// Digits of a CA's serial number that are enough to tell it from the other.
const CA_SHOWN: usize = 8;

/// What was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListReport {
    pub certificates: Vec<ListItem>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListItem {
    pub kind: &'static str,
    /// `ca`, `server`, or the client's name.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    pub serial: String,
    /// Serial number of the CA that signed it.
    pub ca: String,
    pub not_before: Timestamp,
    pub expires_at: Timestamp,
    pub status: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Whether a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    InForce,
    Expired,
    Revoked,
}

/// See [`super::list`].
pub(super) fn list(
    dir: &Path,
    within: Option<SignedDuration>,
    now: Timestamp,
) -> Result<ListReport, PkiError> {
    let path = Layout::new(dir)?.ledger();
    let ledger = Ledger::read(&path)?.ok_or(PkiError::LedgerLost { path })?;
    let is_wanted = |item: &ListItem| {
        within.is_none_or(|within| {
            item.status == Standing::InForce && item.expires_at.duration_since(now) <= within
        })
    };
    let items = ledger.records().iter().map(|record| item(record, now));
    Ok(ListReport {
        certificates: items.filter(is_wanted).collect(),
    })
}

fn item(record: &Record, now: Timestamp) -> ListItem {
    let (kind, name) = match record.kind {
        Kind::Ca => ("ca", "ca"),
        Kind::Server => ("server", "server"),
        Kind::Client => ("client", record.name().unwrap_or_default()),
    };
    let status = if record.revoked.is_some() {
        Standing::Revoked
    } else if record.not_after <= now {
        Standing::Expired
    } else {
        Standing::InForce
    };
    ListItem {
        kind,
        name: name.to_owned(),
        identity: record.identity.clone(),
        serial: record.serial.clone(),
        ca: record.ca.clone(),
        not_before: record.not_before,
        expires_at: record.not_after,
        status,
        reason: record.revoked.as_ref().map(|revoked| revoked.reason),
    }
}

impl ListReport {
    /// The report for people.
    pub fn render(&self, now: Timestamp) -> String {
        let mut text = String::new();
        for item in &self.certificates {
            let days = item.expires_at.duration_since(now).as_hours() / 24;
            let status = match item.status {
                Standing::InForce => format!("{days} days left"),
                Standing::Expired => "expired".to_owned(),
                Standing::Revoked => "revoked".to_owned(),
            };
            let _ = writeln!(
                text,
                "{:<7} {:<20} {:<14} {}   ca {}",
                item.kind,
                item.name,
                status,
                item.serial,
                item.ca.get(..CA_SHOWN).unwrap_or(&item.ca),
            );
        }
        if text.is_empty() {
            text += "none\n";
        }
        text
    }
}
