//! From a verdict on a chain to words: what is wrong with it, in the values that disagree.
//!
//! One mapping for all three who ask: a server about a client, a client about its own certificate,
//! and a client about a server. It explains verdicts and makes none.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::dates::{minute, with_distance};
use super::failure::FailureCode;
use super::pinned::WrongIdentity;
use super::refusal::Refusal;
use super::witness::{Seen, Stage, Trust};
use super::x509::{Facts, Purposes};
use super::x509_kind::{revocation, weakness};
use super::x509_list::{List, Signer};
use super::{hints, pinned, trusted};
use crate::escape::Escaped;

/// What breaks the rules so that nothing more can be said.
pub(super) const BROKEN: &str = "its encoding breaks a rule of X.509, or it is too large";

/// Whose certificate it is, and who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'a> {
    /// A client's, for the server's log.
    Client,
    /// The client's own, for the client, by its file.
    Own(&'a Path),
    /// A server's, for the client, by the name that was connected to.
    Server(&'a str),
}

/// A chain that was refused.
pub(super) struct Case<'a> {
    pub(super) view: View<'a>,
    pub(super) now: Timestamp,
    pub(super) trust: &'a Trust,
    pub(super) stage: Stage,
    pub(super) certificates: &'a [CertificateDer<'static>],
    pub(super) chain: Vec<Facts>,
}

impl<'a> Case<'a> {
    pub(super) fn new(view: View<'a>, seen: &'a Seen, now: Timestamp) -> Self {
        let facts = seen.chain.iter().map_while(|one| Facts::read(one).ok());
        Self {
            view,
            now,
            trust: &seen.trust,
            stage: seen.stage,
            certificates: &seen.chain,
            chain: facts.collect(),
        }
    }

    /// What the verdict means, and what to do about it.
    pub(super) fn explain(&self, error: &CertificateError) -> Refusal {
        let (code, predicate) = self.judge(error);
        let mut refusal = self.refusal(code, &predicate);
        if let Some(hint) = pinned::hint(error) {
            refusal.hint = Some(hint.to_owned());
        }
        refusal
    }

    pub(super) fn refusal(&self, code: FailureCode, predicate: &str) -> Refusal {
        Refusal {
            code: Some(code),
            cause: format!("{}: {predicate}", self.verdict()),
            hint: Some(hints::hint(code, self)),
            about: self.certificates.first().map(fingerprint),
        }
    }

    fn verdict(&self) -> String {
        match self.view {
            View::Client => match self.chain.first() {
                Some(own) => format!("refused the client certificate {}", described(own)),
                None => "refused a client certificate that cannot be read".to_owned(),
            },
            View::Own(file) => {
                format!("the server refused your certificate ({})", file.display())
            }
            View::Server(name) => format!("cannot trust the certificate of {name}"),
        }
    }

    /// The same without the verdict: which failure it is, and what is wrong.
    pub(super) fn judge(&self, error: &CertificateError) -> (FailureCode, String) {
        use CertificateError as E;
        match error {
            E::UnknownIssuer => trusted::unknown_issuer(self),
            E::BadSignature => self.bad_signature(),
            E::ExpiredContext { not_after, .. } => self.expired(time(*not_after)),
            E::Expired => self.expired(None),
            E::NotValidYetContext { not_before, .. } => self.not_yet(time(*not_before)),
            E::NotValidYet => self.not_yet(None),
            E::NotValidForNameContext { expected, .. } => self.wrong_name(&expected.to_str()),
            E::InvalidPurposeContext { .. } | E::InvalidPurpose => self.wrong_purpose(),
            E::Revoked => self.revoked(),
            E::UnknownRevocationStatus => self.no_list(),
            E::ExpiredRevocationListContext { next_update, .. } => {
                self.list_expired(time(*next_update))
            }
            E::ExpiredRevocationList => self.list_expired(None),
            E::Other(other) => self.judge_other(&*other.0),
            E::BadEncoding => self.form(BROKEN),
            E::UnhandledCriticalExtension => {
                self.form("an extension of it is marked critical and not known here")
            }
            _ => self.form("its signature is of an algorithm that is not taken here"),
        }
    }

    fn judge_other(&self, error: &(dyn std::error::Error + 'static)) -> (FailureCode, String) {
        if let Some(wrong) = error.downcast_ref::<WrongIdentity>() {
            return (FailureCode::WrongName, wrong.to_string());
        }
        match error.downcast_ref() {
            Some(error) => self.judge_path(error),
            None => self.form("its CA or its form is not taken"),
        }
    }

    /// The verdicts that rustls has no name for.
    fn judge_path(&self, error: &webpki::Error) -> (FailureCode, String) {
        use webpki::Error as E;
        match error {
            E::CaUsedAsEndEntity => {
                let whose = if self.is_servers() {
                    "a server's"
                } else {
                    "a client's"
                };
                (
                    FailureCode::WrongPlace,
                    format!("it is a CA's, not {whose}"),
                )
            }
            E::EndEntityUsedAsCa => (
                FailureCode::WrongPlace,
                format!(
                    "{} signed it, whose own certificate is no CA's",
                    self.issuer()
                ),
            ),
            E::PathLenConstraintViolated => (
                FailureCode::WrongPlace,
                "a CA of its chain may not have that many CAs below it (its path length)"
                    .to_owned(),
            ),
            E::NameConstraintViolation => self.name_constraint(),
            E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded
            | E::MaximumNameConstraintComparisonsExceeded => {
                self.form("its chain takes more steps to check than are taken")
            }
            _ => self.form(BROKEN),
        }
    }

    fn bad_signature(&self) -> (FailureCode, String) {
        if let Some(weakness) = self.weakness() {
            return (FailureCode::UnusableForm, weakness);
        }
        if self.stage == Stage::Signature {
            let text = "the handshake is signed with another key than the one in it";
            return (FailureCode::KeyMismatch, text.to_owned());
        }
        (trusted::untrusted(self), trusted::twin(self))
    }

    /// The first certificate that is past its end, and when that was; a CA's may be, too.
    fn expired(&self, not_after: Option<Timestamp>) -> (FailureCode, String) {
        let code = if self.is_servers() {
            FailureCode::ServerExpired
        } else {
            FailureCode::ClientExpired
        };
        let found = self
            .chain
            .iter()
            .position(|facts| facts.not_after < self.now);
        if let (None, Some(end)) = (found, not_after) {
            let ca = self.chain.last().map_or("above it", |last| &last.issuer);
            let end = with_distance(end, self.now);
            let clock = minute(self.now);
            let text = format!(
                "the trusted CA {ca}, which signed it, expired {end}; this clock says {clock}"
            );
            return (code, text);
        }
        let end = found.map(|place| self.chain[place].not_after).or(not_after);
        let end = end.map_or_else(|| "long ago".to_owned(), |end| with_distance(end, self.now));
        (
            code,
            format!(
                "{} expired {end}; this clock says {}",
                self.which(found),
                minute(self.now)
            ),
        )
    }

    fn not_yet(&self, not_before: Option<Timestamp>) -> (FailureCode, String) {
        let found = self
            .chain
            .iter()
            .position(|facts| facts.not_before > self.now);
        let from = found
            .map(|place| self.chain[place].not_before)
            .or(not_before);
        let from = from.map_or_else(|| "later".to_owned(), |from| with_distance(from, self.now));
        let text = format!(
            "{} is not valid until {from}; this clock says {}",
            self.which(found),
            minute(self.now)
        );
        (FailureCode::NotYetValid, text)
    }

    /// What is wrong with the dates, if anything is.
    pub(super) fn dates(&self) -> Option<Refusal> {
        let is_over = |facts: &Facts| facts.not_after < self.now;
        let is_early = |facts: &Facts| facts.not_before > self.now;
        let (code, predicate) = if self.chain.iter().any(is_over) {
            self.expired(None)
        } else if self.chain.iter().any(is_early) {
            self.not_yet(None)
        } else {
            return None;
        };
        Some(self.refusal(code, &predicate))
    }

    fn which(&self, place: Option<usize>) -> String {
        match place {
            Some(place) if place > 0 => {
                format!("the CA {} in its chain", self.chain[place].subject)
            }
            _ => "it".to_owned(),
        }
    }

    fn wrong_purpose(&self) -> (FailureCode, String) {
        let (role, needed) = if self.is_servers() {
            ("servers", "serverAuth")
        } else {
            ("clients", "clientAuth")
        };
        let has = purposes(self.chain.first().and_then(|own| own.purposes));
        (
            FailureCode::WrongPurpose,
            format!("it is not for {role} (it is for {has}, {needed} is needed)"),
        )
    }

    fn revoked(&self) -> (FailureCode, String) {
        let found = self.chain.iter().find_map(|facts| {
            let mut lists = self.trust.lists.iter();
            let entry = lists.find_map(|list| revocation(list, &facts.issuer, &facts.serial));
            Some((facts, entry?))
        });
        let Some((facts, entry)) = found else {
            return (FailureCode::Revoked, "it was revoked".to_owned());
        };
        let which = if Some(facts) == self.chain.first() {
            "it".to_owned()
        } else {
            format!("the CA {} in its chain", facts.subject)
        };
        let reason = entry.reason.unwrap_or("no reason given");
        let number = entry.list.map_or_else(String::new, |number| {
            format!(", list {number} of {}", facts.issuer)
        });
        let text = format!(
            "{which} (serial {}) was revoked {} ({reason}{number})",
            facts.serial,
            with_distance(entry.at, self.now)
        );
        (FailureCode::Revoked, text)
    }

    fn no_list(&self) -> (FailureCode, String) {
        let crl = self
            .trust
            .crl
            .as_deref()
            .map_or_else(String::new, |crl| crl.display().to_string());
        let listed: Vec<String> = self
            .trust
            .lists
            .iter()
            .filter_map(trusted::list_issuer)
            .collect();
        let unlisted = self
            .chain
            .iter()
            .find(|facts| !listed.contains(&facts.issuer));
        if unlisted.is_none()
            && let Some(fault) = self.list_fault()
        {
            return (FailureCode::NoRevocationList, format!("in {crl}, {fault}"));
        }
        let ca = unlisted.map_or("a CA of its chain", |facts| &facts.issuer);
        let text = format!(
            "{crl} has no revocation list of {ca} (it has those of {})",
            listed.join(", ")
        );
        (FailureCode::NoRevocationList, text)
    }

    /// Which list is not the one of a CA that was sent along, though it bears its name.
    fn list_fault(&self) -> Option<String> {
        let signers: Vec<_> = self.certificates.iter().filter_map(Signer::read).collect();
        let mut lists = self.trust.lists.iter();
        lists.find_map(|der| {
            let list = List::read(der)?;
            let mut its = signers.iter().filter(|signer| list.is_of(signer));
            let fault = its.find_map(|signer| list.fault_of(signer))?;
            let issuer = trusted::list_issuer(der)?;
            Some(format!("the list of {issuer} {fault}"))
        })
    }

    fn list_expired(&self, next_update: Option<Timestamp>) -> (FailureCode, String) {
        let since =
            next_update.map_or_else(|| "long ago".to_owned(), |end| with_distance(end, self.now));
        let text = format!("the revocation list of {} ran out {since}", self.issuer());
        (FailureCode::NoRevocationList, text)
    }

    fn form(&self, otherwise: &str) -> (FailureCode, String) {
        let reason = self.weakness().unwrap_or_else(|| otherwise.to_owned());
        (FailureCode::UnusableForm, reason)
    }

    /// What about its form is not taken, if that can be told.
    fn weakness(&self) -> Option<String> {
        self.certificates.iter().find_map(weakness)
    }

    pub(super) fn issuer(&self) -> &str {
        self.chain.first().map_or("its CA", |own| &own.issuer)
    }

    pub(super) const fn is_servers(&self) -> bool {
        matches!(self.view, View::Server(_))
    }
}

/// Tells certificates apart, for as long as the process lives.
fn fingerprint(certificate: &CertificateDer<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    certificate.hash(&mut hasher);
    hasher.finish()
}

/// Purposes of a certificate, for people.
fn purposes(purposes: Option<Purposes>) -> String {
    let Some(purposes) = purposes else {
        return "nothing named".to_owned();
    };
    let each = [
        (purposes.client, "clientAuth"),
        (purposes.server, "serverAuth"),
        (purposes.other, "others"),
    ];
    let named: Vec<&str> = each
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name)
        .collect();
    named.join(", ")
}

/// The subject, and the one URI that may be the identity.
fn described(facts: &Facts) -> String {
    match facts.names.uri.as_slice() {
        [uri] => format!("{} ({})", facts.subject, Escaped::new(uri)),
        _ => facts.subject.clone(),
    }
}

fn time(time: UnixTime) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok()
}
