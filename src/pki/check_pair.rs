//! What is wrong with a certificate and its key, given the CAs and lists beside them.
//!
//! Every fault is told, not only the first.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use webpki::KeyUsage;

use super::check::{Checker, is_there};
use super::check_report::Level;
use super::inspect;
use super::layout::Pair;
use super::ledger::Kind;
use super::show::verify;
use super::vet;
use crate::escape::Escaped;
use crate::identity::SpiffeId;
use crate::tls::failure::FailureCode;
use crate::tls::pem;
use crate::tls::x509::{Facts, ListFacts};

/// Permission bits of a key that let others in.
const OTHERS_OR_GROUP_WRITE: u32 = 0o027;

impl Checker {
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
            let hint = "if it should have another: fsvc certs add NAME --again, where the CA is";
            self.add(level, path, &text, Some(hint));
            return self.report.name_last(Some(FailureCode::Revoked));
        }
        let before = self.report.findings.len();
        self.key(pair, &chain[0]);
        self.leaf(path, &chain, &facts, kind);
        let is_sound = self.report.findings[before..]
            .iter()
            .all(|finding| finding.level < Level::Broken);
        if is_sound {
            let who = facts.names.uri.first().map_or("a certificate", |uri| uri);
            let mut text = Escaped::new(who).to_string();
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
                let text = format!("cannot be used: {}", Escaped::new(&error.to_string()));
                self.fault(FailureCode::UnusableForm, path, &text, "");
            }
            (Ok(key), Ok(own)) if key.public_key().is_some_and(|key| *key != own[..]) => {
                let text = format!("does not belong to {}", pair.certificate.display());
                let hint = "which of the two was replaced last? fsvc certs renew makes a new pair";
                self.fault(FailureCode::KeyMismatch, path, &text, hint);
            }
            _ => {}
        }
    }

    fn leaf(&mut self, path: &Path, chain: &[CertificateDer<'static>], facts: &Facts, kind: Kind) {
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
        if facts.is_ca {
            let hint = "a server or client needs one of its own";
            self.fault(FailureCode::WrongPlace, path, "is a CA's certificate", hint);
        }
        let has = facts.purposes.map(|has| (has.server, has.client));
        let (server, client) = has.unwrap_or((true, false));
        let swapped = "were the files of a server and a client swapped?";
        if matches!(kind, Kind::Server | Kind::Peer) && !server {
            let text = "is not for servers (no serverAuth)";
            self.fault(FailureCode::WrongPurpose, path, text, swapped);
        }
        if matches!(kind, Kind::Client | Kind::Peer) && !client {
            let text = "is not for clients (no clientAuth)";
            self.fault(FailureCode::WrongPurpose, path, text, swapped);
        }
        self.names(path, facts, kind);
        self.trust(path, chain, facts, kind);
    }

    fn names(&mut self, path: &Path, facts: &Facts, kind: Kind) {
        let hosts = facts.names.dns.len() + facts.names.ip.len();
        if kind != Kind::Client && hosts == 0 {
            let text = "has no name that clients could connect to";
            let hint = "fsvc gen-certs --host NAME";
            self.fault(FailureCode::WrongName, path, text, hint);
        }
        let (text, hint) = match &facts.names.uri[..] {
            [uri] if kind != Kind::Server && uri.parse::<SpiffeId>().is_err() => (
                format!("has a name that is no identity: {}", Escaped::new(uri)),
                "fsvc takes spiffe://DOMAIN/PATH in lower case",
            ),
            [] if kind == Kind::Client => (
                "has no URI name, so it names nobody".to_owned(),
                "the policy can say by what else its CA names: [[trust]]",
            ),
            [_, _, ..] => ("has several URI names".to_owned(), "fsvc takes exactly one"),
            _ => return,
        };
        self.fault(FailureCode::NoIdentity, path, &text, hint);
    }

    /// Whether a CA of the bundle stands behind it, and does still.
    fn trust(&mut self, path: &Path, chain: &[CertificateDer<'static>], facts: &Facts, kind: Kind) {
        if self.cas.is_empty() || facts.is_ca {
            return;
        }
        let usage = match kind {
            Kind::Client => KeyUsage::client_auth(),
            _ => KeyUsage::server_auth(),
        };
        match verify(&chain[0], &chain[1..], &self.cas, usage, self.now) {
            Err(webpki::Error::UnknownIssuer) => {
                let text = format!(
                    "is signed by {}, which no CA in ca.pem stands behind",
                    facts.issuer
                );
                let hint = "a wrong ca.pem, or a CA between is missing in the file of the \
                            certificate";
                let code = match kind {
                    Kind::Client => FailureCode::UntrustedClient,
                    _ => FailureCode::UntrustedServer,
                };
                self.fault(code, path, &text, hint);
            }
            // These were told in other words.
            Ok(())
            | Err(
                webpki::Error::CertExpired { .. }
                | webpki::Error::CertNotValidYet { .. }
                | webpki::Error::RequiredEkuNotFoundContext(_),
            ) => {}
            Err(error) => {
                let text = format!("is refused by TLS: {error}");
                self.add(Level::Broken, path, &text, None);
            }
        }
    }

    /// Whether a list says that it is not good any more.
    fn is_revoked(&self, facts: &Facts) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|list| ListFacts::read(list, Some(facts)).is_ok_and(|list| list.is_revoked))
    }
}
