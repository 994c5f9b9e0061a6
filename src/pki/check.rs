//! What is wrong with the certificates of a directory, as a server or a client would find it.
//!
//! Changes nothing and stops at nothing: every file is looked at, and what cannot be read is a
//! finding too.

use std::error::Error;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::asked::whole_second;
use super::check_report::{CheckReport, Finding, Level};
use super::disk;
use super::inspect;
use super::layout::{Layout, Pair};
use super::ledger::Kind;
use super::list::days_left;
use super::{PkiError, vet};
use crate::escape::Escaped;
use crate::tls::TlsError;
use crate::tls::failure::FailureCode;
use crate::tls::pem::{self, PemError};
use crate::tls::server::{Files, configure};
use crate::tls::x509::Facts;

/// What is looked at in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    All,
    /// One client of fsvc's own layout.
    Client(&'a str),
    /// The one pair of a mounted secret: `tls.crt`, `tls.key` and `ca.crt`.
    Mounted,
}

/// See [`super::check`].
pub(super) fn check(dir: &Path, scope: Scope<'_>, now: Timestamp) -> CheckReport {
    let now = whole_second(now);
    let mut checker = Checker {
        report: CheckReport::new(dir, now),
        cas: Vec::new(),
        lists: Vec::new(),
        now,
        is_one: scope != Scope::All,
    };
    match Layout::new(dir) {
        Ok(layout) => match scope {
            Scope::All => checker.all(&layout, None),
            Scope::Client(name) => checker.all(&layout, Some(name)),
            Scope::Mounted => checker.mounted(dir, &layout),
        },
        Err(error) => checker.refuse(dir, &error),
    }
    checker.report
}

/// A check at work.
pub(super) struct Checker {
    pub(super) report: CheckReport,
    pub(super) cas: Vec<CertificateDer<'static>>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) now: Timestamp,
    /// Whether one client alone is looked at.
    pub(super) is_one: bool,
}

impl Checker {
    fn all(&mut self, layout: &Layout, client: Option<&str>) {
        let server = layout.server();
        let is_server =
            client.is_none() && (is_there(&server.certificate) || is_there(&server.key));
        self.bundle(&layout.ca());
        if is_server || is_there(&layout.crl()) {
            self.crl(&layout.crl(), &layout.ca());
        }
        if is_server {
            self.server(layout, &server);
        }
        for (dir, kind) in [
            (layout.clients(), Kind::Client),
            (layout.servers(), Kind::Server),
            (layout.peers(), Kind::Peer),
        ] {
            match disk::list(&dir) {
                Ok(names) => self.pairs(&dir, &names, kind, client),
                Err(error) => self.refuse(&dir, &error),
            }
        }
        if let Some(name) = client {
            let path = layout.clients().join(format!("{name}.pem"));
            if !is_there(&path) {
                let hint = "fsvc certs add --client NAME makes one, where the CA is";
                self.add(Level::Unreadable, &path, "is missing", Some(hint));
            }
        }
    }

    /// Whom the pair of a mounted secret is for, it says itself.
    fn mounted(&mut self, dir: &Path, layout: &Layout) {
        let ca = dir.join("ca.crt");
        self.bundle(&ca);
        if is_there(&layout.crl()) {
            self.crl(&layout.crl(), &ca);
        }
        let pair = Pair {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        let chain = pem::read_certificates(&pair.certificate).ok();
        let facts = chain.and_then(|chain| Facts::read(&chain[0]).ok());
        let is_server = facts
            .and_then(|facts| facts.purposes)
            .is_none_or(|purposes| purposes.server);
        let kind = if is_server {
            Kind::Server
        } else {
            Kind::Client
        };
        self.pair(&pair, kind);
    }

    fn bundle(&mut self, path: &Path) {
        let cas = match pem::read_certificates(path) {
            Ok(cas) => cas,
            Err(error) => return self.pem(path, &error),
        };
        for ca in cas {
            match vet::ca(path, &ca, self.now) {
                Err(error) => self.refuse(path, &error),
                Ok(vetted) => {
                    let facts = &vetted.facts;
                    let text = format!("the CA {}", facts.subject);
                    self.life(path, &text, facts);
                    for note in vetted.notes {
                        self.add(Level::Ok, path, &format!("note: {note}"), None);
                    }
                    self.cas.push(ca);
                }
            }
        }
    }

    fn crl(&mut self, path: &Path, bundle: &Path) {
        let lists = match pem::read_revocation_lists(path) {
            Ok(lists) => lists,
            Err(error) => return self.pem(path, &error),
        };
        for ca in &self.cas.clone() {
            let Ok(facts) = Facts::read(ca) else { continue };
            let name = &facts.subject;
            let list = lists.iter().find(|list| inspect::is_list_of(list, ca));
            let Some(list) = list else {
                let text = format!("has no list of {name}, which {} trusts", bundle.display());
                let hint = "get that CA's list: servers refuse all its clients without one";
                self.fault(FailureCode::NoRevocationList, path, &text, hint);
                continue;
            };
            if let Err(error) = vet::list(path, list, ca, None, self.now) {
                self.refuse(path, &error);
                continue;
            }
            let number = super::crl::read(list).map_or(0, |list| list.entries.len());
            self.add(
                Level::Ok,
                path,
                &format!("a list of {name}, {number} revoked"),
                None,
            );
        }
        self.lists = lists;
    }

    fn server(&mut self, layout: &Layout, pair: &Pair) {
        let files = Files {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            ca: layout.ca(),
            crl: is_there(&layout.crl()).then(|| layout.crl()),
        };
        // What the bundle and the lists lack was told already, and would hide what is wrong here.
        if self.report.worst() < Level::Broken
            && let Err(error) = configure(&files, &[], self.now)
        {
            let hint = error.hint();
            let level = match &error {
                TlsError::Pem(PemError::Read { .. }) => Level::Unreadable,
                _ => Level::Broken,
            };
            let path = &pair.certificate;
            self.add(level, path, &chain(&error), hint.as_deref());
            return self.report.name_last(error.failure());
        }
        self.pair(pair, Kind::Server);
    }

    /// A certificate that is sound: how long it will be.
    pub(super) fn life(&mut self, path: &Path, text: &str, facts: &Facts) {
        let until = facts.not_after;
        let left = days_left(until, self.now);
        let is_old = facts.renew_after() <= self.now;
        let finding = Finding {
            level: if is_old { Level::Expiring } else { Level::Ok },
            subject: path.display().to_string(),
            text: format!("{text}; until {until} ({left} days)"),
            hint: is_old.then(|| {
                if facts.is_ca {
                    "put a new CA in its place: fsvc certs rotate-ca start".to_owned()
                } else {
                    "fsvc certs renew makes a new one, where the CA is".to_owned()
                }
            }),
            code: None,
            expires_at: Some(until),
        };
        self.report.findings.push(finding);
    }

    pub(super) fn add(&mut self, level: Level, path: &Path, text: &str, hint: Option<&str>) {
        // Some errors begin with their file, which stands before each finding.
        let prefix = format!("{}: ", path.display());
        let text = text.strip_prefix(&prefix).unwrap_or(text);
        self.report.add(level, path, text, hint);
    }

    /// Something that is broken.
    pub(super) fn fault(&mut self, code: FailureCode, path: &Path, text: &str, hint: &str) {
        self.add(
            Level::Broken,
            path,
            text,
            Some(hint).filter(|hint| !hint.is_empty()),
        );
        self.report.name_last(Some(code));
    }

    pub(super) fn pem(&mut self, path: &Path, error: &PemError) {
        let level = match error {
            PemError::Read { .. } => Level::Unreadable,
            _ => Level::Broken,
        };
        self.add(level, path, &chain(error), error.hint());
        self.report.name_last(error.failure());
    }

    pub(super) fn refuse(&mut self, path: &Path, error: &PkiError) {
        let level = match error {
            PkiError::Io { .. } | PkiError::Pem(PemError::Read { .. }) => Level::Unreadable,
            _ => Level::Broken,
        };
        self.add(level, path, &chain(error), error.hint().as_deref());
    }
}

pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {}", Escaped::new(&inner.to_string()));
        source = inner.source();
    }
    text
}

/// What a server showed in a handshake that went well.
pub(super) fn shown_by_server(
    report: &mut CheckReport,
    address: &str,
    chain: &[CertificateDer<'_>],
) {
    let now = report.now;
    let path = PathBuf::from(address);
    let Some(facts) = chain.first().and_then(|der| Facts::read(der).ok()) else {
        return;
    };
    let mut checker = Checker {
        report: CheckReport::new(Path::new(""), now),
        cas: Vec::new(),
        lists: Vec::new(),
        now,
        is_one: false,
    };
    let hosts: Vec<&str> = facts
        .names
        .dns
        .iter()
        .chain(&facts.names.ip)
        .map(String::as_str)
        .collect();
    let text = format!(
        "the server shows {} for {}, signed by {}, serial {}",
        facts.subject,
        hosts.join(", "),
        facts.issuer,
        facts.serial
    );
    checker.life(&path, &text, &facts);
    report.findings.extend(checker.report.findings);
}
