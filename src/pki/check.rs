//! What is wrong with the certificates of a directory, as a server or a client would find it.
//!
//! Changes nothing and stops at nothing: every file is looked at, and what cannot be read is a
//! finding too.

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
use crate::escape::with_causes;
use crate::identity::Binding;
use crate::tls::TlsError;
use crate::tls::failure::FailureCode;
use crate::tls::judge::Judge;
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

/// What is known beside the directory.
#[derive(Debug, Clone, Default)]
pub struct Beside<'a> {
    /// The CAs whose clients the server lets in, where they are not those of the directory.
    pub ca: Option<&'a Path>,
    /// What the server's policy says of single CAs.
    pub bindings: &'a [Binding],
    /// What a server said.
    pub shown: Option<Shown<'a>>,
}

/// A client's certificate that was shown to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    pub certificate: &'a Path,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server takes it: it alone decides whom it trusts.
    Taken,
    /// The server's certificate is of a CA that is not in the directory: its file may be the wrong one.
    ServerUntrusted,
    /// Something else, or nothing.
    Other,
}

/// See [`super::check`].
pub(super) fn check(
    dir: &Path,
    scope: Scope<'_>,
    beside: &Beside<'_>,
    now: Timestamp,
) -> CheckReport {
    let mut checker = Checker::new(dir, scope != Scope::All, beside, now);
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
pub(super) struct Checker<'a> {
    pub(super) report: CheckReport,
    pub(super) beside: &'a Beside<'a>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Who judges clients, as a server would.
    pub(super) clients: Option<Judge>,
    /// Who judges servers, as a client would.
    pub(super) servers: Option<Judge>,
    pub(super) now: Timestamp,
    /// Whether one client alone is looked at.
    pub(super) is_one: bool,
}

impl<'a> Checker<'a> {
    fn new(dir: &Path, is_one: bool, beside: &'a Beside<'a>, now: Timestamp) -> Self {
        let now = whole_second(now);
        Self {
            report: CheckReport::new(dir, now),
            beside,
            lists: Vec::new(),
            clients: None,
            servers: None,
            now,
            is_one,
        }
    }

    fn all(&mut self, layout: &Layout, client: Option<&str>) {
        let server = layout.server();
        let is_server =
            client.is_none() && (is_there(&server.certificate) || is_there(&server.key));
        self.trust(&layout.ca(), &layout.crl(), is_server);
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
                self.report.name_last(Some(FailureCode::FileAccess));
            }
        }
    }

    /// Whom the pair of a mounted secret is for, it says itself; one for both is what it was shown as.
    fn mounted(&mut self, dir: &Path, layout: &Layout) {
        self.trust(&dir.join("ca.crt"), &layout.crl(), false);
        let pair = Pair {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        let chain = pem::read_certificates(&pair.certificate).ok();
        let facts = chain.and_then(|chain| Facts::read(&chain[0]).ok());
        let purposes = facts.and_then(|facts| facts.purposes);
        let is_server = purposes.is_none_or(|purposes| purposes.server);
        let kind = if is_server && self.beside.shown.is_none() {
            Kind::Server
        } else {
            Kind::Client
        };
        self.pair(&pair, kind);
    }

    /// Whom servers and clients trust here.
    fn trust(&mut self, ca: &Path, crl: &Path, is_server: bool) {
        let cas = self.bundle(ca);
        match Judge::new((ca, &cas), None, &[]) {
            Ok(judge) => self.servers = Some(judge),
            Err(error) => self.tls(ca, &error),
        }
        let (ca, cas) = match self.beside.ca {
            Some(others) => (others, self.bundle(others)),
            None => (ca, cas),
        };
        let mut listed = false;
        if is_server || is_there(crl) {
            listed = self.crl(crl, (ca, &cas));
        }
        // What is wrong with the lists was told, and would be told of every client again.
        let lists = listed.then_some((crl, self.lists.as_slice()));
        match Judge::new((ca, &cas), lists, self.beside.bindings) {
            Ok(judge) => self.clients = Some(judge),
            Err(error) => self.tls(ca, &error),
        }
    }

    /// The CAs of a file that may be trusted.
    fn bundle(&mut self, path: &Path) -> Vec<CertificateDer<'static>> {
        let mut trusted = Vec::new();
        let cas = match pem::read_certificates(path) {
            Ok(cas) => cas,
            Err(error) => {
                self.pem(path, &error);
                return trusted;
            }
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
                    trusted.push(ca);
                }
            }
        }
        trusted
    }

    /// Whether each CA of the bundle has a list that will do.
    fn crl(&mut self, path: &Path, (bundle, cas): (&Path, &[CertificateDer<'static>])) -> bool {
        let lists = match pem::read_revocation_lists(path) {
            Ok(lists) => lists,
            Err(error) => {
                self.pem(path, &error);
                return false;
            }
        };
        let mut is_whole = true;
        for ca in cas {
            let Ok(facts) = Facts::read(ca) else { continue };
            let name = &facts.subject;
            let list = lists.iter().find(|list| inspect::is_list_of(list, ca));
            let Some(list) = list else {
                let text = format!("has no list of {name}, which {} trusts", bundle.display());
                let hint = "get that CA's list: servers refuse all its clients without one";
                self.fault(FailureCode::NoRevocationList, path, &text, hint);
                is_whole = false;
                continue;
            };
            if let Err(error) = vet::list(path, list, ca, None, self.now) {
                self.refuse(path, &error);
                is_whole = false;
                continue;
            }
            let number = super::crl::read(list).map_or(0, |list| list.entries.len());
            let text = format!("a list of {name}, {number} revoked");
            self.add(Level::Ok, path, &text, None);
        }
        self.lists = lists;
        is_whole
    }

    fn server(&mut self, layout: &Layout, pair: &Pair) {
        let files = Files {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            ca: self.beside.ca.map_or_else(|| layout.ca(), Path::to_owned),
            crl: is_there(&layout.crl()).then(|| layout.crl()),
        };
        // What the bundle and the lists lack was told already, and would hide what is wrong here.
        if self.report.worst() < Level::Broken
            && let Err(error) = configure(&files, self.beside.bindings, self.now)
        {
            return self.tls(&pair.certificate, &error);
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

    fn tls(&mut self, path: &Path, error: &TlsError) {
        let level = match error {
            TlsError::Pem(PemError::Read { .. }) => Level::Unreadable,
            _ => Level::Broken,
        };
        self.add(level, path, &with_causes(error), error.hint().as_deref());
        self.report.name_last(error.failure());
    }

    pub(super) fn pem(&mut self, path: &Path, error: &PemError) {
        let level = match error {
            PemError::Read { .. } => Level::Unreadable,
            _ => Level::Broken,
        };
        self.add(level, path, &with_causes(error), error.hint());
        self.report.name_last(error.failure());
    }

    pub(super) fn refuse(&mut self, path: &Path, error: &PkiError) {
        let level = match error {
            PkiError::Io { .. } | PkiError::Pem(PemError::Read { .. }) => Level::Unreadable,
            _ => Level::Broken,
        };
        self.add(level, path, &with_causes(error), error.hint().as_deref());
        self.report.name_last(error.failure());
    }
}

pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
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
    let beside = Beside::default();
    let mut checker = Checker::new(Path::new(""), false, &beside, now);
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
