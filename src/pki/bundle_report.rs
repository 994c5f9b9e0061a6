//! What became of the trusted CAs: plain facts, for JSON and as text.
//!
//! Field names are stable.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::PkiError;
use super::issue::fingerprint;
use super::report::path;
use super::vet;

/// What became of the trusted CAs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BundleReport {
    #[serde(serialize_with = "path")]
    pub bundle: PathBuf,
    /// Those that are trusted now, then those that were taken out.
    pub cas: Vec<TrustedCa>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

/// A CA that is or was trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustedCa {
    /// Its distinguished name, escaped.
    pub name: String,
    pub serial: String,
    /// Of its DER; pairs of hexadecimal digits with colons.
    pub sha256: String,
    pub expires_at: Timestamp,
    pub change: CaChange,
    /// Whether `ca.crl` has a list of it.
    pub has_list: bool,
}

/// What became of one CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaChange {
    Kept,
    Added,
    Removed,
    ListRenewed,
}

impl TrustedCa {
    pub(super) fn new(
        path: &Path,
        der: &CertificateDer<'_>,
        change: CaChange,
        has_list: bool,
    ) -> Result<Self, PkiError> {
        let facts = vet::read(path, der)?;
        Ok(Self {
            name: facts.subject,
            serial: facts.serial,
            sha256: fingerprint(der),
            expires_at: facts.not_after,
            change,
            has_list,
        })
    }
}

impl BundleReport {
    pub(super) fn new(bundle: PathBuf, cas: Vec<TrustedCa>, mut notes: Vec<String>) -> Self {
        let is_trusted = |ca: &&TrustedCa| ca.change != CaChange::Removed;
        let bare: Vec<&TrustedCa> = cas
            .iter()
            .filter(is_trusted)
            .filter(|ca| !ca.has_list)
            .collect();
        for ca in bare {
            notes.push(format!(
                "there is no revocation list of {}: start servers with --no-revocation, or add one \
                 with --crl FILE",
                ca.name
            ));
        }
        Self { bundle, cas, notes }
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let is_trusted = |ca: &&TrustedCa| ca.change != CaChange::Removed;
        let count = self.cas.iter().filter(is_trusted).count();
        let plural = if count == 1 { "" } else { "s" };
        let mut text = format!("{}: {count} CA{plural}\n\n", self.bundle.display());
        for ca in &self.cas {
            let (sign, list) = match ca.change {
                CaChange::Kept => (' ', ""),
                CaChange::Added => ('+', ""),
                CaChange::Removed => ('-', ""),
                CaChange::ListRenewed => ('*', "   newer list"),
            };
            let _ = writeln!(
                text,
                "  {sign} {}   expires {}{list}\n    sha256 {}",
                ca.name, ca.expires_at, ca.sha256
            );
        }
        text.push_str("\nHand it out: ca.pem to servers and clients, ca.crl to servers\n");
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }
}
