//! What was added, renewed and revoked: plain facts, for JSON and as text.
//!
//! Field names are stable.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::issue::whole_days;
use super::ledger::Kind;
use super::name::Host;
use super::reason::Reason;
use super::report::{APPLE_DAYS_MAX, PolicyItem, apple_note, path, path_or_none};
use crate::identity::SpiffeId;

/// What everybody who changes a certificate should know.
const TAKEN_UP: &str = "A running server and running clients take new files up by themselves.";

/// A certificate that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddReport {
    pub name: String,
    pub kind: Kind,
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    #[serde(serialize_with = "path")]
    pub key: PathBuf,
    pub identity: SpiffeId,
    pub hosts: Vec<Host>,
    pub serial: String,
    /// Serial number of the CA.
    pub ca: String,
    pub expires_at: Timestamp,
    pub sha256: String,
    /// Serial numbers of the others of this name that are in force.
    pub still_valid: Vec<String>,
    /// Of a client: what became of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyItem>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

/// What was renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenewReport {
    pub now: Timestamp,
    pub renewed: Vec<Renewed>,
    pub skipped: Vec<Skipped>,
    /// Those that could not be renewed.
    pub failed: Vec<Failed>,
}

/// A certificate that took the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renewed {
    pub name: String,
    pub kind: Kind,
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    /// Absent if the key is not here.
    #[serde(serialize_with = "path_or_none")]
    pub key: Option<PathBuf>,
    pub identity: SpiffeId,
    pub old_serial: String,
    pub old_expires_at: Timestamp,
    /// When the old one is to be revoked, if before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_revoked_after: Option<Timestamp>,
    pub serial: String,
    /// Serial number of the CA.
    pub ca: String,
    pub expires_at: Timestamp,
    pub sha256: String,
    pub is_new_key: bool,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

/// One that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// One that could not be renewed; its text is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    pub name: String,
    pub reason: String,
    pub hint: Option<String>,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokeReport {
    pub now: Timestamp,
    pub revoked: Vec<Revoked>,
    /// The file of the lists.
    #[serde(serialize_with = "path")]
    pub list: PathBuf,
    /// Numbers of the lists that hold them.
    pub numbers: Vec<u64>,
    /// Certificates in these lists.
    pub n_entries: usize,
    /// Whether there was anything to publish.
    pub is_new_list: bool,
}

/// A certificate that is not good any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// Absent if the index does not know it.
    pub name: Option<String>,
    pub identity: Option<String>,
    pub serial: String,
    /// Serial number of the CA.
    pub ca: String,
    pub at: Timestamp,
    pub reason: Reason,
    pub expires_at: Option<Timestamp>,
    /// Whether it was so before.
    pub was_revoked: bool,
}

impl Kind {
    /// As it is shown.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Server => "server",
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }
}

/// What the operator should know of a life of so many days, which was asked for.
pub(super) fn life_notes(
    kind: Kind,
    (days, ca_end): (u32, Timestamp),
    now: Timestamp,
) -> Vec<String> {
    let mut notes = Vec::new();
    let end = now.checked_add(whole_days(days));
    if end.is_ok_and(|end| end > ca_end) {
        notes.push(format!(
            "it ends with its CA, {ca_end}, not after {days} days"
        ));
    }
    if days > APPLE_DAYS_MAX && kind != Kind::Client {
        notes.push(apple_note());
    }
    notes
}

impl AddReport {
    /// Adds what the operator should know: `days` is the validity that was asked for.
    pub(super) fn add_notes(&mut self, days: u32, ca_end: Timestamp, now: Timestamp) {
        self.notes = life_notes(self.kind, (days, ca_end), now);
        if self.kind == Kind::Peer {
            self.notes.push(format!(
                "servers let it in as a client where their policy binds this CA with also_servers \
                 = true, and a grant says what {} may do",
                self.identity
            ));
        }
        if !self.still_valid.is_empty() {
            self.notes.push(format!(
                "still valid beside it: {}; when it is out of use: fsvc certs revoke --serial \
                 SERIAL",
                self.still_valid.join(", ")
            ));
        }
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "  {:<8} {}   key {}\n",
            self.kind.text(),
            self.certificate.display(),
            self.key.display()
        );
        if !self.hosts.is_empty() {
            let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
            let _ = writeln!(text, "           valid for {}", hosts.join(", "));
        }
        let _ = writeln!(
            text,
            "           expires {}   id {}\n           serial {}",
            self.expires_at, self.identity, self.serial
        );
        for note in &self.notes {
            let _ = writeln!(text, "  note     {note}");
        }
        if let Some(policy) = &self.policy {
            text += &policy.of_new_client();
        }
        text
    }
}

impl RenewReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for item in &self.renewed {
            let key = match (&item.key, item.is_new_key) {
                (Some(key), true) => format!("new key {}", key.display()),
                (Some(_), false) => "the key is the same".to_owned(),
                (None, _) => "for the key that is elsewhere".to_owned(),
            };
            let _ = writeln!(
                text,
                "  {:<8} {}   {key}\n           \
                           serial {} (was {})\n           \
                           expires {} (was {})",
                item.kind.text(),
                item.certificate.display(),
                item.serial,
                item.old_serial,
                item.expires_at,
                item.old_expires_at,
            );
            for note in &item.notes {
                let _ = writeln!(text, "  note     {note}");
            }
            match item.old_revoked_after {
                Some(at) if at <= self.now => text += "           the old one is revoked\n",
                Some(at) => {
                    let _ = writeln!(
                        text,
                        "           the old one is revoked by the first fsvc certs add, renew, \
                         revoke or sign after {at}"
                    );
                }
                None => {}
            }
        }
        for item in &self.skipped {
            let _ = writeln!(text, "  left     {}: {}", item.name, item.reason);
        }
        for item in &self.failed {
            let _ = writeln!(text, "  FAILED   {}: {}", item.name, item.reason);
            if let Some(hint) = &item.hint {
                let _ = writeln!(text, "           hint: {hint}");
            }
        }
        if self.renewed.is_empty() {
            return text + "Nothing was renewed.\n";
        }
        let is_good = |item: &Renewed| {
            let ends = [Some(item.old_expires_at), item.old_revoked_after];
            ends.into_iter().flatten().all(|end| end > self.now)
        };
        let n_good = self.renewed.iter().filter(|item| is_good(item)).count();
        let old = match n_good {
            0 => "The old ones are not valid any more; they are",
            n if n == self.renewed.len() => "The old ones are valid still,",
            _ => "Some of the old ones are valid still; all are",
        };
        format!("{text}\n{old} in ca-private/archive. Hand the new ones out. {TAKEN_UP}\n")
    }
}

impl RevokeReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for item in &self.revoked {
            let name = item.name.as_deref().unwrap_or("not in the index");
            let was = if item.was_revoked { " before" } else { "" };
            let _ = writeln!(
                text,
                "  revoked  {name}   serial {}\n           {}{was} ({})",
                item.serial, item.at, item.reason
            );
        }
        let numbers: Vec<String> = self.numbers.iter().map(|n| format!("#{n}")).collect();
        let _ = writeln!(
            text,
            "  list     {} {}, {} certificates{}",
            self.list.display(),
            numbers.join(" "),
            self.n_entries,
            if self.is_new_list { "" } else { ", as before" }
        );
        text + "\nA server that reads this file takes it up within --reload-every (10 s), and ends \
                the sessions\nof what is revoked. Copy it to servers elsewhere.\n"
    }
}
