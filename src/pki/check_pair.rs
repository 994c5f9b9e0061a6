//! What is wrong with a certificate and its key, given the CAs and lists beside them.
//!
//! Every fault is told, not only the first.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;

use super::bearer::Bearer;
use super::check::{Checker, Outcome, is_there};
use super::check_report::Level;
use super::inspect;
use super::issue::sha256;
use super::key;
use super::layout::Pair;
use super::ledger::Kind;
use super::vet;
use crate::escape::Escaped;
use crate::identity::SpiffeId;
use crate::tls::failure::FailureCode;
use crate::tls::pem;
use crate::tls::refusal::Refusal;
use crate::tls::x509::{Facts, ListFacts};

/// Permission bits of a key that let others in.
const OTHERS_OR_GROUP_WRITE: u32 = 0o027;

impl Checker<'_> {
    /// The pairs of a directory; of clients, the one that is asked for.
    pub(super) fn pairs(&mut self, dir: &Path, names: &[String], kind: Kind, client: Option<&str>) {
        for name in names {
            let Some(stem) = name.strip_suffix(".pem") else {
                continue;
            };
            let is_wanted = client.is_none_or(|client| kind == Kind::Client && client == stem);
            if stem.ends_with("-key") || !is_wanted {
                continue;
            }
            let pair = Pair {
                certificate: dir.join(name),
                key: dir.join(format!("{stem}-key.pem")),
            };
            self.pair(&pair, kind);
        }
    }

    pub(super) fn pair(&mut self, pair: &Pair, kind: Kind) {
        let path = &pair.certificate;
        let chain = match pem::read_certificates(path) {
            Ok(chain) => chain,
            Err(error) => return self.pem(path, &error),
        };
        let facts = match vet::read(path, &chain[0]) {
            Ok(facts) => facts,
            Err(error) => return self.refuse(path, &error),
        };
        if self.is_revoked(&facts) {
            // Where the files of many are, a client that was revoked is as it should be.
            let is_theirs = kind == Kind::Client && !self.is_one;
            let level = if is_theirs { Level::Ok } else { Level::Broken };
            let text = format!("was revoked (serial {})", facts.serial);
            let whose = facts.names.uri.first().and_then(|uri| Bearer::of(uri));
            let flags = whose.map_or_else(|| "--client NAME".to_owned(), |bearer| bearer.flags());
            let hint = format!(
                "if it should have another: fsvc certs add {flags} --again, where the CA is"
            );
            self.add(level, path, &text, Some(&hint));
            return self.report.name_last(Some(FailureCode::Revoked));
        }
        let before = self.report.findings.len();
        self.key(pair, &chain[0]);
        let who = self.leaf(path, &chain, &facts, kind);
        let is_sound = self.report.findings[before..]
            .iter()
            .all(|finding| finding.level < Level::Broken);
        if is_sound {
            let uri = facts.names.uri.first();
            let mut text = who.unwrap_or_else(|| {
                uri.map_or_else(
                    || "a certificate".to_owned(),
                    |uri| Escaped::new(uri).to_string(),
                )
            });
            if kind != Kind::Client {
                let hosts = facts.names.dns.iter().chain(&facts.names.ip);
                let hosts: Vec<&str> = hosts.map(String::as_str).collect();
                text = format!("{text} for {}", hosts.join(", "));
            }
            self.life(path, &text, &facts);
        }
    }

    fn key(&mut self, pair: &Pair, certificate: &CertificateDer<'_>) {
        let path = &pair.key;
        if !is_there(path) {
            let text = "its key is not here";
            return self.add(Level::Ok, &pair.certificate, text, None);
        }
        let key = match pem::read_private_key(path) {
            Ok(key) => key,
            Err(error) => return self.pem(path, &error),
        };
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
        if mode & OTHERS_OR_GROUP_WRITE != 0 {
            let text = format!("can be read by others (mode {mode:04o})");
            let hint = format!("chmod 600 {}", path.display());
            self.fault(FailureCode::FileAccess, path, &text, &hint);
        }
        let loaded = default_provider().key_provider.load_private_key(key);
        let own = inspect::facts(&pair.certificate, certificate).map(|facts| facts.public_key);
        match (loaded, own) {
            (Err(error), _) => {
                let why = key::fault(certificate);
                let why = why.map_or_else(
                    || Escaped::new(&error.to_string()).to_string(),
                    |fault| format!("it {fault}"),
                );
                let hint =
                    "have another pair made, of version 3: fsvc certs add, or request and sign";
                self.fault(
                    FailureCode::UnusableForm,
                    path,
                    &format!("cannot be used: {why}"),
                    hint,
                );
            }
            (Ok(key), Ok(own)) if key.public_key().is_some_and(|key| *key != own[..]) => {
                let has = key
                    .public_key()
                    .map_or_else(String::new, |key| sha256(&key));
                let text = format!(
                    "does not belong to {} (its public key has sha256 {has}, the certificate's {})",
                    pair.certificate.display(),
                    sha256(&own)
                );
                let hint = "which of the two was replaced last? fsvc certs renew makes a new pair";
                self.fault(FailureCode::KeyMismatch, path, &text, hint);
            }
            _ => {}
        }
    }

    /// What it says of itself, then what the other end would say; whom a server would take it for.
    fn leaf(
        &mut self,
        path: &Path,
        chain: &[CertificateDer<'static>],
        facts: &Facts,
        kind: Kind,
    ) -> Option<String> {
        let before = self.report.findings.len();
        self.dates(path, facts, kind);
        if facts.is_ca {
            let hint = "a server or client needs one of its own";
            self.fault(FailureCode::WrongPlace, path, "is a CA's certificate", hint);
        } else {
            self.purposes(path, facts, kind);
            self.names(path, facts, kind);
        }
        let own = self.is_one.then_some(path);
        let judged = match kind {
            Kind::Client => self.clients.as_ref().map_or(Ok(None), |judge| {
                judge
                    .check_client(chain, own, self.now)
                    .map(|taken| taken.map(|taken| taken.id.to_string()))
            }),
            _ => self.servers.as_ref().map_or(Ok(None), |judge| {
                judge.check_server(chain, self.now).map(|()| None)
            }),
        };
        match judged {
            Ok(who) => return who,
            Err(refusal) => {
                let mut told = self.report.findings[before..].iter();
                if !told.any(|finding| finding.code == refusal.code) {
                    self.refused(path, &refusal);
                }
            }
        }
        None
    }

    /// The other end would refuse it, going by what is known here; a server that was asked knows better.
    fn refused(&mut self, path: &Path, refusal: &Refusal) {
        let outcome = self
            .beside
            .shown
            .filter(|shown| shown.certificate == path)
            .map(|shown| shown.outcome);
        let is_of_trust = matches!(
            refusal.code,
            Some(FailureCode::UntrustedClient | FailureCode::MissingIntermediate)
        );
        let otherwise = match outcome {
            Some(Outcome::Taken) => "the server takes it all the same",
            Some(Outcome::ServerUntrusted) if is_of_trust => {
                "nor did one of them sign the server's: is it the right file?"
            }
            _ => {
                self.add(Level::Broken, path, &refusal.cause, refusal.hint.as_deref());
                return self.report.name_last(refusal.code);
            }
        };
        let text = format!("note: {}; {otherwise}", refusal.cause);
        self.add(Level::Ok, path, &text, None);
    }

    fn dates(&mut self, path: &Path, facts: &Facts, kind: Kind) {
        let (until, from) = (facts.not_after, facts.not_before);
        if until <= self.now {
            let code = match kind {
                Kind::Client => FailureCode::ClientExpired,
                _ => FailureCode::ServerExpired,
            };
            let text = format!("expired {until}; it is {}", self.now);
            let hint = "fsvc certs renew makes a new one, where the CA is";
            self.fault(code, path, &text, hint);
        }
        if from > self.now {
            let text = format!("is not valid until {from}; this clock says {}", self.now);
            let hint = "one of the two clocks is wrong";
            self.fault(FailureCode::NotYetValid, path, &text, hint);
        }
    }

    /// A client without any purpose passes TLS; what it is to a server its judge says.
    fn purposes(&mut self, path: &Path, facts: &Facts, kind: Kind) {
        let has = facts.purposes.map(|has| (has.server, has.client));
        let (server, client) = has.unwrap_or((true, kind == Kind::Client));
        let swapped = "were the files of a server and a client swapped?";
        if matches!(kind, Kind::Server | Kind::Peer) && !server {
            let text = "is not for servers (no serverAuth)";
            self.fault(FailureCode::WrongPurpose, path, text, swapped);
        }
        if matches!(kind, Kind::Client | Kind::Peer) && !client {
            let text = "is not for clients (no clientAuth)";
            self.fault(FailureCode::WrongPurpose, path, text, swapped);
        }
    }

    /// What a server or peer is called; who a client is its judge says.
    fn names(&mut self, path: &Path, facts: &Facts, kind: Kind) {
        let hosts = facts.names.dns.len() + facts.names.ip.len();
        if kind != Kind::Client && hosts == 0 {
            let text = "has no name that clients could connect to";
            let hint = "fsvc gen-certs --host NAME";
            self.fault(FailureCode::WrongName, path, text, hint);
        }
        if kind != Kind::Peer {
            return;
        }
        let (text, hint) = match &facts.names.uri[..] {
            [uri] if uri.parse::<SpiffeId>().is_err() => (
                format!("has a name that is no identity: {}", Escaped::new(uri)),
                "fsvc takes spiffe://DOMAIN/PATH in lower case",
            ),
            [_, _, ..] => ("has several URI names".to_owned(), "fsvc takes exactly one"),
            _ => return,
        };
        self.fault(FailureCode::NoIdentity, path, &text, hint);
    }

    /// Whether a list says that it is not good any more.
    fn is_revoked(&self, facts: &Facts) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|list| ListFacts::read(list, Some(facts)).is_ok_and(|list| list.is_revoked))
    }
}
