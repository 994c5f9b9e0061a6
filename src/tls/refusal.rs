//! What a failed handshake means to the person in front of it.
//!
//! TLS tells a client one byte. The likely cause is found by holding that byte against the client's
//! own files: they are verified here as a server would.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::client::Files;
use super::diagnosis::{Case, View};
use super::failure::FailureCode;
use super::identity::CHAIN_SIZE_MAX;
use super::witness::{self, Seen, Stage, Trust};
use super::{bundle, pem, provider};
use crate::escape::Escaped;

const RIGHT_PORT: &str = "is this the right port? fsvc listens on 7443 by default";

/// A refusal, explained: the cause, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What `fsvc explain` has more about; absent where nothing more is known.
    pub code: Option<FailureCode>,
    pub cause: String,
    pub hint: Option<String>,
    /// Which certificate it is about, where one is known: what makes two refusals the same.
    pub about: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Refusal {
    pub(super) fn new(
        code: impl Into<Option<FailureCode>>,
        cause: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            cause: cause.into(),
            hint: Some(hint.into()),
            about: None,
        }
    }

    fn without_code(cause: String, hint: Option<String>) -> Self {
        Self {
            code: None,
            cause,
            hint,
            about: None,
        }
    }
}

/// Explains an error of the stream, where TLS is at the bottom of it.
pub fn explain(error: &io::Error, files: &Files, server: &str, now: Timestamp) -> Option<Refusal> {
    let tls = witness::tls_error(error)?;
    Some(match tls {
        Error::AlertReceived(alert) => refused_by_server(*alert, files, now),
        Error::InvalidCertificate(refused) => {
            let unseen = own(files, Vec::new());
            let seen = witness::seen(error).unwrap_or(&unseen);
            Case::new(View::Server(server), seen, now).explain(refused)
        }
        Error::InvalidMessage(_) => Refusal::new(
            FailureCode::NotTls,
            format!("{server} answered, but not with TLS{}", beginning(error)),
            RIGHT_PORT,
        ),
        Error::NoApplicationProtocol => Refusal::new(
            None,
            format!("{server} speaks TLS, but not fsvc/1"),
            RIGHT_PORT,
        ),
        Error::PeerIncompatible(reason) if is_old(reason) => old_tls(),
        other => Refusal::without_code(format!("TLS with {server} failed: {other}"), None),
    })
}

/// How an answer began that was no TLS.
fn beginning(error: &io::Error) -> String {
    witness::first(error).map_or_else(String::new, |first| {
        format!(
            " (it began with \"{}\")",
            Escaped::new(&String::from_utf8_lossy(first))
        )
    })
}

/// The server closed before it said anything: the alert, if there was one, was lost on the way.
pub fn silent_close(files: &Files, now: Timestamp) -> Refusal {
    let seen = own(files, own_chain(files));
    if let Some(refusal) = own_case(files, &seen, now).and_then(|case| case.dates()) {
        return refusal;
    }
    let hint = oversized(files, &seen.chain).unwrap_or_else(|| {
        "it may have refused the client certificate, or be at its limit of connections; its log says which, and \
         so may: fsvc certs check --connect HOST:PORT"
            .to_owned()
    });
    let cause = "the server closed the connection before its greeting";
    Refusal::new(FailureCode::ClosedEarly, cause, hint)
}

/// Whether the other end is too old for TLS 1.3.
pub(super) const fn is_old(reason: &PeerIncompatible) -> bool {
    matches!(
        reason,
        PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
    )
}

fn old_tls() -> Refusal {
    let cause = "the other end does not speak TLS 1.3, and fsvc speaks nothing older";
    let hint = "is this the right port? if something stands between that ends TLS, connect past it";
    Refusal::new(FailureCode::OldTls, cause, hint)
}

fn refused_by_server(alert: AlertDescription, files: &Files, now: Timestamp) -> Refusal {
    match alert {
        AlertDescription::CertificateRequired => Refusal::new(
            FailureCode::NoCertificate,
            "the server needs a client certificate and none was sent",
            "give one with --as NAME, or with --cert and --key",
        ),
        AlertDescription::ProtocolVersion => old_tls(),
        AlertDescription::UnexpectedMessage => Refusal::new(
            FailureCode::PlainText,
            "the server says that what reached it is no TLS, and this client sent TLS: something between put its own \
             words before that, or changed it",
            "is a balancer or proxy on the way set to send the PROXY header, or to end TLS? switch that off, or \
             connect past it; the server's log shows what it got",
        ),
        AlertDescription::NoApplicationProtocol => {
            Refusal::new(None, "the other end speaks TLS, but not fsvc/1", RIGHT_PORT)
        }
        other => {
            let seen = own(files, own_chain(files));
            let case = own_case(files, &seen, now);
            let refusal = case.and_then(|case| own_refused(other, files, &case, &seen));
            refusal.unwrap_or_else(|| {
                let number = u8::from(other);
                Refusal::without_code(
                    format!("the server refused the connection (TLS alert {number})"),
                    oversized(files, &seen.chain),
                )
            })
        }
    }
}

/// What the server may have against the client's own certificate.
fn own_refused(
    alert: AlertDescription,
    files: &Files,
    case: &Case<'_>,
    seen: &Seen,
) -> Option<Refusal> {
    use FailureCode as Code;
    let verdict = own_verdict(files, seen, case.now);
    if let Some(Err(error)) = &verdict
        && AlertDescription::from(error.clone()) == alert
    {
        return Some(case.explain(error));
    }
    let (code, predicate) = match alert {
        AlertDescription::UnknownCA if matches!(verdict, Some(Ok(()))) => {
            let ca = files.ca.display();
            let text = format!(
                "it is good by this client's {ca}, so what the server holds against it is of the server's"
            );
            (Code::NoRevocationList, text)
        }
        AlertDescription::UnknownCA => {
            return Some(case.explain(&CertificateError::UnknownIssuer));
        }
        AlertDescription::CertificateExpired => {
            let text = "it is out of date there; by this clock it is not: the clocks differ, or a \
                        CA that is trusted there ended";
            (Code::NotYetValid, text.to_owned())
        }
        AlertDescription::CertificateRevoked => {
            return Some(case.explain(&CertificateError::Revoked));
        }
        AlertDescription::UnsupportedCertificate => {
            return Some(case.explain(&CertificateError::InvalidPurpose));
        }
        AlertDescription::DecryptError => {
            let text = "it could not verify a signature: the certificate's, or the one by its key";
            (Code::KeyMismatch, text.to_owned())
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            let text = "it cannot use it, or one that signed it; its log says why";
            (Code::UnusableForm, text.to_owned())
        }
        AlertDescription::AccessDenied => (Code::NoIdentity, "it names nobody there".to_owned()),
        _ => return None,
    };
    Some(case.refusal(code, &predicate))
}

/// The client's own chain, held against its own CAs as a server would; `None` where they cannot be
/// used for that.
fn own_verdict(files: &Files, seen: &Seen, now: Timestamp) -> Option<Result<(), CertificateError>> {
    let roots = bundle::read(&files.ca, now).ok()?.roots;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let (first, others) = seen.chain.split_first()?;
    let now = Duration::from_secs(u64::try_from(now.as_second()).ok()?);
    let verifier = verifier.build().ok()?;
    match verifier.verify_client_cert(first, others, UnixTime::since_unix_epoch(now)) {
        Ok(_) => Some(Ok(())),
        Err(Error::InvalidCertificate(error)) => Some(Err(error)),
        Err(_) => None,
    }
}

fn own_case<'a>(files: &'a Files, seen: &'a Seen, now: Timestamp) -> Option<Case<'a>> {
    let own = files.own.as_ref()?;
    Some(Case::new(View::Own(&own.certificate), seen, now))
}

/// A chain, with what this client trusts.
fn own(files: &Files, chain: Vec<CertificateDer<'static>>) -> Seen {
    let trust = Trust {
        ca: files.ca.clone(),
        subjects: bundle::subjects(&files.ca),
        ..Trust::default()
    };
    Seen {
        chain,
        trust: Arc::new(trust),
        stage: Stage::Chain,
    }
}

fn own_chain(files: &Files) -> Vec<CertificateDer<'static>> {
    let own = files.own.as_ref();
    own.and_then(|own| pem::read_certificates(&own.certificate).ok())
        .unwrap_or_default()
}

/// A chain over the limit is cut off before it is looked at, and TLS has no word for that.
fn oversized(files: &Files, chain: &[CertificateDer<'_>]) -> Option<String> {
    let own = files.own.as_ref()?;
    let size: usize = chain.iter().map(|certificate| certificate.len()).sum();
    (size > CHAIN_SIZE_MAX).then(|| {
        format!(
            "your chain ({}) has {size} bytes, a server takes {CHAIN_SIZE_MAX} at most",
            own.certificate.display()
        )
    })
}
