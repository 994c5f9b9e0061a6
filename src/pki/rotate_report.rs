//! How a change of the CA stands: plain facts, for JSON and as text.
//!
//! Field names are stable. What is left to do is said in commands.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::PkiError;
use super::inspect;
use super::issue::fingerprint;
use super::ledger::Record;
use super::render::in_place;
use super::report::path;
use super::rotate::Change;
use super::rotation::{CaFiles, Phase, SPREAD};
use crate::tls::{pem, x509};

/// Most certificates of one CA that the text lists.
const SHOWN_MAX: usize = 20;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Status,
    Start,
    Promote,
    Finish,
    Rollback,
}

/// How a change of the CA stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationReport {
    #[serde(serialize_with = "path")]
    pub dir: PathBuf,
    pub action: Action,
    /// Whether the action changed anything.
    pub changed: bool,
    /// Absent if no change is going on.
    pub phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Timestamp>,
    /// From when on the new CA may sign without `--now`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_after: Option<Timestamp>,
    /// The CA that signs, then the other one that is trusted.
    pub cas: Vec<CaItem>,
    pub now: Timestamp,
}

/// A CA of this directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaItem {
    /// Its distinguished name, escaped.
    pub name: String,
    pub serial: String,
    /// Of its DER; pairs of hexadecimal digits with colons.
    pub sha256: String,
    pub expires_at: Timestamp,
    pub signs: bool,
    /// How many of its certificates are in force.
    pub in_force: usize,
    /// Those that no newer one of the other CA follows.
    pub left: Vec<Leaf>,
}

/// A certificate in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaf {
    pub serial: String,
    pub identity: Option<String>,
    pub hosts: Vec<String>,
    pub expires_at: Timestamp,
}

impl RotationReport {
    pub(super) fn new(
        change: &Change<'_>,
        action: Action,
        changed: bool,
    ) -> Result<Self, PkiError> {
        let rotation = change.rotation.as_ref();
        let files = CaFiles::of(&change.layout, rotation);
        let mut cas = Vec::new();
        for (index, pair) in [Some(files.signing), files.other]
            .into_iter()
            .flatten()
            .enumerate()
        {
            for der in pem::read_certificates(&pair.certificate)? {
                let facts = inspect::facts(&pair.certificate, &der)?;
                let name = x509::Facts::read(&der).map_or_else(|_| String::new(), |x| x.subject);
                cas.push(CaItem {
                    name,
                    sha256: fingerprint(&der),
                    expires_at: facts.validity.not_after,
                    signs: index == 0,
                    in_force: change.ledger.in_force(&facts.serial, change.now).len(),
                    left: left(change, &facts.serial),
                    serial: facts.serial,
                });
            }
        }
        let started_at = rotation.map(|rotation| rotation.started_at);
        let is_early = rotation.is_some_and(|rotation| rotation.phase == Phase::Started);
        Ok(Self {
            dir: change.layout.dir().to_owned(),
            action,
            changed,
            phase: rotation.map(|rotation| rotation.phase),
            started_at,
            promoted_at: rotation.and_then(|rotation| rotation.promoted_at),
            promote_after: started_at
                .filter(|_| is_early)
                .and_then(|time| time.checked_add(SPREAD).ok()),
            cas,
            now: change.now,
        })
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        for ca in &self.cas {
            ca.render(&mut text, self.cas.len() > 1);
        }
        let _ = write!(text, "\n{}", in_place(&self.advice(), &self.dir));
        text
    }

    fn headline(&self) -> String {
        let dir = self.dir.display();
        let phase = match self.phase {
            None => "no rotation is going on",
            Some(Phase::Started) => "a new CA is trusted; the old one signs",
            Some(Phase::Promoted) => "the new CA signs; the old one is trusted",
            Some(Phase::Finishing) => "the old CA is being taken out",
            Some(Phase::RollingBack) => "the new CA is being taken out",
        };
        let did = match (self.action, self.changed) {
            (Action::Status, _) => return format!("{dir}: {phase}"),
            (_, false) => "nothing to change",
            (Action::Start, true) => "made a new CA",
            (Action::Promote, true) => "new certificates come from the new CA from now on",
            (Action::Finish, true) => "the old CA is trusted no more; its files are in the archive",
            (Action::Rollback, true) if self.phase.is_some() => {
                "new certificates come from the old CA again"
            }
            (Action::Rollback, true) => {
                "the new CA is trusted no more; its files are in the archive"
            }
        };
        format!("{dir}: {did} ({phase})")
    }

    /// What comes next.
    fn advice(&self) -> String {
        let left = |signs: bool| {
            let mut cas = self.cas.iter();
            cas.find(|ca| ca.signs == signs)
                .map_or(0, |ca| ca.left.len())
        };
        let in_force = |signs: bool| {
            let mut cas = self.cas.iter();
            cas.find(|ca| ca.signs == signs).map_or(0, |ca| ca.in_force)
        };
        match self.phase {
            None if self.action == Action::Status => {
                "Change the CA:   fsvc certs rotate-ca start\n".to_owned()
            }
            None => "Hand out:        ca.pem to servers and clients, ca.crl to servers\n".to_owned(),
            Some(Phase::Started) if left(false) > 0 => format!(
                "Next:            fsvc certs renew --all   ({} still have one of the new CA)\n\
                 Then:            hand out the new files, and fsvc certs rotate-ca rollback\n",
                left(false)
            ),
            // All are replaced by the index; who was not handed the new file does not know that.
            Some(Phase::Started) if in_force(false) > 0 => "\
                 Hand out:        the new certificates; whoever has one of the new CA is locked out by the end\n\
                 Then:            fsvc certs rotate-ca rollback\n"
                .to_owned(),
            Some(Phase::Started) => {
                let after = self.promote_after.map(|time| format!(" from {time} on"));
                format!(
                    "Hand out:        ca.pem to servers and clients, ca.crl to servers\n\
                     Then:            fsvc certs rotate-ca promote{}\n\
                     Or take it back: fsvc certs rotate-ca rollback\n",
                    after.unwrap_or_default()
                )
            }
            Some(Phase::Promoted) if left(false) > 0 => format!(
                "Next:            fsvc certs renew --all   ({} still have one of the old CA only)\n\
                 Then:            hand out the new files, and fsvc certs rotate-ca finish\n\
                 Or take it back: fsvc certs rotate-ca rollback\n",
                left(false)
            ),
            Some(Phase::Promoted) => "\
                 Hand out:        the new certificates; whoever has an old one is locked out by the end\n\
                 Then:            fsvc certs rotate-ca finish\n"
                .to_owned(),
            Some(Phase::Finishing) => "Go on:           fsvc certs rotate-ca finish\n".to_owned(),
            Some(Phase::RollingBack) => "Go on:           fsvc certs rotate-ca rollback\n".to_owned(),
        }
    }
}

impl CaItem {
    fn render(&self, text: &mut String, is_one_of_two: bool) {
        let role = if self.signs { "signs" } else { "trusted" };
        let _ = writeln!(
            text,
            "  {role:<8} {}   expires {}",
            self.name, self.expires_at
        );
        let _ = write!(
            text,
            "           serial {}   {} in force",
            self.serial, self.in_force
        );
        if is_one_of_two && !self.left.is_empty() {
            let _ = write!(text, ", {} without one of the other CA", self.left.len());
        }
        text.push('\n');
        if self.signs || !is_one_of_two {
            return;
        }
        for leaf in self.left.iter().take(SHOWN_MAX) {
            let who = leaf.identity.as_deref().unwrap_or("no identity");
            let hosts = leaf.hosts.join(", ");
            let gap = if hosts.is_empty() { "" } else { "   " };
            let _ = writeln!(
                text,
                "             {who}{gap}{hosts}   serial {}   expires {}",
                leaf.serial, leaf.expires_at
            );
        }
        if self.left.len() > SHOWN_MAX {
            let _ = writeln!(
                text,
                "             and {} more (--json has all)",
                self.left.len() - SHOWN_MAX
            );
        }
    }
}

fn left(change: &Change<'_>, ca: &str) -> Vec<Leaf> {
    let other = change.rotation.as_ref().map(|rotation| {
        let is_old = rotation.old == ca;
        if is_old {
            &*rotation.new
        } else {
            &*rotation.old
        }
    });
    let leaf = |record: &Record| Leaf {
        serial: record.serial.clone(),
        identity: record.identity.clone(),
        hosts: record.hosts.clone(),
        expires_at: record.not_after,
    };
    let left = change.ledger.left(ca, other, change.now);
    left.into_iter().map(leaf).collect()
}
