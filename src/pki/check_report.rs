//! What a check found: plain facts, for JSON and as text.
//!
//! Field names are stable; the worst finding is what the check ends with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::check::shown_by_server;
use super::report::path;
use crate::tls::failure::FailureCode;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// In the last third of its life.
    Expiring,
    Broken,
    /// Nothing can be said about it.
    Unreadable,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// A file, or a server.
    pub subject: String,
    pub text: String,
    /// What `fsvc explain` has more about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    #[serde(serialize_with = "path")]
    pub dir: PathBuf,
    pub now: Timestamp,
    pub findings: Vec<Finding>,
}

impl CheckReport {
    pub(super) fn new(dir: &Path, now: Timestamp) -> Self {
        Self {
            dir: dir.to_owned(),
            now,
            findings: Vec::new(),
        }
    }

    /// The worst of the findings.
    pub fn worst(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    /// Adds a finding; `subject` is a file or a server.
    pub fn add(&mut self, level: Level, subject: &Path, text: &str, hint: Option<&str>) {
        self.findings.push(Finding {
            level,
            subject: subject.display().to_string(),
            text: text.to_owned(),
            code: None,
            hint: hint.map(str::to_owned),
            expires_at: None,
        });
    }

    /// Says which failure the last finding is; where nothing is known to do, what to ask next.
    pub fn name_last(&mut self, code: Option<FailureCode>) {
        if let Some(finding) = self.findings.last_mut() {
            finding.code = code;
            if let (Some(code), None) = (code, &finding.hint) {
                finding.hint = Some(format!("fsvc explain {code} says more"));
            }
        }
    }

    /// Adds what a server showed in a handshake that went well.
    pub fn add_server(&mut self, address: &str, chain: &[CertificateDer<'_>]) {
        shown_by_server(self, address, chain);
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Expiring => "EXPIRING",
                Level::Broken => "BROKEN",
                Level::Unreadable => "UNREADABLE",
            };
            let code = finding
                .code
                .map_or_else(String::new, |code| format!(" [{code}]"));
            let _ = writeln!(
                text,
                "{level:<10} {}: {}{code}",
                finding.subject, finding.text
            );
            if let Some(hint) = &finding.hint {
                let _ = writeln!(text, "           hint: {hint}");
            }
        }
        text
    }
}
