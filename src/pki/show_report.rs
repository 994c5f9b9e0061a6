//! What is in a file: plain facts, for JSON and as text.
//!
//! Field names are stable; every text of the file is escaped.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::csr::Asked;
use super::report::{path, path_or_none};

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShowReport {
    #[serde(serialize_with = "path")]
    pub file: PathBuf,
    /// The CAs that it was verified against.
    #[serde(serialize_with = "path_or_none")]
    pub ca: Option<PathBuf>,
    pub now: Timestamp,
    /// In the order of the file.
    pub contents: Vec<Content>,
    /// Whether there is a private key beside them.
    pub has_key: bool,
}

/// One thing in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    Certificate(Box<ShownCertificate>),
    Request(ShownRequest),
    List(ShownList),
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownCertificate {
    /// The one URI name.
    pub identity: Option<String>,
    pub purpose: Purpose,
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub hosts: Vec<String>,
    pub uris: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub days_left: i64,
    pub key_kind: String,
    pub sha256: String,
    pub public_key_sha256: String,
    pub warnings: Vec<String>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Ca,
    Server,
    Client,
    Both,
    /// It does not say.
    Any,
    Other,
}

/// A certificate request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRequest {
    #[serde(flatten)]
    pub asked: Asked,
    pub key_kind: Option<&'static str>,
    pub public_key_sha256: Option<String>,
    pub warnings: Vec<String>,
}

/// A revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownList {
    pub issuer: String,
    /// Decimal.
    pub number: Option<String>,
    pub this_update: Timestamp,
    pub next_update: Option<Timestamp>,
    pub n_revoked: usize,
    /// Serial numbers; not all of a long list.
    pub revoked: Vec<String>,
    pub warnings: Vec<String>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a CA stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verified", rename_all = "snake_case")]
pub enum Verdict {
    NotAsked,
    /// It is one of the CAs.
    Trusted,
    Good,
    Bad {
        reason: String,
    },
}

impl Verdict {
    pub(super) fn bad(reason: &str) -> Self {
        Self::Bad {
            reason: reason.to_owned(),
        }
    }

    pub(super) fn signed(is_signed: bool) -> Self {
        if is_signed {
            Self::Good
        } else {
            Self::bad("none of these CAs signed it")
        }
    }

    fn render(&self) -> String {
        match self {
            Self::NotAsked => "nothing was verified (--ca FILE does)".to_owned(),
            Self::Trusted => "one of the CAs itself".to_owned(),
            Self::Good => "yes: signed by one of the CAs, and in date".to_owned(),
            Self::Bad { reason } => format!("NO: {reason}"),
        }
    }
}

impl Purpose {
    const fn text(self) -> &'static str {
        match self {
            Self::Ca => "the certificate of a CA",
            Self::Server => "a server's certificate",
            Self::Client => "a client's certificate",
            Self::Both => "a certificate for servers and clients",
            Self::Any => "a certificate that does not say what it is for",
            Self::Other => "a certificate for neither servers nor clients",
        }
    }
}

impl ShowReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (index, content) in self.contents.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            match content {
                Content::Certificate(shown) => shown.render(&mut text),
                Content::Request(shown) => shown.render(&mut text),
                Content::List(shown) => shown.render(&mut text),
            }
        }
        if self.has_key {
            text += "\nThere is a private key in this file too: it is not shown, and has no place \
                     in a file that is handed out.\n";
        }
        text
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<9} {value}");
}

fn warn(text: &mut String, warnings: &[String]) {
    for warning in warnings {
        line(text, "warning", warning);
    }
}

impl ShownCertificate {
    fn render(&self, text: &mut String) {
        let who = self.identity.as_deref().unwrap_or(match self.uris.len() {
            0 => "no identity",
            1 => &self.uris[0],
            _ => "several identities",
        });
        let _ = writeln!(text, "{who}: {}", self.purpose.text());
        let left = match self.days_left {
            days if days < 0 => format!("{} days ago", -days),
            days => format!("{days} days left"),
        };
        line(
            text,
            "valid",
            &format!("{} to {} ({left})", self.not_before, self.not_after),
        );
        line(text, "subject", &self.subject);
        line(text, "issuer", &self.issuer);
        line(text, "serial", &self.serial);
        if self.uris.len() > 1 {
            line(text, "URIs", &self.uris.join(", "));
        }
        if !self.hosts.is_empty() {
            line(text, "hosts", &self.hosts.join(", "));
        }
        line(
            text,
            "key",
            &format!("{}, sha256 {}", self.key_kind, self.public_key_sha256),
        );
        line(text, "sha256", &self.sha256);
        warn(text, &self.warnings);
        line(text, "verified", &self.verdict.render());
    }
}

impl ShownRequest {
    fn render(&self, text: &mut String) {
        let _ = writeln!(text, "A certificate request, which is worth its key alone");
        line(text, "subject", &self.asked.subject);
        for (name, values) in [
            ("names", &self.asked.names),
            ("usages", &self.asked.usages),
            ("others", &self.asked.unknown),
        ] {
            if !values.is_empty() {
                line(text, name, &values.join(", "));
            }
        }
        if let (Some(kind), Some(sha256)) = (self.key_kind, &self.public_key_sha256) {
            line(text, "key", &format!("{kind}, sha256 {sha256}"));
            line(text, "signed", "by this key");
        }
        warn(text, &self.warnings);
    }
}

impl ShownList {
    fn render(&self, text: &mut String) {
        let _ = writeln!(text, "A revocation list of {}", self.issuer);
        let number = self.number.as_deref().unwrap_or("none");
        line(text, "number", number);
        let next = self
            .next_update
            .map_or_else(|| "for ever".to_owned(), |at| format!("until {at}"));
        line(text, "valid", &format!("from {} {next}", self.this_update));
        line(text, "revoked", &self.n_revoked.to_string());
        for serial in &self.revoked {
            line(text, "", serial);
        }
        if self.n_revoked > self.revoked.len() {
            line(text, "", "…");
        }
        warn(text, &self.warnings);
        line(text, "verified", &self.verdict.render());
    }
}
